"""Every number against scikit-learn's or a closed form; every edge where there is nothing to count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from hpo_ray.errors import InvalidInput
from hpo_ray.results.intervals import wilson
from hpo_ray.results.metrics import confusion, per_class, scores, top_losses

CLASSES = ["ant", "bee", "cat", "dog"]
DRAW = np.random.default_rng(0)
TRUTH = DRAW.integers(4, size=300)
P = softmax(DRAW.normal(size=(300, 4)) + 1.5 * np.eye(4)[TRUTH], axis=1)
TAKEN_FOR = P.argmax(1)
NAN = np.full(4, np.nan)


def test_the_overall_numbers_are_scikit_learns() -> None:
    found = scores(P, TRUTH)
    assert (found.n, found.errors) == (300, int((TAKEN_FOR != TRUTH).sum()))
    assert found.accuracy == pytest.approx(reference.accuracy_score(TRUTH, TAKEN_FOR))
    assert found.log_loss == pytest.approx(reference.log_loss(TRUTH, P), abs=1e-12)
    brier = reference.brier_score_loss(TRUTH, P, scale_by_half=False)
    assert found.brier == pytest.approx(brier, abs=1e-12)


def test_the_accuracys_interval_is_the_errors_turned_round() -> None:
    found = scores(P, TRUTH)
    assert found.interval == pytest.approx(wilson(300 - found.errors, 300))
    assert found.interval[0] < found.accuracy < found.interval[1]


@pytest.mark.parametrize(
    ("p", "log_loss", "brier"), [([1, 0], 0, 0), ([0, 1], math.inf, 2), ([0.5, 0.5], math.log(2), 0.5)]
)
def test_known_values_of_one_image(p: list[float], log_loss: float, brier: float) -> None:
    found = scores([p], [0])
    assert (found.log_loss, found.brier) == pytest.approx((log_loss, brier))


def test_the_confusion_is_scikit_learns() -> None:
    frame = confusion(P, TRUTH, CLASSES)
    assert frame.to_numpy().tolist() == reference.confusion_matrix(TRUTH, TAKEN_FOR).tolist()
    assert list(frame.index) == list(frame.columns) == CLASSES
    assert (frame.index.name, frame.columns.name) == ("true", "predicted")
    assert frame.loc["ant", "bee"] == ((TRUTH == 0) & (TAKEN_FOR == 1)).sum()


def test_the_classes_are_scikit_learns() -> None:
    frame = per_class(P, TRUTH, CLASSES)
    precision, recall, f1, n = reference.precision_recall_fscore_support(TRUTH, TAKEN_FOR)
    assert list(frame["class"]) == CLASSES
    assert frame["n"].tolist() == n.tolist()
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert frame[name].to_numpy() == pytest.approx(expected), name
    assert frame["errors"].tolist() == [sum(TAKEN_FOR[np.equal(TRUTH, k)] != k) for k in range(4)]
    bounds = [wilson(int(of - wrong), int(of)) for of, wrong in zip(frame["n"], frame["errors"], strict=True)]
    assert frame[["recall_low", "recall_high"]].to_numpy().tolist() == [list(ends) for ends in bounds]


def test_a_class_with_nothing_to_count_has_no_share_and_no_zero() -> None:
    # ant: found once, missed once; bee: never there, predicted once; cat: neither.
    frame = per_class([[0.8, 0.2, 0], [0.4, 0.6, 0]], [0, 0], ["ant", "bee", "cat"])
    expected = {
        "n": [2, 0, 0], "precision": [1, 0, math.nan], "recall": [0.5, math.nan, math.nan],
        "f1": [2 / 3, 0, math.nan], "errors": [1, 0, 0],
    }  # fmt: skip
    for name, column in expected.items():
        assert frame[name].tolist() == pytest.approx(column, nan_ok=True), name
    assert frame["recall_low"].isna().tolist() == frame["recall_high"].isna().tolist() == [False, True, True]


def test_the_top_losses_are_the_worst_first() -> None:
    frame = top_losses(P, TRUTH, CLASSES, n=20)
    losses = -np.log(P[np.arange(300), TRUTH])
    assert list(frame.columns) == ["index", "loss", "predicted", "true", "p_predicted", "p_true"]
    assert frame["index"].tolist() == np.argsort(-losses)[:20].tolist()
    for row in frame.itertuples(index=False):
        index = row[0]
        expected = (
            losses[index],
            CLASSES[TAKEN_FOR[index]],
            CLASSES[TRUTH[index]],
            P[index].max(),
            P[index, TRUTH[index]],
        )
        assert tuple(row)[1:] == pytest.approx(expected)
    assert len(top_losses(P[:3], TRUTH[:3], CLASSES)) == 3


def test_among_equal_losses_the_surer_comes_first_and_nan_before_all() -> None:
    p = [[0, 0.6, 0.4], [0.9, 0.1, 0], [0, 0.8, 0.2], [math.nan] * 3, [0, 0.6, 0.4]]
    frame = top_losses(p, [0] * 5, ["ant", "bee", "cat"])
    assert frame["index"].tolist() == [3, 2, 0, 4, 1]
    assert frame["predicted"].tolist() == ["(none)", "bee", "bee", "bee", "ant"]
    assert frame["loss"].tolist() == pytest.approx(
        [math.nan, math.inf, math.inf, math.inf, -math.log(0.9)], nan_ok=True
    )


@pytest.mark.parametrize("part", [slice(None), slice(0, 1)])
def test_nan_counts_as_wrong_and_as_no_class(part: slice) -> None:
    p = P.copy()
    p[0, part] = math.nan  # the whole row, or one of its numbers
    found = scores(p, TRUTH)
    assert found.errors == int((TAKEN_FOR[1:] != TRUTH[1:]).sum()) + 1
    assert np.isnan([found.log_loss, found.brier, found.ece, found.rms_calibration]).all()
    frame = confusion(p, TRUTH, CLASSES)
    assert list(frame.columns) == [*CLASSES, "(none)"]
    assert frame["(none)"].tolist() == [int(k == TRUTH[0]) for k in range(4)]
    assert frame.to_numpy().sum() == 300
    table = per_class(p, TRUTH, CLASSES)
    assert table["errors"].sum() == found.errors
    assert table["n"].sum() == 300


def test_a_single_class_and_a_single_image() -> None:
    found = scores([[1.0]], [0])
    assert (found.errors, found.log_loss, found.brier, found.ece, found.rms_calibration) == (0, 0, 0, 0, 0)
    assert confusion([[1.0]], [0], ["ant"]).to_numpy().tolist() == [[1]]


def test_float32_from_a_network_is_taken() -> None:
    assert scores(P.astype(np.float32), TRUTH.astype(np.int32)).log_loss == pytest.approx(scores(P, TRUTH).log_loss)


@pytest.mark.parametrize(
    ("p", "labels", "classes", "said"),
    [
        (np.zeros((0, 4)), [], CLASSES, "probabilities: they and the labels are 0 x 4 and 0, but"),
        (P, TRUTH[:-1], CLASSES, "probabilities: they and the labels are 300 x 4 and 299, but"),
        (P[:, 0], TRUTH, CLASSES, "probabilities: they and the labels are 300 and 300, but must be n x classes and n"),
        (np.log(P), TRUTH, CLASSES, "probabilities: they must be from 0 to 1 and add up to 1 for each image; logits?"),
        (P, TRUTH, CLASSES[:3], "classes: there are 3 names for 4 probabilities"),
        (P, TRUTH + 1, CLASSES, "labels: they must be whole numbers from 0 to 3"),
        (P, TRUTH - 1, CLASSES, "labels: they must be whole numbers from 0 to 3"),
        (P, TRUTH / 1, CLASSES, "labels: they must be whole numbers from 0 to 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(p: np.ndarray, labels: np.ndarray, classes: list[str], said: str) -> None:
    for function in (confusion, per_class, top_losses):
        with pytest.raises(InvalidInput) as caught:
            function(p, labels, classes)
        assert str(caught.value).startswith(said)
