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
) -> float:
    """Takes one optimizer step per batch, on the mean cross-entropy of the batch.

    A batch of one image is left out if the model has BatchNorm, which cannot normalise it (torch raises on it where
    the feature map is 1 x 1); it is usually the last one.

    Args:
        model: In training mode afterwards, and already on `device`.
        batches: `(images b x c x h x w, labels b)`; each is moved to `device`.
        optimizer: Over the model's parameters.
        device: Where to compute.

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
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(labels)
        count += len(labels)
    if count == 0:
        raise InvalidInput(
            Problem("training.batch_size", "the model has BatchNorm and no batch has two images to train on")
        )
    return total.item() / count
