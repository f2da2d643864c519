"""A model's layers in order of depth: units (a stem, a residual block, …, the head), and groups of such units.

For rates that fall towards the input, and for unfreezing from the head down. Plain torch; knows no optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.models.heads import head_name

NamedParameters = list[tuple[str, nn.Parameter]]

_PLAIN_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# torchvision's containers that are written as modules of their own: by name, so that torchvision is not imported here.
_NAMED_CONTAINERS = frozenset({"Encoder", "MaxVitBlock"})
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Group:
    """Neighbouring layers that share a learning rate and are frozen together.

    Attributes:
        name: Of its first unit, e.g. ``layer3.0``; of the last group the head's, e.g. ``fc``.
        parameters: With the names that they have in the model.
        depth: 0 is nearest to the input.
    """

    name: str
    parameters: NamedParameters
    depth: int


def blocks(model: nn.Module) -> list[tuple[str, NamedParameters]]:
    """Cuts a model into units of depth, from the input to the head, which is the last unit and alone.

    Modules are walked in the order of registration, which in all of torchvision's classifiers is that of computation.
    A sequence of blocks is cut into its blocks; a block (residual, inverted residual, Inception, transformer, …) is
    one unit, and so is a sequence with one weight layer only, as of convolution, norm and activation. A norm on its
    own, and a parameter that a container holds itself (ViT's position embedding), belong to the unit before, or to
    the first unit if they come first (ViT's class token).

    Returns:
        Names of units with their parameters; every parameter of the model is in exactly one.
    """
    head = head_name(model)
    units: list[tuple[str, NamedParameters]] = []
    loose: NamedParameters = []
    for name, parameters, joins in _pieces(model, "", head):
        if joins and units:
            units[-1][1].extend(parameters)
        elif joins:
            loose += parameters
        else:
            units.append((name, [*loose, *parameters]))
            loose = []
    return units


def layer_groups(model: nn.Module, n: int | None = 3) -> list[Group]:
    """The model's units in `n` groups: the head, and the trunk in `n - 1` contiguous parts.

    The parts have about equally many units; a cut is moved to the end of a stage if one is less than half a part
    away. ResNet-18, -34, -50 and ResNeXt-50 are so cut between ``layer2`` and ``layer3``, as in fastai.

    Args:
        model: Any classifier; see `blocks`.
        n: Number of groups; 1 puts all in one, None makes every unit a group. If the model has fewer units, as many
            as there are.

    Raises:
        InvalidInput: `n` below 1.
    """
    if n is not None and n < 1:
        raise InvalidInput(Problem("model.layer_groups", f"expected 1 or more, but got {n}"))
    units = blocks(model)
    if n is None or n >= len(units):
        cuts = list(range(len(units) + 1))
    elif n == 1:
        cuts = [0, len(units)]
    else:
        cuts = [*_cuts([name for name, _ in units[:-1]], n - 1), len(units) - 1, len(units)]
    groups = []
    for depth, (start, end) in enumerate(pairwise(cuts)):
        parameters = [pair for _, pairs in units[start:end] for pair in pairs]
        groups.append(Group(units[start][0], parameters, depth))
    return groups


def lr_factors(groups: Sequence[Group], ratio: float) -> list[float]:
    """By what to multiply each group's learning rate: 1 for the head, `ratio` times less for each group below it.

    Args:
        groups: From `layer_groups`.
        ratio: 3 gives 1/9, 1/3, 1 for three groups (the lr/9, lr/3, lr of the fastai courses). A decay of 0.75 per
            layer (BEiT's) is a ratio of 1/0.75 with a group for every unit.

    Raises:
        InvalidInput: `ratio` is not a positive number.
    """
    if not (ratio > 0 and math.isfinite(ratio)):
        raise InvalidInput(Problem("model.lr_ratio", f"expected a positive number, but got {ratio}"))
    return [float(ratio) ** (index + 1 - len(groups)) for index in range(len(groups))]


def optimizer_groups(groups: Sequence[Group], ratio: float = 1.0) -> list[dict[str, Any]]:
    """The groups as an optimizer takes them, with their factors from `lr_factors`.

    Returns:
        For each group ``{"params": [(name, parameter), …], "lr_factor": …, "name": …}``, nearest to the input first.
    """
    factors = lr_factors(groups, ratio)
    return [
        {"params": group.parameters, "lr_factor": factor, "name": group.name}
        for group, factor in zip(groups, factors, strict=True)
    ]


def _pieces(module: nn.Module, prefix: str, head: str) -> Iterator[tuple[str, NamedParameters, bool]]:
    """Name, parameters and whether they join another unit, of everything below a container with parameters."""
    own = [(f"{prefix}{name}", parameter) for name, parameter in module.named_parameters(recurse=False)]
    if own:
        yield prefix.rstrip("."), own, True
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path != head and (head.startswith(f"{path}.") or _is_container(child)):
            yield from _pieces(child, f"{path}.", head)
        elif parameters := [(f"{path}.{key}", parameter) for key, parameter in child.named_parameters()]:
            yield path, parameters, isinstance(child, _NORMS)


def _is_container(module: nn.Module) -> bool:
    if type(module).__name__ in _NAMED_CONTAINERS:
        return True
    children = list(module.children())
    weighty = [child for child in children if not isinstance(child, _NORMS) and any(True for _ in child.parameters())]
    if type(module) in _PLAIN_CONTAINERS:
        # Single blocks are looked into, single layers (with their norm and activation) are not.
        return len(weighty) > 1 or any(_is_container(child) or list(child.children()) for child in weighty)
    # A subclass is a container of blocks (regnet's stage, densenet's block) or a block of layers (conv-norm-act).
    return isinstance(module, _PLAIN_CONTAINERS) and all(list(child.children()) for child in weighty)


def _cuts(names: list[str], parts: int) -> list[int]:
    """Where each of `parts` contiguous parts of the units called `names` begins."""
    share = len(names) / parts
    stages = [name.rpartition(".")[0] for name in names]
    ends = [index for index in range(1, len(names)) if stages[index] != stages[index - 1]]
    cuts = [0]
    for part in range(1, parts):
        ideal = part * share
        near = [end for end in ends if abs(end - ideal) < share / 2]
        chosen = min(near, key=lambda end: abs(end - ideal), default=int(ideal + 0.5))
        # Two neighbouring cuts may fall on the same unit only when a share is hardly more than one unit.
        cuts.append(min(max(chosen, cuts[-1] + 1), len(names) - (parts - part)))
    return cuts
