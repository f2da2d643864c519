"""What an objective holds while it runs: its identity, its folder, and `report`.

Knows nothing of Ray, the searcher or the journal: it hands each report to a callable and waits for the answer.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKPOINT_PREFIX = "checkpoint-"
# Names that the frames give to other things.
COLUMNS = frozenset(
    ["run", "trial_id", "config_id", "status", "reason", "fidelity", "attempt", "started_at", "duration_s", "elapsed_s"]
)


class TrialStopped(BaseException):
    """Raised inside `Trial.report` when the trial is not to go on.

    Not an `Exception`, so that an objective's `except Exception` doesn't swallow it; `finally` blocks run.
    """


@dataclass(frozen=True)
class Report:
    """One report: the metrics, the fidelity they were measured at, and where its checkpoint lies, if any."""

    fidelity: float
    metrics: dict[str, float]
    elapsed_s: float
    checkpoint: Path | None = None


@dataclass(frozen=True)
class TrialSpec:
    """Everything an objective is told about its trial; plain data, so that it crosses process borders.

    Attributes:
        id: Suggestion order as text, e.g. ``"0007"``; stable over resume.
        config: What the objective receives.
        seed: The trial's own seed, a function of the run's seed and the trial's number.
        attempt: 0 for the first start, then 1, 2, … after each restart.
        dir: The attempt's folder: its output, its checkpoints, and whatever else the objective writes.
        device: ``"cpu"`` or ``"cuda"`` (the visible devices are the trial's own).
        cpus: Processors the trial may use; at least 1.
        fidelity: The reported key that counts how far training got; None: reports are counted.
        metric: The reported key that the run optimises: its best checkpoint is kept beside the last one.
        mode: ``"min"`` or ``"max"``.
        checkpoint: The newest checkpoint that the journal knows of, from an earlier attempt; None: start afresh.
    """

    id: str
    config: dict
    seed: int
    attempt: int
    dir: Path
    device: str = "cpu"
    cpus: int = 1
    fidelity: str | None = None
    metric: str = ""
    mode: str = "min"
    checkpoint: Path | None = None


class Trial:
    """A running trial, as its objective ``train(config, trial)`` sees it.

    Attributes are those of `TrialSpec`: ``id, seed, attempt, dir, device, cpus``.
    """

    def __init__(self, spec: TrialSpec, send: Callable[[Report], bool]) -> None:
        """Args: the trial's identity, and what takes each report and returns whether to go on."""
        self.id = spec.id
        self.seed = spec.seed
        self.attempt = spec.attempt
        self.dir = spec.dir
        self.device = spec.device
        self.cpus = spec.cpus
        self._spec = spec
        self._send = send
        self._reports = 0
        self._ended = False
        self._fidelity = -math.inf
        self._best = math.inf
        self._kept: dict[str, Path] = {}
        self._start = time.perf_counter()

    def report(self, *, checkpoint: Callable[[Path], None] | None = None, **metrics: float) -> None:
        """Report how training stands; blocks until the run decides whether the trial goes on.

        Args:
            checkpoint: Called with an empty folder to save the trial's state into. The last and the best
                checkpoint of an attempt are kept.
            **metrics: Numbers by name, the fidelity (e.g. ``epoch``) and the metric among them. A key
                ``<metric>_se`` is taken as the metric's standard error. NaN and infinities may be reported.

        Raises:
            TypeError: A metric is not a number.
            ValueError: The fidelity did not increase since the last report.
            TrialStopped: The trial is not to go on.
        """
        if self._ended:
            raise RuntimeError(f"trial {self.id} has ended: a thread of its own still reports")
        values = {name: self._number(name, value) for name, value in metrics.items()}
        self._reports += 1
        fidelity = self._next_fidelity(values)
        folder = self._save(checkpoint, fidelity) if checkpoint is not None else None
        if not self._send(Report(fidelity, values, time.perf_counter() - self._start, folder)):
            raise TrialStopped
        self._fidelity = fidelity
        if folder is not None:
            self._forget(folder, values)  # only now does the journal know of the new one

    def load_checkpoint(self) -> Path | None:
        """The folder of the newest checkpoint that an earlier attempt of this trial reported, or None."""
        return self._spec.checkpoint

    def end(self) -> None:
        """Called when the objective has returned: a report from a thread it left behind is nobody's."""
        self._ended = True

    def _next_fidelity(self, values: dict[str, float]) -> float:
        key = self._spec.fidelity
        fidelity = values[key] if key in values else float(self._reports)
        if not fidelity > self._fidelity:
            name = key if key in values else "report"
            raise ValueError(
                f"{name}={fidelity:g} was reported after {name}={self._fidelity:g}: the fidelity must increase "
                f"with every report"
            )
        return fidelity

    def _save(self, checkpoint: Callable[[Path], None], fidelity: float) -> Path:
        """Write the checkpoint beside its final place and move it there: a kill leaves the old one whole."""
        self.dir.mkdir(parents=True, exist_ok=True)
        name = str(int(fidelity)) if fidelity.is_integer() else repr(fidelity)
        final = self.dir / f"{CHECKPOINT_PREFIX}{name}"
        partial = self.dir / f".partial-{name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        checkpoint(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
        return final

    def _forget(self, saved: Path, values: dict[str, float]) -> None:
        """Keep the newest and the best checkpoint; drop the others."""
        keep = {"last": saved, "best": self._kept.get("best", saved)}
        loss = values.get(self._spec.metric, math.nan) * (-1 if self._spec.mode == "max" else 1)
        if loss <= self._best or (math.isnan(loss) and math.isinf(self._best)):
            self._best = min(self._best, loss) if loss == loss else self._best
            keep["best"] = saved
        for old in set(self._kept.values()) - set(keep.values()):
            with contextlib.suppress(OSError):
                shutil.rmtree(old)
        self._kept = keep

    def _number(self, name: str, value: object) -> float:
        """A reported value as a float (numpy scalars and 0-d tensors too), or an error that says what to do."""
        if name in COLUMNS or name == f"{self._spec.metric}_best":
            raise ValueError(f"report({name}=…): '{name}' is a column of every frame, choose another name")
        if not isinstance(value, str | bytes):
            with contextlib.suppress(TypeError, ValueError):
                return float(value)  # type: ignore[arg-type]
        raise TypeError(f"report({name}=…) got {type(value).__name__} {value!r:.60}, expected a number")
