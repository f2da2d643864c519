"""ASHA as a Ray Tune scheduler: `rungs` decides, this passes reports in and verdicts out. Usable in any Tuner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from hpo_ray.schedulers.rungs import Decision, Rungs, rung_levels

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class ASHAScheduler(FIFOScheduler):
    """Asynchronous successive halving, stopping variant (see `rungs` for the rule and its sources).

    Unlike Ray's own: a value counts only at the fidelity it was measured at, ties do not all pass, a trial whose
    metric is NaN or infinite is stopped, and a report without the metric or the fidelity is an error.
    """

    def __init__(
        self,
        *,
        max_t: int,
        fidelity: str | None = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        grace_period: int = 1,
        reduction_factor: int = 3,
        rungs: Sequence[int] | str = "geometric",
        on_decision: Callable[[str, Decision], None] | None = None,
    ) -> None:
        """Make a scheduler.

        Args:
            max_t: Trials end at this fidelity.
            fidelity: The reported key that counts how far training got.
            metric: The reported key to compare; None: the Tuner's.
            mode: ``"min"`` or ``"max"``; None: the Tuner's.
            grace_period: No trial is stopped before this fidelity; the first rung.
            reduction_factor: One in so many trials is kept at each rung.
            rungs: Where trials are compared: rising fidelities from `grace_period` to below `max_t`, or
                ``"geometric"``: grace_period * reduction_factor^k.
            on_decision: Told the trial's id and each decision.

        Raises:
            ValueError: A number is out of range, or `mode` is neither.
        """
        super().__init__()
        for name, value, least in (
            ("grace_period", grace_period, 1),
            ("reduction_factor", reduction_factor, 2),
            ("max_t", max_t, grace_period),
        ):
            if value < least:
                raise ValueError(f"The value of `{name}` is {value}, but must be at least {least}.")
        if mode not in ("min", "max", None):
            raise ValueError(f"The value of `mode` is {mode!r}, but must be 'min' or 'max'.")
        if isinstance(rungs, str) and rungs != "geometric":
            raise ValueError(f"The value of `rungs` is {rungs!r}, but must be 'geometric' or a list.")
        bounds = {"grace_period": grace_period, "max_t": max_t, "reduction_factor": reduction_factor}
        levels = rung_levels(**bounds) if isinstance(rungs, str) else list(rungs)
        if levels != sorted(set(levels)) or (levels and not grace_period <= levels[0] <= levels[-1] < max_t):
            raise ValueError(f"The value of `rungs` is {levels}, but must rise from {grace_period} to below {max_t}.")
        self._metric, self._mode, self._fidelity = metric, mode, fidelity
        self._max_t = max_t
        self._rungs = Rungs(levels, reduction_factor)
        self._on_decision = on_decision

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        """Take the Tuner's metric and mode, unless both sides name one (Ray's protocol)."""
        if (self._metric and metric) or (self._mode and mode):
            return False
        self._metric, self._mode = self._metric or metric, self._mode or mode
        return True

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Decide on one report.

        Raises:
            KeyError: The report lacks the metric or the fidelity.
        """
        for key in (self._metric, self._fidelity):
            if key is None or key not in result:
                raise KeyError(f"the report has no '{key}', which ASHA needs; it has {sorted(result)}")
        fidelity, value = float(result[str(self._fidelity)]), float(result[str(self._metric)])
        if not math.isfinite(value):
            return str(TrialScheduler.STOP)
        decision = self.record(trial.trial_id, fidelity, value)
        if decision is not None and self._on_decision is not None:
            self._on_decision(trial.trial_id, decision)
        stop = self.complete(fidelity) or (decision is not None and not decision.kept)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def record(self, trial_id: str, fidelity: float, value: float) -> Decision | None:
        """Take a report in: one of now, or from before this scheduler existed.

        Returns:
            The decision that it leads to; None where it fills no rung, or is NaN or infinite.
        """
        if not math.isfinite(value):
            return None
        return self._rungs.decide(trial_id, fidelity, -value if self._mode == "max" else value)

    def complete(self, fidelity: float) -> bool:
        """Whether a trial has gone as far as trials go."""
        return fidelity >= self._max_t

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """None: Tune starts pending trials in order by itself, without a pass over all trials at every step."""
        return None

    def debug_string(self) -> str:
        """One line for Tune's own logs."""
        return f"ASHA: rungs at {self._rungs.levels}"
