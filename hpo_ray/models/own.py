"""Our own small classifiers, made for any image size: `softmax`, `mlp`, `cnn` and `resnet9`.

Plain torch; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from hpo_ray.errors import Problem, nearest
from hpo_ray.models.heads import LinearHead

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}
_CNN_WIDTH, _CNN_WIDEST, _CNN_SMALLEST_POOLED = 32, 128, 8


def check_activation(name: str) -> Problem | None:
    """What is wrong with an activation's name, if anything."""
    if name in ACTIVATIONS:
        return None
    return Problem("model.activation", f"no activation is called '{name}'; {nearest(name, ACTIVATIONS)}")


def softmax(classes: int, channels: int, image_size: int) -> nn.Module:
    """One linear layer on the pixels."""
    return nn.Sequential(nn.Flatten(), LinearHead(channels * image_size**2, classes))


def mlp(
    classes: int, channels: int, image_size: int, *, units: int, layers: int, activation: str, dropout: float
) -> nn.Module:
    """`layers` hidden layers of `units` on the pixels, each with the activation and dropout behind it."""
    dense = _dense([channels * image_size**2] + [units] * layers, classes, activation, dropout)
    return nn.Sequential(nn.Flatten(), *dense)


def cnn(
    classes: int, channels: int, image_size: int, *, units: int, layers: int, activation: str, dropout: float
) -> nn.Module:
    """3 x 3 convolutions with BatchNorm; the image is halved until it is under 8 pixels, the width doubled up to 128.

    On 8 x 8 digits: conv 32, pool to 4 x 4, conv 32, then the dense layers of `mlp`. Pooling before the activation
    gives the same with ReLU and costs a quarter.
    """
    side, before, width = image_size, channels, _CNN_WIDTH
    modules: list[nn.Module] = []
    while side >= _CNN_SMALLEST_POOLED:
        modules += [_conv(before, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), ACTIVATIONS[activation]()]
        side, before = side // 2, width
        width = min(2 * width, _CNN_WIDEST) if side >= _CNN_SMALLEST_POOLED else width
    modules += [_conv(before, width), nn.BatchNorm2d(width), ACTIVATIONS[activation]()]
    dense = _dense([width * side**2] + [units] * layers, classes, activation, dropout)
    model = nn.Sequential(*modules, nn.Flatten(), *dense)
    # Channels-last makes these small convolutions a quarter faster on a CPU (oneDNN).
    return model.to(memory_format=torch.channels_last)


def resnet9(
    classes: int, channels: int, image_size: int, *, units: int, layers: int, activation: str, dropout: float
) -> nn.Module:
    """Eight 3 x 3 convolutions, four of them in two residual pairs, and a linear layer: for images of about 32 pixels.

    After the ResNet-9 of the DAWNBench entries by Page (2019, "How to train your ResNet"), with its first stage and
    third pooling left out. `units` is the last width; the image is halved twice, then its maximum taken.
    """
    widths = [max(1, units // 4), max(1, units // 2), units]
    norm_act = lambda width: [nn.BatchNorm2d(width), ACTIVATIONS[activation]()]  # noqa: E731
    modules: list[nn.Module] = [nn.Sequential(_conv(channels, widths[0]), *norm_act(widths[0]))]
    for before, after in pairwise(widths):
        pool = [nn.MaxPool2d(2, ceil_mode=True)]
        modules.append(nn.Sequential(_conv(before, after), *pool, *norm_act(after)))
        modules.append(
            _Residual(*(part for _ in range(layers + 1) for part in (_conv(after, after), *norm_act(after))))
        )
    model = nn.Sequential(*modules, nn.AdaptiveMaxPool2d(1), nn.Flatten(), LinearHead(units, classes, dropout))
    return model.to(memory_format=torch.channels_last)


class _Residual(nn.Sequential):
    """Its input added to what its modules make of it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = super().forward(input)
        return input + added


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)  # BatchNorm follows


def _dense(widths: list[int], classes: int, activation: str, dropout: float) -> list[nn.Module]:
    """Hidden layers between `widths`, each with the activation and dropout behind it, and the head.

    The last dropout is the head's; an identity keeps its place, and with it the names in state dicts.
    """
    modules: list[nn.Module] = []
    for before, after in pairwise(widths):
        modules += [nn.Linear(before, after), ACTIVATIONS[activation](), nn.Dropout(dropout)]
    if not modules:
        return [LinearHead(widths[-1], classes)]
    return [*modules[:-1], nn.Identity(), LinearHead(widths[-1], classes, dropout)]
