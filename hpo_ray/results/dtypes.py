"""Columns of many runs, each in the type it has in pandas. Knows nothing of runs or files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hpo_ray.events import STATUSES
from hpo_ray.results.tables import Coded

_INT64 = 2**63


def fixed(kind: str, parts: list[Any]) -> Any:
    """A column of a kind that `tables.COLUMNS` names, from each run's part of it."""
    if kind == "text":
        coded = [_text(part) for part in parts]
        return coded[0] if len(coded) == 1 else pd.concat([pd.Series(part) for part in coded], ignore_index=True).array
    if kind in ("status", "name"):
        values = [value for part in parts for value in part]
        return pd.Categorical(values, STATUSES if kind == "status" else sorted({v for v in values if v is not None}))
    if kind == "count":
        return pd.array([value for part in parts for value in part], dtype="Int64")
    if kind == "int" and any(getattr(part, "dtype", None) == np.float64 for part in parts):  # some do not say
        return pd.array(_one([np.asarray(part, np.float64) for part in parts]), dtype="Int64")
    types = {"int": np.int64, "bool": np.bool_}
    values = _one([np.asarray(part, types.get(kind, np.float64)) for part in parts])
    if kind == "time":
        return pd.to_datetime(pd.Series((values * 1000).round()), unit="ms", utc=True).array
    return values


def inferred(values: list[Any]) -> Any:
    """A configuration's values as the narrowest type that holds them all; None: missing."""
    present = [value for value in values if value is not None]
    missing, kinds = len(present) < len(values), set(map(type, present))
    if kinds == {bool}:
        return pd.array(values, dtype="boolean") if missing else np.array(values, bool)
    if kinds == {int} and all(-_INT64 <= value < _INT64 for value in present):
        return pd.array(values, dtype="Int64") if missing else np.array(values, np.int64)
    if kinds == {str}:
        return _text(values)
    if kinds in ({float}, {int, float}):
        try:
            return np.array([np.nan if value is None else float(value) for value in values])
        except OverflowError:  # an integer that is no float's
            pass
    column = np.empty(len(values), object)
    column[:] = values
    return column


def measured(parts: list[Any], sizes: list[int]) -> Any:
    """A metric's values in each run; None: the run does not report it."""
    filled = [np.full(n, np.nan) if part is None else part for part, n in zip(parts, sizes, strict=True)]
    if all(isinstance(part, np.ndarray) for part in filled):
        return _one(filled)
    return inferred([None if value != value else value for part in filled for value in part])


def _text(part: Any) -> Any:
    """Text as pandas holds it; one that is empty, too, is text."""
    if isinstance(part, Coded):
        return pd.Series([*part.names, ""]).array.take(part.codes)
    return pd.Series([*part, ""]).array[:-1]


def _one(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
