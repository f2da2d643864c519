"""Why a trial failed: for lack of memory, for a full disk, or for something else.

Looks at exceptions, the disk and the kernel's counters; knows nothing of trials, workers or Ray, and imports no torch.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from hpo_ray.errors import InvalidInput

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# What libraries say that raise an error of their own: torch's old format, h5py, safetensors, a DataLoader's worker.
_NO_ROOM_TEXTS = ("No space left on device", "Disk quota exceeded", "StorageFull")
# CUDA, HIP, XPU and MPS all say "out of memory"; the others are cuBLAS and cuDNN, torch on the CPU, and the C library.
_NO_MEMORY_TEXTS = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "std::bad_alloc",
)
_PROBE_BYTES = 2**20
_CGROUPS = Path("/sys/fs/cgroup")


class DiskFull(OSError):
    """Something could not be saved because its disk, or the user's share of it, is full."""


def cause_of(error: BaseException, folder: Path) -> str:
    """What kind of failure an objective's exception is.

    Args:
        error: What it raised.
        folder: Where it writes.

    Returns:
        ``input``: the experiment itself is wrong; ``out_of_memory``; ``disk_full``; ``exited``: it wanted to end its
        process; ``exception``: none of these.
    """
    if isinstance(error, InvalidInput) and error.problems:
        return "input"
    if is_out_of_memory(error):
        return "out_of_memory"
    if is_disk_full(error, folder):
        return "disk_full"
    return "exited" if isinstance(error, SystemExit) else "exception"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, says that memory ran out, the GPU's or the machine's."""
    return any(_says_no_memory(link) for link in _chain(error))


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether an exception, or one that it came from, is a full disk's doing.

    Args:
        error: What was raised while something was written.
        folder: Where it was written. Torch and numpy do not say why a write failed: then a MiB is written here to
            see whether the disk is full, so what was written so far must still lie there.
    """
    chain = list(_chain(error))
    if any(getattr(link, "errno", None) in _NO_ROOM or _has(link, _NO_ROOM_TEXTS) for link in chain):
        return True
    unsaid = any(isinstance(link, RuntimeError) or (isinstance(link, OSError) and not link.errno) for link in chain)
    return unsaid and not _has_room(folder)


def oom_kills() -> int:
    """How many processes of this one's control group the kernel has killed for lack of memory; 0 where it won't say.

    Linux only, cgroup v2 and v1.
    """
    for path in _counters():
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, count = line.split()
                if name == "oom_kill":
                    return int(count)
    return 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it was raised from, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _says_no_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in _NO_MEMORY_TEXTS)


def _has(error: BaseException, texts: tuple[str, ...]) -> bool:
    return isinstance(error, Exception) and any(text in str(error) for text in texts)


def _has_room(folder: Path) -> bool:
    """Whether a MiB can be written: what statvfs says leaves out quotas, and counts what only root may use."""
    probe = folder / ".room"
    try:
        with probe.open("wb", buffering=0) as file:
            data = bytes(_PROBE_BYTES)
            written = file.write(data)
            os.fsync(file.fileno())  # some network disks say it only now
        return written == len(data)
    except OSError as error:
        return error.errno not in _NO_ROOM
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _counters() -> Iterator[Path]:
    """Where this process's control group counts: its own path, or the top where a container sees no further."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                yield _CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
            elif not controllers:
                yield _CGROUPS / path.lstrip("/") / "memory.events"
    yield _CGROUPS / "memory.events"
    yield _CGROUPS / "memory" / "memory.oom_control"
