"""A classifier in two parts: the trunk, whose output can be computed once and kept, and the head, which is trained.

Plain torch; knows nothing of where features are kept, of data, training loops or Ray.
"""

from __future__ import annotations

from torch import Tensor, nn

from hpo_ray.models.heads import head_name


def trunk_features(model: nn.Module, images: Tensor) -> Tensor:
    """What goes into the head, before its dropout.

    The model is run as it is: in its own mode and on its own device, and with gradients unless the caller turned them
    off. Not for several threads at once on the same model.

    Args:
        model: From `vision.build`, not compiled or wrapped.
        images: `b x channels x size x size`, as the model takes them.

    Returns:
        `b x d`; squeezenet's head is a convolution, so its are `b x 512 x h x w`.
    """
    caught: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Tensor]) -> None:
        caught.append(inputs[0])

    # A hook, not a shortened model: torchvision flattens and pools in `forward`, between its modules.
    handle = model.get_submodule(head_name(model)).register_forward_pre_hook(catch)
    try:
        model(images)
    finally:
        handle.remove()
    return caught[0]


def head_part(model: nn.Module) -> nn.Module:
    """The head and what follows it as a model of its own, from features to logits: to be trained on kept features.

    It shares the modules with `model`, so training one trains the other, and `train()` and `eval()` turn the head's
    dropout on and off in both. In eval mode ``head_part(model)(trunk_features(model, images))`` is ``model(images)``,
    bit for bit.

    Args:
        model: From `vision.build`, not compiled or wrapped.

    Returns:
        The head itself where nothing follows it, which is everywhere but in squeezenet (activation, pooling).
    """
    parent, _, last = head_name(model).rpartition(".")
    siblings = model.get_submodule(parent).named_children()
    modules = list(dict(siblings).items())
    after = modules[[name for name, _ in modules].index(last) :]
    if len(after) == 1:
        return after[0][1]
    return nn.Sequential(*(module for _, module in after), nn.Flatten())
