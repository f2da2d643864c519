"""Who works on a run: one driver at a time, found out from any machine that sees the same disk; and how it is asked to
stop.

Knows files and processes, nothing of events, Ray or the screen.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpo_ray import plain

FILE_NAME = "driver.lock"
STOP_FILE_NAME = "stop.request"
# A driver on another machine shows that it lives by touching its lock this often …
BEAT_S = 10.0
# … and is taken for dead when it has not for so long. Both times are the file server's: no clocks are compared.
SILENCE_S = 60.0


@dataclass(frozen=True)
class Holder:
    """A driver process: where it runs, its number, its start in the kernel's ticks, and since when (Unix seconds).

    `machine` tells machines and containers of one name apart; empty: unknown.
    """

    host: str
    pid: int
    process_start: str | None
    since: float
    machine: str = ""

    def __str__(self) -> str:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {started}"


def myself() -> Holder:
    """This process."""
    return Holder(socket.gethostname(), os.getpid(), process_start(os.getpid()), time.time(), _machine())


def is_here(holder: Holder) -> bool:
    """Whether a driver's number is one of this machine's, and of this container's if it is one."""
    return holder.host == socket.gethostname() and holder.machine in ("", _machine())


def written(run_dir: Path) -> Holder | None:
    """Who says that it works on this run, dead or alive; None if nobody does, or what it says cannot be read."""
    try:
        return holder_of(plain.document(run_dir, FILE_NAME))
    except (OSError, ValueError):
        return None


def holder_of(said: Any) -> Holder:
    """The driver that a lock's content names.

    Raises:
        ValueError: It names none.
    """
    try:
        found = Holder(
            str(said["host"]),
            int(said["pid"]),
            said["process_start"],
            float(said["since"]),
            str(said.get("machine", "")),  # of an older version there is none
        )
        time.localtime(found.since)
    except (AttributeError, KeyError, TypeError, OverflowError, OSError) as error:
        raise ValueError from error
    return found


def holder(run_dir: Path) -> Holder | None:
    """The living driver of a run; None if it has none.

    On this machine a process is known by its number and its start, so that a later one with its number is not taken
    for it; one on another machine, or in another container, by how lately it touched its lock.
    """
    found = written(run_dir)
    if found is None:
        return None
    alive = process_start(found.pid) == found.process_start if is_here(found) else silent_s(run_dir) < SILENCE_S
    return found if alive else None


class Lock:
    """Held by a driver while it works on a run; a context manager."""

    def __init__(self, run_dir: Path) -> None:
        """Take the lock: the caller has seen that no living driver holds it.

        Raises:
            OSError: The run directory cannot be written to.
        """
        self._path = run_dir / FILE_NAME
        self._done = threading.Event()
        take_stop_request(run_dir)  # meant for an earlier driver
        partial = self._path.with_suffix(f".{os.getpid()}")
        try:
            partial.write_text(json.dumps(asdict(myself())))
            partial.replace(self._path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        threading.Thread(target=self._beat, name="run-lock", daemon=True).start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self) -> None:
        """Give the lock up; never raises."""
        self._done.set()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def ask_to_stop(run_dir: Path) -> None:
    """Ask a run's driver, wherever it is, to come to an end.

    Raises:
        OSError: The run directory cannot be written to.
    """
    (run_dir / STOP_FILE_NAME).touch()


def take_stop_request(run_dir: Path) -> bool:
    """Whether the run was asked to stop; the request is gone afterwards."""
    try:
        (run_dir / STOP_FILE_NAME).unlink()
    except OSError:
        return False
    return True


def runs_out(holder: Holder, silent_s: float) -> str:
    """When a driver's lock runs out, should it be dead, as the end of a sentence; empty for one that is known to live.

    Args:
        holder: Who holds it.
        silent_s: How long it has not been heard of.
    """
    if is_here(holder):
        return ""
    return f"; should it be dead, its lock runs out in {max(1, math.ceil(SILENCE_S - silent_s))} s"


def process_start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot, which tells it from a later one with its number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie is dead
    except (OSError, IndexError):
        return None


def silent_s(run_dir: Path) -> float:
    """Seconds since a run's lock was touched, by the clock of the machine that keeps the file; infinite without one."""
    path = run_dir / FILE_NAME
    try:
        touched = path.stat().st_mtime
        with tempfile.TemporaryFile(dir=run_dir) as probe:
            return os.fstat(probe.fileno()).st_mtime - touched
    except OSError:  # read only, or full
        return time.time() - path.stat().st_mtime if path.exists() else float("inf")


def _machine() -> str:
    """This boot of this machine, and the namespace that process numbers are counted in; empty where none is told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    return f"{boot} {namespace}".rstrip()
