"""Points of mixed and conditional columns against a direct reading of what they mean."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpo_ray.gp.columns import LEGENDRE, MANY_LEVELS, TREND, Array, Column, Columns
from tests.gp.strategies import CHECKED, MIXED, SEEDS, mixed_columns, raw_points, settled_points
from tests.gp.textbook import derivative, squared_differences, trend_basis


def nearest(column: Column, value: float) -> float:
    if column.levels is None:
        return min(max(value, 0.0), 1.0)
    return min(column.levels, key=lambda level: abs(level - value))


def in_use(columns: Columns, snapped: Array, i: int) -> bool:
    column = columns.columns[i]
    if column.parent is None:
        return True
    place = (columns.columns[column.parent].levels or ()).index(snapped[column.parent])
    return in_use(columns, snapped, column.parent) and place in column.when


def configuration(columns: Columns, row: Array) -> dict[int, float]:
    """What a user would see: the columns in use and their values."""
    snapped = np.array([nearest(column, value) for column, value in zip(columns.columns, row, strict=True)])
    return {i: snapped[i] for i in range(columns.d) if in_use(columns, snapped, i)}


@CHECKED
@given(mixed_columns(), SEEDS)
def test_snapping_moves_every_entry_to_its_nearest_permitted_value_and_no_further(columns: Columns, seed: int) -> None:
    x = raw_points(columns, 12, seed)
    before = x.copy()
    snapped = columns.snap(x)
    assert np.array_equal(x, before)
    for i, column in enumerate(columns.columns):
        permitted = (column.levels is None and (snapped[:, i] >= 0) & (snapped[:, i] <= 1)) | np.isin(
            snapped[:, i], column.levels or ()
        )
        assert np.all(permitted)
        moved = np.abs(snapped[:, i] - x[:, i])
        assert np.allclose(moved, [abs(nearest(column, value) - value) for value in x[:, i]], atol=1e-15)
    assert np.array_equal(columns.snap(snapped), snapped)


@CHECKED
@given(mixed_columns(), SEEDS)
def test_an_entry_is_in_use_if_its_parent_is_at_the_right_level_and_so_on_up(columns: Columns, seed: int) -> None:
    snapped = columns.snap(raw_points(columns, 12, seed))
    expected = [[in_use(columns, row, i) for i in range(columns.d)] for row in snapped]
    assert columns.active(snapped).tolist() == expected
    assert columns.settle(snapped)[1].tolist() == expected


@CHECKED
@given(mixed_columns(), SEEDS)
def test_settling_twice_is_settling_once(columns: Columns, seed: int) -> None:
    x, used = columns.settle(raw_points(columns, 12, seed))
    again, used_again = columns.settle(x)
    assert np.array_equal(again, x)
    assert np.array_equal(used_again, used)


@CHECKED
@given(mixed_columns(), SEEDS)
def test_settled_rows_are_equal_exactly_when_the_configurations_are(columns: Columns, seed: int) -> None:
    raw = raw_points(columns, 25, seed)
    # Ties of two levels are broken by `snap`; what is compared here is what follows.
    raw = columns.snap(raw)
    x, _ = columns.settle(raw)
    configs = [configuration(columns, row) for row in raw]
    for a in range(len(raw)):
        for b in range(a):
            assert np.array_equal(x[a], x[b]) == (configs[a] == configs[b])


def test_a_grandchild_is_in_use_only_with_its_parent() -> None:
    on, _ = MIXED.settle(np.array([[0.2, 2, 0.1, 1, 0.7, 1, 0.4], [0.2, 1, 0.5, 1, 0.7, 1, 0.4]]))
    assert on[0].tolist() == [0.2, 2, 0.1, 1, 0.7, 1, 0.4]
    assert on[1].tolist() == [0.2, 1, 0.5, 0, 0.5, 0, 0.4]  # 5 is off, and with it 4, whatever it stood at
    assert MIXED.active(on).sum(axis=1).tolist() == [7, 4]
    assert MIXED.conditional
    assert not MIXED.finite


@CHECKED
@given(mixed_columns(), st.integers(1, 200), SEEDS)
def test_the_unit_cube_maps_onto_permitted_values(columns: Columns, n: int, seed: int) -> None:
    x = columns.from_unit(np.random.default_rng(seed).random((n, columns.d)))
    assert np.array_equal(columns.snap(x), x)
    corners = columns.from_unit(np.array([[0.0] * columns.d, [1.0] * columns.d]))
    for i, column in enumerate(columns.columns):
        expected = [0.0, 1.0] if column.levels is None else [column.levels[0], column.levels[-1]]
        assert corners[:, i].tolist() == expected


def test_levels_have_equal_shares_of_the_unit_interval() -> None:
    even = Columns([Column((0.0, 1.0, 2.0), categorical=True), Column(tuple((k + 0.5) / 5 for k in range(5)))])
    grid = (np.arange(3000) + 0.5) / 3000
    x = even.from_unit(np.column_stack([grid, grid]))
    assert np.unique(x[:, 0], return_counts=True)[1].tolist() == [1000] * 3
    assert np.unique(x[:, 1], return_counts=True)[1].tolist() == [600] * 5


@CHECKED
@given(mixed_columns(), SEEDS)
def test_distances_of_features_are_hamming_for_categoricals_and_euclidean_for_numbers(
    columns: Columns, seed: int
) -> None:
    points = settled_points(columns, 10, seed)
    f = columns.features(*points)
    assert f.shape == (10, len(columns.owner))
    by_column = squared_differences(columns, points, points)
    for i in range(columns.d):
        own = f[:, columns.owner == i]
        squared = ((own[:, None] - own[None]) ** 2).sum(axis=2)
        assert np.allclose(squared, by_column[:, :, i], atol=1e-14)


@CHECKED
@given(mixed_columns())
def test_a_categorical_is_as_wide_as_its_levels_and_a_number_is_one_wide(columns: Columns) -> None:
    expected = [len(c.levels or ()) if c.categorical else 1 for c in columns.columns]
    assert columns.widths == expected
    assert [int((columns.owner == i).sum()) for i in range(columns.d)] == expected
    assert np.all(np.diff(columns.owner[: sum(expected)]) >= 0)


@CHECKED
@given(mixed_columns(), SEEDS)
def test_coordinates_come_first_and_then_the_legendre_polynomials_and_the_one_hots(columns: Columns, seed: int) -> None:
    points = settled_points(columns, 20, seed)
    f, width = columns.features(*points), sum(columns.widths)
    basis = trend_basis(columns, points)
    assert f.shape == (20, width + basis.shape[1])
    assert columns.owner.shape == (f.shape[1],)
    assert np.all(columns.owner[:width] != TREND)
    assert np.all(columns.owner[width:] == TREND)
    np.testing.assert_allclose(f[:, width:], basis, atol=1e-15)


def test_the_basis_has_small_weights_for_high_degrees_and_is_zero_out_of_use() -> None:
    assert list(LEGENDRE) == sorted(LEGENDRE, reverse=True)
    columns = Columns([Column((0.0, 1.0), categorical=True), Column(parent=0, when=frozenset({1}))])
    f = columns.features(*columns.settle(np.array([[0.0, 0.9], [1.0, 0.9], [1.0, 1.0]])))
    half = 1 / np.sqrt(2)
    assert f[0].tolist() == [half, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, half, 0.0]
    np.testing.assert_allclose(f[1, 3:7], np.array(LEGENDRE) * [0.8, 0.46, 0.08, -0.233], atol=1e-15)
    assert f[2].tolist() == [0.0, half, 1.0, *LEGENDRE, 0.0, half]


@CHECKED
@given(mixed_columns(), SEEDS)
def test_without_a_trend_there_are_coordinates_only(columns: Columns, seed: int) -> None:
    plain, trended = Columns(columns.columns, trend=False), Columns(columns.columns)
    points = settled_points(columns, 8, seed)
    f, width = plain.features(*points), sum(columns.widths)
    assert (plain.owner != TREND).all()
    assert plain.owner.tolist() == trended.owner[:width].tolist()
    assert (trended.owner[width:] == TREND).all()
    assert len(trended.owner) > width
    np.testing.assert_array_equal(f, trended.features(*points)[:, :width])
    slopes = np.random.default_rng(seed).standard_normal((8, width))
    no_trend = np.hstack([slopes, np.zeros((8, len(trended.owner) - width))])
    np.testing.assert_array_equal(plain.pull_back(slopes, *points), trended.pull_back(no_trend, *points))


@CHECKED
@given(mixed_columns(), SEEDS)
def test_a_place_is_that_of_the_nearest_level(columns: Columns, seed: int) -> None:
    x = raw_points(columns, 20, seed)
    for i, column in enumerate(columns.columns):
        if column.levels is None:
            continue
        places = columns.places(x[:, i], i)
        assert places.dtype == np.int64
        away = np.abs(x[:, [i]] - np.array(column.levels))
        np.testing.assert_allclose(away[np.arange(20), places], away.min(axis=1), atol=1e-15)


@CHECKED
@given(mixed_columns(finite=True))
def test_finitely_many_points_are_enumerated_once_each(columns: Columns) -> None:
    points = columns.enumerate()
    raw = itertools.product(*(column.levels or () for column in columns.columns))
    configs = {tuple(configuration(columns, np.array(row)).items()) for row in raw}
    if np.prod([len(column.levels or ()) for column in columns.columns]) > MANY_LEVELS:
        assert points is None
        return
    assert points is not None
    assert np.array_equal(columns.settle(points)[0], points)
    listed = [tuple(configuration(columns, row).items()) for row in points]
    assert len(listed) == len(set(listed))
    assert set(listed) == configs
    assert columns.enumerate() is points


def test_infinitely_many_points_and_too_many_are_not_enumerated() -> None:
    assert MIXED.enumerate() is None
    assert Columns([Column((0.0, 1.0)), Column()]).enumerate() is None
    for n, few in ((MANY_LEVELS, True), (MANY_LEVELS + 1, False)):
        levels = tuple((np.arange(n) / (n - 1)).tolist())
        points = Columns([Column(levels)]).enumerate()
        assert (points is not None) == few
        assert points is None or points[:, 0].tolist() == list(levels)
    assert Columns([Column(tuple(map(float, range(1000))), categorical=True)] * 20).enumerate() is None


@CHECKED
@given(mixed_columns(), SEEDS)
def test_a_pulled_back_gradient_is_that_of_the_composition(columns: Columns, seed: int) -> None:
    x, used = settled_points(columns, 4, seed)
    slopes = np.random.default_rng(seed).standard_normal((4, len(columns.owner)))
    g = columns.pull_back(slopes, x, used)
    # What follows the columns' own features, such as the level of training, has no part in it.
    assert np.array_equal(columns.pull_back(np.hstack([slopes, np.ones((4, 2))]), x, used), g)
    for i in range(columns.d):
        if not columns.continuous[i]:
            assert not g[:, i].any()
            continue
        step = np.eye(columns.d)[i]
        by_hand = derivative(lambda t, step=step: (columns.features(x + t * step, used) * slopes).sum(axis=1), 1e-2)
        assert np.allclose(g[:, i], np.where(used[:, i], by_hand, 0.0), atol=1e-10)
