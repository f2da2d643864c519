"""Why a trial failed, read off what libraries really raise."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.trainables.faults import cause_of, oom_kills
from tests.trainables.conftest import fill


def raised_from(cause: BaseException, error: BaseException) -> BaseException:
    try:
        try:
            raise cause
        except BaseException:
            raise error  # noqa: B904 (the context is what counts)
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Caught MemoryError in DataLoader worker process 0."),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        torch.OutOfMemoryError("XPU out of memory."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        raised_from(MemoryError(), ValueError("training failed")),
        raised_from(raised_from(MemoryError(), ValueError()), KeyError("x")),
    ],
    ids=repr,
)
def test_memory_that_ran_out_is_recognised(error: BaseException, tmp_path: Path) -> None:
    assert cause_of(error, tmp_path) == "out_of_memory"


def test_what_torch_and_numpy_raise_for_more_than_any_machine_has(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**58)
    assert cause_of(of_torch.value, tmp_path) == cause_of(of_numpy.value, tmp_path) == "out_of_memory"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("out of memory"), "exception"),  # somebody's own words
        (RuntimeError("shapes cannot be multiplied (2x3 and 4x5)"), "exception"),
        (KeyboardInterrupt(), "exception"),
        (SystemExit(0), "exited"),
        (InvalidInput(Problem("model.arch", "no such model")), "input"),
        (InvalidInput(), "exception"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (RuntimeError("write(): fd 3 failed with No space left on device"), "disk_full"),
        (raised_from(OSError(errno.ENOSPC, "No space"), ValueError("not saved")), "disk_full"),
        (OSError("2000000 requested and 262128 written"), "exception"),  # but there is room
        (FileNotFoundError(errno.ENOENT, "No such file"), "exception"),
    ],
    ids=repr,
)
def test_other_causes(error: BaseException, cause: str, tmp_path: Path) -> None:
    assert cause_of(error, tmp_path) == cause
    assert list(tmp_path.iterdir()) == []  # looking for room leaves nothing behind


def test_an_error_that_does_not_say_why_is_a_full_disks_where_it_is_full(small_disk: Path) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534")
    assert cause_of(error, small_disk) == "exception"
    fill(small_disk)
    assert cause_of(error, small_disk) == "disk_full"
    assert cause_of(ValueError("units must be positive"), small_disk) == "exception"
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert cause_of(one, tmp_path) == "exception"


def test_the_kernels_count_is_a_number() -> None:
    assert oom_kills() >= 0
