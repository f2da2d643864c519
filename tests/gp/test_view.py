"""A view of the losses: its posterior against one made afresh, what it brings back from a state, when it refits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from hpo_ray.gp import outputs, surrogate
from hpo_ray.gp import view as module
from hpo_ray.gp.columns import Array, Column, Columns
from hpo_ray.gp.outputs import HALF_RANK, PLAIN
from hpo_ray.gp.surrogate import Posterior
from hpo_ray.gp.view import View
from tests.gp.strategies import MIXED, settled_points
from tests.gp.textbook import GaussianProcess

WAYS = (PLAIN, HALF_RANK)
LINE = Columns([Column()])
PLANE = Columns([Column(), Column()])
FIT_AT_MOST, FEW = module.FIT_AT_MOST, module.FEW


class Fits:
    """Fits that were asked for, each cut short."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, iterations: int) -> None:
        self.iterations, self.calls = iterations, []
        monkeypatch.setattr(module, "fit", self)

    def __call__(self, features: Array, owner: Any, y: Array, start: Array, **options: Any) -> tuple[Array, float]:
        found = surrogate.fit(features, owner, y, start, **{**options, "iterations": self.iterations})
        self.calls.append({"features": features, "y": y, "start": start, "found": found, **options})
        return found


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    return Fits(monkeypatch, 4)


def search(columns: Columns, n: int, seed: int) -> tuple[Array, Array]:
    """Features and skewed losses of `n` points."""
    x, used = settled_points(columns, n, seed)
    rng = np.random.default_rng([seed, 1])
    y = np.exp(2 * x[:, 0] + np.sin(7 * x[:, -1]) + used.sum(axis=1) / 4 + 0.1 * rng.standard_normal(n))
    return columns.features(x, used), y


def at(columns: Columns) -> Array:
    return columns.features(*settled_points(columns, 9, 99))


def afresh(view: View, features: Array, y: Array, se: Array | None = None) -> Posterior:
    """Of all rows at once, under the view's hyper-parameters and power."""
    warped = outputs.with_power(outputs.prepare(y, view.way), view.power)
    extra = None if se is None else (se * warped.slope) ** 2
    assert view.theta is not None
    return Posterior(view.theta, view.owner, features, warped.z, extra=extra)


def assert_alike(got: Posterior, expected: Posterior, where: Array) -> None:
    np.testing.assert_array_equal(got.y, expected.y)
    np.testing.assert_array_equal(got.theta, expected.theta)
    np.testing.assert_allclose(got.predict(where)[0], expected.predict(where)[0], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(got.predict(where)[1], expected.predict(where)[1], rtol=1e-8)
    np.testing.assert_allclose(got.predict_at_data(), expected.predict_at_data(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [1, 3])
def test_a_look_is_the_posterior_of_all_rows(way: str, step: int, fits: Fits) -> None:
    fits.iterations, last = 2, 60 if step == 1 else 100
    features, y = search(MIXED, last, 0)
    view, where = View(way, MIXED.owner), at(MIXED)
    grown = 0
    for n in range(1, last + 1, step):
        before = len(fits.calls)
        got = view.look(features[:n], y[:n], np.zeros(n), generation=0)
        grown += len(fits.calls) == before
        assert_alike(got, afresh(view, features[:n], y[:n]), where)
    assert grown > 5


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_are_not_appended_may_come_in_any_order(way: str, fits: Fits) -> None:
    features, y = search(MIXED, 40, 1)
    view, where, rng = View(way, MIXED.owner), at(MIXED), np.random.default_rng(0)
    for n in (30, 30, 31, 32, 32):
        some = rng.permutation(40)[:n]
        got = view.look(features[some], y[some], np.zeros(n), generation=None)
        expected = afresh(view, features[some], y[some])
        np.testing.assert_array_equal(got.factor, expected.factor)
        np.testing.assert_array_equal(got.predict(where)[0], expected.predict(where)[0])
    assert len(fits.calls) == 1


def test_losses_that_have_changed_are_seen_without_a_new_row(fits: Fits) -> None:
    features, y = search(MIXED, 51, 18)
    view = View(PLAIN, MIXED.owner)
    for n in (50, 51):
        view.look(features[:n], y[:n], np.zeros(n), generation=0)
    other = y[::-1].copy()
    got = view.look(features, other, np.zeros(51), generation=0)
    assert_alike(got, afresh(view, features, other), at(MIXED))
    assert len(fits.calls) == 1


def test_the_level_of_training_is_one_more_column(fits: Fits) -> None:
    features, y = search(MIXED, 25, 2)
    level = np.random.default_rng(2).choice([0.25, 0.5, 1.0], 25)
    view = View(PLAIN, np.append(MIXED.owner, MIXED.d), power=False)
    got = view.look(np.hstack([features, level[:, None]]), y, np.zeros(25), generation=None)
    assert len(got.theta) == MIXED.d + 4
    x, used = settled_points(MIXED, 25, 2)
    longer = Columns([*MIXED.columns, Column()])
    points = np.column_stack([x, level]), np.column_stack([used, np.full(25, True)])
    book = GaussianProcess(longer, got.theta, points, (y - y.mean()) / y.std(), trended=MIXED)
    np.testing.assert_allclose(got.predict_at_data()[:, 0], book.predict(points)[0], rtol=1e-8)


# Known standard errors.


@pytest.mark.parametrize("way", WAYS)
def test_standard_errors_count_in_the_units_of_the_outputs(way: str, fits: Fits) -> None:
    features, y = search(MIXED, 30, 3)
    se = np.where(np.arange(30) % 3 == 0, 0.0, 0.2 * y)
    view, where = View(way, MIXED.owner), at(MIXED)
    for n in (20, 21, 24, 25, 30):
        got = view.look(features[:n], y[:n], se[:n], generation=0)
        expected = afresh(view, features[:n], y[:n], se[:n])
        assert_alike(got, expected, where)
        np.testing.assert_array_equal(got.extra, expected.extra)
        assert np.all((got.extra > 0) == (se[:n] > 0))
        asked = fits.calls[-1]
        if len(asked["y"]) == n:
            np.testing.assert_array_equal(asked["extra"], got.extra)
    # A loss known badly pulls less: without its error the posterior is nearer to it.
    sure = afresh(view, features, y).predict_at_data()[:, 0]
    unsure, z = got.predict_at_data()[:, 0], got.y[:, 0]
    assert np.abs(sure - z)[se > 0].mean() < np.abs(unsure - z)[se > 0].mean()


def test_standard_errors_that_begin_later_are_not_missed(fits: Fits) -> None:
    features, y = search(PLANE, 46, 4)
    view, where = View(PLAIN, PLANE.owner), at(PLANE)
    for n in range(40, 47):
        se = np.where(np.arange(n) > 41, 0.5, 0.0)
        assert_alike(view.look(features[:n], y[:n], se, generation=0), afresh(view, features[:n], y[:n], se), where)


@pytest.mark.parametrize("way", WAYS)
def test_a_loss_whose_error_is_beyond_all_bounds_has_no_say(way: str, fits: Fits) -> None:
    features, y = search(PLANE, 20, 19)
    view, where = View(way, PLANE.owner, power=False), at(PLANE)
    se = np.where(np.arange(20) == 3, 1e300, 0.0)
    got = view.look(features, y, se, generation=0)
    rest = np.arange(20) != 3
    without = Posterior(got.theta, PLANE.owner, features[rest], got.y[rest])
    np.testing.assert_allclose(got.predict(where)[0], without.predict(where)[0], atol=1e-4)
    np.testing.assert_allclose(got.predict(where)[1], without.predict(where)[1], rtol=1e-4)


def test_by_plain_standardised_losses_an_error_is_one_over_the_spread(fits: Fits) -> None:
    features, y = search(PLANE, 12, 5)
    got = View(PLAIN, PLANE.owner, power=False).look(features, y, np.full(12, 0.3), generation=0)
    np.testing.assert_allclose(got.extra, (0.3 / y.std()) ** 2, rtol=1e-14)
    book = GaussianProcess(
        PLANE, got.theta, settled_points(PLANE, 12, 5), (y - y.mean()) / y.std(), (0.3 / y.std()) ** 2
    )
    np.testing.assert_allclose(got.predict(features)[0][:, 0], book.predict(book.data)[0], rtol=1e-8)


# State.


def stored(view: View) -> Any:
    """Through JSON, as a journal does it."""
    return json.loads(json.dumps(view.state()))


KINDS = {
    **{way: {"way": way} for way in WAYS},
    "no power": {"way": PLAIN, "power": False},
    "labels": {"way": PLAIN, "labels": True},
}


def seen(posterior: Posterior, where: Array) -> list[Array]:
    """Everything that a later decision could depend on; copies."""
    fantasies = posterior.grown(where[:2], np.vstack([posterior.y, [[0.3], [0.1]]]))
    moments = *posterior.predict(where), *posterior.joint(where), *fantasies.predict(where)
    parts = *moments, posterior.predict_at_data(), posterior.factor, posterior.y, posterior.theta
    return [part.copy() for part in parts]


@pytest.mark.parametrize("columns", [LINE, MIXED], ids=["line", "mixed"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("step", [1, 3])
def test_from_a_state_everything_goes_on_to_the_last_bit(
    columns: Columns, kind: dict[str, Any], step: int, fits: Fits
) -> None:
    """Saved after each look; brought back, the same look and the next ones, refits and growth among them."""
    fits.iterations, last = 2, 34 if step == 1 else 48
    features, y = search(columns, last, 6)
    if kind.get("labels"):
        y = np.where(y < np.median(y), 1.0, -1.0)
    where, looks = at(columns), list(range(12 if step == 1 else 3, last + 1, step))

    def look(view: View, n: int) -> list[Array]:
        # Made anew each time, as a search does it.
        points, used = (a[:n] for a in settled_points(columns, last, 6))
        assert np.array_equal(columns.features(points, used), features[:n])
        return seen(view.look(columns.features(points, used), y[:n].copy(), np.zeros(n), generation=0), where)

    first = View(owner=columns.owner, **kind)
    record, states = [], []
    for n in looks:
        record.append(look(first, n))
        states.append(stored(first))
    grown = [state["base"] < n for state, n in zip(states, looks, strict=True)]
    assert any(grown)
    for i in range(0, len(looks), 5 if step == 1 else 3):
        view = View(owner=columns.owner, **kind)
        view.set_state(states[i])
        assert stored(view) == states[i]
        for j in range(i, min(i + 4, len(looks))):
            for got, expected in zip(look(view, looks[j]), record[j], strict=True):
                assert np.array_equal(got, expected)
            assert stored(view) == states[j]


def test_a_state_brought_back_between_looks_skips_those_that_were_not_needed(fits: Fits) -> None:
    """Brought back with more rows than were looked at when it was saved, as after results without a suggestion."""
    features, y = search(MIXED, 58, 7)
    first, where = View(PLAIN, MIXED.owner), at(MIXED)
    first.look(features[:50], y[:50], np.zeros(50), generation=0)
    first.look(features[:51], y[:51], np.zeros(51), generation=0)
    state = stored(first)
    assert state["base"] == 50
    for n in (51, 52, 54):
        view = View(PLAIN, MIXED.owner)
        view.set_state(state)
        straight = seen(view.look(features[:n], y[:n], np.zeros(n), generation=0), where)
        for got, expected in zip(
            straight, seen(first.look(features[:n], y[:n], np.zeros(n), generation=0), where), strict=True
        ):
            assert np.array_equal(got, expected)


def test_with_standard_errors_too_a_state_goes_on_to_the_last_bit(fits: Fits) -> None:
    features, y = search(MIXED, 40, 8)
    se, where = np.where(np.arange(40) > 30, 0.2, 0.0), at(MIXED)
    first, saved = View(HALF_RANK, MIXED.owner), {}
    record = {}
    for n in range(25, 41):
        record[n] = seen(first.look(features[:n], y[:n], se[:n], generation=0), where)
        saved[n] = stored(first)
    for start in (26, 30, 31, 35):
        view = View(HALF_RANK, MIXED.owner)
        view.set_state(saved[start])
        for n in range(start + 1, 41):
            got = seen(view.look(features[:n], y[:n], se[:n], generation=0), where)
            assert all(np.array_equal(a, b) for a, b in zip(got, record[n], strict=True))


def test_a_state_does_not_change_with_the_view_it_was_taken_from(fits: Fits) -> None:
    features, y = search(PLANE, 20, 9)
    view = View(PLAIN, PLANE.owner)
    fresh = view.state()
    assert fresh["theta"] is None
    view.look(features[:10], y[:10], np.zeros(10), generation=0)
    state = view.state()
    before = json.dumps(state)
    view.look(features, y, np.zeros(20), generation=0)
    assert json.dumps(state) == before
    assert json.dumps(view.state()) != before
    view.set_state(fresh)
    assert view.theta is None
    got = view.look(features, y, np.zeros(20), generation=0)
    assert_alike(got, afresh(view, features, y), at(PLANE))


def test_a_state_taken_back_in_the_same_view_replaces_what_it_had_grown(fits: Fits) -> None:
    features, y = search(PLANE, 60, 10)
    view, where = View(PLAIN, PLANE.owner), at(PLANE)
    view.look(features[:50], y[:50], np.zeros(50), generation=0)
    state, early = stored(view), seen(view.look(features[:52], y[:52], np.zeros(52), generation=0), where)
    view.look(features, y, np.zeros(60), generation=0)
    view.set_state(state)
    again = seen(view.look(features[:52], y[:52], np.zeros(52), generation=0), where)
    assert all(np.array_equal(a, b) for a, b in zip(again, early, strict=True))


# When it refits, and from where.


def test_a_refit_is_due_after_a_tenth_more_observations(fits: Fits) -> None:
    features, y = search(LINE, 130, 0)
    fits.iterations = 1
    view, fitted = View(HALF_RANK, LINE.owner), []
    for n in range(1, 131):
        theta, before = view.theta, len(fits.calls)
        view.look(features[:n], y[:n], np.zeros(n), generation=0)
        if len(fits.calls) > before:
            fitted.append(n)
            assert view.fitted_at == view.base == n
        else:
            assert view.theta is theta
            assert view.base == view.fitted_at == fitted[-1]
    expected = [1]
    while (n := expected[-1] + max(1, int(module.REFIT_SHARE * expected[-1]))) <= 130:
        expected.append(n)
    assert fitted == expected
    # Looked at again, nothing has changed; with fewer rows than were fitted, all begins anew.
    before = len(fits.calls)
    view.look(features[:130], y[:130], np.zeros(130), generation=0)
    assert len(fits.calls) == before
    view.look(features[:20], y[:20], np.zeros(20), generation=0)
    assert len(fits.calls) > before
    assert view.fitted_at == view.base == 20


def test_fits_missed_between_looks_are_made_up_for_by_one(fits: Fits) -> None:
    features, y = search(LINE, 100, 0)
    view = View(HALF_RANK, LINE.owner)
    view.look(features[:50], y[:50], np.zeros(50), generation=0)
    assert len(fits.calls) == 1
    view.look(features, y, np.zeros(100), generation=0)
    assert view.fitted_at == 100
    assert_alike(view.look(features, y, np.zeros(100), generation=0), afresh(view, features, y), at(LINE))


def test_the_hyper_parameters_are_those_of_the_best_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few observations every fit begins at the prior's centre and where the last one ended."""
    fits = Fits(monkeypatch, 50)
    features, y = search(PLANE, FEW, 11)
    view = View(PLAIN, PLANE.owner)
    for n in range(5, FEW + 1, 3):
        before, last = len(fits.calls), view.theta
        view.look(features[:n], y[:n], np.zeros(n), generation=0)
        calls = fits.calls[before:]
        starts = [call["start"].tolist() for call in calls]
        centre = view.prior.mean(2).tolist()
        assert sorted(starts) == sorted([centre] if last is None else [centre, last.tolist()])
        theta, value = max((call["found"] for call in calls), key=lambda found: found[1])
        np.testing.assert_array_equal(view.theta, theta)
        assert view.evidence == value / n
        warped = outputs.with_power(outputs.prepare(y[:n], PLAIN), view.power)
        np.testing.assert_array_equal(calls[0]["y"], warped.z)
        _, best = surrogate.fit(features[:n], PLANE.owner, warped.z, view.prior.mean(2), prior=view.prior)
        assert value >= best - 1e-9


def test_a_warm_start_is_left_when_the_evidence_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Fits(monkeypatch, 12)
    n, more = 3 * FEW, 4 * FEW
    x = np.random.default_rng(0).random((more, 2))
    features = PLANE.features(x, x >= 0)
    smooth, rough = x[:, 0] + x[:, 1] ** 2, np.sin(40 * x[:, 0]) * np.sin(40 * x[:, 1])
    views = [View(PLAIN, PLANE.owner, power=False) for _ in range(2)]
    for view in views:
        view.look(features[:n], smooth[:n], np.zeros(n), generation=None)
    assert len(fits.calls) == 2
    warm, centre = views[0].theta, views[0].prior.mean(2)
    # More of the same: only from where the last fit ended.
    views[0].look(features, smooth, np.zeros(more), generation=None)
    assert [call["start"].tolist() for call in fits.calls[2:]] == [warm.tolist()]
    # Something else: anew as well, and the better one is kept.
    views[1].look(features, rough, np.zeros(more), generation=None)
    assert [call["start"].tolist() for call in fits.calls[3:]] == [warm.tolist(), centre.tolist()]
    found = [call["found"] for call in fits.calls[3:]]
    theta, value = max(found, key=lambda pair: pair[1])
    np.testing.assert_array_equal(views[1].theta, theta)
    assert views[1].evidence == value / more


def test_a_drop_is_judged_by_the_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many observations have twice the log evidence, which is no drop."""
    fits = Fits(monkeypatch, 30)
    rng = np.random.default_rng(1)
    x = rng.random((6 * FEW, 2))
    features, y = PLANE.features(x, x >= 0), rng.standard_normal(6 * FEW)
    view = View(PLAIN, PLANE.owner, power=False)
    for n in (3 * FEW, 6 * FEW):
        view.look(features[:n], y[:n], np.zeros(n), generation=None)
    assert fits.calls[1]["found"][1] < fits.calls[0]["found"][1] - 20
    assert len(fits.calls) == 2


# Many observations.


def test_of_many_observations_some_good_and_bad_ones_are_fitted_and_all_are_modelled(fits: Fits) -> None:
    n = FIT_AT_MOST + 60
    features, y = search(LINE, n, 12)
    se = np.where(np.arange(n) % 2 == 0, 0.1, 0.0)
    fits.iterations = 2
    view = View(PLAIN, LINE.owner)
    got = view.look(features, y, se, generation=0)
    assert_alike(got, afresh(view, features, y, se), at(LINE))
    assert len(got.features) == n
    (asked,) = fits.calls
    assert len(asked["features"]) == len(asked["y"]) == len(asked["extra"]) == FIT_AT_MOST
    # Each is a row of the search with its own error, none twice; the best and the worst are among them.
    rows = [int(np.flatnonzero((features == f).all(axis=1))[0]) for f in asked["features"]]
    assert len(set(rows)) == FIT_AT_MOST
    np.testing.assert_array_equal(asked["extra"] > 0, se[rows] > 0)
    assert np.all(np.diff(asked["y"][np.argsort(y[rows])]) >= 0)
    ranks = np.sort(np.argsort(np.argsort(y))[rows])
    assert ranks[0] == 0
    assert ranks[-1] == n - 1
    assert np.diff(ranks).max() <= 2
    assert view.fitted_at == view.base == n
    assert view.evidence == asked["found"][1] / FIT_AT_MOST


def test_many_observations_come_back_from_a_state_to_the_last_bit(monkeypatch: pytest.MonkeyPatch, fits: Fits) -> None:
    monkeypatch.setattr(module, "FIT_AT_MOST", 40)
    features, y = search(MIXED, 130, 13)
    view, where = View(HALF_RANK, MIXED.owner), at(MIXED)
    view.look(features[:110], y[:110], np.zeros(110), generation=0)
    view.look(features[:115], y[:115], np.zeros(115), generation=0)
    state, expected = stored(view), []
    for n in (116, 119, 121, 130):
        expected.append(seen(view.look(features[:n], y[:n], np.zeros(n), generation=0), where))
    again = View(HALF_RANK, MIXED.owner)
    again.set_state(state)
    for n, parts in zip((116, 119, 121, 130), expected, strict=True):
        got = seen(again.look(features[:n], y[:n], np.zeros(n), generation=0), where)
        assert all(np.array_equal(a, b) for a, b in zip(got, parts, strict=True))


# Labels and powers.


def test_labels_are_taken_as_they_are(fits: Fits) -> None:
    x = np.random.default_rng(0).random((40, 2))
    features, labels = PLANE.features(x, x >= 0), np.where(x[:, 0] < 0.6, 1.0, -1.0)
    fits.iterations = 50
    view = View(PLAIN, PLANE.owner, labels=True)
    got = view.look(features, labels, np.zeros(40), generation=None)
    np.testing.assert_array_equal(got.y[:, 0], labels)
    np.testing.assert_array_equal(got.extra, 0.0)
    assert view.power == 1.0
    assert fits.calls[0]["prior"] == module.LABELS
    assert np.mean(np.sign(got.predict_at_data()[:, 0]) == labels) > 0.95
    where = PLANE.features(np.array([[0.1, 0.5], [0.95, 0.5]]), np.full((2, 2), True))
    mean, _ = got.predict(where)
    assert mean[0, 0] > 0.5
    assert mean[1, 0] < -0.5
    # Under the prior of losses the length scales are free to become short; those of labels stay long.
    assert np.all(np.exp(view.theta[:2]) > 0.1)


def test_labels_that_are_all_alike_and_a_single_one_are_predicted_everywhere(fits: Fits) -> None:
    for n in (1, 5):
        features, _ = search(PLANE, n, 14)
        got = View(PLAIN, PLANE.owner, labels=True).look(features, np.full(n, -1.0), np.zeros(n), generation=None)
        np.testing.assert_allclose(got.predict(at(PLANE))[0], -1.0, rtol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_one_loss_and_equal_losses_can_be_looked_at(way: str, fits: Fits) -> None:
    features, _ = search(MIXED, 8, 15)
    view = View(way, MIXED.owner)
    for n in range(1, 9):
        got = view.look(features[:n], np.full(n, 0.1), np.zeros(n), generation=0)
        np.testing.assert_array_equal(got.y, 0.0)
        np.testing.assert_allclose(got.predict(at(MIXED))[0], 0.0, atol=1e-12)


@pytest.mark.parametrize("way", [PLAIN, HALF_RANK])
def test_the_power_is_the_likeliest(way: str, fits: Fits) -> None:
    """At first of independent draws, then under the kernel; by scipy's density and the Jacobian."""
    x, used = settled_points(PLANE, 60, 16)
    features = PLANE.features(x, used)
    rng = np.random.default_rng(16)
    chosen = set()
    for bend in (0.2, 1.0, 3.0):
        y = np.exp(bend * (2 * x[:, 0] + np.sin(6 * x[:, 1]) + 0.05 * rng.standard_normal(60)))
        view = View(way, PLANE.owner)
        for n in (40, 60):
            theta = view.theta
            view.look(features[:n], y[:n], np.zeros(n), generation=0)
            prepared = outputs.prepare(y[:n], way)
            scores = {}
            for power in outputs.POWERS:
                warped = outputs.with_power(prepared, power)
                if theta is None:
                    fit_term = multivariate_normal(np.zeros(n), np.eye(n)).logpdf(warped.z)
                else:
                    gp = GaussianProcess(PLANE, theta, (x[:n], used[:n]), warped.z)
                    fit_term = multivariate_normal(np.full(n, gp.mean), gp.covariance).logpdf(warped.z)
                scores[power] = fit_term + np.log(warped.slope).sum()
            assert view.power == max(scores, key=scores.__getitem__)
            chosen.add(view.power)
    assert len(chosen) > 1


def test_without_choice_and_by_rank_the_power_stays_one(fits: Fits) -> None:
    features, y = search(PLANE, 30, 17)
    for view in (View(PLAIN, PLANE.owner, power=False), View(HALF_RANK, PLANE.owner)):
        got = view.look(features, y, np.zeros(30), generation=0)
        assert view.power == 1.0
        np.testing.assert_array_equal(got.y[:, 0], outputs.prepare(y, view.way).z)
    skewed = View(PLAIN, PLANE.owner)
    skewed.look(features, np.exp(3 * y / y.std()), np.zeros(30), generation=0)
    assert skewed.power < 1.0
