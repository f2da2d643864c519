"""torchvision's classification models, with a new head and any number of classes.

Plain torch; imports torchvision only when one is built; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.models.heads import head_name, replace_head
from hpo_ray.models.names import DEFAULT_WEIGHTS
from hpo_ray.models.weights import read_weights


def torchvision_model(
    arch: str, classes: int, channels: int, image_size: int, dropout: float | None, weights: str | None
) -> nn.Module:
    """A torchvision classifier; the arguments are those of `vision.build`, already checked.

    Raises:
        InvalidInput: Weights that cannot be had or do not fit, an image size that the architecture cannot take.
    """
    model = construct(arch, image_size, weights)
    if weights is not None and weights != DEFAULT_WEIGHTS:
        read_weights(weights, model, arch=arch, head=head_name(model))
    replace_head(model, classes, dropout)
    # A hook rather than a wrapping module: the state dict keeps torchvision's own keys.
    if channels == 1:
        model.register_forward_pre_hook(_repeat_channel)
    _check_size(model, arch, channels, image_size)
    return model


def construct(arch: str, image_size: int, weights: str | None) -> nn.Module:
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
        if torch.get_default_device().type != "meta":
            return torchvision.models.get_model(arch, weights=chosen, **options)  # type: ignore[no-any-return]
        # Some constructors compute with small tensors (regnet its widths, swin its rates), which meta tensors cannot.
        with torch.device("cpu"), _UnfilledOnMeta():
            model: nn.Module = torchvision.models.get_model(arch, weights=chosen, **options)
        return model.to("meta")
    except OSError as error:  # URLError is one
        message = f"torchvision's weights for '{arch}' could not be downloaded ({error}); give the path of a local file"
        raise InvalidInput(Problem("model.weights", message)) from error
    except (AssertionError, ValueError) as error:
        raise InvalidInput(Problem("data.image_size", f"'{arch}' cannot take {image_size} px: {error}")) from error


class _UnfilledOnMeta(TorchFunctionMode):
    """Makes on the meta device what is allocated without a value: the weights, before they are drawn."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


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
