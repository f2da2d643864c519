"""Which architectures and weights a configuration may name, checked in the driver before any process starts.

Must not import torch unless a torchvision architecture is asked for; knows nothing of data, training or Ray.
"""

from __future__ import annotations

from pathlib import Path

from hpo_ray.errors import Problem, nearest

OWN = ("cnn", "mlp", "softmax")
DEFAULT_WEIGHTS = "default"


def architectures() -> list[str]:
    """Every valid ``model.arch``: our own and torchvision's classification models (imports torchvision)."""
    import torchvision

    return sorted([*OWN, *torchvision.models.list_models(module=torchvision.models)])


def check_arch(name: str) -> Problem | None:
    """What is wrong with an architecture's name, if anything; imports torchvision unless the name is our own."""
    if name in OWN:
        return None
    known = architectures()
    return (
        None if name in known else Problem("model.arch", f"no architecture is called '{name}'; {nearest(name, known)}")
    )


def check_weights(arch: str, weights: str | None) -> Problem | None:
    """What is wrong with the choice of weights, as far as can be seen without opening the file.

    Args:
        arch: A valid architecture.
        weights: None, ``default`` (torchvision's own) or a file that holds a state dict.
    """
    if weights is None:
        return None
    if arch in OWN:
        return Problem("model.weights", f"'{arch}' starts from scratch and takes no weights, but '{weights}' was given")
    if weights != DEFAULT_WEIGHTS and not Path(weights).expanduser().is_file():
        return Problem("model.weights", f"'{weights}' is neither '{DEFAULT_WEIGHTS}' nor a file")
    return None
