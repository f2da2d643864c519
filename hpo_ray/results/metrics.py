"""How good a classifier's probabilities are, and where it errs: overall, per class, per image, and by confidence.

Arrays in, numbers and frames out. Knows numpy and pandas; nothing of torch, models, data sets or Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hpo_ray.results.calibration import calibration, calibration_error
from hpo_ray.results.intervals import wilson
from hpo_ray.results.probabilities import Floats, checked, losses_of, predicted

NO_CLASS = "(none)"  # what a model predicts whose output is NaN


@dataclass(frozen=True)
class Scores:
    """What a classifier's probabilities are worth, over `n` images.

    An image whose probabilities are NaN counts as wrong, and leaves everything but the first four NaN.

    Attributes:
        n: Images.
        errors: Whose most likely class is not the true one.
        accuracy: 0..1.
        interval: Wilson's 95 % interval of the accuracy.
        log_loss: Mean of −ln(probability of the true class); infinite where that is 0 for an image.
        brier: Mean squared distance from the truth, summed over classes, 0..2 (Brier 1950).
        ece: Expected calibration error over `calibration`'s bins; see `calibration_error`.
        rms_calibration: The debiased root mean square of the same; see `calibration_error`.
    """

    n: int
    errors: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    brier: float
    ece: float
    rms_calibration: float


def scores(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 10) -> Scores:
    """One row of numbers for a whole data set.

    Args:
        probabilities: `n x classes`, each row adding up to 1, or NaN.
        labels: `n`, from 0.
        bins: Of the calibration.

    Raises:
        InvalidInput: The arrays don't fit each other, are empty, or hold something else than probabilities.
    """
    p, truth = checked(probabilities, labels)
    n, errors = len(p), int((predicted(p) != truth).sum())
    ece, rms = (np.nan, np.nan) if np.isnan(p).any() else calibration_error(calibration(p, truth, bins=bins))
    low, high = wilson(errors, n)
    onehot = np.arange(p.shape[1]) == truth[:, None]
    return Scores(
        n=n,
        errors=errors,
        accuracy=1 - errors / n,
        interval=(1 - high, 1 - low),
        log_loss=float(losses_of(p, truth).mean()),
        brier=float(((p - onehot) ** 2).sum(1).mean()),
        ece=ece,
        rms_calibration=rms,
    )


def confusion(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> pd.DataFrame:
    """How many images of each true class (rows) were taken for each class (columns).

    Args:
        probabilities: As for `scores`, likewise the next.
        labels: True classes.
        classes: Their names, in order.

    Returns:
        `classes x classes` counts; one more column, ``(none)``, if some probabilities are NaN.

    Raises:
        InvalidInput: As for `scores`.
    """
    p, truth = checked(probabilities, labels, classes)
    taken_for = predicted(p)
    size = len(classes)
    counts = np.zeros((size, size + 1), np.int64)
    np.add.at(counts, (truth, taken_for), 1)  # NaN's −1 is the last column
    index = pd.Index(classes, name="true")
    whole = pd.DataFrame(counts, index=index, columns=pd.Index([*classes, NO_CLASS], name="predicted"))
    return whole if counts[:, -1].any() else whole.iloc[:, :-1]


def per_class(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> pd.DataFrame:
    """One row for each class, in their order.

    Args:
        probabilities: As for `confusion`, likewise the next two.
        labels: True classes.
        classes: Their names.

    Returns:
        Columns ``class, n`` (its images), ``precision`` (share of those taken for it that are), ``recall`` (share of
        it that was found), ``f1`` (their harmonic mean), ``errors`` (its images taken for something else),
        ``recall_low, recall_high`` (Wilson's 95 % interval). NaN where there is nothing to take a share of: the
        class has no image, or no image was taken for it.

    Raises:
        InvalidInput: As for `scores`.
    """
    counts = confusion(probabilities, labels, classes).to_numpy()
    hits, n = np.diagonal(counts), counts.sum(1)
    taken = counts[:, : len(classes)].sum(0)
    bounds = [wilson(int(hit), int(of)) if of else (np.nan, np.nan) for hit, of in zip(hits, n, strict=True)]
    return pd.DataFrame(
        {
            "class": list(classes),
            "n": n,
            "precision": _share(hits, taken),
            "recall": _share(hits, n),
            "f1": _share(2 * hits, n + taken),
            "errors": n - hits,
            "recall_low": [low for low, _ in bounds],
            "recall_high": [high for _, high in bounds],
        }
    )


def top_losses(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str], n: int = 9) -> pd.DataFrame:
    """The images that the model was most wrong about, worst first.

    Args:
        probabilities: As for `confusion`, likewise the next two.
        labels: True classes.
        classes: Their names.
        n: How many; fewer if there are fewer.

    Returns:
        Columns ``index`` (the image's row), ``loss`` (−ln of the true class's probability), ``predicted``, ``true``
        (names), ``p_predicted, p_true``. NaN first, then by loss; equal ones by how sure the model was, then in
        their order.

    Raises:
        InvalidInput: As for `scores`.
    """
    p, truth = checked(probabilities, labels, classes)
    taken_for, losses = predicted(p), losses_of(p, truth)
    rows = np.arange(len(p))
    sure = p[rows, taken_for]  # NaN where nothing was predicted
    order = np.lexsort((-np.nan_to_num(sure), -np.where(np.isnan(losses), np.inf, losses), ~np.isnan(losses)))[:n]
    names = [*classes, NO_CLASS]
    return pd.DataFrame(
        {
            "index": order,
            "loss": losses[order],
            "predicted": [names[taken_for[row]] for row in order],
            "true": [names[truth[row]] for row in order],
            "p_predicted": sure[order],
            "p_true": p[order, truth[order]],
        }
    )


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found
