"""What becomes of a trial whose attempt went wrong: another attempt, when and with what, or none. Pure arithmetic.

Knows no Ray and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo_ray.experiment import RetryConfig
from hpo_ray.history import Fault

# Not the trial's doing, so not counted against it: its node or Ray's own process was lost, its machine was taken back
# with notice, the disk was full.
NOT_ITS_FAULT = ("lost", "preempted", "disk_full")
# A trial whose process is lost so often without getting any further is likely the cause after all.
LOST_LIMIT = 5
# Wrong in the same way however often it is tried.
FINAL = ("", "input", "nan")
MEMORY = "out_of_memory"
LONGEST_WAIT_S = 60.0
# The first pause after which a full disk is tried again; each further one is twice as long, a minute in all.
FULL_WAIT_S = 2.0


@dataclass(frozen=True)
class Again:
    """Another attempt: after how many seconds, its batches in how many pieces, on how many GPUs."""

    wait_s: float
    micro_batches: int
    gpus: float


def decide(
    retry: RetryConfig, faults: Sequence[Fault], *, micro_batches: int, gpus: float, splits: bool
) -> Again | None:
    """Whether and how a trial is tried again.

    Args:
        retry: The rules.
        faults: All that went wrong with it so far, the newest last.
        micro_batches: In how many pieces the last attempt split its batches.
        gpus: How many GPUs it had.
        splits: Whether its objective heeds `micro_batches` at all.

    Returns:
        The next attempt; None: the trial has failed.
    """
    newest = faults[-1]
    if newest.cause in FINAL:
        return None
    if newest.cause in NOT_ITS_FAULT:
        stuck = [fault for fault in faults if fault.cause == newest.cause and _same(fault.fidelity, newest.fidelity)]
        if len(stuck) > LOST_LIMIT and newest.cause != "preempted":
            return None
        return Again(FULL_WAIT_S * 2 ** (len(stuck) - 1) if newest.cause == "disk_full" else 0.0, micro_batches, gpus)
    counted = [fault for fault in faults if fault.cause not in NOT_ITS_FAULT]
    if len(counted) > retry.max_retries or _repeated(counted):
        return None
    wait_s = min(retry.backoff_s * 2 ** (len(counted) - 1), LONGEST_WAIT_S)
    if newest.cause != MEMORY:
        return Again(wait_s, micro_batches, gpus)
    if retry.out_of_memory == "micro_batch" and splits:
        return Again(wait_s, 2 * micro_batches, gpus)
    if retry.out_of_memory == "gpu_share" and 0 < gpus < 1:
        return Again(wait_s, micro_batches, min(2 * gpus, 1.0))
    return None


def _repeated(counted: Sequence[Fault]) -> bool:
    """Whether an exception came twice in a row, word for word, at the same point: a third time it would too."""
    if len(counted) < 2 or counted[-1].cause != "exception":
        return False
    one, two = counted[-2:]
    return one.reason == two.reason and _same(one.fidelity, two.fidelity)


def _same(one: float, two: float) -> bool:
    """Equal, or both NaN: nothing was reported."""
    return one == two or (one != one and two != two)
