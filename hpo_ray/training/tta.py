"""Test-time augmentation: a model's mean opinion of several augmented views of each image, plain numbers beside it.

Plain torch; the caller's batches decide what a view is. Knows nothing of augmentations, architectures or Ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.training.evaluate import Evaluation
from hpo_ray.training.precision import Precision
from hpo_ray.training.predictions import Batches, Predictions, check_same, predict

__all__ = [
    "MERGES", "WEIGHTS", "Merged", "Predictions", "TTAResult", "helps", "merge", "predict", "predict_views", "tta",
    "view_seed",
]  # fmt: skip

MERGES = ("mean", "max")
WEIGHTS = ("mean", "fastai")
_FASTAI = 0.25  # the plain view's share by default in `Learner.tta` of fastai 2
_SALT = 0x777A  # keeps a view's augmentation apart from that of a training epoch with the same numbers


class Merged(NamedTuple):
    """Several views of each image as one opinion.

    Attributes:
        predictions: The merged ones.
        views: How many augmented views they hold.
        weight: The plain view's share; None where there are no shares.
    """

    predictions: Predictions
    views: int
    weight: float | None


@dataclass(frozen=True)
class TTAResult:
    """What test-time augmentation gave, and what the model gave without.

    Attributes:
        plain: Of the images as they are.
        merged: Of all views together.
        views: How many augmented ones there were.
        merge: ``mean`` or ``max``.
        weight: The plain view's share; None for ``max``.
        used: Whether `predictions` are the merged ones.
        predictions: The ones to go by.
    """

    plain: Evaluation
    merged: Evaluation
    views: int
    merge: str
    weight: float | None
    used: bool
    predictions: Predictions = field(repr=False, compare=False)


def view_seed(seed: int, view: int) -> int:
    """The seed, below 2^63, of one view's augmentation; depends on nothing but the two.

    Args:
        seed: The caller's, at least 0.
        view: 0, 1, …
    """
    words = np.random.SeedSequence([seed, _SALT, view]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def predict_views(
    model: nn.Module,
    batches_of: Callable[[int], Batches],
    views: int,
    device: str | torch.device,
    *,
    seed: int = 0,
    forward: Callable[[Tensor], Tensor] | None = None,
    precision: Precision | None = None,
) -> Iterator[Predictions]:
    """Asks the model about every image once in each view, when the next view is asked for.

    Args:
        model: As for `predict`, likewise the rest.
        batches_of: From the seed of a view to its batches, the same images in the same order every time.
        views: How many.
        device: Where to compute.
        seed: Of all views; see `view_seed`.
        forward: See `predict`.
        precision: See `predict`.

    Raises:
        InvalidInput, RunFailed: As for `predict`.
    """
    for view in range(views):
        yield predict(model, batches_of(view_seed(seed, view)), device, forward=forward, precision=precision)


def merge(
    plain: Predictions, views: Iterable[Predictions], *, weight: float | str = "mean", how: str = "mean"
) -> Merged:
    """One opinion from an image's plain view and its augmented ones: ``weight · plain + (1 − weight) · mean(views)``.

    Args:
        plain: Of the images as they are.
        views: Of the augmented ones, the same images in the same order; taken one by one, so that a generator needs
            no memory for all of them.
        weight: The plain view's share of the probabilities, 0..1; ``mean``: as much as each other view,
            1 / (views + 1); ``fastai``: 0.25 whatever their number, `fastai.learner.Learner.tta`'s default.
        how: ``mean``, or ``max`` for comparison only: each class's highest probability in any view, plain or not,
            scaled to add up to 1. On published models it loses 2 to 16 points where the mean gains 0.2 (Shanmugam
            et al. 2021, "Better aggregation in test-time augmentation").

    Raises:
        InvalidInput: An unknown name, a share out of its range, no views, or views of other images.
    """
    _check_choice(weight, how)
    join = torch.logaddexp if how == "mean" else torch.maximum
    together: Tensor | None = None
    n = 0
    for view in views:
        n += 1
        check_same(plain.labels, view.labels, f"view {n}", "the plain view")
        together = view.log_probabilities if together is None else join(together, view.log_probabilities)
    if together is None:
        raise InvalidInput(Problem("tta", "it is 0, but test-time augmentation needs at least 1 view"))
    if how == "max":
        highest = torch.maximum(together, plain.log_probabilities)
        return Merged(Predictions(highest.log_softmax(1), plain.labels), n, None)
    share = weight if isinstance(weight, int | float) else {"mean": 1 / (n + 1), "fastai": _FASTAI}[weight]
    parts = [(plain.log_probabilities, share), (together - math.log(n), 1 - share)]
    kept = [found + math.log(part) for found, part in parts if part > 0]
    return Merged(Predictions(kept[0] if len(kept) == 1 else torch.logaddexp(*kept), plain.labels), n, float(share))


def helps(plain: Evaluation, merged: Evaluation) -> bool:
    """Whether merged predictions beat plain ones: fewer errors, or as many at a lower loss. Ask on validation data."""
    return (merged.errors, merged.loss) < (plain.errors, plain.loss)


def tta(
    plain: Predictions,
    views: Iterable[Predictions],
    *,
    weight: float | str = "mean",
    how: str = "mean",
    use: bool | None = True,
) -> TTAResult:
    """Merges the views of each image, and scores the merged predictions beside the plain ones.

    Args:
        plain: See `merge`, likewise the next three; labels are classes, 0..classes − 1.
        views: The augmented ones.
        weight: The plain view's share.
        how: ``mean`` or ``max``.
        use: Whether to go by the merged predictions; None: if it `helps` on these images, which must then be
            validation images: hand the answer, `TTAResult.used`, on to the test images.

    Raises:
        InvalidInput: As for `merge`.
    """
    found = merge(plain, views, weight=weight, how=how)
    before, after = plain.evaluation(), found.predictions.evaluation()
    used = helps(before, after) if use is None else use
    return TTAResult(before, after, found.views, how, found.weight, used, found.predictions if used else plain)


def _check_choice(weight: float | str, how: str) -> None:
    problems = []
    if how not in MERGES:
        problems.append(Problem("tta.merge", f"no way to merge is called '{how}'; {nearest(how, MERGES)}"))
    if isinstance(weight, str) and weight not in WEIGHTS:
        problems.append(Problem("tta.weight", f"'{weight}' is no number and no name; {nearest(weight, WEIGHTS)}"))
    elif not isinstance(weight, str) and not 0 <= weight <= 1:
        problems.append(Problem("tta.weight", f"it is {weight}, but must be from 0 to 1"))
    if how == "max" and weight != "mean":
        problems.append(Problem("tta.weight", f"it is {weight}, but the largest of all views has no weights"))
    if problems:
        raise InvalidInput(*problems)
