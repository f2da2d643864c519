"""A model's probabilities for every image of a data set, in the order of the images.

Plain torch; knows nothing of augmentations, architectures, data sets or Ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from hpo_ray.errors import InvalidInput, Problem, RunFailed
from hpo_ray.training.evaluate import Evaluation, evaluation_mode
from hpo_ray.training.precision import Precision

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Predictions:
    """A model's opinion of each image, in the order of the images, on the CPU.

    Attributes:
        log_probabilities: `n x classes` float32; kept as logarithms, because probabilities of 0 have no log loss. A
            row is NaN where the model's output held a NaN.
        labels: `n` int64.
    """

    log_probabilities: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def probabilities(self) -> Tensor:
        """`n x classes` float32; each row adds up to 1."""
        return self.log_probabilities.exp()

    def evaluation(self) -> Evaluation:
        """Loss and errors against the labels, counted as `hpo_ray.training.evaluate` does."""
        found = self.log_probabilities
        losses = -found.gather(1, self.labels[:, None]).double()
        wrong = (found.argmax(1) != self.labels) | found.isnan().any(1)
        return Evaluation(losses.mean().item(), int(wrong.sum()), len(self))


def predict(
    model: nn.Module,
    batches: Batches,
    device: str | torch.device,
    *,
    forward: Callable[[Tensor], Tensor] | None = None,
    precision: Precision | None = None,
    expected: Tensor | None = None,
) -> Predictions:
    """Asks the model about every image, in evaluation mode; every module's mode is as before afterwards.

    Args:
        model: Already on `device`.
        batches: `(images b x …, labels b)`, all images in their order; the last may be short. Where there are no
            labels, number the images: labels are what the views of an image are matched by.
        device: Where to compute.
        forward: Images to logits `b x classes`; None: the model itself.
        precision: What is computed in half precision; None: nothing.
        expected: Labels `n` that the batches must hold; None: a batch that is left out goes unseen, unless
            `batches` is a ``DataLoader``.

    Raises:
        InvalidInput: The batches are shuffled or leave images out, as far as that can be seen.
        RunFailed: There was no image.
    """
    if problem := _disorder(batches):
        raise InvalidInput(Problem("tta", problem))
    forward, precision = forward or model, precision or Precision("fp32", device)
    found, labels = [], []
    with evaluation_mode(model), torch.no_grad():
        for images, target in batches:
            with precision.autocast():
                logits = forward(images.to(device)).float()
            # An overflow is the largest number there is: as in `evaluate`, it wins. What is NaN stays so.
            found.append(logits.nan_to_num(nan=math.nan).log_softmax(1).cpu())
            labels.append(target.cpu())
    if not sum(map(len, labels)):
        raise RunFailed("there was no image to ask the model about")
    result = Predictions(torch.cat(found), torch.cat(labels))
    if expected is not None:
        check_same(expected, result.labels, "the batches", "the data set")
    return result


def check_same(known: Tensor, given: Tensor, what: str, of: str) -> None:
    """Refuses anything but the same images in the same order, as far as labels show it.

    Args:
        known: Labels, `n`.
        given: Labels to hold against them.
        what: The given ones, for the error.
        of: The known ones.

    Raises:
        InvalidInput: They differ.
    """
    if len(known) != len(given):
        difference = f"{what} and {of} have {len(given)} and {len(known)} images"
    elif not torch.equal(known, given):
        first = int((known != given).nonzero()[0])
        difference = f"{what} and {of} differ in the label of image {first}: {int(given[first])}, {int(known[first])}"
    else:
        return
    advice = "every view must hold all images in the same order: no shuffling, no dropped last batch"
    raise InvalidInput(Problem("tta", f"{difference}; {advice}"))


def _disorder(batches: object) -> str | None:
    """What is wrong with a loader; labels would not show it where all are the same."""
    if not isinstance(batches, DataLoader):
        return None
    inner = batches.batch_sampler
    samplers = (batches.sampler, inner, getattr(inner, "sampler", None))
    if any(isinstance(sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler) for sampler in samplers):
        return "the DataLoader shuffles, but every view must hold the images in the same order: shuffle=False"
    if batches.drop_last or getattr(inner, "drop_last", False):
        return "the DataLoader leaves out a short last batch, but every image counts: drop_last=False"
    return None
