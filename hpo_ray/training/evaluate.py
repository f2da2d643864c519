"""A model's loss and errors on data it does not learn from.

Plain torch; knows nothing of architectures, data sets, reports or Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo_ray.errors import RunFailed
from hpo_ray.training import parallel
from hpo_ray.training.precision import Precision


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a data set found.

    Attributes:
        loss: Mean cross-entropy per image; NaN or infinite if the model has diverged.
        errors: Images whose most likely class is wrong, or whose output holds a NaN.
        n: Images seen, at least 1.
    """

    loss: float
    errors: int
    n: int

    @property
    def error(self) -> float:
        """Fraction of wrong images, 0..1."""
        return self.errors / self.n

    @property
    def accuracy(self) -> float:
        """Fraction of right images, 0..1."""
        return 1 - self.error


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: str | torch.device,
    forward: Callable[[Tensor], Tensor] | None = None,
    precision: Precision | None = None,
) -> Evaluation:
    """Runs the model in evaluation mode without gradients; every module's mode is as before afterwards.

    Where several processes train together, each is given its part, and all come to the result of the whole.

    Args:
        model: Already on `device`.
        batches: `(images b x c x h x w, labels b)`; the last may be short, no image is left out.
        device: Where to compute.
        forward: Images to logits, `model` or a part of it; None: the model itself.
        precision: What is computed in half precision; None: nothing.

    Raises:
        RunFailed: There was no image.
    """
    loss = torch.zeros((), dtype=torch.float64, device=device)
    errors = torch.zeros((), dtype=torch.int64, device=device)
    n = torch.zeros((), dtype=torch.int64, device=device)
    forward, precision = forward or model, precision or Precision("fp32", device)
    with evaluation_mode(model), torch.no_grad():
        for images, labels in batches:
            if not len(labels):  # a short last batch of which others have all images
                continue
            target = labels.to(device)
            with precision.autocast():
                logits = forward(images.to(device)).float()
            loss += nn.functional.cross_entropy(logits, target, reduction="sum")
            # argmax takes a NaN for the largest, which would score a diverged model like one that guesses class 0.
            errors += ((logits.argmax(1) != target) | logits.isnan().any(1)).sum()
            n += len(labels)
    parallel.add(loss, errors, n)
    if n == 0:
        raise RunFailed("there was no image to evaluate the model on")
    return Evaluation(loss.item() / int(n), int(errors), int(n))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    # Module by module: `model.train()` would also wake a BatchNorm that was frozen on purpose.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
