"""The parent's side of a worker process: start it, send it trials, read its messages, end it.

Knows the messages of `worker`, nothing of Ray.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hpo_ray.trainables.trial import Report, TrialSpec
from hpo_ray.trainables.worker import Ended, Setup

# This package may be importable here by an entry of sys.path alone; at the end it shadows nothing over there.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from hpo_ray.trainables import worker; worker.main(sys.argv[2:])"


class WorkerProcess:
    """A worker process and the pipe to it. Not thread-safe; one trial at a time."""

    def __init__(self, setup: Setup, environment: dict[str, str] | None = None) -> None:
        """Start the process; returns before it is ready, so that its imports overlap other work.

        Args:
            setup: What to run.
            environment: Variables to set for it, over this process's own.
        """
        self._connection, theirs = multiprocessing.Pipe()
        their_end, self._life_line = os.pipe()
        package_root = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, package_root, str(theirs.fileno()), str(their_end)],
            pass_fds=(theirs.fileno(), their_end),
            env={**os.environ, **(environment or {})},
            # Its own session: Ctrl-C in a terminal is the driver's to handle, and a kill reaches its children.
            start_new_session=True,
        )
        theirs.close()
        os.close(their_end)
        self._send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, spec: TrialSpec) -> None:
        """Send a trial to an idle worker."""
        self._send(spec)

    def decide(self, go_on: bool) -> None:
        """Answer the last report: let the trial go on, or raise `TrialStopped` inside it."""
        self._send(go_on)

    def next_message(self, timeout_s: float | None = None) -> Report | Ended | None:
        """The trial's next message; None if none came in time.

        A process that died answers with an `Ended` that names the signal or the exit code.
        """
        try:
            if not self._connection.poll(timeout_s):
                return None
            message: Report | Ended = self._connection.recv()
            return message
        except (EOFError, OSError):
            return self._died()

    def unwind(self, grace_s: float) -> Ended | None:
        """Wait for a stopped trial to end, whatever it reports meanwhile; None if it does not in `grace_s` in all."""
        deadline = time.monotonic() + grace_s
        while (left := deadline - time.monotonic()) > 0:
            message = self.next_message(left)
            if not isinstance(message, Report):
                return message
            self.decide(False)
        return None

    def close(self, grace_s: float = 0.0) -> None:
        """End the process and whatever it started, after waiting `grace_s` for a running trial to unwind."""
        if grace_s > 0:
            self.unwind(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()
        with contextlib.suppress(OSError):
            os.close(self._life_line)

    def _send(self, message: object) -> None:
        # A dead worker is noticed when its answer is awaited; there is nothing better to do here.
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def _died(self) -> Ended:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        if code >= 0:
            return Ended("failed", f"the worker process ended with exit code {code}")
        name = signal.Signals(-code).name
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        status = "out_of_memory" if name == "SIGKILL" and _killed_for_memory() else "failed"
        return Ended(status, f"the worker process was killed by {name}{hint}")


def _killed_for_memory() -> bool:
    """Whether the kernel says that this control group killed a process for lack of memory (Linux, cgroup v2)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.events").read_text().splitlines():
            name, count = line.split()
            if name == "oom_kill":
                return int(count) > 0
    return False
