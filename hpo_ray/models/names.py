"""Which architectures and weights a configuration may name, checked in the driver before any process starts.

Must not import torch unless a torchvision architecture is asked for; knows nothing of data, training or Ray.
"""

from __future__ import annotations

from pathlib import Path

from hpo_ray.errors import Problem, nearest

OWN = ("cnn", "mlp", "resnet9", "softmax")
DEFAULT_WEIGHTS = "default"
_PATIENCE_S = 10.0


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


def check_download(arch: str) -> Problem | None:
    """Whether torchvision's own weights are at hand, or could be fetched: better known now than in every trial.

    Takes up to `_PATIENCE_S` where the network is silent.

    Args:
        arch: One of torchvision's architectures.
    """
    from urllib.parse import urlparse
    from urllib.request import Request, urlopen

    import torch
    import torchvision

    url = torchvision.models.get_model_weights(arch).DEFAULT.url
    kept = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if kept.is_file():
        return None
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_PATIENCE_S):
            return None
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        message = f"'default' would download {url}, which cannot be reached ({reason})"
        return Problem("model.weights", f"{message}: give the path of a state dict, or put that file at '{kept}'")
