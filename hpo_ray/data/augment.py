"""Training images varied at random, so that a network sees each of them differently in every epoch.

Plain torchvision transforms; knows nothing of files, order, models, training loops or Ray.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
from torch import Tensor

from hpo_ray.errors import InvalidInput, Problem, nearest

KINDS = ("none", "side_on", "top_down", "trivial", "crop")

_Change = Callable[[Tensor], Tensor]
Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied.

    Borders that come into view show the image's own reflection: no black corners; only ``trivial``, as published,
    moves black ones in.

    Attributes:
        kind: ``none``; ``side_on`` (flipped left to right, zoomed in, turned a little, lighter or darker), for
            photographs; ``top_down`` (flipped both ways and turned by quarters besides), for images without an up;
            ``trivial`` (TrivialAugmentWide and flips); ``crop`` (shifted by up to an eighth, 4 of 28 or 32 pixels,
            and flipped), for small images.
        zoom: Largest magnification, at least 1 (``side_on``, ``top_down``).
        rotate: Largest rotation either way, degrees (likewise).
        lighting: Largest relative change of brightness, and of contrast (likewise).

    Raises:
        InvalidInput: An unknown kind, or a number out of its range.
    """

    kind: str = "none"
    zoom: float = 1.1
    rotate: float = 10.0
    lighting: float = 0.1

    def __post_init__(self) -> None:
        problems = []
        if self.kind not in KINDS:
            message = f"no augmentation is called '{self.kind}'; {nearest(self.kind, KINDS)}"
            problems.append(Problem("data.augment", message))
        for key, low, high in (("zoom", 1, 10), ("rotate", 0, 180), ("lighting", 0, 1)):
            value = getattr(self, key)
            if not low <= value <= high:
                problems.append(Problem(f"data.{key}", f"{value:g} must be from {low} to {high}"))
        if problems:
            raise InvalidInput(*problems)

    def varied(self, image: Tensor, seed: int) -> Tensor:
        """One image varied as its seed says; leaves torch's global generator at another place.

        Args:
            image: `c x h x w`, uint8 in 0..255 or float32 in 0..1.
            seed: Below 2^32.

        Returns:
            The same type; the same shape, but for quarter turns of an image that is not square.
        """
        # Not torch.manual_seed: it would seed every GPU's generator too, which dropout draws from.
        torch.default_generator.manual_seed(seed)
        return _transform(self)(image)


@contextlib.contextmanager
def kept_generator() -> Iterator[None]:
    """Within it torch's global generator may be used: it is as before afterwards.

    Torchvision's transforms draw from that generator only, and so does dropout, whose draws must not depend on
    where images are varied.
    """
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


@lru_cache(maxsize=32)
def _transform(augmentation: Augmentation) -> _Change:
    from torchvision.transforms import v2  # two seconds, which plain images need not wait for

    flip = v2.RandomHorizontalFlip()
    if augmentation.kind == "none":
        return lambda image: image
    if augmentation.kind == "trivial":
        return _composed([flip, v2.TrivialAugmentWide()])
    if augmentation.kind == "crop":
        return _composed([flip, _shifted])
    steps: list[_Change] = [flip]
    if augmentation.kind == "top_down":
        # With a flip, quarter turns are all eight ways in which a square lies on itself: up and down are among them.
        steps.append(lambda image: image.rot90(int(torch.randint(4, ())), (-2, -1)))
    if augmentation.rotate or augmentation.zoom > 1:
        turn = v2.RandomAffine(
            augmentation.rotate, scale=(1, augmentation.zoom), interpolation=v2.InterpolationMode.BILINEAR
        )
        steps.append(lambda image: _turned(image, turn, augmentation.rotate))
    if augmentation.lighting:
        steps.append(v2.ColorJitter(brightness=augmentation.lighting, contrast=augmentation.lighting))
    return _composed(steps)


def _composed(steps: Sequence[_Change]) -> _Change:
    return lambda image: reduce(lambda varied, step: step(varied), steps, image)


def _turned(image: Tensor, turn: _Change, degrees: float) -> Tensor:
    """Turns and zooms on a page that shows the image's reflection around it, wide enough for the corners."""
    from torchvision.transforms.v2 import functional

    height, width = image.shape[-2:]
    across, down = _overhang(width, height, degrees), _overhang(height, width, degrees)
    page = functional.pad(image, [across, down], padding_mode="reflect") if across or down else image
    return functional.center_crop(turn(page), [height, width])  # type: ignore[no-any-return]


def _overhang(side: int, other: int, degrees: float) -> int:
    """Pixels that a turned rectangle reaches over this side, at the worst angle; less than a reflection can show."""
    worst = min(math.radians(degrees), math.atan2(other, side))
    reach = side * math.cos(worst) + other * math.sin(worst)
    return min(math.ceil((reach - side) / 2 - 1e-9), side - 1)


def _shifted(image: Tensor) -> Tensor:
    return _shift(*image.shape[-2:])(image)


@lru_cache(maxsize=256)
def _shift(height: int, width: int) -> _Change:
    from torchvision.transforms import v2

    padding = [math.ceil(width / 8), math.ceil(height / 8)] * 2
    return v2.RandomCrop((height, width), padding=padding, padding_mode="reflect")  # type: ignore[no-any-return]


def mixer(mixup: float, cutmix: float, classes: int) -> Mixer | None:
    """Blends each image of a batch with another of it, and their labels likewise.

    Args:
        mixup: Share of the other image from Beta(mixup, mixup); 0: no mixup.
        cutmix: Area of a rectangle taken from the other image, likewise; 0: no cutmix. With both, each batch has
            one of them, at even odds.
        classes: Number of classes.

    Returns:
        `(images b x c x h x w float32, labels b)` to `(images, soft labels b x classes)`, drawing from torch's
        global generator; None if both are 0.

    Raises:
        InvalidInput: One is negative.
    """
    given = {"mixup": mixup, "cutmix": cutmix}
    problems = [
        Problem(f"training.{key}", f"{value:g} must not be negative") for key, value in given.items() if value < 0
    ]
    if problems:
        raise InvalidInput(*problems)
    if not mixup and not cutmix:
        return None
    from torchvision.transforms import v2

    kinds = [v2.MixUp(alpha=mixup, num_classes=classes)] if mixup else []
    kinds += [v2.CutMix(alpha=cutmix, num_classes=classes)] if cutmix else []
    mix = v2.RandomChoice(kinds) if len(kinds) > 1 else kinds[0]
    return lambda images, labels: mix(images, labels)
