"""Pictures say what they should, and are files of the asked kind."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from hpo_ray.results import plots
from hpo_ray.results.calibration import calibration, calibration_error
from hpo_ray.results.metrics import confusion


@pytest.fixture
def curve() -> pd.DataFrame:
    lrs = np.logspace(-6, 1, 50)
    smoothed = 2 - np.exp(-((np.log10(lrs) + 1) ** 2))
    return pd.DataFrame({"lr": lrs, "loss": smoothed, "smoothed": smoothed})


def test_a_range_test_shows_curve_suggestions_and_range(curve: pd.DataFrame) -> None:
    figure = plots.lr_range(curve, {"valley": 0.03, "steepest": 0.02, "slide": None}, (0.01, 0.1))
    [axes] = figure.axes
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert said == [
        "loss of each batch", "smoothed", "search 1.0e-02 to 1.0e-01", "valley 3.0e-02", "steepest 2.0e-02",
    ]  # fmt: skip
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "training loss")
    [valley] = [line for line in axes.lines if line.get_label() == "valley 3.0e-02"]
    assert valley.get_ydata() == pytest.approx([2 - np.exp(-((np.log10(0.03) + 1) ** 2))], abs=0.01)


def test_divergence_does_not_flatten_the_curve(curve: pd.DataFrame) -> None:
    curve.loc[45:, "loss"] = [1e9, np.inf, np.nan, np.nan, np.nan]
    curve.loc[46:, "smoothed"] = np.nan
    low, high = plots.lr_range(curve, {}).axes[0].get_ylim()
    assert 0 < low < 1 < 2 < high < 4


def test_a_curve_that_is_all_nan_is_drawn_empty(curve: pd.DataFrame, tmp_path: Path) -> None:
    curve[["loss", "smoothed"]] = np.nan
    plots.save(plots.lr_range(curve, {"valley": None}), tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_is_written_whole(curve: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    plots.save(plots.lr_range(curve, {}), tmp_path / f"a.{kind}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{kind}"]
    if kind == "png":
        assert Image.open(tmp_path / "a.png").size == (1050, 600)


def counted(classes: list[str], n: int = 400, nan: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    size = len(classes)
    truth = draw.integers(size, size=n)
    guess = np.where(draw.uniform(size=n) < 0.8, truth, draw.integers(size, size=n))
    p = np.eye(size)[guess]
    p[:nan] = np.nan
    return confusion(p, truth, classes)


def written(figure: Figure) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts}


def test_a_confusion_matrix_has_every_count_in_its_cell_and_none_for_zero() -> None:
    frame = counted(["ant", "bee", "cat"])
    frame.loc["ant", "cat"] = 0
    figure = plots.confusion_matrix(frame)
    [axes] = figure.axes
    counts = frame.to_numpy()
    assert written(figure) == {
        (column, row): str(counts[row, column]) for row in range(3) for column in range(3) if counts[row, column]
    }
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == ["ant", "bee", "cat"]
    wrong, n = counts.sum() - np.trace(counts), counts.sum()
    assert axes.get_title(loc="left") == f"{wrong} of {n} wrong ({100 * wrong / n:.1f} %)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_right_and_wrong_have_colours_of_their_own_as_deep_as_their_share() -> None:
    frame = pd.DataFrame([[100, 0, 0], [0, 0, 10], [0, 0, 0]], index=list("abc"), columns=list("abc"))
    colours = np.asarray(plots.confusion_matrix(frame).axes[0].images[0].get_array())
    assert colours[0, 0].tolist() == pytest.approx(to_rgb(plots.BLUE))
    assert colours[1, 2].tolist() == pytest.approx(to_rgb(plots.VERMILION))
    assert (colours[2] == 1).all()  # no image, no share, and no division by zero


def _luminance(colour: tuple[float, ...]) -> float:
    channels = np.array(colour)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_counts_stand_out_from_their_cells_whatever_the_share() -> None:
    """Contrast as WCAG 2 defines it; 3 is what it asks for letters that are not small."""
    for share in range(1, 100, 3):
        frame = pd.DataFrame([[share, 100 - share], [100 - share, share]], index=["a", "b"], columns=["a", "b"])
        axes = plots.confusion_matrix(frame).axes[0]
        colours = axes.images[0].get_array()
        for text in axes.texts:
            column, row = map(int, text.get_position())
            dark, light = sorted([_luminance(colours[row, column]), _luminance(to_rgb(text.get_color()))])
            assert (light + 0.05) / (dark + 0.05) > 3, (share, row, column)


@pytest.mark.parametrize("size", [1, 2, 10, 40, 100])
@pytest.mark.parametrize("length", [2, 60])
def test_names_and_counts_of_many_classes_do_not_run_into_each_other(size: int, length: int) -> None:
    classes = [f"{k:02d}".ljust(length, "x") for k in range(size)]
    figure = plots.confusion_matrix(counted(classes, n=40 * size, nan=3))
    figure.draw_without_rendering()
    [axes] = figure.axes
    page = figure.bbox
    for labels, along in ((axes.get_xticklabels(), 0), (axes.get_yticklabels(), 1)):
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) >= min(size, 36)
        for box in boxes:
            assert page.x0 <= box.x0 <= box.x1 <= page.x1
            assert page.y0 <= box.y0 <= box.y1 <= page.y1
        places = sorted((box.intervalx if along == 0 else box.intervaly).tolist() for box in boxes)
        assert all(one[1] <= other[0] + 0.5 for one, other in pairwise(places))
    cell = axes.get_window_extent().width / (size + 1)
    assert all(text.get_window_extent().width <= cell for text in axes.texts)
    assert bool(axes.texts) == (size <= 40)
    assert ("shade" in axes.get_xlabel()) == (size > 40)


def test_a_long_name_loses_its_middle() -> None:
    assert plots.shortened("Staffordshire bull terrier, brindle", 24) == "Staffordshir…er, brindle"
    assert plots.shortened("x" * 24, 24) == "x" * 24
    for most in range(5, 30):
        assert len(plots.shortened("abcdefghij" * 4, most)) == most


def test_a_calibration_curve_shows_bins_intervals_counts_and_the_diagonal() -> None:
    draw = np.random.default_rng(0)
    p = draw.uniform(0.5, 0.9, 203)
    table = calibration(np.stack([p, 1 - p], 1), (draw.uniform(size=203) > p).astype(int))
    figure = plots.calibration(table)
    above, below = figure.axes
    diagonal, curve, *_ = above.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert curve.get_xydata() == pytest.approx(table[["confidence", "accuracy"]].to_numpy())
    [bars] = [one for one in above.collections if len(one.get_segments()) == len(table)]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert np.array(ends) == pytest.approx(table[["accuracy_low", "accuracy_high"]].to_numpy())
    assert below.lines[0].get_ydata().tolist() == table["n"].tolist()
    error = calibration_error(table)[0]
    assert above.get_title(loc="left") == f"203 images in 10 bins; calibration error {error:.3f}"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "as often right as sure",
        "a bin, 95 % interval",
    ]
    (left, right), (low, high) = above.get_xlim(), above.get_ylim()
    assert left < table["confidence"].min() < table["confidence"].max() < right
    assert low < table["accuracy_low"].min() < table["accuracy_high"].max() < high


@pytest.mark.parametrize("p", [[[1.0, 0.0]], [[np.nan, np.nan]]])
def test_a_single_bin_and_none_are_drawn(p: list[list[float]], tmp_path: Path) -> None:
    plots.save(plots.calibration(calibration(p, [0])), tmp_path / "x.png")
