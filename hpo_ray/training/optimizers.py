"""Optimizers by name, from one table, and the groups their parameters stand in. To add one: a line in `OPTIMIZERS`.

Plain torch, imported only to build one; knows nothing of models, data or Ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpo_ray.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class _Entry:
    make: str  # a class of torch.optim, or LARS
    momentum: float | None  # its default; None: it has none
    options: dict[str, Any] = field(default_factory=dict)


# The Adam family's fused step takes a tenth off the time per batch of a small network, on a CPU too.
OPTIMIZERS = {
    "sgd": _Entry("SGD", 0.0),
    "momentum": _Entry("SGD", 0.9),
    "nesterov": _Entry("SGD", 0.9, {"nesterov": True}),
    "adagrad": _Entry("Adagrad", None),
    "rmsprop": _Entry("RMSprop", 0.0),
    "adadelta": _Entry("Adadelta", None),
    "adam": _Entry("Adam", None, {"fused": True}),
    "adamw": _Entry("AdamW", None, {"fused": True}),
    "adamax": _Entry("Adamax", None),
    "nadam": _Entry("NAdam", None),
    "lars": _Entry("LARS", 0.9),
}
NAMES = tuple(OPTIMIZERS)


def build(
    name: str,
    parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]],
    *,
    lr: float,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    decay_norms: bool = True,
) -> torch.optim.Optimizer:
    """Makes an optimizer over all parameters, frozen ones too: without a gradient they stay, and can be woken later.

    Each group also keeps ``peak_lr``, which schedules multiply, and ``lr_factor``.

    Args:
        name: One of `NAMES`.
        parameters: What to optimise: parameters, or groups, each a mapping with ``params`` (parameters, or pairs of
            name and parameter), ``lr_factor`` (of `lr`, default 1), ``name``, and any option of torch's.
        lr: Learning rate per step.
        momentum: For ``sgd`` (None: 0), ``momentum``, ``nesterov``, ``lars`` (None: 0.9) and ``rmsprop`` (None: 0);
            the others have none, and it is not read.
        weight_decay: Added to the gradient as an L2 penalty; decoupled from it in ``adamw``.
        decay_norms: False: none for parameters of at most one dimension, which are norms' weights and biases. Each
            group is parted in two for that, the second named with `` (no decay)`` after it.

    Raises:
        InvalidInput: An unknown name, a negative or infinite number, a momentum of 1 or more, Nesterov without any.
    """
    import torch

    from hpo_ray.training.lars import LARS

    entry = OPTIMIZERS.get(name)
    if found := _problems(name, lr=lr, momentum=momentum, weight_decay=weight_decay):
        raise InvalidInput(*found)
    assert entry is not None
    groups = [
        part
        for group in _groups(parameters)
        for part in _parted(group, float(lr), float(weight_decay), decay_norms=decay_norms)
    ]
    # Plain floats: a numpy scalar would go into checkpoints, and reading those unpickles tensors and numbers only.
    options: dict[str, Any] = {**entry.options, "lr": float(lr), "weight_decay": float(weight_decay)}
    if entry.momentum is not None:
        options["momentum"] = entry.momentum if momentum is None else float(momentum)
    make = LARS if entry.make == "LARS" else getattr(torch.optim, entry.make)
    optimizer: torch.optim.Optimizer = make(groups, **options)
    return optimizer


def _problems(name: str, *, lr: float, momentum: float | None, weight_decay: float) -> list[Problem]:
    found = []
    entry = OPTIMIZERS.get(name)
    if entry is None:
        message = f"no optimizer is called '{name}'; {nearest(name, OPTIMIZERS)}"
        found.append(Problem("training.optimizer", message))
    for key, value in {"lr": lr, "weight_decay": weight_decay}.items():
        if not (value >= 0 and math.isfinite(value)):
            found.append(Problem(f"training.{key}", f"it is {value}, but must be a finite number, 0 or more"))
    if entry is None or entry.momentum is None or momentum is None:
        return found
    if not 0 <= momentum < 1:
        found.append(Problem("training.momentum", f"it is {momentum}, but must be from 0 to below 1"))
    elif momentum == 0 and entry.options.get("nesterov"):
        found.append(Problem("training.momentum", "it is 0, but 'nesterov' needs one above 0; 'sgd' is what has none"))
    return found


def _groups(parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    items: list[Any] = list(parameters)
    if not items or not isinstance(items[0], Mapping):
        items = [{"params": items}]
    return [{**group, "params": [_bare(item) for item in group["params"]]} for group in items]


def _bare(item: Any) -> nn.Parameter:
    """The parameter of a pair of name and parameter: names would go into every checkpoint, unread."""
    parameter: nn.Parameter = item[1] if isinstance(item, tuple) else item
    return parameter


def _parted(group: dict[str, Any], lr: float, weight_decay: float, *, decay_norms: bool) -> list[dict[str, Any]]:
    """The group with its own rate, as one or, where norms do not decay, two; none that is empty."""
    factor = float(group.get("lr_factor", 1.0))
    whole = {"weight_decay": weight_decay, **group, "lr_factor": factor, "lr": lr * factor, "peak_lr": lr * factor}
    if decay_norms:
        return [whole] if whole["params"] else []
    decaying = {**whole, "params": [one for one in whole["params"] if one.ndim > 1]}
    others = {**whole, "params": [one for one in whole["params"] if one.ndim <= 1], "weight_decay": 0.0}
    if "name" in group:
        others["name"] = f"{group['name']} (no decay)"
    return [part for part in (decaying, others) if part["params"]]
