"""A run's loggers while it lasts: for each a process of its own that follows the journal, and the driver's end of it.

The driver only starts them, passes on what they have to say, and closes a pipe at the end. Whatever becomes of such a
process, the sweep does not notice; what it has not written, `hpo-ray export` writes later.
"""

from __future__ import annotations

import contextlib
import queue
import select
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hpo_ray.beside import Process, stand_back
from hpo_ray.errors import HpoRayError
from hpo_ray.loggers import LOGGERS
from hpo_ray.loggers.exporting import open_sink
from hpo_ray.loggers.follower import Follower

PERIOD_S = 1.0


class Background:
    """The driver's end. `messages` are lines for the user."""

    def __init__(self, run_dir: Path, names: Sequence[str]) -> None:
        """Start a process for each logger: none waits for another, or falls with it. Never raises.

        Args:
            run_dir: The run's folder, with its journal begun.
            names: Keys of `LOGGERS`.
        """
        self.messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._started: list[tuple[str, Process]] = []
        for name in names:
            gone = partial(self._gone, name, run_dir)
            try:
                process = Process(__name__, str(run_dir), name, hear=self.messages.put, gone=gone)
            except OSError as error:
                gone(str(error.strerror))
                continue
            self._started.append((name, process))

    def close(self, patience_s: float) -> None:
        """Say that the journal is complete, and wait a while for what is left to be written."""
        for _, process in self._started:
            process.close()
        deadline = time.monotonic() + patience_s
        for name, process in self._started:
            if not process.wait(deadline - time.monotonic()):
                self.messages.put(f"{name} is still being written, in the background (process {process.pid})")

    def _gone(self, name: str, run_dir: Path, why: str) -> None:
        self.messages.put(_ended(name, run_dir, why))


def follow(run_dir: Path, name: str) -> None:
    """Write a run for a logger until standard input ends, which means that its driver is done, or dead."""
    stand_back()

    def failed(name: str, error: Exception) -> None:
        words = " ".join(str(error).split())[:300]
        reason = words if isinstance(error, HpoRayError) else f"{type(error).__name__}: {words}"
        with contextlib.suppress(OSError):  # the driver may be gone
            print(_ended(name, run_dir, reason), flush=True)  # noqa: T201  # to the driver

    try:
        sink = open_sink(name, str(run_dir / LOGGERS[name].default), patient=True)
    except Exception as error:  # its package's own, of any kind
        failed(name, error)
        return
    follower = Follower(run_dir, {name: sink}, failed)
    over, pause_s = False, 0.0
    while follower.sinks and not over:
        ready, _, _ = select.select([sys.stdin.buffer], [], [], max(PERIOD_S, pause_s))
        over = bool(ready) and not sys.stdin.buffer.read(1)
        began = time.monotonic()
        follower.step(to_end=over)
        pause_s = time.monotonic() - began  # what is slow to write is written less often
    follower.close()


def _ended(name: str, run_dir: Path, why: str) -> str:
    return f"{name} is no longer written: {why}; later, `hpo-ray export {run_dir} --to {name}` writes all of it"


if __name__ == "__main__":
    follow(Path(sys.argv[1]), sys.argv[2])
