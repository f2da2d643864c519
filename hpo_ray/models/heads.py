"""The last layer of a classifier, with the dropout in front of it: made, found, put in place of an old one.

Plain torch; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from hpo_ray.errors import Problem


class LinearHead(nn.Linear):
    """Dropout and a linear layer in one module: `b x inputs` to `b x classes`.

    One module, so that the dropout follows the head's mode: whatever goes into it is the trunk's output, which does
    not depend on the mode if the trunk is frozen. Its state dict is a linear layer's.
    """

    def __init__(self, inputs: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__(inputs, classes)
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_drop(input, self))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dropout={self.dropout}"


class ConvHead(nn.Conv2d):
    """Dropout and a 1 x 1 convolution: `b x inputs x h x w` to `b x classes x h x w`, to be pooled (squeezenet's)."""

    def __init__(self, inputs: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__(inputs, classes, kernel_size=1)
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_drop(input, self))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dropout={self.dropout}"


def _drop(features: Tensor, head: LinearHead | ConvHead) -> Tensor:
    if not head.training or head.dropout == 0:  # without this, p = 0 still draws a mask
        return features
    return functional.dropout(features, head.dropout)


def head_name(model: nn.Module) -> str:
    """Where a classifier's last layer sits, e.g. ``fc``, ``classifier.6``, ``heads.head``.

    In what `vision.build` makes it is the one head; in a model from elsewhere the last linear layer or convolution
    to be registered, which is right for all of torchvision's classifiers (squeezenet ends in a 1 x 1 convolution).

    Raises:
        TypeError: The model has neither.
    """
    modules = dict(model.named_modules())
    heads: list[str] = [name for name, module in modules.items() if isinstance(module, LinearHead | ConvHead)]
    layers: list[str] = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise TypeError(f"{type(model).__name__} has no linear layer or convolution that could be its head")
    return heads[0] if heads else layers[-1]


def head_of(model: nn.Module) -> nn.Module:
    """The last layer itself, where `head_name` says that it sits."""
    return model.get_submodule(head_name(model))


def replace_head(model: nn.Module, classes: int, dropout: float | None) -> None:
    """Puts a new last layer, freshly drawn, in place of a torchvision classifier's own, under the same name.

    A dropout module right before it moves into the head; an identity keeps its place, and the names of the rest.

    Args:
        model: Changed in place.
        classes: Outputs of the new layer.
        dropout: Before the new layer; None takes the probability of the module that stood there, 0 if none did.
    """
    name = head_name(model)
    old = model.get_submodule(name)
    before = _leaf_before(model, name)
    own = model.get_submodule(before) if before else None
    if isinstance(own, nn.Dropout):
        model.set_submodule(before, nn.Identity())
        dropout = own.p if dropout is None else dropout
    if isinstance(old, nn.Conv2d):
        model.set_submodule(name, ConvHead(old.in_channels, classes, dropout or 0.0))
    elif isinstance(old, nn.Linear):
        model.set_submodule(name, LinearHead(old.in_features, classes, dropout or 0.0))


def check_dropout(dropout: float | None) -> Problem | None:
    """What is wrong with a probability of dropout, if anything."""
    if dropout is None or 0 <= dropout < 1:
        return None
    return Problem("model.dropout", f"expected a probability from 0 to below 1, or nothing, but got {dropout}")


def _leaf_before(model: nn.Module, name: str) -> str:
    """The module without children that is registered last before `name`; empty if there is none.

    Registration order is the order of computation around the heads of all torchvision classifiers.
    """
    before = ""
    for other, module in model.named_modules():
        if other == name:
            break
        if next(module.children(), None) is None:
            before = other
    return before
