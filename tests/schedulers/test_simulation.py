"""ASHA against a slow simulation of its rule, over random event orders; and what the rule keeps on average."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hpo_ray.schedulers.asha import ASHAScheduler
from hpo_ray.schedulers.rungs import Decision

BATCHES, ORDERS = 10, 1000

Report = tuple[str, int, float]  # whose, at which epoch, which value
Judged = tuple[float, float, float, int, int, bool]  # rung, loss, cutoff, rank, n, kept
Answer = tuple[str, Judged | None]


class Reference:
    """The rule written down as it is said: one list of all that was recorded, sorted anew at each report."""

    def __init__(self, grace: int, max_t: int, factor: int, mode: str) -> None:
        self.grace, self.max_t, self.factor, self.mode = grace, max_t, factor, mode
        self.recorded: list[tuple[str, int, int, float]] = []  # trial, rung, epoch, loss; as they arrived

    def answer(self, trial: str, epoch: int, value: float) -> Answer:
        if value != value or value in (math.inf, -math.inf):
            return "STOP", None
        verdict = "STOP" if epoch >= self.max_t else "CONTINUE"
        rungs = [self.grace * self.factor**k for k in range(20) if self.grace * self.factor**k < self.max_t]
        filled = [rung for whose, rung, _, _ in self.recorded if whose == trial]
        fillable = [rung for rung in rungs if rung <= epoch and all(rung > other for other in filled)]
        if not fillable:
            return verdict, None
        rung = max(fillable)
        self.recorded.append((trial, rung, epoch, -value if self.mode == "max" else value))
        losses = [loss for _, its_rung, its_epoch, loss in self.recorded if (its_rung, its_epoch) == (rung, epoch)]
        n = len(losses)
        best_first = sorted(range(n), key=lambda arrival: (losses[arrival], arrival))
        allowed = max(1, n // self.factor)
        rank = best_first.index(n - 1) + 1
        kept = rank <= allowed
        cutoff = losses[best_first[allowed - 1]]
        return verdict if kept else "STOP", (rung, losses[-1], cutoff, rank, n, kept)


@dataclass
class Order:
    """Reports as they might arrive, and what the reference answers to each; a stopped trial reports no more."""

    options: dict[str, Any]
    reports: list[Report]
    answers: list[Answer]
    late: int  # reports at an epoch the trial was at or past before


def random_order(seed: Sequence[int]) -> Order:
    """5 to 30 trials, interleaved at random, reporting every 1, 2, 3 or 5 epochs, values from a few levels."""
    rng = np.random.default_rng(seed)
    grace, factor, trials, levels = (int(rng.integers(low, high)) for low, high in ((1, 5), (2, 6), (5, 31), (2, 9)))
    max_t, mode = int(rng.integers(grace, 31)), str(rng.choice(["min", "max"]))
    size = trials if rng.random() < 0.5 else 1  # each its own epochs, or all the same: many meet at each rung
    steps = np.resize(rng.choice([1, 2, 3, 5], size), trials).tolist()
    offsets = np.resize(rng.integers(0, 4, size) * (rng.random(size) < 0.3), trials).tolist()
    epochs = [step + offset for step, offset in zip(steps, offsets, strict=True)]
    setbacks = rng.integers(0, 3, trials).tolist()  # restarts still to come, from the same or an older checkpoint
    reference = Reference(grace, max_t, factor, mode)
    order = Order({"grace_period": grace, "max_t": max_t, "reduction_factor": factor, "mode": mode}, [], [], 0)
    furthest = [0] * trials
    live = list(range(trials))
    while live:
        trial = live[int(rng.integers(len(live)))]
        value = float(rng.integers(levels)) / 4 - 0.5
        if rng.random() < 0.02:
            value = float(rng.choice([math.nan, math.inf, -math.inf]))
        order.reports.append((f"t{trial}", epochs[trial], value))
        order.answers.append(reference.answer(*order.reports[-1]))
        order.late += epochs[trial] <= furthest[trial]
        furthest[trial] = max(furthest[trial], epochs[trial])
        if order.answers[-1][0] == "STOP":
            live.remove(trial)
        elif setbacks[trial] and rng.random() < 0.2:
            setbacks[trial] -= 1
            epochs[trial] = int(rng.integers(1, epochs[trial] + 1))
        else:
            epochs[trial] += steps[trial]
    return order


def judged(decision: Decision | None) -> Judged | None:
    if decision is None:
        return None
    return decision.rung, decision.value, decision.cutoff, decision.rank, decision.n, decision.kept


class Told:
    """A scheduler, told of reports as Ray would tell it, and the decisions it announces."""

    def __init__(self, **options: Any) -> None:
        self.decisions: list[tuple[str, Decision]] = []
        self.scheduler = ASHAScheduler(
            fidelity="epoch",
            metric="score",
            on_decision=lambda trial, decision: self.decisions.append((trial, decision)),
            **options,
        )

    def answer(self, trial: str, epoch: int, value: float) -> Answer:
        before = len(self.decisions)
        nobody: Any = None
        ray_trial: Any = SimpleNamespace(trial_id=trial)
        verdict = self.scheduler.on_trial_result(nobody, ray_trial, {"epoch": epoch, "score": value})
        new = self.decisions[before:]
        assert [whose for whose, _ in new] in ([], [trial])
        return verdict, judged(new[0][1]) if new else None


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_verdict_and_decision_is_the_reference_s(batch: int) -> None:
    met: Counter[str] = Counter()
    for index in range(ORDERS):
        order = random_order([batch, index])
        told = Told(**order.options)
        for place, (report, expected) in enumerate(zip(order.reports, order.answers, strict=True), 1):
            answer = told.answer(*report)
            assert answer == expected, f"seed {[batch, index]}, {order.options}: {order.reports[:place]}"
            met["not finite"] += not math.isfinite(report[2])
            if expected[1] is not None:
                _, loss, cutoff, rank, _, kept = expected[1]
                met["kept below the best"] += kept and rank > 1
                met["stopped on a tie"] += loss == cutoff and not kept
        met["late"] += order.late
    # Each batch holds enough of what is rare.
    assert len(met) == 4
    assert min(met.values()) >= 500, met


def test_a_scheduler_told_of_earlier_reports_goes_on_as_if_it_had_been_there() -> None:
    later = 0
    for index in range(300):
        order = random_order([BATCHES, index])
        cut = int(np.random.default_rng([BATCHES + 1, index]).integers(len(order.reports) + 1))
        there, again = Told(**order.options), Told(**order.options)
        for report in order.reports[:cut]:
            _, decision = there.answer(*report)
            assert judged(again.scheduler.record(*report)) == decision
        assert not again.decisions  # `record` announces nothing
        for place, report in enumerate(order.reports[cut:], cut + 1):
            same = again.answer(*report) == there.answer(*report)
            assert same, f"seed {[BATCHES, index]}, {order.options}, cut {cut}: {order.reports[:place]}"
        later += len(again.decisions)
    assert later > 1000


def share_kept(n: int, factor: int) -> Fraction:
    """The chance that the n-th of n exchangeable values without ties ranks among max(1, floor(n / factor))."""
    return Fraction(max(1, n // factor), n)


def test_of_27_independent_arrivals_9_1_are_kept_and_likewise_at_later_rungs() -> None:
    """The sum over n of max(1, floor(n / 3)) / n up to 27 is 9.124…: 27 / 3, and a little for the early ones.

    At later rungs as many arrive as were kept; there the sum goes up to their number. The ranks of successive
    arrivals are independent, so the variance is exact too: the sum of p (1 - p).
    """
    assert float(sum(share_kept(n, 3) for n in range(1, 28))) == pytest.approx(9.124477, abs=1e-6)
    orders = 4000
    rng = np.random.default_rng(27)
    arrived, excess, variance = Counter[float](), defaultdict[float, float](float), defaultdict[float, float](float)
    p = {n: float(share_kept(n, 3)) for n in range(1, 28)}
    for _ in range(orders):
        told = Told(max_t=27, mode="min")
        waiting = [(f"t{trial}", 1) for trial in range(27)]
        while waiting:
            trial, epoch = waiting.pop(int(rng.integers(len(waiting))))
            if told.answer(trial, epoch, float(rng.random()))[0] == "CONTINUE":
                waiting.append((trial, 3 * epoch))
        for _, decision in told.decisions:
            arrived[decision.rung] += 1
            excess[decision.rung] += decision.kept - p[decision.n]
            variance[decision.rung] += p[decision.n] * (1 - p[decision.n])
    assert arrived[1] == 27 * orders
    assert sorted(arrived) == [1, 3, 9]
    for rung in arrived:
        assert abs(excess[rung]) < 4 * math.sqrt(variance[rung]), (rung, excess, variance)


def test_of_equal_values_only_the_first_to_arrive_is_kept() -> None:
    """An equal value that arrived earlier ranks better, so the n-th arrives at rank n: above floor(n / eta) but once.

    About n / eta of equal values would be kept if ties were broken at random (then it is as without ties), or if
    trials were paused and promoted later, as in Li et al. 2020: the first floor(n / eta) to arrive.
    """
    for factor in (2, 3, 4):
        told = Told(max_t=27, mode="min", reduction_factor=factor)
        verdicts = [told.answer(f"t{trial}", 1, 0.5)[0] for trial in range(99)]
        assert verdicts == ["CONTINUE"] + ["STOP"] * 98


def expected_kept_with_ties(arrivals: int, levels: int, factor: int) -> float:
    """How many of these independent arrivals, each of `levels` values as likely as any other, the rule keeps.

    At n, a value of the j-th level is kept iff fewer than max(1, floor(n / factor)) earlier ones are at most it.
    """
    shares = np.arange(1, levels + 1) / levels
    n = np.arange(1, arrivals + 1)[:, None]
    return float(np.sum(stats.binom.cdf(np.maximum(1, n // factor) - 1, n - 1, shares)) / levels)


@pytest.mark.parametrize(
    ("levels", "factor", "share"),
    [(2, 3, 0.02), (3, 3, 0.16), (5, 3, 0.23), (10, 3, 0.28), (5, 2, 0.40), (5, 4, 0.16), (1000, 3, 0.33)],
)
def test_of_a_few_distinct_values_fewer_than_one_in_eta_are_kept(levels: int, factor: int, share: float) -> None:
    """Ties cost: a level passes as a whole or hardly at all, as its last arrivals rank behind all of its earlier.

    In the limit the share kept is the largest j / levels below 1 / eta, and half a level more where the next is just
    at 1 / eta; only with many levels does it come near to 1 / eta. It is never more than without ties.
    """
    expected = expected_kept_with_ties(99, levels, factor)
    assert expected / 99 == pytest.approx(share, abs=0.007)
    assert expected < sum(share_kept(n, factor) for n in range(1, 100))
    rng = np.random.default_rng([levels, factor])
    kept = []
    for values in rng.integers(0, levels, (400, 99)).tolist():
        told = Told(max_t=27, mode="max", reduction_factor=factor)
        kept.append([told.answer(f"t{trial}", 1, value)[0] for trial, value in enumerate(values)].count("CONTINUE"))
    assert abs(np.mean(kept) - expected) < 4 * np.std(kept, ddof=1) / math.sqrt(len(kept))


@pytest.mark.parametrize(("mode", "sign"), [("min", -1.0), ("max", 1.0)])
def test_all_of_100_arrivals_in_improving_order_are_kept(mode: str, sign: float) -> None:
    """Each is the best so far when it arrives, and the best so far always goes on: 100 of 100, not 33."""
    told = Told(max_t=27, mode=mode)
    assert [told.answer(f"t{n}", 1, sign * n)[0] for n in range(100)] == ["CONTINUE"] * 100
