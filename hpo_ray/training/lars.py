"""LARS, which torch lacks: momentum with a learning rate of its own for every layer.

Plain torch; knows nothing of models, data or Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling: You, Gitman & Ginsburg 2017, arXiv 1708.03888, algorithm 1.

    For every parameter w with gradient g, in the paper's order (the rate is inside the momentum):

        local = trust |w| / (|g| + weight_decay |w| + eps)
        v = momentum v + lr local (g + weight_decay w)
        w = w - v

    Norms' weights and biases, of at most one dimension, have local = 1, as have layers whose weights or gradient are
    all 0: the paper's formula would leave those where they are for good.

    Args:
        params: Parameters or groups of them.
        lr: The global rate. With the default trust, 1 moves a layer by a thousandth of its length each step.
        momentum: 0.9.
        weight_decay: An L2 penalty.
        trust: The paper's eta.
        eps: Keeps the quotient finite.

    Raises:
        ValueError: A number is negative or NaN.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        eps: float = 1e-9,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "eps": eps}
        for key, value in defaults.items():
            if not value >= 0:
                raise ValueError(f"{key} is {value}, but must be 0 or more")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step; parameters without a gradient stay.

        Args:
            closure: Computes the loss again, with gradients; None: they are there.

        Returns:
            What `closure` returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, w: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        decay = group["weight_decay"]
        update = gradient.add(w, alpha=decay)
        if w.ndim > 1:
            size, slope = w.norm(), gradient.norm()
            local = group["trust"] * size / (slope + decay * size + group["eps"])
            update *= torch.where((size > 0) & (slope > 0), local, 1.0)  # on the device: no waiting for the GPU
        velocity = self.state[w].get("velocity")
        if velocity is None:
            velocity = self.state[w]["velocity"] = torch.zeros_like(w)
        velocity.mul_(group["momentum"]).add_(update, alpha=group["lr"])
        w.sub_(velocity)
