"""The reports in Ray Tune's ``result.json`` files, many files at a time, as columns.

Nested values are named as Ray names them, ``outer/inner``. Files whose lines all have the shape of their first go
through pyarrow's JSON reader together; others line by line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_ray import plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What Ray adds to each report; of these, ``training_iteration`` is the fidelity and a metric too.
BOOKKEEPING = frozenset(
    [
        *("timestamp", "date", "trial_id", "pid", "hostname", "node_ip", "config", "experiment_tag", "experiment_id"),
        *("done", "checkpoint_dir_name", "should_checkpoint", "time_this_iter_s", "time_total_s", "time_since_restore"),
        *("iterations_since_restore", "episodes_total", "timesteps_total", "timesteps_since_restore"),
        "timesteps_this_iter",
    ]
)
_TEXT = frozenset(  # also where it reads like a number: a trial of Ray's may be called 60179_00000
    ["trial_id", "date", "hostname", "node_ip", "experiment_tag", "experiment_id", "checkpoint_dir_name"]
)
_MOST_BYTES = 4 << 20


@dataclass
class Rows:
    """Reports.

    Attributes:
        source: Which file each is from; rising, as `read` gives them.
        values: Flattened key -> a value a row; numbers (truth values too) as float64, what is missing NaN; a key that
            has ever had text as objects, what is missing None.
    """

    source: NDArray[np.int64]
    values: dict[str, Any]

    def number(self, key: str) -> NDArray[np.float64]:
        """A key's numbers; NaN where there are none."""
        found = self.values.get(key)
        usable = found is not None and found.dtype == np.float64
        return found if usable and found is not None else np.full(len(self.source), np.nan)

    def metrics(self) -> dict[str, Any]:
        """What the objective reported."""
        return {key: values for key, values in self.values.items() if key.split("/", 1)[0] not in BOOKKEEPING}


def read(files: Iterable[tuple[bytes, int]]) -> tuple[Rows, int]:
    """Rows of files, given as whole lines and a number of lines left out already; and how many could not be read."""
    parts: list[Rows] = []
    damaged = 0
    alike: dict[Any, tuple[Any, list[tuple[int, bytes]], int]] = {}
    for number, (text, left_out) in enumerate(files):
        damaged += left_out
        if not text:
            continue
        first = row_of(text.partition(b"\n")[0])
        key = None if first is None else _kinds(first)
        shape, group, size = alike.get(key) or (None if first is None else _shape(first), [], 0)
        group.append((number, text))
        alike[key] = (shape, group, size + len(text))
        if alike[key][2] > _MOST_BYTES:
            damaged += _group(*alike.pop(key)[:2], parts)
    for shape, group, _ in alike.values():
        damaged += _group(shape, group, parts)
    return _merged(parts), damaged


def row_of(line: bytes) -> dict[str, Any] | None:
    """A line's report; None: it is damaged."""
    try:
        row = plain.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def is_row(line: bytes) -> bool:
    """Whether a line holds a report."""
    return row_of(line) is not None


def line_of(row: Mapping[str | None, Any]) -> bytes:
    """A line of ``progress.csv`` as one of ``result.json``."""
    return json.dumps({key: _parsed(key, value) for key, value in row.items() if isinstance(key, str)}).encode()


def flat(document: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values in mappings in mappings, named ``outer/inner``."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{key}/")
        else:
            found[f"{above}{key}"] = value
    return found


def pick(values: Any, at: list[int]) -> Any:
    """The values at some places; missing at -1."""
    lacking = np.nan if values.dtype == np.float64 else None
    found = np.empty(len(at), values.dtype)
    found[:] = [values[place] if place >= 0 else lacking for place in at]
    return found


def _parsed(key: str, text: Any) -> Any:
    if text in ("True", "False", ""):
        return {"True": True, "False": False, "": None}[text]
    if not isinstance(text, str):
        return None
    try:
        # Python reads 1_000 as a number; Ray writes none that way.
        return text if key in _TEXT or "_" in text else float(text)
    except ValueError:
        return text


def _kinds(row: dict[str, Any]) -> Any:
    """What rows of one shape have in common, quickly found."""
    return tuple([(key, _kinds(value) if type(value) is dict else type(value)) for key, value in row.items()])


def _shape(value: Any, key: str = "") -> Any:
    """What pyarrow has to be told of a value like this; None: this cannot be told."""
    if isinstance(value, dict):
        inner = {name: _shape(item, name) for name, item in value.items()}
        return inner if inner and None not in inner.values() else None
    if isinstance(value, str) or key in _TEXT:
        return "text"
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else "nothing" if value is None else None


def _type(shape: Any) -> Any:
    import pyarrow as pa

    if isinstance(shape, dict):
        return pa.struct([(name, _type(inner)) for name, inner in shape.items()])
    return {"text": pa.string(), "truth": pa.bool_(), "number": pa.float64(), "nothing": pa.null()}[shape]


def _group(shape: Any, group: list[tuple[int, bytes]], parts: list[Rows]) -> int:
    """Read files whose first lines have one shape; returns how many lines could not be."""
    rows = _quickly(shape, group) if shape else None
    if rows is not None:
        parts.append(rows)
        return 0
    if len(group) > 1 and shape:  # most are as their first line is
        half = len(group) // 2
        return _group(shape, group[:half], parts) + _group(shape, group[half:], parts)
    damaged = 0
    for number, text in group:
        lines = [line for line in text.split(b"\n") if line]
        found = [row for line in lines if (row := row_of(line)) is not None]
        damaged += len(lines) - len(found)
        parts.append(_of_rows(number, found))
    return damaged


def _quickly(shape: Any, group: list[tuple[int, bytes]]) -> Rows | None:
    import pyarrow as pa
    import pyarrow.json

    counts = [text.count(b"\n") + 1 for _, text in group]
    data = b"\n".join([text for _, text in group])
    # As in `reports`: each line is an object, and none begins or ends on another. They are counted by the first key,
    # too: longer texts are found sooner.
    between = b"}\n" + data[: data.find(b":", 0, 64) + 1]
    framed = between[2:3] == b"{" and data.endswith(b"}") and data.count(between) == sum(counts) - 1
    if not framed or b"\\" in data or not data.isascii():
        return None
    try:
        table = pa.json.read_json(
            pa.BufferReader(data),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa.json.ParseOptions(
                explicit_schema=pa.schema([(name, _type(inner)) for name, inner in shape.items()]),
                unexpected_field_behavior="error",
            ),
        ).combine_chunks()
    except (pa.ArrowException, OSError):
        return None
    if table.num_rows != sum(counts):
        return None
    values = {}
    columns = [(name, table[name].combine_chunks()) for name in shape]
    while columns:
        name, column = columns.pop(0)
        if pa.types.is_struct(column.type):
            columns = [(f"{name}/{f.name}", column.field(n)) for n, f in enumerate(column.type)] + columns
        elif pa.types.is_string(column.type):
            if name.split("/", 1)[0] not in BOOKKEEPING:
                values[name] = np.array(column.to_pylist(), object)
        elif not pa.types.is_null(column.type):
            values[name] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return Rows(np.repeat(np.array([number for number, _ in group], np.int64), counts), values)


def _of_rows(number: int, found: list[dict[str, Any]]) -> Rows:
    rows = [flat({key: value for key, value in row.items() if key != "config"}) for row in found]
    values = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        column = [row.get(key) for row in rows]
        if any(isinstance(value, str) for value in column):
            values[key] = np.array([value if isinstance(value, str) else None for value in column], object)
        elif any(isinstance(value, int | float) for value in column):
            values[key] = np.array([_float(value) for value in column])
    return Rows(np.full(len(rows), number, np.int64), values)


def _float(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _merged(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    source = np.concatenate([np.empty(0, np.int64), *(part.source for part in parts)])
    order = np.argsort(source, kind="stable")
    values = {}
    for key in dict.fromkeys(key for part in parts for key in part.values):
        found = [part.values.get(key) for part in parts]
        text = any(column is not None and column.dtype == object for column in found)
        filled = [
            np.full(len(part.source), None if text else np.nan) if column is None else column
            for part, column in zip(parts, found, strict=True)
        ]
        values[key] = np.concatenate([column.astype(object) if text else column for column in filled])[order]
    return Rows(source[order], values)
