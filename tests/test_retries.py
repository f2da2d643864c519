"""What becomes of an attempt that went wrong, as a table."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hpo_ray.experiment import RetryConfig
from hpo_ray.history import Fault
from hpo_ray.retries import FULL_WAIT_S, LONGEST_WAIT_S, LOST_LIMIT, Again, decide


def after(*faults: Fault, retry: dict[str, Any] | None = None, **state: Any) -> Again | None:
    standing = {"micro_batches": 1, "gpus": 0.0, "splits": False, **state}
    return decide(RetryConfig(**(retry or {})), faults, **standing)


def fault(cause: str, reason: str = "broken", fidelity: float = 3.0) -> Fault:
    return Fault(cause, reason, fidelity)


@pytest.mark.parametrize("cause", ["exception", "exited", "killed", "hung"])
def test_a_failure_is_tried_again_after_a_growing_pause_until_the_limit(cause: str) -> None:
    faults = [fault(cause, f"number {n}") for n in range(4)]
    assert after(*faults[:1]) == Again(1.0, 1, 0.0)
    assert after(*faults[:2]) == Again(2.0, 1, 0.0)
    assert after(*faults[:3]) is None
    assert after(*faults[:4], retry={"max_retries": 4}) == Again(8.0, 1, 0.0)
    assert after(*faults[:1], retry={"max_retries": 0}) is None


def test_the_pause_has_a_limit() -> None:
    faults = [fault("killed") for _ in range(12)]
    again = after(*faults, retry={"max_retries": 20})
    assert again is not None
    assert again.wait_s == LONGEST_WAIT_S
    assert after(faults[0], retry={"backoff_s": 0}) == Again(0.0, 1, 0.0)


@pytest.mark.parametrize("fidelity", [3.0, math.nan])
def test_the_same_error_at_the_same_point_is_not_tried_a_third_time(fidelity: float) -> None:
    same = fault("exception", "ValueError: no", fidelity)
    assert after(same) is not None
    assert after(same, same, retry={"max_retries": 9}) is None
    assert after(same, fault("exception", "ValueError: no", 4.0), retry={"max_retries": 9}) is not None
    assert after(same, fault("exception", "KeyError: 'x'", fidelity), retry={"max_retries": 9}) is not None


@pytest.mark.parametrize("cause", ["", "input", "nan"])
def test_what_would_go_wrong_again_is_final(cause: str) -> None:
    assert after(fault(cause)) is None


@pytest.mark.parametrize(("cause", "wait_s"), [("lost", 0.0), ("disk_full", FULL_WAIT_S)])
def test_what_is_not_the_trials_doing_does_not_count_unless_it_gets_nowhere(cause: str, wait_s: float) -> None:
    assert after(fault(cause), retry={"max_retries": 0}) == Again(wait_s, 1, 0.0)
    stuck = [fault(cause) for _ in range(LOST_LIMIT)]
    assert after(*stuck) == Again(wait_s * 2 ** (LOST_LIMIT - 1), 1, 0.0)
    assert after(*stuck, fault(cause)) is None
    assert after(*stuck, fault(cause, fidelity=9.0)) == Again(wait_s, 1, 0.0)
    assert after(*stuck, fault("killed")) == Again(1.0, 1, 0.0)


def test_a_machine_that_is_taken_back_is_never_held_against_the_trial() -> None:
    assert after(*[fault("preempted")] * (3 * LOST_LIMIT), retry={"max_retries": 0}) == Again(0.0, 1, 0.0)


def test_out_of_memory_comes_back_smaller_where_the_objective_heeds_it() -> None:
    oom = fault("out_of_memory", "OutOfMemoryError")
    assert after(oom, splits=True) == Again(1.0, 2, 0.0)
    assert after(oom, oom, splits=True, micro_batches=2) == Again(2.0, 4, 0.0)
    assert after(oom, oom, oom, splits=True, micro_batches=4) is None
    assert after(oom, splits=False) is None
    assert after(oom, splits=True, retry={"out_of_memory": "fail"}) is None


def test_out_of_memory_comes_back_with_twice_the_gpu_up_to_a_whole_one() -> None:
    oom, share = fault("out_of_memory"), {"out_of_memory": "gpu_share"}
    assert after(oom, gpus=0.25, retry=share) == Again(1.0, 1, 0.5)
    assert after(oom, oom, gpus=0.6, retry=share) == Again(2.0, 1, 1.0)
    assert after(oom, gpus=1.0, retry=share) is None
    assert after(oom, gpus=0.0, retry=share) is None
