"""From pixels to what a network takes: resize, crop, scale, normalise; the same for training and for measuring.

Knows torch, and torchvision where an image is resized; nothing of files, augmentation, models or Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from hpo_ray.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    from PIL import Image

# Mean and deviation of ImageNet's channels: what torchvision's weights expect, and harmless without weights.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")

_Picture = TypeVar("_Picture", Tensor, "Image.Image")


@dataclass(frozen=True)
class Preprocess:
    """How images are made ready. Hashable, and its `repr` is part of a part's digest.

    Attributes:
        size: Pixels a side of the centre crop; None: images stay as large as they are.
        resize: Pixels of the short side before the crop; None: `size`.
        interpolation: One of `INTERPOLATIONS`, with antialiasing; ``lanczos`` for files only.
        mean: Of each channel, of values in 0..1, to be subtracted; None: not normalised. With three values, grey
            images are shown three times.
        std: To divide by, likewise.
    """

    size: int | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def short_side(self) -> int | None:
        """Pixels of the short side before the crop; None: as it is."""
        return self.resize or self.size

    def channels(self, own: int) -> int:
        """How many channels come out if `own` go in."""
        return own if self.mean is None else max(own, len(self.mean))

    def resized(self, image: _Picture) -> _Picture:
        """With the short side as it should be; a Pillow image, or a tensor `… x c x h x w`."""
        if self.short_side is None or (isinstance(image, Tensor) and min(image.shape[-2:]) == self.short_side):
            return image
        from torchvision.transforms import v2  # two seconds, which images of the right size need not wait for

        mode = v2.InterpolationMode(self.interpolation)
        return v2.functional.resize(image, [self.short_side], mode, antialias=True)  # type: ignore[no-any-return]

    def finished(self, images: Tensor) -> Tensor:
        """Cropped, as float32 in 0..1, normalised.

        Args:
            images: `… x c x h x w`, uint8 in 0..255 or float32 in 0..1, resized.

        Returns:
            `… x c x size x size` float32.
        """
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            from torchvision.transforms import v2

            images = v2.functional.center_crop(images, [self.size, self.size])
        scaled = images if images.is_floating_point() else images.to(torch.float32).div_(255)
        if self.mean is None or self.std is None:
            return scaled
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return scaled.sub(mean).div_(std)


def checked(
    size: int | None,
    resize: int | None,
    interpolation: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocess:
    """The same as an object.

    Raises:
        InvalidInput: With every problem found: the crop is larger than what it is taken from, an unknown
            interpolation, a mean without deviation or the reverse, neither one nor three of them, a deviation of 0.
    """
    problems = []
    if resize is not None and size is not None and resize < size:
        message = f"{resize} is less than data.image_size, {size}, which is cut out of it"
        problems.append(Problem("data.resize", message))
    if interpolation not in INTERPOLATIONS:
        message = f"'{interpolation}' is no interpolation; {nearest(interpolation, INTERPOLATIONS)}"
        problems.append(Problem("data.interpolation", message))
    if (mean is None) != (std is None):
        problems.append(Problem("data.mean", "mean and std belong together: give both or neither"))
    for key, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) not in (1, 3):
            problems.append(Problem(f"data.{key}", f"{list(values)} must be 1 or 3 numbers, one for each channel"))
    if mean is not None and std is not None and len(mean) != len(std):
        problems.append(Problem("data.std", f"{list(std)} must have as many numbers as mean, {len(mean)}"))
    if std is not None and min(std, default=1) <= 0:
        problems.append(Problem("data.std", f"{list(std)} must be above 0"))
    if problems:
        raise InvalidInput(*problems)
    return Preprocess(
        size, resize, interpolation, *(None if of is None else tuple(map(float, of)) for of in (mean, std))
    )
