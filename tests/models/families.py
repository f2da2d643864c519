"""The smallest architecture of each of torchvision's families: what it takes and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo_ray.models import vision, zoo

# Architecture, the smallest image size that its family takes, where its head sits, its own dropout right before it.
FAMILIES = [
    ("alexnet", 64, "classifier.6", 0.0),
    ("convnext_tiny", 32, "classifier.2", 0.0),
    ("densenet121", 32, "classifier", 0.0),
    ("efficientnet_b0", 32, "classifier.1", 0.2),
    ("googlenet", 32, "fc", 0.2),
    ("inception_v3", 80, "fc", 0.5),
    ("maxvit_t", 224, "classifier.5", 0.0),
    ("mnasnet0_5", 32, "classifier.1", 0.2),
    ("mobilenet_v2", 32, "classifier.1", 0.2),
    ("mobilenet_v3_small", 32, "classifier.3", 0.2),
    ("regnet_y_400mf", 32, "fc", 0.0),
    ("resnet18", 32, "fc", 0.0),
    ("shufflenet_v2_x0_5", 32, "fc", 0.0),
    ("squeezenet1_1", 32, "classifier.1", 0.5),
    ("swin_v2_t", 32, "head", 0.0),
    ("vgg11", 32, "classifier.6", 0.5),
    ("vit_b_32", 64, "heads.head", 0.0),
]
# Image sizes of architectures that take no 32 pixels, by how their names begin.
_SIZES = {"alexnet": 64, "inception": 80, "maxvit": 224, "vit_h_14": 28}
CLASSES = 5


def size_of(arch: str) -> int:
    """The smallest sensible image size."""
    return next((size for start, size in _SIZES.items() if arch.startswith(start)), 32)


@dataclass
class Family:
    """One family's smallest member as `vision.build` makes it, and two images. Copy the model before changing it."""

    arch: str
    size: int
    head: str
    own_dropout: float
    model: nn.Module
    images: Tensor


def make(arch: str, size: int, head: str, own_dropout: float) -> Family:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = vision.build(arch, classes=CLASSES, channels=3, image_size=size)
        return Family(arch, size, head, own_dropout, model, torch.rand(2, 3, size, size))


def on_meta(arch: str, *, stock: bool = False, **options) -> nn.Module:
    """Shapes alone, of any architecture; `stock`: as torchvision has it, without a head of ours."""
    with torch.device("meta"):
        if stock:
            return zoo.construct(arch, size_of(arch), None)
        return vision.build(arch, **{"classes": CLASSES, "channels": 3, "image_size": size_of(arch), **options})
