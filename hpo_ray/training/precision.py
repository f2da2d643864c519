"""Half precision: what is computed in it, and the scaling that fp16 needs.

Plain torch; knows nothing of models, data or Ray.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = tuple(_DTYPES)


class Precision:
    """Full, bf16 or fp16 with loss scaling (Micikevicius et al. 2018, "Mixed Precision Training").

    One object for a whole training: fp16's scale adapts as it goes, and belongs into the checkpoint.
    """

    def __init__(self, name: str, device: str | torch.device) -> None:
        """Args: `name` is ``fp32``, ``bf16`` or ``fp16``; `device` where the model is."""
        self._device = torch.device(device).type
        self._dtype = _DTYPES[name]
        self._scaler = torch.amp.GradScaler(self._device) if name == "fp16" else None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, matrix products and convolutions run in half precision; the weights stay in full."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device, self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss`, scaled for fp16."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], clip: float | None) -> None:
        """One step of the optimizer, after clipping the gradients' norm.

        The gradients must be unscaled before they are clipped; a step whose gradients overflowed is left out.
        """
        if self._scaler is not None and clip is not None:
            self._scaler.unscale_(optimizer)
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The scale and its history; empty where nothing is scaled."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
