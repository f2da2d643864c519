"""Early stopping: a name from `conf/scheduler/` becomes a Ray scheduler. To add one: a file here, a line in `make`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo_ray.schedulers.asha import ASHAScheduler
    from hpo_ray.schedulers.none import NoScheduler
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
    identify: Callable[[str], str],
) -> ASHAScheduler | NoScheduler:
    """The scheduler of that name; `record` tells it of reports from before it existed.

    Args:
        name: A key of `SCHEDULERS`.
        options: Its options, complete and checked.
        metric: The reported key to compare.
        mode: ``"min"`` or ``"max"``.
        fidelity: The reported key that counts how far training got.
        on_decision: Told the trial's id and each rung decision as it is made.
        identify: From Ray's trial id to ours.
    """
    from hpo_ray.schedulers.asha import ASHAScheduler
    from hpo_ray.schedulers.none import NoScheduler

    if name == "asha":
        return ASHAScheduler(
            fidelity=fidelity, metric=metric, mode=mode, on_decision=on_decision, identify=identify, **options
        )
    return NoScheduler()
