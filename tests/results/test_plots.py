"""Pictures say what they should, and are files of the asked kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpo_ray.results import plots


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
