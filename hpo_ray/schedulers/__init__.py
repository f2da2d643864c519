"""Early stopping: a name from `conf/scheduler/` becomes a Ray scheduler. To add one: a file here, a line in `make`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo_ray.schedulers.asha import ASHAScheduler
    from hpo_ray.schedulers.none import NoScheduler

# Options that each scheduler takes beside its name, with their defaults; None: must be given.
SCHEDULERS: dict[str, dict[str, int | str | None]] = {
    "none": {},
    "asha": {"max_t": None, "grace_period": 1, "reduction_factor": 3, "rungs": "geometric"},
}


def make(
    name: str,
    options: dict[str, Any],
    *,
    metric: str,
    mode: str,
    fidelity: str | None,
) -> ASHAScheduler | NoScheduler:
    """The scheduler of that name; its `record` takes reports in, its `complete` says whether one was the last.

    Args:
        name: A key of `SCHEDULERS`.
        options: Its options, complete and checked.
        metric: The reported key to compare.
        mode: ``"min"`` or ``"max"``.
        fidelity: The reported key that counts how far training got.
    """
    from hpo_ray.schedulers.asha import ASHAScheduler
    from hpo_ray.schedulers.none import NoScheduler

    if name == "asha":
        return ASHAScheduler(fidelity=fidelity, metric=metric, mode=mode, **options)
    return NoScheduler()
