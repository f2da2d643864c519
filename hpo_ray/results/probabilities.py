"""Probabilities and labels as arrays that fit each other, and what each image's say.

Knows numpy; nothing of torch, models, data sets or Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpo_ray.errors import InvalidInput, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def checked(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str] | None = None) -> tuple[Floats, Ints]:
    """Both as float64 and int64.

    Args:
        probabilities: `n x classes`, each row adding up to 1 to a thousandth, or NaN.
        labels: `n`, from 0.
        classes: Names, as many as there are classes.

    Raises:
        InvalidInput: They don't fit each other, are empty, or hold something else.
    """
    p: Floats = np.asarray(probabilities, dtype=np.float64)
    truth: NDArray[Any] = np.asarray(labels)
    problems = []
    if p.ndim != 2 or truth.shape != p.shape[:1] or p.size == 0:
        shapes = f"{' x '.join(map(str, p.shape))} and {' x '.join(map(str, truth.shape))}"
        raise InvalidInput(Problem("probabilities", f"they and the labels are {shapes}, but must be n x classes and n"))
    if classes is not None and len(classes) != p.shape[1]:
        problems.append(Problem("classes", f"there are {len(classes)} names for {p.shape[1]} probabilities"))
    if np.any(p < 0) or np.any(np.abs(p.sum(1) - 1) > 1e-3):
        problems.append(Problem("probabilities", "they must be from 0 to 1 and add up to 1 for each image; logits?"))
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= p.shape[1]:
        problems.append(Problem("labels", f"they must be whole numbers from 0 to {p.shape[1] - 1}"))
    if problems:
        raise InvalidInput(*problems)
    return p, truth.astype(np.int64)


def predicted(p: Floats) -> Ints:
    """The most likely class, the first of equals; −1 where that is unknown."""
    known = np.where(np.isnan(p), 0, p)  # argmax would take a NaN for the largest
    return np.where(np.isnan(p).any(1), -1, known.argmax(1))


def losses_of(p: Floats, truth: Ints) -> Floats:
    """−ln of each true class's probability: infinite at 0, NaN where that is unknown."""
    with np.errstate(divide="ignore"):
        return -np.log(np.where(np.isnan(p).any(1), np.nan, p[np.arange(len(p)), truth])) + 0.0  # no −0
