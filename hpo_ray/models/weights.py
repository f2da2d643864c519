"""A file of weights put into a model whose last layer will be replaced.

Plain torch, and nothing is unpickled but tensors; knows nothing of data, training loops or Ray.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpo_ray.errors import InvalidInput, Problem

_WRAPPED_IN = ("state_dict", "model_state_dict", "model")
_PREFIX = re.compile(r"^(?:(?:module|_orig_mod)\.)+")
_AUXILIARY = re.compile(r"^(?:AuxLogits|aux1|aux2)\.")
# torchvision's older DenseNet files write 'norm.1' for 'norm1'.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")


def read_weights(path: str, model: nn.Module, *, arch: str, head: str) -> None:
    """Loads everything but the last layer; half precision becomes single.

    Args:
        path: What `torch.save` wrote: a state dict, or a dict that holds one under ``state_dict`` or ``model``; keys
            may carry the prefixes of DataParallel (``module.``) and of torch.compile (``_orig_mod.``).
        model: Filled in place.
        arch: The architecture's name, for the error.
        head: The last layer's name in `model`; in the file it may have another number of classes.

    Raises:
        InvalidInput: The file cannot be read, or its weights belong to another architecture.
    """
    state = _tensors(path)
    for key in [key for key in state if key.startswith(f"{head}.") or _AUXILIARY.match(key)]:
        del state[key]
    try:
        result = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:  # another shape
        raise _misfit(path, arch, " ".join(str(error).split())[:300]) from error
    # BatchNorm's counter of batches came later than many files; nothing here reads it.
    missing = [key for key in result.missing_keys if not key.startswith(f"{head}.") and "num_batches" not in key]
    named = [("lacks", missing), ("has besides", result.unexpected_keys)]
    if missing or result.unexpected_keys:
        raise _misfit(path, arch, "; ".join(f"it {verb} {_some(keys)}" for verb, keys in named if keys))


def _misfit(path: str, arch: str, reason: str) -> InvalidInput:
    return InvalidInput(Problem("model.weights", f"'{path}' does not fit '{arch}': {reason}"))


def _tensors(path: str) -> OrderedDict[str, Tensor]:
    try:
        content: Any = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInput(Problem("model.weights", f"'{path}' is no file of weights: {reason}")) from error
    for key in _WRAPPED_IN:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InvalidInput(Problem("model.weights", f"'{path}' holds no state dict (names to tensors)"))
    state = OrderedDict((_OLD_DENSENET.sub(r"\1\2", _plain(key)), value) for key, value in content.items())
    # The versions that `load_state_dict` goes by when it renames old keys; mnasnet refuses a file without one.
    versions = getattr(content, "_metadata", None) or {"": {"version": 2}}
    state._metadata = {_plain(f"{name}.").rstrip("."): version for name, version in versions.items()}  # type: ignore[attr-defined]
    return state


def _plain(key: str) -> str:
    return _PREFIX.sub("", key)


def _some(keys: list[str]) -> str:
    shown = ", ".join(sorted(keys)[:3])
    return f"{len(keys)} entries ({shown}{', …' if len(keys) > 3 else ''})"
