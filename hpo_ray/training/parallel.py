"""Several processes that train one model together: the same weights in each, and a part of every batch.

Plain torch.distributed; without a process group everything here leaves things as they are. Knows nothing of data sets,
trials or Ray.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

# Values sent at once: gradients are copied to be summed, and a copy of a large model's would be large too.
_AT_ONCE = 1 << 23
_PATIENCE = datetime.timedelta(minutes=30)


def size() -> int:
    """How many processes train together; 1 without a group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if size() > 1 else 0


@contextmanager
def group(device: str | torch.device) -> Iterator[None]:
    """Inside, this process is one of those that the environment names, as torchrun does: ``RANK``, ``WORLD_SIZE``,
    ``MASTER_ADDR`` and ``MASTER_PORT``; without ``WORLD_SIZE``, or in a group already, nothing changes."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
    store, rank, world_size = next(rendezvous("env://", timeout=_PATIENCE))
    # Where the store outlives the group, a second one must not find what the first one left there.
    own = PrefixStore(f"group-{store.add(f'groups-{rank}', 1)}", store)
    distributed.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def own_draws(seed: int, epoch: int) -> None:
    """Give every process but the first its own global generator of torch, which dropout and mixing draw from.

    A function of the arguments and the rank, so that a training goes on as it was after a restart.
    """
    if rank():
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank()]).generate_state(1, np.uint32)[0]))


def share_weights(model: nn.Module) -> None:
    """Make the model the first process's."""
    if size() > 1:
        for value in model.state_dict().values():
            distributed.broadcast(value, 0)


def average_gradients(parameters: Sequence[nn.Parameter], weight: float | Tensor) -> bool:
    """Replace each gradient by its mean over the processes, each counting `weight`.

    With the number of a batch's images as weight, it is the gradient of the mean over the whole batch, whatever the
    parts. A parameter that no process has a gradient for keeps none.

    Args:
        parameters: The same in every process.
        weight: What the loss was divided by; 0 where this process had no image of the batch.

    Returns:
        Whether any process had an image.
    """
    if size() == 1:
        return True
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    device = trained[0].device if trained else torch.device("cpu")
    told = torch.tensor([float(weight), *(p.grad is not None for p in trained)], dtype=torch.float64).to(device)
    distributed.all_reduce(told)
    total, *known = told.tolist()
    if total == 0:
        return False
    for some in _lots([parameter for parameter, there in zip(trained, known, strict=True) if there]):
        # A process without an image has no gradient, and adds nothing.
        flat = torch.cat([_gradient(parameter).flatten() for parameter in some]) * weight
        distributed.all_reduce(flat)
        flat /= total
        for parameter, values in zip(some, flat.split([p.numel() for p in some]), strict=True):
            parameter.grad = values.view(parameter.shape)
    return True


def average_buffers(*models: nn.Module) -> None:
    """Make the statistics that a BatchNorm keeps their mean over the processes, each of which saw other images."""
    if size() > 1:
        for value in {id(buffer): buffer for model in models for buffer in model.buffers()}.values():
            if value.is_floating_point():
                distributed.all_reduce(value)
                value /= size()


def add(*values: Tensor) -> None:
    """Make each value its sum over the processes."""
    if size() > 1:
        for value in values:
            distributed.all_reduce(value)


def gathered(values: Any) -> list[Any]:
    """Of every process what JSON can hold, by rank; nothing of another's is executed, as a pickle would be."""
    if size() == 1:
        return [values]
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    told = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(size())]
    distributed.all_gather(sizes, torch.tensor([told.numel()], device=device))
    longest = max(int(n) for n in sizes)
    found = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in sizes]
    distributed.all_gather(found, nn.functional.pad(told, (0, longest - told.numel())))
    return [json.loads(part[: int(n)].cpu().numpy().tobytes()) for part, n in zip(found, sizes, strict=True)]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _lots(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one type, so many that their gradients are about `_AT_ONCE` values."""
    lot: list[nn.Parameter] = []
    for parameter in parameters:
        full = sum(p.numel() for p in lot) + parameter.numel() > _AT_ONCE
        if lot and (full or lot[0].dtype != parameter.dtype):
            yield lot
            lot = []
        lot.append(parameter)
    if lot:
        yield lot
