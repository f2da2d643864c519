"""The learning rate range test from the command line, and as the source of a sweep's range."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from hpo_ray import config, lr_range
from hpo_ray.errors import InvalidInput
from tests.sweeps import events_of, told

QUICK = ["experiment=digits", "model.arch=mlp", "data.image_size=8"]


def test_the_curve_is_written_and_the_rates_are_told(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capfd, "lr-find", *QUICK, "--steps", "60")
    assert (code, err) == (0, "")
    words = [line.split()[0] for line in out.splitlines()]
    assert words == ["steepest", "valley", "minimum", "slide", "range", "curve"]
    curve = pd.read_csv("lr-find-digits.csv")
    assert list(curve) == ["lr", "loss", "smoothed"]
    assert 10 <= len(curve) <= 60
    assert (in_tmp / "lr-find-digits.png").stat().st_size > 10_000
    assert sorted(path.name for path in in_tmp.iterdir()) == ["lr-find-digits.csv", "lr-find-digits.png"]


def test_it_is_the_same_each_time_and_json_has_all_of_it(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answers = [json.loads(told(capfd, "lr-find", *QUICK, "--json", "--out", f"{n}.png")[1]) for n in "ab"]
    assert answers[0] == answers[1]
    low, high = answers[0]["bounds"]
    assert 1e-7 < low < answers[0]["suggestions"]["valley"] < high < 10
    assert (in_tmp / "a.csv").read_text() == (in_tmp / "b.csv").read_text()


@pytest.mark.usefixtures("ray_here")
def test_a_sweep_takes_its_range_from_the_test_and_says_why(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["space.lr=from_lr_range_test", "trials=2", "scheduler.max_t=1"]
    code, _, err = told(capfd, "run", *QUICK, *asked, "--out", "r")
    assert code == 0, err
    [started] = events_of(in_tmp / "r", "run_started")
    narrowed = started["narrowed"]["lr"]
    assert started["experiment"]["space"]["lr"] == narrowed["range"]
    assert "the loss falls from" in narrowed["reason"]
    assert f"note: space.lr={narrowed['range']}: {narrowed['reason']}" in err
    low, high = map(float, narrowed["range"].removeprefix("loguniform(").removesuffix(")").split(","))
    assert all(low <= event["config"]["lr"] <= high for event in events_of(in_tmp / "r", "trial_suggested"))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["space.dropout=from_lr_range_test"], "finds a range for lr only"),
        (["space.lr=from_lr_range_test", "model.arch=cn"], "model.arch"),
        (["space.lr=from_lr_range_tset"], "space.lr"),
    ],
)
def test_mistakes_are_told_before_the_test(overrides: list[str], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        lr_range.resolve(config.load([*QUICK, *overrides]))


def test_an_objective_of_ones_own_is_told_where_to_find_the_test(
    in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "my.py").write_text("def train(config, trial): ...\n")
    mine = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)"]
    code, out, err = told(capfd, "lr-find", *mine)
    assert (code, out) == (2, "")
    assert "hpo_ray.training.range_test(model, batches, …)" in err


def test_a_place_that_cannot_be_written_to_is_told(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capfd, "lr-find", *QUICK, "--out", "nowhere/x")
    assert (code, err) == (2, "1 mistake\n  --out: 'nowhere' is no folder\n")
