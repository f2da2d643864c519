"""What runs on this machine, as the kernel tells it: a process's descendants, and what the dead leave behind."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Process:
    """A process; its start tells it from a later one with its number."""

    pid: int
    start: str

    @property
    def state(self) -> str:
        """The kernel's letter (``Z``: a zombie); empty once it is gone."""
        fields = _stat(self.pid)
        return fields[0] if fields and fields[19] == self.start else ""

    @property
    def command(self) -> str:
        """Its command line, or the title that it gave itself."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return ""


def descendants(pid: int) -> list[Process]:
    """Children, their children, and so on; zombies too."""
    children: dict[int, list[Process]] = {}
    for number in _pids():
        fields = _stat(number)
        if fields:
            children.setdefault(int(fields[1]), []).append(Process(number, fields[19]))
    found = list(children.get(pid, []))
    for process in found:  # grows meanwhile
        found += children.get(process.pid, [])
    return found


def with_variable(name: str, value: str) -> list[Process]:
    """Processes that were started with this environment variable."""
    wanted, found = f"{name}={value}".encode(), []
    for pid in _pids():
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            if fields and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(Process(pid, fields[19]))
    return found


def abandoned_memory(before: set[str]) -> list[str]:
    """Files of this user's in /dev/shm that came after `before` and that no living process holds."""
    with contextlib.suppress(OSError):
        own = [path for path in SHARED_MEMORY.iterdir() if path.name not in before and _is_ours(path)]
        held = {target for pid in _pids() for target in _open_files(pid)} if own else set()
        return [path.name for path in own if str(path) not in held]
    return []


def _is_ours(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_uid == os.getuid()
    return False


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found.add(line.partition("/")[1] + line.partition("/")[2])
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """The fields of a process after its name: state, parent, …; empty if there is none."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return []
