"""Where Ray meets an objective: a Ray actor that keeps one worker process and relays its reports to Tune.

The actor holds no user code and so never fails, leaks or hangs with it: Tune reuses the actor for the next trial,
and a worker whose memory did not come back, or whose clean-up does not end, is replaced behind it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune

from hpo_ray.trainables.process import WorkerProcess
from hpo_ray.trainables.trial import Paused, Report, TrialSpec
from hpo_ray.trainables.worker import RETRY_S, TELL_S, Ended, Setup

# A stopped trial's `finally` blocks may take this long before its process is killed.
UNWIND_GRACE_S = 60.0


class TrialActor(tune.Trainable):
    """One slot of the run. Its Tune config is ``{"spec": {...}, "environment": {...}}``.

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
        self._setup = setup
        self._unwinding = False
        self._worker = self._start()
        self._begin(config)

    def reset_config(self, new_config: dict) -> bool:
        """Take the next trial. Always succeeds: a False here would fail the trial that follows."""
        if self._running:
            self._worker.decide(False)
            self._unwinding = True
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._waiting:
            self._worker.decide(True)
            self._waiting = False
        elif not self._running:
            self._finish_unwinding()
            self._worker.run(self._spec)
            self._running = True
        message = self._next_message()
        self._paused = isinstance(message, Paused)
        if isinstance(message, Report):
            self._waiting = True
            return self._reported(message)
        if isinstance(message, Paused):
            return {"paused": message.reason}
        self._running = False
        self._replace_if_gone(message)
        return {"ended": vars(message), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints are the objective's own and lie in the run directory."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, as for `save_checkpoint`."""

    def cleanup(self) -> None:
        """End the worker, after its trial's `finally` blocks."""
        if self._running:
            self._worker.decide(False)
        self._worker.close(grace_s=UNWIND_GRACE_S if self._running or self._unwinding else 0.0)

    def _start(self) -> WorkerProcess:
        self._gpus = ray.get_gpu_ids()
        # Without a GPU of its own a trial must see none: Ray leaves them all visible (2.60).
        return WorkerProcess(self._setup, {} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""})

    def _begin(self, config: dict) -> None:
        self._running = self._waiting = self._paused = False
        fields = dict(config["spec"])
        fields["dir"] = Path(fields["dir"])
        fields["checkpoints"] = tuple(map(Path, fields.get("checkpoints", ())))
        self._spec = TrialSpec(**fields, device="cuda" if self._gpus else "cpu")

    def _next_message(self) -> Report | Paused | Ended:
        """What the worker says next; a trial that says nothing for too long has ended."""
        timeout_s = self._spec.timeout_s
        more_s = TELL_S + RETRY_S if self._paused else 0.0  # a paused trial says so only now and then
        message = self._worker.next_message(None if timeout_s is None else timeout_s + more_s)
        if message is not None:
            return message
        reason = f"no report for {timeout_s:g} s: the trial was ended"
        return Ended("failed", reason, cause="hung", splits=self._worker.splits)

    def _finish_unwinding(self) -> None:
        """Wait for the stopped trial's `finally` blocks; replace the worker if they do not end."""
        if not self._unwinding:
            return
        self._unwinding = False
        self._replace_if_gone(self._worker.unwind(UNWIND_GRACE_S))

    def _replace_if_gone(self, ended: Ended | None) -> None:
        """Start a new worker where the old one hangs (no message), gave itself up, or died with no traceback."""
        died = ended is not None and ended.status in ("failed", "out_of_memory") and not ended.traceback
        if ended is None or ended.replaced or died:
            self._worker.close()
            self._worker = self._start()

    def _reported(self, report: Report) -> dict[str, Any]:
        # Only what the scheduler reads stands at the top: there Tune gives names such as `done` its own meaning.
        top = {key: report.metrics[key] for key in (self._spec.metric, self._spec.fidelity) if key in report.metrics}
        told: dict[str, Any] = {
            "fidelity": report.fidelity,
            "metrics": report.metrics,
            "elapsed_s": report.elapsed_s,
            "checkpoint": str(report.checkpoint) if report.checkpoint else None,
            "worker": self._worker.pid,
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
