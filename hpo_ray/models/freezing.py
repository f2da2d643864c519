"""Which layers train: freezing so that nothing of a frozen layer moves, and the mode that goes with it.

Plain torch; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.models.groups import Group, layer_groups
from hpo_ray.models.heads import head_of


def freeze(model: nn.Module, trainable: str | int, groups: Sequence[Group] | None = None) -> None:
    """Lets some layers train and freezes the rest, whatever was frozen before.

    Sets `requires_grad`, and drops the gradients of what is frozen: an optimizer would go on moving a parameter whose
    gradient is zero, by momentum and weight decay. Frozen parameters may stay in the optimizer, which passes over
    those without a gradient, so all groups are made once and unfrozen by calling this again. The caller then chooses
    the mode with `hpo_ray.training.modes.train_mode`.

    Args:
        model: Changed in place.
        trainable: ``all``; ``head``; or how many of the last `groups`, the head's included. More than there are: all.
        groups: The model's groups by depth, best those that the optimizer has; None makes the three of
            `layer_groups(model)`.

    Raises:
        InvalidInput: Another word, or a number below 1.
    """
    if trainable == "all":
        chosen = list(model.parameters())
    elif trainable == "head":
        chosen = list(head_of(model).parameters())
    elif isinstance(trainable, int) and not isinstance(trainable, bool) and trainable >= 1:
        # By name, not by object: the groups may be those of a copy.
        last = (layer_groups(model) if groups is None else groups)[-trainable:]
        chosen = [model.get_parameter(name) for group in last for name, _ in group.parameters]
    else:
        message = f"expected 'all', 'head' or a number of groups from 1, but got {trainable!r}"
        raise InvalidInput(Problem("model.trainable", message))
    training = set(map(id, chosen))
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in training)
        if not parameter.requires_grad:
            parameter.grad = None
