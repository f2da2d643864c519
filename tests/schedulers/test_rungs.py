"""The rule of ASHA against a direct reading of its definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_ray.schedulers.rungs import Rungs, rung_levels


@pytest.mark.parametrize(
    ("grace", "max_t", "factor", "expected"),
    [(1, 27, 3, [1, 3, 9]), (2, 100, 4, [2, 8, 32]), (5, 5, 2, []), (1, 28, 3, [1, 3, 9, 27]), (1, 1, 3, [])],
)
def test_levels(grace: int, max_t: int, factor: int, expected: list[int]) -> None:
    assert rung_levels(grace_period=grace, max_t=max_t, reduction_factor=factor) == expected


def reference_kept(losses: list[float], factor: int) -> bool:
    """Whether the last of these losses is kept, straight from the definition: rank <= max(1, floor(n / factor))."""
    own = losses[-1]
    rank = 1 + sum(loss <= own for loss in losses[:-1])  # those that arrived earlier win ties
    return rank <= max(1, math.floor(len(losses) / factor))


@given(losses=st.lists(st.integers(0, 5).map(float), min_size=1, max_size=60), factor=st.integers(2, 5))
def test_each_arrival_is_judged_as_the_definition_says(losses: list[float], factor: int) -> None:
    rungs = Rungs(grace_period=1, max_t=100, reduction_factor=factor)
    for n, loss in enumerate(losses, 1):
        decision = rungs.decide(f"{n}", 1, loss)
        assert decision is not None
        assert decision.kept == reference_kept(losses[:n], factor)
        assert decision.kept == (loss < decision.cutoff) or loss == decision.cutoff


@given(order=st.permutations(range(30)))
def test_about_one_in_eta_is_kept_and_never_none(order: list[int]) -> None:
    rungs = Rungs(grace_period=1, max_t=100, reduction_factor=3)
    kept = [rungs.decide(f"{n}", 1, float(loss)).kept for n, loss in enumerate(order)]  # type: ignore[union-attr]
    assert kept[0]
    assert kept[order.index(0)]  # the best is always kept


def test_ties_do_not_all_pass_but_new_bests_do() -> None:
    rungs = Rungs(grace_period=1, max_t=100, reduction_factor=3)
    tied = [rungs.decide(f"t{n}", 1, 0.5).kept for n in range(99)]  # type: ignore[union-attr]
    assert sum(tied) == 1
    rungs = Rungs(grace_period=1, max_t=100, reduction_factor=3)
    better = [rungs.decide(f"b{n}", 1, -float(n)).kept for n in range(99)]  # type: ignore[union-attr]
    assert all(better)


def test_a_report_fills_one_rung_once_and_is_compared_at_its_own_fidelity() -> None:
    rungs = Rungs(grace_period=1, max_t=27, reduction_factor=3)
    first = rungs.decide("sparse", 5, 0.9)  # reports at 5, 10, 15: fills rung 3 at 5, rung 9 at 10
    assert first is not None
    assert first.rung == 3
    assert rungs.decide("sparse", 6, 0.8) is None
    second = rungs.decide("sparse", 10, 0.1)
    assert second is not None
    assert second.rung == 9
    assert rungs.decide("sparse", 15, 0.0) is None
    dense = [rungs.decide("dense", epoch, 0.95) for epoch in (1, 2, 3, 4)]
    assert [d.rung if d else None for d in dense] == [1, None, 3, None]
    # At rung 3 the dense trial was measured at 3, the sparse one at 5: they are not compared.
    assert dense[2] is not None
    assert dense[2].kept
