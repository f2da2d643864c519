"""Early stopping: a name from `conf/scheduler/` becomes a Ray scheduler. To add one: a file here, a line in `make`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from hpo_ray.schedulers.rungs import Decision

# Options that each scheduler takes beside its name, with their defaults; None: must be given.
SCHEDULERS: dict[str, dict[str, int | None]] = {
    "none": {},
    "asha": {"max_t": None, "grace_period": 1, "reduction_factor": 3},
}


def make(
    name: str,
    options: dict[str, Any],
    *,
    metric: str,
    mode: str,
    fidelity: str | None,
    on_decision: Callable[[str, Decision], None],
) -> TrialScheduler:
    """The Ray scheduler of that name.

    Args:
        name: A key of `SCHEDULERS`.
        options: Its options, complete and checked.
        metric: The reported key to compare.
        mode: ``"min"`` or ``"max"``.
        fidelity: The reported key that counts how far training got.
        on_decision: Told Ray's trial id and each rung decision as it is made.
    """
    from ray.tune.schedulers import FIFOScheduler

    from hpo_ray.schedulers.asha import ASHAScheduler

    if name == "asha":
        return ASHAScheduler(fidelity=fidelity, metric=metric, mode=mode, on_decision=on_decision, **options)
    return FIFOScheduler()
