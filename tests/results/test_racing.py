"""The race of `hpo-ray confirm`: errors and power by simulation, against textbook tests, and on odd input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hpo_ray.errors import InvalidInput
from hpo_ray.results.racing import Standing, race


def scores(values: np.ndarray) -> pd.DataFrame:
    """A frame of repeats x contenders, called a, b, …; what is missing is left out."""
    table = pd.DataFrame(values, columns=list("abcdefgh")[: values.shape[1]])
    rows = table.rename_axis("repeat").reset_index().melt("repeat", var_name="config_id", value_name="value")
    return rows


def simulated(means: Sequence[float], races: int, seed: int, repeats: int = 5) -> list[Standing]:
    """Races with seed noise of standard deviation 1, and a shared effect of each repeat."""
    rng = np.random.default_rng(seed)
    size = (races, repeats, len(means))
    values = np.array(means) + rng.standard_normal(size) + 2.0 * rng.standard_normal((races, repeats, 1))
    return [race(scores(each)) for each in values]


def test_of_two_equal_configurations_neither_is_called_better_in_nine_races_of_ten() -> None:
    standings = simulated([0, 0], 1000, seed=1)
    assert np.mean([not standing.real for standing in standings]) >= 0.93
    assert np.mean([standing.interval[0] <= 0 <= standing.interval[1] for standing in standings]) >= 0.93


def test_of_two_configurations_two_sds_apart_the_better_is_picked() -> None:
    standings = simulated([2, 0], 500, seed=2)
    assert np.mean([standing.winner == "b" for standing in standings]) >= 0.99
    assert np.mean([standing.interval[0] <= -2 <= standing.interval[1] for standing in standings]) >= 0.93
    # Five pairs are few: that is what a paired t-test can do, 72 % in a single look.
    assert 0.4 < np.mean([standing.real for standing in standings]) < 0.72


@pytest.mark.parametrize(("means", "best"), [([0] * 5, "abcde"), ([0, 0, 0, 3, 3], "abc")])
def test_among_many_hardly_any_that_is_as_good_as_the_best_is_dropped(means: list[float], best: str) -> None:
    standings = simulated(means, 300, seed=3)
    assert np.mean([bool(set(standing.dropped) & set(best)) for standing in standings]) <= 0.07


def test_the_clearly_beaten_go_before_the_last_repeat() -> None:
    standings = simulated([0, 1, 20, 30], 50, seed=4)
    assert all({"c", "d"} <= set(standing.dropped) for standing in standings)
    assert np.mean(["after 5" in standing.dropped["d"] for standing in standings]) < 0.1


def test_with_two_contenders_and_one_look_it_is_the_paired_t_test() -> None:
    values = np.random.default_rng(0).standard_normal((2, 2))
    standing = race(scores(values))
    test = stats.ttest_rel(values[:, 0], values[:, 1])
    low, high = sorted(end if standing.winner == "a" else -end for end in test.confidence_interval(0.95))
    assert standing.interval == pytest.approx((low, high))
    assert standing.real == (test.pvalue < 0.05)


def test_the_allowance_is_spent_over_the_looks_that_are_planned() -> None:
    values = np.random.default_rng(5).standard_normal((3, 2))
    first = race(scores(values[:2]), planned=5)
    test = stats.ttest_rel(values[:2, 0], values[:2, 1])
    ends = test.confidence_interval(1 - 0.05 / 64)
    assert sorted(map(abs, first.interval)) == pytest.approx(sorted(map(abs, ends)))
    last = race(scores(values), planned=3)
    ends = stats.ttest_rel(values[:, 0], values[:, 1]).confidence_interval(1 - 0.05 * 7 / 8)
    assert sorted(map(abs, last.interval)) == pytest.approx(sorted(map(abs, ends)))


def test_maximising_mirrors_minimising() -> None:
    values = np.random.default_rng(6).standard_normal((5, 3)) + np.array([0, 1, 4])
    low, high = race(scores(values)), race(scores(-values), "max")
    assert (low.alive, low.dropped, low.winner, low.real) == (high.alive, high.dropped, high.winner, high.real)
    assert low.difference == pytest.approx(-high.difference)
    assert low.interval == pytest.approx((-high.interval[1], -high.interval[0]))
    assert low.difference < 0 < high.difference


def test_order_of_rows_and_names_of_contenders_do_not_matter() -> None:
    values = np.random.default_rng(7).standard_normal((5, 3)) + np.array([0, 1, 4])
    frame = scores(values)
    shuffled = race(frame.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(shuffled.table, race(frame).table)
    renamed = race(frame.replace({"config_id": {"a": "z"}}))
    assert renamed.winner == "z"
    assert renamed.difference == pytest.approx(shuffled.difference)


def test_one_that_was_dropped_needs_no_more_repeats() -> None:
    values = np.random.default_rng(8).standard_normal((5, 3)) * 0.1 + np.array([0, 0.05, 50])
    whole = race(scores(values))
    gone_after = int(whole.dropped["c"].split()[-2])
    frame = scores(values)
    saved = race(frame[(frame["config_id"] != "c") | (frame["repeat"] < gone_after)])
    assert saved.dropped["c"] == whole.dropped["c"]
    assert (saved.alive, saved.interval) == (whole.alive, whole.interval)


def test_one_that_failed_is_no_winner() -> None:
    values = np.random.default_rng(9).standard_normal((4, 3)) + np.array([0, 5, 5])
    values[2, 0] = math.nan
    standing = race(scores(values))
    assert standing.dropped["a"] == "failed in repeat 2"
    assert standing.winner in ("b", "c")
    table = standing.table.set_index("config_id")
    assert table.loc["a", "repeats"] == 3
    assert table.loc["a", "verdict"] == "failed in repeat 2"
    nothing = race(scores(np.full((2, 2), math.inf)))
    assert nothing.winner is None
    assert "no winner" in nothing.text()


def test_a_single_contender_or_repeat_says_so() -> None:
    alone = race(scores(np.array([[1.0], [2.0]])))
    assert (alone.winner, alone.runner_up, alone.real) == ("a", None, False)
    assert "nothing was compared" in alone.text()
    once = race(scores(np.array([[1.0, 2.0]])))
    assert (once.winner, once.difference, once.interval, once.real) == ("a", -1.0, (-math.inf, math.inf), False)
    assert "undecided after 1 repeat" in once.text()


def test_without_noise_equal_stays_undecided_and_different_is_real() -> None:
    equal = race(scores(np.ones((3, 2))))
    assert not equal.real
    assert equal.interval == (0, 0)
    apart = race(scores(np.array([[1.0, 2.0]] * 5)))
    assert apart.real
    few = race(scores(np.array([[1.0, 2.0]] * 2)), planned=5)
    assert not few.dropped


@pytest.mark.parametrize(("images", "rate"), [(20, 0.1), (50, 0.05), (360, 0.011)])
def test_equal_error_rates_on_few_images_are_told_apart_as_seldom_as_any(images: int, rate: float) -> None:
    """Their differences are often the same by chance: without a floor under the variance it was one race of seven."""
    rng = np.random.default_rng(12)
    found = [race(scores(rng.binomial(images, rate, (5, 2)) / images)).real for _ in range(300)]
    assert np.mean(found) <= 0.07


def test_a_real_difference_is_told_in_words() -> None:
    apart = race(scores(np.array([[1.0, 2.0]] * 5)))
    assert "a is better than every other: -1 against b" in apart.text()


def test_mistakes_are_named() -> None:
    good = scores(np.ones((2, 2)))
    for frame, options, key in (
        (good.rename(columns={"value": "score"}), {}, "value"),
        (pd.concat([good, good]), {}, "repeat"),
        (good.head(0), {}, "scores"),
        (good, {"confidence": 95}, "confidence"),
        (good, {"planned": 1}, "repeats"),
        (good, {"mode": "maximum"}, "mode"),
    ):
        with pytest.raises(InvalidInput) as caught:
            race(frame, **options)
        assert caught.value.problems[0].key == key
