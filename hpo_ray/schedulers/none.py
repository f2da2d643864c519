"""No early stopping: every trial runs to its own end."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from ray.tune.schedulers import FIFOScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from hpo_ray.schedulers.rungs import Decision

# An actor is started within seconds, if there is room for it.
PATIENCE_S = 30.0


class NoScheduler(FIFOScheduler):
    """Ray's first-in-first-out scheduler, less its pass over all trials at every step."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[tuple[float, Trial]] = deque()

    def record(self, trial_id: str, fidelity: float, value: float) -> Decision | None:
        """None: it has no state and decides nothing."""
        return None

    def complete(self, fidelity: float) -> bool:
        """False: an objective ends by itself."""
        return False

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Keep the order in which trials came, and when."""
        self._waiting.append((time.monotonic(), trial))

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """The first trial that has waited long for an actor of its own: it gets the next one that another trial leaves.

        By itself Tune gives those to new trials only: one whose place is gone with its node would wait to the end. Not
        at once, as the actor that is being started for it is given up then.
        """
        while self._waiting and self._waiting[0][1].status != "PENDING":
            self._waiting.popleft()
        since, trial = self._waiting[0] if self._waiting else (time.monotonic(), None)
        return trial if time.monotonic() - since > PATIENCE_S else None
