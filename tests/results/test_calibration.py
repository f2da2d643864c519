"""Bins of confidence against a direct count, and errors of calibration against known ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from hpo_ray.errors import InvalidInput
from hpo_ray.results.calibration import calibration, calibration_error
from hpo_ray.results.intervals import wilson
from hpo_ray.results.metrics import scores


def drawn(n: int, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes; class 1 has the probability p, and is right with p + shift."""
    draw = np.random.default_rng(seed)
    p = draw.uniform(0.5, 0.95, n)
    return np.stack([1 - p, p], 1), (draw.uniform(size=n) < p + shift).astype(int)


def test_the_bins_are_scikit_learns_quantiles() -> None:
    p, truth = drawn(1000)
    table = calibration(p, truth, bins=8)
    accuracy, confidence = calibration_curve(truth, p[:, 1], n_bins=8, strategy="quantile")
    assert table["accuracy"].to_numpy() == pytest.approx(accuracy)
    assert table["confidence"].to_numpy() == pytest.approx(confidence)
    assert table["n"].tolist() == [125] * 8


def test_each_bins_numbers_are_a_direct_count() -> None:
    p, truth = drawn(103)
    table = calibration(p, truth)
    assert table["n"].sum() == 103
    assert set(table["n"]) == {10, 11}
    sure, right = p.max(1), p.argmax(1) == truth
    for row in table.to_dict("records"):
        inside = (sure >= row["low"]) & (sure <= row["high"])
        assert inside.sum() == row["n"]
        assert (row["confidence"], row["accuracy"]) == pytest.approx((sure[inside].mean(), right[inside].mean()))
        assert (row["accuracy_low"], row["accuracy_high"]) == wilson(int(right[inside].sum()), int(inside.sum()))


def test_equal_confidences_stay_together_so_the_order_of_images_does_not_matter() -> None:
    sure = np.array([0.6] * 3 + [0.7] * 30 + [1.0] * 67)
    p, truth = np.stack([sure, 1 - sure], 1), np.random.default_rng(0).integers(2, size=100)
    table = calibration(p, truth, bins=10)
    assert table["n"].tolist() == [3, 30, 67]
    order = np.random.default_rng(1).permutation(100)
    assert calibration(p[order], truth[order], bins=10).to_numpy() == pytest.approx(table.to_numpy())


@pytest.mark.parametrize(("low", "high", "sizes"), [(6, 4, [6, 4]), (4, 6, [4, 6]), (10, 0, [10])])
def test_an_edge_within_equal_confidences_moves_to_their_nearer_end(low: int, high: int, sizes: list[int]) -> None:
    sure = np.array([0.6] * low + [0.9] * high)
    assert calibration(np.stack([sure, 1 - sure], 1), [0] * 10, bins=2)["n"].tolist() == sizes


@pytest.mark.parametrize(("n", "bins", "sizes"), [(3, 10, [1, 1, 1]), (1, 10, [1]), (7, 2, [3, 4]), (5, 1, [5])])
def test_fewer_images_than_bins(n: int, bins: int, sizes: list[int]) -> None:
    table = calibration(*drawn(n), bins=bins)
    assert table["n"].tolist() == sizes
    assert all(math.isfinite(value) for value in calibration_error(table))


def test_nan_has_no_confidence() -> None:
    p, truth = drawn(50)
    p[:5, 0] = math.nan
    assert calibration(p, truth)["n"].sum() == 45
    p[:] = math.nan
    table = calibration(p, truth)
    assert len(table) == 0
    assert all(math.isnan(value) for value in calibration_error(table))


def test_the_errors_closed_forms() -> None:
    """40 images at 0.9 of which 30 are right, 10 at 0.6 of which 7 are."""
    sure = np.array([0.9] * 40 + [0.6] * 10)
    p, truth = np.stack([sure, 1 - sure], 1), np.array([0] * 30 + [1] * 10 + [0] * 7 + [1] * 3)
    ece, rms = calibration_error(calibration(p, truth, bins=2))
    assert ece == pytest.approx(0.8 * 0.15 + 0.2 * 0.1)
    square = 0.8 * (0.15**2 - 0.75 * 0.25 / 39) + 0.2 * (0.1**2 - 0.7 * 0.3 / 9)
    assert rms == pytest.approx(math.sqrt(square))
    found = scores(p, truth, bins=2)
    assert (found.ece, found.rms_calibration) == (ece, rms)


def test_the_debiased_error_is_near_the_truth_where_the_plain_one_is_not() -> None:
    found = {
        shift: np.array([calibration_error(calibration(*drawn(200, shift, seed))) for seed in range(200)])
        for shift in (0.0, -0.2)
    }
    ece, rms = np.median(found[0.0], axis=0)
    assert ece > 0.06  # of a model whose probabilities are exactly right
    assert rms < 0.03
    assert np.median(found[-0.2], axis=0) == pytest.approx([0.2, 0.2], abs=0.015)


def test_a_number_of_bins_that_makes_no_sense() -> None:
    with pytest.raises(InvalidInput, match="bins: it is 0, but must be at least 1"):
        calibration(*drawn(5), bins=0)
