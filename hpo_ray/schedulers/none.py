"""No early stopping: every trial runs to its own end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.tune.schedulers import FIFOScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from hpo_ray.schedulers.rungs import Decision


class NoScheduler(FIFOScheduler):
    """Ray's first-in-first-out scheduler, less its pass over all trials at every step."""

    def record(self, trial_id: str, fidelity: float, value: float) -> Decision | None:
        """None: it has no state and decides nothing."""
        return None

    def complete(self, fidelity: float) -> bool:
        """False: an objective ends by itself."""
        return False

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """None: Tune starts pending trials in order by itself."""
        return None
