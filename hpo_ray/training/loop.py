"""One epoch of training.

Plain torch; knows nothing of architectures, data sets, reports or Ray.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpo_ray.errors import InvalidInput, Problem


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    device: str | torch.device,
    micro_batches: int = 1,
) -> float:
    """Takes one optimizer step per batch, on the mean cross-entropy of the batch.

    A batch of one image is left out if the model has BatchNorm, which cannot normalise it (torch raises on it where
    the feature map is 1 x 1); it is usually the last one.

    Args:
        model: In training mode afterwards, and already on `device`.
        batches: `(images b x c x h x w, labels b)`; each is moved to `device`.
        optimizer: Over the model's parameters.
        device: Where to compute.
        micro_batches: In how many pieces to take each batch through the model, to save memory; a batch with fewer
            images has fewer. Gradients add up to the whole batch's, but for rounding, for the masks that dropout
            draws, and for BatchNorm, which normalises each piece, of two images or more, by itself.

    Returns:
        The mean loss per image, each taken before its batch's step; NaN or infinite if training diverged.

    Raises:
        InvalidInput: Not a single step could be taken.
    """
    model.train()
    needs_two = any(isinstance(module, _BatchNorm) for module in model.modules())
    total = torch.zeros((), dtype=torch.float64, device=device)  # summed there: reading it out would wait for the GPU
    count = 0
    for images, labels in batches:
        if needs_two and len(labels) == 1:
            continue
        size = len(labels)
        pieces = max(1, min(micro_batches, size // (2 if needs_two else 1)))
        optimizer.zero_grad()
        for some, targets in zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True):
            loss = nn.functional.cross_entropy(model(some.to(device)), targets.to(device)) * (len(targets) / size)
            loss.backward()
            total += loss.detach() * size
        optimizer.step()
        count += size
    if count == 0:
        raise InvalidInput(
            Problem("training.batch_size", "the model has BatchNorm and no batch has two images to train on")
        )
    return total.item() / count
