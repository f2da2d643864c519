"""What the weights of a model expect of an image: its size, how it is resized, how its colours are normalised.

Numbers only; imports torchvision only where weights are named; applies nothing, knows nothing of data or Ray.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpo_ray.errors import InvalidInput
from hpo_ray.models.names import check_arch, check_weights

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How images were prepared for the weights when these were scored.

    Attributes:
        resize: The short side in pixels before the crop; None if nothing binds it.
        crop: Height and width of the centre crop in pixels, which is what goes in; None if nothing binds it.
        interpolation: ``bilinear`` or ``bicubic``, with antialiasing.
        mean: Of red, green and blue, to be subtracted from values between 0 and 1.
        std: Likewise, to divide by afterwards.
    """

    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD


def preprocessing(arch: str, weights: str | None) -> Preprocessing:
    """What goes with an architecture's weights; nothing is downloaded or read.

    Args:
        arch: The architecture's name.
        weights: As for `vision.build`. A file is taken to be what torchvision's own weights of that architecture are
            (`weights.DEFAULT.transforms()`); None binds no size, and has ImageNet's normalisation.

    Raises:
        InvalidInput: An unknown architecture, or weights for one that takes none; a file that does not exist.
    """
    problem = check_arch(arch) or check_weights(arch, weights)
    if problem:
        raise InvalidInput(problem)
    if weights is None:
        return Preprocessing()
    import torchvision

    own = torchvision.models.get_model_weights(arch).DEFAULT.transforms()
    return Preprocessing(
        resize=own.resize_size[0],
        crop=own.crop_size[0],
        interpolation=own.interpolation.value,
        mean=tuple(own.mean),
        std=tuple(own.std),
    )
