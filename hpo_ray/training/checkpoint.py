"""Everything that training needs to go on exactly where it was: weights, optimizer, epoch, random number generators.

One file of tensors and plain values, so that reading it never unpickles anything else. Plain torch; knows nothing of
architectures, data sets or Ray.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hpo_ray.errors import RunFailed

FILE = "state.pt"


def save(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes ``folder/state.pt``, whole or not at all.

    Args:
        folder: Exists already.
        model: Saved without the prefixes that wrappers put before its keys (``_orig_mod.`` of torch.compile,
            ``module.`` of DistributedDataParallel and AveragedModel), so that it loads into the bare model.
        optimizer: Its state goes along.
        epoch: Epochs finished.
        extra: Tensors and plain values that `load` returns.
    """
    state = {
        "epoch": epoch,
        "model": unwrap(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": rng_state(),
        "extra": dict(extra or {}),
    }
    partial = folder / f".{FILE}.partial"
    torch.save(state, partial)
    partial.replace(folder / FILE)


def load(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Puts back what `save` wrote: into `model`, `optimizer` and this process's generators.

    Returns:
        Epochs finished, and what `save` was given as `extra`.

    Raises:
        RunFailed: The file is missing, damaged, or of another model or optimizer.
    """
    state = _read(folder)
    try:
        unwrap(model).load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        set_rng_state(state["rng"])
        return int(state["epoch"]), dict(state.get("extra") or {})
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _misfit(folder, error) from error


def weights(folder: Path) -> dict[str, Tensor]:
    """The model's state dict, on the CPU.

    Raises:
        RunFailed: The file is missing or damaged.
    """
    found = _read(folder)
    try:
        return dict(found["model"])
    except (KeyError, TypeError) as error:
        raise _misfit(folder, error) from error


def load_weights(folder: Path, *, model: nn.Module) -> None:
    """Puts back the model's weights alone.

    Raises:
        RunFailed: As for `load`.
    """
    try:
        unwrap(model).load_state_dict(_read(folder)["model"])
    except (RuntimeError, KeyError) as error:
        raise _misfit(folder, error) from error


def _read(folder: Path) -> dict[str, Any]:
    try:
        # On the CPU first: the generators' states must lie there, and the rest is copied to where it belongs.
        state = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RunFailed(f"the checkpoint '{folder / FILE}' cannot be read: {error or type(error).__name__}") from error
    return dict(state)


def _misfit(folder: Path, error: Exception) -> RunFailed:
    return RunFailed(f"the checkpoint '{folder / FILE}' does not fit this configuration: {error}")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DataParallel, DistributedDataParallel or AveragedModel."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def rng_state() -> dict[str, Any]:
    """The states of torch's, Python's and numpy's global generators, as tensors and plain values."""
    numpy_state: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = numpy_state
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
    }
    if torch.cuda.is_initialized():  # asking it would start it, which takes memory on every GPU
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts back what `rng_state` returned; GPUs that this process lacks are passed over."""
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for index, generator in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(generator, index)


@contextmanager
def own_rng(seed: int) -> Iterator[None]:
    """Inside, the global generators start from `seed`; afterwards they are as they were.

    Layers draw their first weights, and dropout its masks, from torch's global generator: a process that runs many
    trials would otherwise make each depend on those before it.
    """
    before = rng_state()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        set_rng_state(before)
