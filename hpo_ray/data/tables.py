"""Images listed in a CSV file: read and checked without opening a picture.

The driver calls it before any process starts, so it must import neither torch nor scikit-learn; it knows no model
and no Ray.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo_ray.data.folders import PARTS, Folder
from hpo_ray.errors import InvalidInput, Problem, nearest

_NEEDED = ("path", "label")
_SHOWN = 5  # rows named in one message


@dataclass(frozen=True)
class _Row:
    line: int
    path: Path
    label: str
    part: str


def scan(table: Path) -> Folder:
    """Reads a CSV file with the columns ``path``, ``label`` and, optionally, ``split``; others are passed over.

    A path is absolute, or relative to the file's folder. ``split`` holds ``train``, ``valid`` (``val``,
    ``validation``) or ``test``. The separator is a comma, a semicolon or a tab. Labels may be any text; classes are
    sorted as numbers if they all are whole numbers.

    Args:
        table: An absolute path.

    Returns:
        What is listed, in the file's order; nothing is `ignored`.

    Raises:
        InvalidInput: With every problem found, naming rows by their line in the file: no such file, no text, missing
            columns, empty cells, unknown splits, missing images, an image listed twice, fewer than two classes, a
            class in ``valid`` or ``test`` that ``train`` lacks.
    """
    if not table.is_file():
        what = "is a folder; name the CSV file in it" if table.is_dir() else "does not exist"
        raise InvalidInput(Problem("data.root", f"'{table}' {what}"))
    try:
        cells, columns = _read(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(Problem("data.root", f"'{table}' cannot be read as CSV: {error}")) from error
    messages = _column_problems(columns)
    if not messages:
        rows, messages = _rows(table.parent, cells, divided="split" in columns)
        messages = messages or [*_file_problems(rows), *_class_problems(rows)]
    if messages:
        raise InvalidInput(*(Problem("data.root", f"'{table}' {message}") for message in messages))
    classes = _in_order({row.label for row in rows})
    label = {name: index for index, name in enumerate(classes)}
    parts = {
        part: tuple((row.path, label[row.label]) for row in rows if row.part == part)
        for part in dict.fromkeys(row.part for row in rows)
    }
    return Folder(classes, parts, ignored=())


def _read(table: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Each row's line number and cells, and the columns' names; blank lines are passed over."""
    with table.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark before the text
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count), restval="")
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        return [
            (reader.line_num, {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)})
            for row in reader
        ], columns


def _column_problems(columns: Sequence[str]) -> list[str]:
    found = ", ".join(f"'{name}'" for name in columns) or "nothing"
    messages = [f"has no column '{name}'; its first line has {found}" for name in _NEEDED if name not in columns]
    return messages + [
        f"has two columns '{name}'; keep one" for name in (*_NEEDED, "split") if list(columns).count(name) > 1
    ]


def _rows(folder: Path, cells: Iterable[tuple[int, dict[str, str]]], *, divided: bool) -> tuple[list[_Row], list[str]]:
    rows, empty, unknown = [], [], []
    for line, row in cells:
        split = row.get("split", "").lower() if divided else "train"
        empty += [f"row {line} ('{name}')" for name in _NEEDED if not row[name]]
        if split not in PARTS:
            unknown.append(f"row {line}: '{row.get('split', '')}', {nearest(split, PARTS)}")
            continue
        rows.append(_Row(line, folder / Path(row["path"]).expanduser(), row["label"], PARTS[split]))
    messages = []
    if empty:
        messages.append(f"has empty cells: {_few(empty)}")
    if unknown:
        messages.append(f"has unknown splits: {_few(unknown)}")
    return rows, messages


def _file_problems(rows: Sequence[_Row]) -> list[str]:
    first: dict[Path, int] = {}
    missing, twice = [], []
    for row in rows:
        if first.setdefault(row.path, row.line) != row.line:
            # The same picture in two parts would make every error measured on it too good.
            twice.append(f"row {row.line}: '{row.path}', as in row {first[row.path]}")
        elif not row.path.is_file():
            missing.append(f"row {row.line}: '{row.path}'")
    messages = [f"lists images that do not exist: {_few(missing)}"] if missing else []
    return messages + ([f"lists images twice: {_few(twice)}"] if twice else [])


def _class_problems(rows: Sequence[_Row]) -> list[str]:
    trained = {row.label for row in rows if row.part == "train"}
    if not trained:
        return ["lists no image to train on"]
    messages = []
    if len(trained) < 2:
        messages.append(f"has 1 class to train on, '{next(iter(trained))}'; at least 2 are needed")
    unknown = [f"row {row.line}: '{row.label}'" for row in rows if row.label not in trained]
    if unknown:
        messages.append(f"has classes in valid or test that train lacks: {_few(unknown)}")
    return messages


def _few(items: Sequence[str]) -> str:
    return "; ".join(items[:_SHOWN]) + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Sorted as numbers if they all are: ``2`` before ``10``."""
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))
