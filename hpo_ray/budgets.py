"""When a sweep has had enough: of time, training, GPUs, success or failure. Pure: totals in, a reason out."""

from __future__ import annotations

from hpo_ray.experiment import Experiment, RetryConfig
from hpo_ray.tally import Tally

# A share of failures means little before so many trials have ended.
FEWEST_ENDED = 10


def spent(experiment: Experiment, tally: Tally, now: float) -> str:
    """Which of the experiment's `stop` conditions holds, in words; empty if none does.

    Args:
        experiment: With its `stop` section.
        tally: The run so far.
        now: Unix seconds.
    """
    stop = experiment.stop
    sign = -1.0 if experiment.mode == "max" else 1.0
    wall_s = tally.wall_time_s + now - tally.last_seen
    if stop.wall_time_s is not None and wall_s >= stop.wall_time_s:
        return f"stop.wall_time_s={stop.wall_time_s:g} reached"
    if stop.total_fidelity is not None and tally.total_fidelity >= stop.total_fidelity:
        return f"stop.total_fidelity={stop.total_fidelity:g} reached"
    if stop.gpu_hours is not None and tally.gpu_hours(now) >= stop.gpu_hours:
        return f"stop.gpu_hours={stop.gpu_hours:g} reached"
    best = tally.best
    if stop.target is not None and best is not None and sign * best["value"] <= sign * stop.target:
        return f"stop.target={stop.target:g} reached: {experiment.metric} {best['value']:.4g}"
    if stop.plateau_trials is not None and tally.since_best >= stop.plateau_trials:
        return f"stop.plateau_trials={stop.plateau_trials} reached: no new best in as many trials"
    return ""


def broken(retry: RetryConfig, tally: Tally) -> str:
    """Why so many failures end the sweep; empty if they do not."""
    failed, ended = tally.failed, tally.finished
    if retry.max_failures is not None and failed > retry.max_failures:
        return f"{failed} trials failed, more than retry.max_failures={retry.max_failures}"
    share = retry.max_failure_share
    if share is not None and ended >= FEWEST_ENDED and failed > share * ended:
        return f"{failed} of {ended} trials failed, more than retry.max_failure_share={share:g}"
    return ""
