"""Image classifiers by name: three small ones of our own, and every classification model of torchvision.

Plain torch; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.models.names import DEFAULT_WEIGHTS, OWN, architectures, check_arch, check_weights
from hpo_ray.models.weights import read_weights

__all__ = ["ACTIVATIONS", "architectures", "build", "check_arch", "head_name"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}
_CNN_WIDTH, _CNN_WIDEST, _CNN_SMALLEST_POOLED = 32, 128, 8


def build(
    arch: str,
    *,
    classes: int,
    channels: int,
    image_size: int,
    units: int = 128,
    layers: int = 1,
    activation: str = "relu",
    dropout: float = 0.0,
    weights: str | None = None,
) -> nn.Module:
    """Makes a classifier: `b x channels x image_size x image_size` float32 in, `b x classes` logits out.

    Parameters are drawn from torch's global generator, so seed it first.

    Args:
        arch: ``softmax`` (one linear layer), ``mlp``, ``cnn`` (see `_cnn`), or a torchvision model's name.
        classes: Number of classes.
        channels: 1 or 3; a torchvision model sees a single channel three times.
        image_size: Height and width in pixels.
        units: Width of each hidden layer of ``mlp``, and of ``cnn`` behind its convolutions.
        layers: Number of those layers.
        activation: ``relu``, ``tanh``, ``sigmoid`` or ``gelu``, for ``mlp`` and ``cnn``.
        dropout: Behind each hidden layer; in a torchvision model before its last layer, beside its own dropout.
        weights: For torchvision models: None; ``default`` for torchvision's own, from its cache or the network; or
            a file with a state dict of that architecture. The last layer is new in any case.

    Raises:
        InvalidInput: An unknown name, weights that cannot be had or do not fit, an image size that the architecture
            cannot take.
    """
    problems = [problem for problem in (check_arch(arch), _check_activation(activation)) if problem]
    if problems:
        raise InvalidInput(*problems)
    problem = check_weights(arch, weights)
    if problem:
        raise InvalidInput(problem)
    if arch not in OWN:
        return _torchvision(arch, classes, channels, image_size, dropout, weights)
    if arch == "cnn":
        return _cnn(classes, channels, image_size, partial(_dense, units, layers, activation, dropout), activation)
    if arch == "mlp":
        return nn.Sequential(
            nn.Flatten(), *_dense(units, layers, activation, dropout, channels * image_size**2, classes)
        )
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))


def _check_activation(name: str) -> Problem | None:
    if name in ACTIVATIONS:
        return None
    return Problem("model.activation", f"no activation is called '{name}'; {nearest(name, ACTIVATIONS)}")


def _dense(units: int, layers: int, activation: str, dropout: float, inputs: int, outputs: int) -> list[nn.Module]:
    """`layers` hidden layers, each followed by the activation and dropout, and the linear layer to the logits."""
    modules: list[nn.Module] = []
    widths = [inputs] + [units] * layers
    for before, after in pairwise(widths):
        modules += [nn.Linear(before, after), ACTIVATIONS[activation](), nn.Dropout(dropout)]
    return [*modules, nn.Linear(widths[-1], outputs)]


def _cnn(classes: int, channels: int, image_size: int, dense: Any, activation: str) -> nn.Module:
    """3 x 3 convolutions with BatchNorm; the image is halved until it is under 8 pixels, the width doubled up to 128.

    On 8 x 8 digits: conv 32, pool to 4 x 4, conv 32, then the dense layers. Pooling before the activation gives the
    same with ReLU and costs a quarter.
    """
    side, before, width = image_size, channels, _CNN_WIDTH
    modules: list[nn.Module] = []
    while side >= _CNN_SMALLEST_POOLED:
        modules += [_conv(before, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), ACTIVATIONS[activation]()]
        side, before = side // 2, width
        width = min(2 * width, _CNN_WIDEST) if side >= _CNN_SMALLEST_POOLED else width
    modules += [_conv(before, width), nn.BatchNorm2d(width), ACTIVATIONS[activation]()]
    model = nn.Sequential(*modules, nn.Flatten(), *dense(width * side**2, classes))
    # Channels-last makes these small convolutions a quarter faster on a CPU (oneDNN).
    return model.to(memory_format=torch.channels_last)


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)  # BatchNorm follows


def _torchvision(
    arch: str, classes: int, channels: int, image_size: int, dropout: float, weights: str | None
) -> nn.Module:
    model = _construct(arch, image_size, weights)
    name = head_name(model)
    if weights is not None and weights != DEFAULT_WEIGHTS:
        read_weights(weights, model, arch=arch, head=name)
    head = _new_head(model.get_submodule(name), classes)
    model.set_submodule(name, head)
    # Hooks rather than wrapping modules: the state dict keeps torchvision's own keys.
    if dropout > 0:
        head.register_forward_pre_hook(partial(_drop, dropout))
    if channels == 1:
        model.register_forward_pre_hook(_repeat_channel)
    _check_size(model, arch, channels, image_size)
    return model


def _construct(arch: str, image_size: int, weights: str | None) -> nn.Module:
    """The architecture as torchvision has it, with its 1,000-class head, and its own weights if asked for.

    `weights` and `num_classes` together raise in torchvision, so the head is replaced afterwards.
    """
    import torchvision  # two seconds, which our own models need not wait for

    options: dict[str, Any] = {}
    if arch in ("inception_v3", "googlenet"):
        # Without auxiliary heads the output is a tensor in training too. `transform_input` undoes the normalisation
        # that torchvision's other weights expect; always on, so that it does not depend on where weights come from.
        options = {"aux_logits": False, "transform_input": True, "init_weights": weights is None}
    elif arch.startswith("vit_"):
        options = {"image_size": image_size}
    elif arch.startswith("maxvit"):
        options = {"input_size": (image_size, image_size)}
    chosen = "DEFAULT" if weights == DEFAULT_WEIGHTS else None
    try:
        return torchvision.models.get_model(arch, weights=chosen, **options)  # type: ignore[no-any-return]
    except OSError as error:  # URLError is one
        message = f"torchvision's weights for '{arch}' could not be downloaded ({error}); give the path of a local file"
        raise InvalidInput(Problem("model.weights", message)) from error
    except (AssertionError, ValueError) as error:
        raise InvalidInput(Problem("data.image_size", f"'{arch}' cannot take {image_size} px: {error}")) from error


def head_name(model: nn.Module) -> str:
    """Where a torchvision classifier's last layer sits, e.g. ``fc``, ``classifier.6``, ``heads.head``.

    In all of torchvision's classification models it is the last linear layer or convolution to be registered
    (squeezenet ends in a 1 x 1 convolution).
    """
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return names[-1]


def _new_head(old: nn.Module, classes: int) -> nn.Module:
    if isinstance(old, nn.Conv2d):
        return nn.Conv2d(old.in_channels, classes, kernel_size=1)
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, classes)
    raise TypeError(f"a head is a linear layer or a convolution, not {type(old).__name__}")


def _drop(probability: float, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (nn.functional.dropout(inputs[0], probability, training=module.training),)


def _repeat_channel(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].expand(-1, 3, -1, -1),)


def _check_size(model: nn.Module, arch: str, channels: int, image_size: int) -> None:
    """Tries the image size on shapes alone (meta tensors), which costs a tenth of a second and no memory."""
    training = model.training
    state = {name: value.to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    image = torch.empty(2, channels, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            functional_call(model.eval(), state, image)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInput(Problem("data.image_size", f"'{arch}' cannot take {image_size} px: {reason}")) from error
    finally:
        model.train(training)
