"""The mode of a model in training, part of which may be frozen.

Plain torch; knows nothing of architectures, data sets, reports or Ray.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def train_mode(model: nn.Module, freeze_norms: bool = False) -> None:
    """What `model.train()` is for a model with frozen layers: these are in eval mode, the rest in training mode.

    Of a frozen layer nothing changes then: its BatchNorm uses its running statistics and leaves them as they are, its
    dropout and stochastic depth are off. A trunk that is frozen whole gives the same features in every pass, the same
    as `model.eval()`, so that training the head on kept features is training it on the images.

    In eval mode is a module all of whose parameters are frozen, and one without parameters (dropout, a BatchNorm that
    is not affine) that is registered before the first parameter that trains.

    Args:
        model: Changed in place.
        freeze_norms: Every BatchNorm keeps its statistics, in layers that train too; scale and shift train there.
    """
    model.train()
    all_train = all(parameter.requires_grad for parameter in model.parameters())
    begun = False  # whether a parameter that trains was met; modules come in the order of depth
    for module in model.modules():
        parameters = list(module.parameters())
        trains = any(parameter.requires_grad for parameter in parameters)
        if (parameters and not trains) or not (parameters or begun or all_train):
            module.training = False
        # The containers of a layer that trains come before it, but hold no parameters of their own.
        begun = begun or any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if freeze_norms and isinstance(module, _BatchNorm):
            module.training = False
