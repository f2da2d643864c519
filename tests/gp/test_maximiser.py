"""The maximiser on functions whose maximum is known, over columns of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_ray.gp.columns import Array, Column, Columns, Mask
from hpo_ray.gp.maximiser import best_of, maximise, neighbours, sobol
from tests.gp.strategies import CHECKED, MIXED, SEEDS, mixed_columns, settled_points


def everything(x: Array) -> Mask:
    return np.ones(len(x), dtype=bool)


@dataclass
class Hills:
    """Every column in use adds a value of its own: a number -steepness (x - top)² + bonus, a categorical its worth.

    So the maximum is at the tops, under the best of the finitely many settings of the discrete columns.
    """

    columns: Columns
    seed: int
    seen: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        d = self.columns.d
        self.top, self.steepness = rng.random(d), 10 ** rng.uniform(0, 2, d)
        self.bonus, self.worth = rng.uniform(-1, 1, d), rng.uniform(-2, 2, (d, 8))

    def __call__(self, x: Array, used: Mask) -> Array:
        self.seen.append(x)
        by_column = self.bonus - self.steepness * (x - self.top) ** 2
        for i in np.flatnonzero(self.columns.categorical):
            by_column[:, i] = self.worth[i, x[:, i].astype(int)]
        return np.where(used, by_column, 0.0).sum(axis=1)

    def with_gradient(self, x: Array, used: Mask) -> tuple[Array, Array]:
        slope = -2 * self.steepness * (x - self.top)
        return self(x, used), np.where(used & self.columns.continuous, slope, 0.0)

    def maximum(self) -> float:
        settings = [
            [top] if c.levels is None else c.levels for c, top in zip(self.columns.columns, self.top, strict=True)
        ]
        points = np.array(list(itertools.product(*settings)), dtype=np.float64)
        return float(self(*self.columns.settle(points)).max())


@dataclass
class Peaks:
    """Two narrow peaks in the unit cube, the higher one at `high`; the log of a sum, as LogEI is."""

    high: Array
    low: Array
    width: float = 0.1

    def __call__(self, x: Array, used: Mask) -> Array:
        return self.with_gradient(x, used)[0]

    def with_gradient(self, x: Array, used: Mask) -> tuple[Array, Array]:
        away = np.stack([x - self.high, x - self.low])
        parts = np.exp(-0.5 * (away**2).sum(axis=2) / self.width**2 + np.array([[0.0], [-1.0]])) + 1e-300
        total = parts.sum(axis=0)
        return np.log(total), -(parts[:, :, None] * away).sum(axis=0) / total[:, None] / self.width**2


def candidates(columns: Columns, n: int, seed: int) -> Array:
    return columns.from_unit(sobol(n, columns.d, seed))


def found(
    f: Hills, columns: Columns, seed: int = 0, allowed: Callable[[Array], Mask] = everything, n: int = 256
) -> tuple[Array | None, float]:
    """The point and its value."""
    length = 1 / np.sqrt(f.steepness)
    best = maximise(f, columns, candidates(columns, n, seed), length, allowed=allowed)
    return best, -np.inf if best is None else float(f(*columns.settle(best[None]))[0])


@pytest.mark.parametrize("seed", range(12))
def test_the_maximum_over_mixed_and_conditional_columns_is_reached(seed: int) -> None:
    f = Hills(MIXED, seed)
    assert found(f, MIXED, seed)[1] == pytest.approx(f.maximum(), abs=1e-3)


@pytest.mark.parametrize("d", [1, 2, 6])
def test_the_higher_of_two_peaks_is_reached_to_three_digits(d: int) -> None:
    columns = Columns([Column()] * d)
    rng = np.random.default_rng(d)
    for _ in range(5):
        f = Peaks(high=rng.uniform(0.1, 0.9, d), low=rng.random(d), width=0.1 * np.sqrt(d))
        best = maximise(f, columns, candidates(columns, 256, 1), np.full(d, f.width), allowed=everything)
        assert best is not None
        # The other peak's foot moves the top a little.
        assert np.abs(best - f.high).max() < 0.02 * f.width or f(best[None], np.ones((1, d), bool))[0] >= 0


def test_a_maximum_on_the_border_is_reached_exactly() -> None:
    columns = Columns([Column(), Column()])
    f = Hills(columns, 0)
    f.top = np.array([-0.5, 1.5])
    best, _ = found(f, columns)
    assert best is not None
    assert best.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_a_maximum_on_the_border_of_a_slanted_hill_is_reached(seed: int) -> None:
    """At the border the best place along it is not the top's own."""
    root = np.random.default_rng(seed).standard_normal((2, 2))
    # High, so that what the climb holds to be too little to go on for is little of it.
    height = 100.0
    shape, top = height * (root @ root.T + 0.2 * np.eye(2)), np.array([1.4, 0.5])

    class Slanted:
        def __call__(self, x: Array, used: Mask) -> Array:
            return self.with_gradient(x, used)[0]

        def with_gradient(self, x: Array, used: Mask) -> tuple[Array, Array]:
            z = x - top
            return -np.einsum("ij,jk,ik->i", z, shape, z), -2 * z @ shape

    border = np.column_stack([np.ones(10_001), np.linspace(0, 1, 10_001)])
    f, columns = Slanted(), Columns([Column(), Column()])
    best = maximise(f, columns, np.array([[0.2, 0.3]]), np.full(2, 0.3), allowed=everything, steps=20)
    assert best is not None
    assert f(best[None], np.ones((1, 2), bool))[0] >= f(border, np.ones((1, 2), bool)).max() - 1e-5 * height


def test_from_one_candidate_a_level_far_away_is_reached_by_steps_of_several_sizes() -> None:
    columns = Columns([Column(tuple((k + 0.5) / 100 for k in range(100)))])
    f = Hills(columns, 0)
    f.top = np.array([0.505])
    best = maximise(f, columns, np.array([[0.035]]), np.ones(1), allowed=everything)
    assert best == pytest.approx([0.505])


@CHECKED
@given(mixed_columns(finite=True), SEEDS, st.floats(0, 1))
def test_of_finitely_many_points_the_best_that_is_allowed_is_found(columns: Columns, seed: int, share: float) -> None:
    grid = np.array(list(itertools.product(*(c.levels or () for c in columns.columns))))
    x, used = columns.settle(grid)
    ok = {row.tobytes() for row in x if np.random.default_rng([seed, *row.view(np.uint32)]).random() < share}
    f = Hills(columns, seed)
    best = maximise(f, columns, grid, np.ones(columns.d), allowed=lambda z: np.array([r.tobytes() in ok for r in z]))
    if not ok:
        assert best is None
        return
    assert best is not None
    assert best.tobytes() in ok
    values = f(x, used)
    assert f(*columns.settle(best[None]))[0] == max(v for v, row in zip(values, x, strict=True) if row.tobytes() in ok)


@CHECKED
@given(mixed_columns(), SEEDS, st.floats(0.05, 1))
def test_a_point_found_is_settled_and_allowed_and_no_worse_than_any_candidate(
    columns: Columns, seed: int, share: float
) -> None:
    normal = np.random.default_rng(seed).standard_normal(columns.d)
    f = Hills(columns, seed)

    def allowed(x: Array) -> Mask:
        assert np.array_equal(columns.settle(x)[0], x)
        return np.asarray(np.sin(20 * x @ normal) < 2 * share - 1)

    best, value = found(f, columns, seed % 1000, allowed, n=32)
    x, used = columns.settle(candidates(columns, 32, seed % 1000))
    mine = f(x, used)[allowed(x)]
    assert (best is None) == (len(mine) == 0)
    if best is not None:
        assert allowed(best[None])[0]
        assert value >= mine.max() - 1e-9
    for seen in f.seen:
        assert np.array_equal(columns.settle(seen)[0], seen)


@CHECKED
@given(mixed_columns(), SEEDS)
def test_nothing_is_found_where_nothing_is_allowed(columns: Columns, seed: int) -> None:
    f = Hills(columns, seed)
    assert found(f, columns, 0, lambda x: np.zeros(len(x), dtype=bool), n=16) == (None, -np.inf)


def test_the_top_of_a_hill_that_is_forbidden_is_left_alone() -> None:
    columns = Columns([Column(), Column()])
    f = Hills(columns, 1)
    best, value = found(f, columns, 0, lambda x: np.asarray(((x - f.top) ** 2).sum(axis=1) > 0.01))
    assert best is not None
    assert ((best - f.top) ** 2).sum() > 0.01
    assert value > f.maximum() - 5 * 0.01 * f.steepness.max()


def test_values_that_are_not_numbers_are_passed_over() -> None:
    class Broken(Hills):
        def __call__(self, x: Array, used: Mask) -> Array:
            return np.where(x[:, 0] < 0.5, np.nan, super().__call__(x, used))

    best, value = found(Broken(MIXED, 2), MIXED)
    assert best is not None
    assert best[0] >= 0.5
    assert np.isfinite(value)


def test_a_child_that_only_a_new_level_of_its_parent_brings_in_is_found() -> None:
    """Level 1 of the parent is worse by itself; only with its child at 0.7 it is better."""
    columns = Columns([Column((0.0, 1.0), categorical=True), Column(parent=0, when=frozenset({1}))])
    f = Hills(columns, 0)
    f.worth[0, :2], f.bonus[1], f.steepness[1], f.top[1] = [0.0, -1.0], 3.0, 100.0, 0.7
    best, value = found(f, columns)
    assert best == pytest.approx([1.0, 0.7], abs=1e-4)
    assert value == pytest.approx(2.0, abs=1e-6)
    # From one candidate without the child: the move brings it in as the candidate had it, then the child climbs.
    f.steepness[1] = 10.0
    best = maximise(f, columns, np.array([[0.0, 0.4]]), np.array([1.0, 0.3]), allowed=everything)
    assert best == pytest.approx([1.0, 0.7], abs=1e-4)


@CHECKED
@given(mixed_columns(), SEEDS)
def test_the_same_seed_finds_the_same_point(columns: Columns, seed: int) -> None:
    def once() -> list[float] | None:
        rng = np.random.default_rng(seed)
        near = neighbours(columns, candidates(columns, 4, seed % 1000), 8, rng)
        f = Hills(columns, seed)
        best = maximise(
            f, columns, np.vstack([candidates(columns, 32, 3), near]), np.ones(columns.d), allowed=everything
        )
        return None if best is None else best.tolist()

    assert once() == once()


@CHECKED
@given(mixed_columns(), st.integers(1, 4), st.integers(1, 10), SEEDS)
def test_neighbours_stay_in_range_and_leave_their_centres_alone(
    columns: Columns, centres: int, each: int, seed: int
) -> None:
    x, _ = settled_points(columns, centres, seed)
    before = x.copy()
    near = neighbours(columns, x, each, np.random.default_rng(seed))
    assert near.shape == (centres * each, columns.d)
    assert np.array_equal(x, before)
    assert np.all((near >= 0) & (near <= np.where(columns.categorical, np.array(columns.widths) - 1, 1)))
    for i in np.flatnonzero(columns.categorical):
        assert np.all(np.isin(near[:, i], columns.levels[i]))


def test_neighbours_move_some_columns_by_steps_of_many_sizes() -> None:
    columns = Columns([Column()] * 5)
    centre = np.full((1, 5), 0.5)
    moved = np.abs(neighbours(columns, centre, 4000, np.random.default_rng(0)) - centre)
    count = (moved > 0).sum(axis=1)
    assert count.min() == 1
    assert np.all(np.bincount(count, minlength=6)[1:] > 100)
    sizes = moved[moved > 0]
    assert np.quantile(sizes, 0.1) < 0.01
    assert np.quantile(sizes, 0.9) > 0.1


LEVELS = (0.0, 0.01, 0.05, 0.3, 0.45, 0.9, 1.0)


@pytest.mark.parametrize("place", range(len(LEVELS)))
def test_neighbours_of_a_level_are_other_levels_however_small_the_step(place: int) -> None:
    columns = Columns([Column(LEVELS)])
    near = neighbours(columns, np.array([[LEVELS[place]]]), 2000, np.random.default_rng(0))
    away = columns.places(near[:, 0], 0) - place
    assert np.all(away != 0)
    nearest = {-1, 1} if 0 < place < len(LEVELS) - 1 else {1} if place == 0 else {-1}
    for side in nearest:  # most steps are too small to reach another level, and then both sides are as likely
        assert (away == side).mean() > 0.6 / len(nearest) - 0.1


def test_neighbours_at_an_end_whose_step_is_too_small_move_inwards_and_not_past_the_next_level() -> None:
    columns = Columns([Column((0.0, 0.5, 1.0)), Column((0.0, 1.0))])
    near = neighbours(columns, np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.0]]), 4000, np.random.default_rng(0))
    places = np.column_stack([columns.places(near[:, i], i) for i in range(2)]).reshape(3, 4000, 2)
    moved = places != [[[0, 1]], [[2, 0]], [[1, 0]]]
    assert np.all(moved.any(axis=2))
    for row, counts in enumerate(
        [np.bincount(p[m], minlength=3) for p, m in zip(places[:, :, 0], moved[:, :, 0], strict=True)]
    ):
        if row < 2:
            assert counts[1] > 0.99 * counts.sum()
        else:
            assert counts[1] == 0
            assert abs(counts[0] - counts[2]) < 4 * np.sqrt(counts.sum())


@CHECKED
@given(mixed_columns(), SEEDS, st.floats(0, 1))
def test_without_starts_the_best_allowed_candidate_is_taken_as_it_is(columns: Columns, seed: int, share: float) -> None:
    f, normal = Hills(columns, seed), np.random.default_rng(seed).standard_normal(columns.d)

    def allowed(x: Array) -> Mask:
        assert np.array_equal(columns.settle(x)[0], x)
        return np.asarray(np.sin(20 * x @ normal) < 2 * share - 1)

    raw = candidates(columns, 16, seed % 1000)
    x, used = columns.settle(raw)
    values = np.where(allowed(x), f(x, used), -np.inf)
    taken = maximise(f, columns, raw, np.ones(columns.d), allowed=allowed, starts=0)
    best = best_of(f, columns, raw, allowed)
    if not allowed(x).any():
        assert taken is None
        assert best is None
        return
    assert taken is not None
    assert best is not None
    assert np.array_equal(taken, x[values.argmax()])
    assert np.array_equal(best, taken)
    assert allowed(f.seen[-1]).all()  # what may not be proposed is not asked about by `best_of`


@CHECKED
@given(mixed_columns(finite=True), SEEDS)
def test_the_best_of_all_points_is_the_maximum(columns: Columns, seed: int) -> None:
    points = columns.enumerate()
    if points is None:
        return
    f = Hills(columns, seed)
    best = best_of(f, columns, points, everything)
    assert best is not None
    assert f(*columns.settle(best[None]))[0] == f.maximum()


def test_sobol_points_fill_the_cube_and_depend_on_the_seed_alone() -> None:
    points = sobol(64, 3, [1, 2])
    assert points.shape == (64, 3)
    assert np.array_equal(points, sobol(64, 3, [1, 2]))
    assert not np.array_equal(points, sobol(64, 3, [1, 3]))
    for i in range(3):
        assert np.bincount((points[:, i] * 64).astype(int), minlength=64).tolist() == [1] * 64
