"""The parent's side of a worker process: start it, send it trials, read its messages, end it.

Knows the messages of `worker`, nothing of Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hpo_ray.trainables import faults
from hpo_ray.trainables.trial import Paused, Ready, Report, Splits, TrialSpec
from hpo_ray.trainables.worker import Ended, Setup

# This package may be importable here by an entry of sys.path alone; at the end it shadows nothing over there.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from hpo_ray.trainables import worker; worker.main(sys.argv[2:])"

LOOK_PERIOD_S = 1.0


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
            env={**os.environ, **setup.variables, **(environment or {})},
            # Its own session: Ctrl-C in a terminal is the driver's to handle, and a kill reaches its children.
            start_new_session=True,
        )
        theirs.close()
        os.close(their_end)
        self._splits = False
        self._oom_kills = faults.oom_kills()
        self._send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def splits(self) -> bool:
        """Whether the objective has asked for `Trial.micro_batches` since the trial was sent."""
        return self._splits

    def run(self, spec: TrialSpec) -> None:
        """Send a trial to an idle worker."""
        self._splits = False
        if self._process.poll() is None:  # else what killed it is still to be told
            self._oom_kills = faults.oom_kills()
        self._send(spec)

    def decide(self, go_on: bool) -> None:
        """Answer the last report: let the trial go on, or raise `TrialStopped` inside it. False also ends a pause."""
        self._send(go_on)

    def next_message(self, timeout_s: float | None = None) -> Report | Paused | Ready | Ended | None:
        """The trial's next message; None if none came in time.

        A process that died answers with an `Ended` that names the signal or the exit code.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                if not self._arrived(deadline):
                    return None
                message: Report | Paused | Splits | Ready | Ended = self._connection.recv()
            except (EOFError, OSError):
                message = self._died()
            if isinstance(message, Ended):
                return dataclasses.replace(message, splits=self._splits)
            if not isinstance(message, Splits):
                return message
            self._splits = True

    def _arrived(self, deadline: float | None) -> bool:
        """Wait for a message; False if none came in time.

        A process that the objective has forked may hold the pipe open for longer than the worker lives: so that one is
        looked at, too.

        Raises:
            EOFError: The worker is gone, and has left no message.
        """
        while True:
            left = LOOK_PERIOD_S if deadline is None else max(0.0, deadline - time.monotonic())
            if self._connection.poll(min(left, LOOK_PERIOD_S)):
                return True
            if self._process.poll() is not None:
                if self._connection.poll():
                    return True
                raise EOFError
            if left == 0:
                return False

    def unwind(self, grace_s: float) -> Ended | None:
        """Wait for a stopped trial to end, whatever it reports meanwhile; None if it does not in `grace_s` in all."""
        deadline = time.monotonic() + grace_s
        while (left := deadline - time.monotonic()) > 0:
            message = self.next_message(left)
            if isinstance(message, Report):
                self.decide(False)
            elif not isinstance(message, Paused | Ready):
                return message
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
            return Ended("failed", f"the worker process ended with exit code {code}", cause="exited")
        name = signal.Signals(-code).name
        reason = f"the worker process was killed by {name}"
        if name != "SIGKILL":
            return Ended("failed", reason, cause="killed")
        if faults.oom_kills() > self._oom_kills:
            reason += ": the machine ran out of memory"
            return Ended("out_of_memory", reason, replaced="it ran out of memory", cause="out_of_memory")
        return Ended("failed", f"{reason}; the machine may have run out of memory", cause="killed")
