"""Image classifiers by name: three small ones of our own, and every classification model of torchvision.

Plain torch; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

from torch import nn

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.models import own
from hpo_ray.models.heads import check_dropout, head_name
from hpo_ray.models.names import OWN, architectures, check_arch, check_weights
from hpo_ray.models.norms import check_norm, swap_batch_norm
from hpo_ray.models.own import ACTIVATIONS
from hpo_ray.models.zoo import torchvision_model

_WITH_UNITS = {"mlp": own.mlp, "cnn": own.cnn, "resnet9": own.resnet9}

__all__ = ["ACTIVATIONS", "architectures", "build", "check_arch", "head_name"]


def build(
    arch: str,
    *,
    classes: int,
    channels: int,
    image_size: int,
    units: int = 128,
    layers: int = 1,
    activation: str = "relu",
    dropout: float | None = None,
    weights: str | None = None,
    norm: str = "own",
) -> nn.Module:
    """Makes a classifier: `b x channels x image_size x image_size` float32 in, `b x classes` logits out.

    Parameters are drawn from torch's global generator, so seed it first. Under `torch.device("meta")` shapes alone
    are made, in a fraction of a second for any architecture.

    Args:
        arch: ``softmax`` (one linear layer), ``mlp``, ``cnn``, ``resnet9`` (see `own`), or a torchvision model's name.
        classes: Number of classes.
        channels: 1 or 3; a torchvision model sees a single channel three times.
        image_size: Height and width in pixels.
        units: Width of each hidden layer of ``mlp``, of ``cnn`` behind its convolutions, and of ``resnet9`` at its end.
        layers: Number of those layers; in ``resnet9`` convolutions of a residual part beside the first.
        activation: ``relu``, ``tanh``, ``sigmoid`` or ``gelu``, for ``mlp`` and ``cnn``.
        dropout: A probability. In ``mlp`` and ``cnn`` behind each hidden layer, none by default. In a torchvision
            model right before its last layer: None leaves what the architecture has there (0.5 in VGG, 0.2 in
            MobileNet, nothing in ResNet), a number replaces it; dropout deeper in the model stays as it is.
        weights: For torchvision models: None; ``default`` for torchvision's own, from its cache or the network; or
            a file with a state dict of that architecture. The last layer is new in any case.
        norm: ``own`` leaves the architecture's normalisation; ``group`` puts GroupNorm in place of BatchNorm, after
            the weights are read (see `norms.swap_batch_norm`).

    Raises:
        InvalidInput: An unknown name, weights that cannot be had or do not fit, an image size that the architecture
            cannot take, a dropout that is no probability.
    """
    _require(check_arch(arch), own.check_activation(activation), check_dropout(dropout), check_norm(norm))
    _require(check_weights(arch, weights))
    if arch in _WITH_UNITS:
        make = _WITH_UNITS[arch]
        model = make(
            *(classes, channels, image_size), units=units, layers=layers, activation=activation, dropout=dropout or 0.0
        )
    elif arch in OWN:
        model = own.softmax(classes, channels, image_size)
    else:
        model = torchvision_model(arch, classes, channels, image_size, dropout, weights)
    if norm == "group":
        swap_batch_norm(model)
    return model


def _require(*problems: Problem | None) -> None:
    found = [problem for problem in problems if problem]
    if found:
        raise InvalidInput(*found)
