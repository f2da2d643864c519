"""Where Ray meets an objective: a Ray actor that keeps one worker process and relays its reports to Tune.

The actor holds no user code and so never fails, leaks or hangs with it: Tune reuses the actor for the next trial,
and a worker whose memory did not come back, or whose clean-up does not end, is replaced behind it.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune

from hpo_ray.trainables.peers import LAST_WORDS_S, LOOK_S, Peers, Seat
from hpo_ray.trainables.trial import Paused, Ready, Report, TrialSpec
from hpo_ray.trainables.worker import RETRY_S, TELL_S, Ended, Setup

# A stopped trial's `finally` blocks may take this long before its process is killed.
UNWIND_GRACE_S = 60.0


class TrialActor(tune.Trainable):
    """One slot of the run. Its Tune config is ``{"spec": {...}, "bundles": [...]}``, a bundle for each worker; those
    beyond the first are `Peers`.

    Each `step` returns one report as ``{"report": {...}}`` with the metric and the fidelity beside it, or
    ``{"paused": reason}`` where the trial waits for room on its disk, or, last, ``{"ended": {...}, "done": True}``.
    An objective's exception is such an end too, not an exception of the actor.
    """

    # Whether the worker has a trial, whether that waits for a verdict, and whether it said last that it is paused.
    _running: bool
    _waiting: bool
    _paused: bool
    _spec: TrialSpec

    def setup(self, config: dict, setup: Setup | None = None) -> None:
        if setup is None:
            raise ValueError("TrialActor needs its worker's setup through tune.with_parameters")
        self._unwinding = False
        self._stopping: list[Any] = []
        self._seat = Seat(setup)
        self._peers = Peers(setup, int(config["spec"].get("workers", 1)) - 1)
        self._begin(config)

    def reset_config(self, new_config: dict) -> bool:
        """Take the next trial. Always succeeds: a False here would fail the trial that follows."""
        if self._running:
            self._stop()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._waiting:
            self._seat.worker.decide(True)
            if len(self._peers):
                self._peers.go_on()
            self._waiting = False
        elif not self._running:
            self._finish_unwinding()
            self._seat.worker.run(self._peers.prepare(self._spec) if len(self._peers) else self._spec)
            self._running = True
        message = self._next_message()
        self._paused = isinstance(message, Paused)
        if isinstance(message, Paused):
            return {"paused": message.reason}
        if len(self._peers):
            message = self._together(message)
        if isinstance(message, Report):
            self._waiting = True
            return self._reported(message)
        self._running = False
        return {"ended": vars(message), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints are the objective's own and lie in the run directory."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, as for `save_checkpoint`."""

    def cleanup(self) -> None:
        """End the workers, after their trial's `finally` blocks."""
        if self._running:
            self._stop()
        self._seat.worker.close(grace_s=UNWIND_GRACE_S if self._unwinding else 0.0)
        self._peers.close(self._stopping, grace_s=UNWIND_GRACE_S)

    def _stop(self) -> None:
        self._seat.worker.decide(False)
        self._stopping = self._peers.stop(UNWIND_GRACE_S) if len(self._peers) else []
        self._unwinding = True

    def _begin(self, config: dict) -> None:
        self._running = self._waiting = self._paused = False
        fields = dict(config["spec"])
        fields["dir"] = Path(fields["dir"])
        fields["checkpoints"] = tuple(map(Path, fields.get("checkpoints", ())))
        self._spec = TrialSpec(**fields, device=self._seat.device)

    def _next_message(self) -> Report | Paused | Ended:
        """What the first worker says next; a trial that says nothing for too long has ended."""
        worker, timeout_s = self._seat.worker, self._spec.timeout_s
        more_s = TELL_S + RETRY_S if self._paused else 0.0  # a paused trial says so only now and then
        deadline = None if timeout_s is None else time.monotonic() + timeout_s + more_s
        while True:
            left = math.inf if deadline is None else max(deadline, self._peers.paused_until) - time.monotonic()
            look = min(left, LOOK_S) if len(self._peers) else left
            message = worker.next_message(None if look == math.inf else max(look, 0.0))
            if isinstance(message, Ended):
                self._seat.replace_if_gone(message)
            if isinstance(message, Ready):
                self._peers.run(message)
                continue
            if message is not None:
                return message
            if len(self._peers) and self._peers.failed():
                own = worker.next_message(LAST_WORDS_S)  # it waits for one that is gone, and mostly notices
                self._seat.replace()
                return self._peers.fate(own if isinstance(own, Ended) else None)
            if left <= 0:
                self._seat.replace()
                reason = f"no report for {timeout_s:g} s: the trial was ended"
                return Ended("failed", reason, cause="hung", splits=worker.splits)

    def _together(self, message: Report | Ended) -> Report | Ended:
        """What all workers have come to."""
        splits = self._seat.worker.splits
        if isinstance(message, Report) or message.status == "completed":
            failure = self._peers.joined(message)
            if failure is None:
                return message
            if isinstance(message, Report):  # it waits for a verdict on a trial that is over
                self._seat.replace()
            message = failure
        elif message.cause != "hung":
            message = self._peers.fate(message)
        self._peers.replace_unfinished()
        return dataclasses.replace(message, splits=message.splits or splits)

    def _finish_unwinding(self) -> None:
        """Wait for the stopped trial's `finally` blocks; replace a worker if they do not end."""
        if not self._unwinding:
            return
        self._unwinding = False
        self._seat.replace_if_gone(self._seat.worker.unwind(UNWIND_GRACE_S))
        if len(self._peers):
            self._peers.unwind(self._stopping, UNWIND_GRACE_S)
            self._stopping = []

    def _reported(self, report: Report) -> dict[str, Any]:
        # Only what the scheduler reads stands at the top: there Tune gives names such as `done` its own meaning.
        top = {key: report.metrics[key] for key in (self._spec.metric, self._spec.fidelity) if key in report.metrics}
        told: dict[str, Any] = {
            "fidelity": report.fidelity,
            "metrics": report.metrics,
            "elapsed_s": report.elapsed_s,
            "checkpoint": str(report.checkpoint) if report.checkpoint else None,
            "worker": self._seat.worker.pid,
        }
        if report.since is not None:
            told["since"] = report.since
        return {**top, "report": told}


def actor_class(setup: Setup) -> type:
    """The actor class for a run, its worker's setup in Ray's object store."""
    # Tune logs a trainable's name and module; the import path of a worker's Python must not hang on Ray's.
    return tune.with_parameters(TrialActor, setup=setup)  # type: ignore[no-any-return]


def driver_import_path() -> tuple[str, ...]:
    """The driver's import path, absolute, for workers to find what it finds."""
    return tuple(str(Path(entry or ".").resolve()) for entry in sys.path)
