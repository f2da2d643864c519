"""GroupNorm in place of BatchNorm, in any model: for batches too small for their own statistics.

Plain torch; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpo_ray.errors import Problem, nearest

NORMS = ("own", "group")


def check_norm(name: str) -> Problem | None:
    """What is wrong with a choice of normalisation, if anything."""
    if name in NORMS:
        return None
    return Problem("model.norm", f"no normalisation is called '{name}'; {nearest(name, NORMS)}")


def swap_batch_norm(model: nn.Module, groups: int = 32) -> int:
    """Puts GroupNorm in place of every BatchNorm, in place; no batch statistics are left, so a batch of 1 trains.

    Done on the built model: torchvision's `norm_layer=` raises for half of its families. Scale and shift stay the very
    parameters (same object, device, type, `requires_grad`); running statistics go, so pretrained weights need
    training after it. Momentum and statistics aside, this is Wu & He's recipe (arXiv 1803.08494).

    Args:
        model: Changed in place.
        groups: At most so many groups a layer: the largest divisor of its channels up to this and up to half its
            channels. A channel alone in its group would lose its level, and on a 1 x 1 map everything.

    Returns:
        How many layers were swapped.
    """
    swapped = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    for name, old in swapped:
        # Made on the meta device: its own parameters are thrown away.
        new = nn.GroupNorm(_groups(old.num_features, groups), old.num_features, old.eps, old.affine, device="meta")
        if old.affine:
            new.weight, new.bias = old.weight, old.bias
        model.set_submodule(name, new.train(old.training))
    return len(swapped)


def _groups(channels: int, most: int) -> int:
    most = max(1, min(most, channels // 2))
    return next(count for count in range(most, 0, -1) if channels % count == 0)
