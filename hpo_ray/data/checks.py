"""Mistakes in a choice of data, found by names alone: no picture is opened.

The driver calls it before any process starts, so it must import neither torch nor scikit-learn; it knows no model
and no Ray.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hpo_ray.data import folders, published, tables
from hpo_ray.errors import InvalidInput, Problem, nearest

NAMES = ("digits", "folder", "csv", *published.SETS)
ROOT_VARIABLE = "HPO_RAY_DATA"

# Training images of the smallest class, as published.
_FEWEST = {"digits": 174, "mnist": 5421, "fashion_mnist": 6000, "kmnist": 6000, "cifar10": 5000, "cifar100": 500}
_WHAT = {"folder": "FOLDER", "csv": "FILE.csv"}


def check(name: str, root: str | None = None, *, download: bool = False, valid_is_test: bool = False) -> list[Problem]:
    """Every mistake in a choice of data that can be seen without opening an image.

    Args:
        name: ``digits``, ``folder``, ``csv`` or one of `published.SETS`.
        root: The image folder, the CSV file, or the folder that holds a published set's files; None falls back to the
            environment variable HPO_RAY_DATA.
        download: Whether the files of a published set may be missing, because they will be fetched.
        valid_is_test: Whether its validation part is to be the test part.

    Returns:
        The problems, keyed ``data.name``, ``data.root``, ``data.download`` or ``data.valid_is_test``; empty if there
        are none.
    """
    if name not in NAMES:
        return [Problem("data.name", f"no data set is called '{name}'; {nearest(name, NAMES)}")]
    problems = []
    if download and name not in published.SETS:
        problems.append(Problem("data.download", f"'{name}' cannot be downloaded; only {', '.join(published.SETS)}"))
    if valid_is_test and name not in _WHAT:
        message = f"'{name}' has no validation part of its own: only for data.name=folder and csv"
        problems.append(Problem("data.valid_is_test", message))
    if name == "digits":
        if root is not None:
            message = f"'digits' comes with scikit-learn and reads no folder, but '{root}' was given"
            problems.append(Problem("data.root", message))
        return problems
    try:
        where = resolve(root, name)
        if name in _WHAT:
            divided(name, where, valid_is_test=valid_is_test)
        elif not download:
            published.locate(name, where)
    except InvalidInput as error:
        problems.extend(error.problems)
    return problems


def check_folds(name: str, root: str | None, folds: int, *, valid_is_test: bool = False) -> list[Problem]:
    """Whether each class has an image for each fold, as far as file names tell: copies of an image count as one later.

    Args:
        name: As for `check`, likewise the next and the last; there must be nothing else wrong with them.
        root: See there.
        folds: How many.
        valid_is_test: See there.
    """
    fewest = _FEWEST.get(name)
    if name in _WHAT:
        found = divided(name, resolve(root, name), valid_is_test=valid_is_test)
        counts = Counter(label for part in ("train", "valid") for _, label in found.parts.get(part, ()))
        fewest = min(counts.values())
    if fewest is None or folds <= fewest:
        return []
    message = f"{folds} folds need as many images of each class, but the smallest class has {fewest}"
    return [Problem("folds", message)]


def divided(name: str, where: Path, *, valid_is_test: bool = False) -> folders.Folder:
    """The images of a ``folder`` or ``csv`` set, in the parts that training goes by.

    Raises:
        InvalidInput: As for `folders.scan` and `tables.scan`; `valid_is_test` and there is no validation part, or a
            test part besides.
    """
    found = folders.scan(where) if name == "folder" else tables.scan(where)
    if not valid_is_test:
        return found
    if "valid" not in found.parts or "test" in found.parts:
        why = "has a test part already" if "test" in found.parts else "has no validation part"
        raise InvalidInput(Problem("data.valid_is_test", f"'{where}' {why}: leave it out"))
    parts = {{"valid": "test"}.get(part, part): samples for part, samples in found.parts.items()}
    return replace(found, parts=parts)


def resolve(root: str | None, name: str = "folder") -> Path:
    """Where the data is, as an absolute path, from the configuration or else from HPO_RAY_DATA.

    Args:
        root: The configuration's value.
        name: The data set's, for the error.

    Raises:
        InvalidInput: Neither is given.
    """
    given = root or os.environ.get(ROOT_VARIABLE)
    if not given:
        what = _WHAT.get(name, "FOLDER with its files")
        raise InvalidInput(Problem("data.root", f"'{name}' needs data.root={what} or the variable {ROOT_VARIABLE}"))
    return Path(given).expanduser().absolute()
