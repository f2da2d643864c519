"""Whether a classifier is right as often as it is sure.

Arrays in, a frame and numbers out. Knows numpy and pandas; nothing of torch, models, data sets or Ray.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.results.intervals import wilson
from hpo_ray.results.probabilities import Floats, checked, predicted


def calibration(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 10) -> pd.DataFrame:
    """Accuracy by confidence, in bins that hold as many images each.

    Bins of equal width would leave a good model's images in the last one (Nguyen & O'Connor 2015, arXiv 1508.05154).
    Images of one confidence stay together, so bins may be fewer and of different sizes; NaN are left out.

    Args:
        probabilities: As for `scores`, likewise the next.
        labels: True classes.
        bins: How many at most.

    Returns:
        A row for each bin, by rising confidence, with the columns ``low, high`` (its range of confidence), ``n``,
        ``confidence`` (mean probability of the predicted class), ``accuracy``, ``accuracy_low, accuracy_high``
        (Wilson's 95 % interval).

    Raises:
        InvalidInput: As for `scores`, or `bins` is below 1.
    """
    p, truth = checked(probabilities, labels)
    if bins < 1:
        raise InvalidInput(Problem("bins", f"it is {bins}, but must be at least 1"))
    known = ~np.isnan(p).any(1)
    taken_for = predicted(p)
    sure = p[np.arange(len(p)), taken_for][known]
    right = (taken_for == truth)[known]
    order = np.argsort(sure, kind="stable")
    sure, right = sure[order], right[order]
    inner = [_between(sure, len(sure) * edge // bins) for edge in range(1, bins)] if len(sure) else []
    edges = np.unique([0, *inner, len(sure)])
    rows = []
    for start, end in pairwise(edges.tolist()):
        hits, size = int(right[start:end].sum()), end - start
        rows.append((sure[start], sure[end - 1], size, sure[start:end].mean(), hits / size, *wilson(hits, size)))
    columns = ["low", "high", "n", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
    return pd.DataFrame(rows, columns=columns).astype({name: "int64" if name == "n" else "float64" for name in columns})


def calibration_error(table: pd.DataFrame) -> tuple[float, float]:
    """How far confidence and accuracy are apart, in one number.

    Args:
        table: From `calibration`.

    Returns:
        The expected calibration error: the mean of |accuracy − confidence|, each bin weighted by its images; chance
        alone makes it positive, the more so the fewer images a bin has. And the root of the mean square of the same
        less what chance adds, accuracy (1 − accuracy) / (n − 1) in each bin (Kumar, Liang & Ma 2019, "Verified
        Uncertainty Calibration", definition 5.2); 0 where that is negative. NaN for an empty table.
    """
    if not len(table):
        return np.nan, np.nan
    n, accuracy = table["n"].to_numpy(), table["accuracy"].to_numpy()
    gap = accuracy - table["confidence"].to_numpy()
    chance = accuracy * (1 - accuracy) / np.maximum(n - 1, 1)
    squared = float(np.average(gap**2 - chance, weights=n))
    return float(np.average(np.abs(gap), weights=n)), float(np.sqrt(max(squared, 0.0)))


def calibration_by_chance(table: pd.DataFrame) -> float:
    """The expected calibration error that a perfectly calibrated model would have on as many images, on average.

    The mean of |N(0, confidence (1 − confidence) / n)| in each bin, weighted like `calibration_error`'s first value.

    Args:
        table: From `calibration`.
    """
    if not len(table):
        return np.nan
    n, sure = table["n"].to_numpy(), table["confidence"].to_numpy()
    return float(np.average(np.sqrt(2 / np.pi * sure * (1 - sure) / n), weights=n))


def _between(values: Floats, at: int) -> int:
    """The place nearest to `at` in sorted values that does not part equal ones."""
    start, end = np.searchsorted(values, values[at], "left"), np.searchsorted(values, values[at], "right")
    return int(start if at - start <= end - at else end)
