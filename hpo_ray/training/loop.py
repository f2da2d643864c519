"""One epoch of training.

Plain torch; knows nothing of architectures, data sets, reports or Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.training import parallel
from hpo_ray.training.modes import train_mode
from hpo_ray.training.precision import Precision


@dataclass(frozen=True)
class Step:
    """What happens at each batch, beside the forward and backward pass and the optimizer's step.

    Attributes:
        forward: Images to logits; None: the model itself. It may be the compiled model, or its head alone where the
            batches hold activations.
        train_mode: Puts the model into training mode; None: `hpo_ray.training.modes.train_mode`, which leaves what is
            frozen as it is.
        before: Called with the number of batches taken this epoch, before each: it sets the learning rate.
        mix: Images and labels to mixed images and soft labels `b x classes`; see `hpo_ray.data.augment.mixer`.
        loss_weights: Per class, `classes` float32 on the device; None: all the same.
        label_smoothing: Share of each label that is spread over all classes, 0..1.
        clip_norm: Gradients are scaled down to this norm at most; None: never.
        micro_batches: In how many pieces to take each batch through the model, to save memory; a batch with fewer
            images has fewer. Gradients add up to the whole batch's, but for rounding, for the masks that dropout
            draws, and for BatchNorm, which normalises each piece, of two images or more, by itself.
        precision: What is computed in half precision; None: nothing.
        average: Follows the weights after every step.
    """

    forward: Callable[[Tensor], Tensor] | None = None
    train_mode: Callable[[nn.Module], object] | None = None
    before: Callable[[int], None] | None = None
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    loss_weights: Tensor | None = None
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    micro_batches: int = 1
    precision: Precision | None = None
    average: AveragedModel | None = None


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    device: str | torch.device,
    step: Step = Step(),
) -> float:
    """Takes one optimizer step per batch, on the mean cross-entropy of the batch.

    Where several processes train together (`hpo_ray.training.parallel`), each is given its part of every batch, and
    all take the same steps, on the mean over the whole batch.

    A batch of one image is left out if a BatchNorm is trained, which cannot normalise it (torch raises on it where
    the feature map is 1 x 1); it is usually the last one.

    Args:
        model: In training mode afterwards, and already on `device`.
        batches: `(images b x c x h x w, labels b)`; each is moved to `device`.
        optimizer: Over the model's parameters.
        device: Where to compute.
        step: Everything else.

    Returns:
        The mean loss per image, each taken before its batch's step; NaN or infinite if training diverged.

    Raises:
        InvalidInput: Not a single step could be taken.
    """
    (step.train_mode or train_mode)(model)
    forward = step.forward or model
    precision = step.precision or Precision("fp32", device)
    criterion = nn.CrossEntropyLoss(step.loss_weights, label_smoothing=step.label_smoothing, reduction="sum")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    least = 2 if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()) else 1
    total = torch.zeros((), dtype=torch.float64, device=device)  # summed there: reading it out would wait for the GPU
    count = torch.zeros((), dtype=torch.int64, device=device)
    taken = 0
    for images, labels in batches:
        size = len(labels)
        if size < least and parallel.size() == 1:
            continue
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if step.before is not None:
            step.before(taken)
        optimizer.zero_grad()
        weight: Tensor | int = 0
        if size >= least:  # else it is others who have images of this batch
            if step.mix is not None:
                images, labels = step.mix(images, labels)
            weight = _weight(labels, step.loss_weights)
            pieces = max(1, min(step.micro_batches, size // least))
            for some, targets in [(images, labels)] if pieces == 1 else _split(images, labels, pieces):
                with precision.autocast():
                    loss = criterion(forward(some), targets) / weight
                precision.backward(loss)
                total += loss.detach() * size
            count += size
        if not parallel.average_gradients(parameters, weight):
            continue
        precision.step(optimizer, parameters, step.clip_norm)
        if step.average is not None:
            step.average.update_parameters(model)
        taken += 1
    parallel.add(total, count)
    if count == 0:
        message = "the model has BatchNorm and no batch has two images" if least == 2 else "there was no batch"
        raise InvalidInput(Problem("training.batch_size", f"{message} to train on"))
    return total.item() / int(count)


def _split(images: Tensor, labels: Tensor, pieces: int) -> Iterable[tuple[Tensor, Tensor]]:
    return zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True)


def _weight(labels: Tensor, weights: Tensor | None) -> Tensor | int:
    """What the summed losses are divided by: as torch does for a mean, where soft labels count one each."""
    return len(labels) if weights is None or labels.is_floating_point() else weights[labels].sum()
