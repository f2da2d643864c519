"""Folds and repeats of a configuration: their mean and standard error are reported, and they are resumed as one."""

from __future__ import annotations

import copy
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo_ray.data import folds, images
from hpo_ray.trainables import image_children
from hpo_ray.trainables import image_classification as recipe
from hpo_ray.trainables.image_children import Child
from hpo_ray.trainables.trial import TrialStopped
from tests.trainables.test_image_classification import DIGITS, Recorder


def config(folds: int = 1, repeats: int = 1, epochs: int = 2) -> dict:
    found = {**copy.deepcopy(DIGITS), "folds": folds, "repeats": repeats}
    found["training"]["epochs"] = epochs
    return found


def run(folder: Path, settings: dict) -> Recorder:
    recorder = Recorder(folder)
    recipe.train(settings, recorder.trial())
    return recorder


def test_the_mean_and_its_standard_error_are_those_of_the_folds(tmp_path):
    rows = run(tmp_path, config(folds=4, repeats=2)).rows
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        errors = [row[f"val_error_f{fold}_r{repeat}"] for repeat in range(2) for fold in range(4)]
        assert len(set(errors)) > 1
        assert row["val_error"] == pytest.approx(statistics.fmean(errors))
        assert row["val_error_se"] == pytest.approx(np.std(errors, ddof=1) / np.sqrt(8))
        assert row["val_accuracy"] == pytest.approx(1 - row["val_error"])
    data = images.load("digits")
    for fold in range(4):
        n = len(folds.rows(data, 4, fold)[1])
        wrong = rows[0][f"val_error_f{fold}_r0"] * n
        assert wrong == pytest.approx(round(wrong), abs=1e-6)  # of the images of its own fold


def test_one_fold_and_one_repeat_are_the_plain_training(tmp_path):
    plain = {key: value for key, value in config().items() if key not in ("folds", "repeats")}
    assert run(tmp_path / "a", config()).results == run(tmp_path / "b", plain).results


def test_children_differ_in_seed_and_stay_the_same_over_time():
    children = image_children.of({"folds": 3, "repeats": 2})
    assert len({child.seed(7) for child in children}) == 6
    assert [child.seed(7) for child in children] == [
        child.seed(7) for child in image_children.of({"folds": 3, "repeats": 2})
    ]
    assert Child().seed(7) == 7


@pytest.mark.parametrize("stopped_after", [1, 2])
def test_folds_go_on_exactly_after_an_interruption(tmp_path, stopped_after):
    whole = run(tmp_path / "whole", config(folds=3, epochs=3))
    broken = Recorder(tmp_path / "broken")
    with pytest.raises(TrialStopped):
        recipe.train(config(folds=3, epochs=3), broken.trial(stop_after=stopped_after))
    recipe.train(config(folds=3, epochs=3), broken.trial(attempt=1))
    assert broken.results == whole.results
    for fold in range(3):
        mine, theirs = (
            torch.load(one.checkpoints[-1] / f"fold-{fold}-repeat-0" / "state.pt", weights_only=True)["model"]
            for one in (broken, whole)
        )
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_the_winner_is_scored_as_the_mean_of_its_folds_probabilities(tmp_path):
    settings = config(folds=3, epochs=2)
    recorder = run(tmp_path, settings)
    test = images.load("digits").test
    total, each = 0, []
    for fold in range(3):
        state = torch.load(recorder.checkpoints[-1] / f"fold-{fold}-repeat-0" / "state.pt", weights_only=True)["model"]
        hidden = (test.images.flatten(1) @ state["1.weight"].T + state["1.bias"]).relu()
        probabilities = (hidden @ state["4.weight"].T + state["4.bias"]).softmax(1)
        each.append(int((probabilities.argmax(1) != test.labels).sum()))
        total = total + probabilities
    wrong = int((total.argmax(1) != test.labels).sum())
    assert recipe.errors_on_test(settings, recorder.checkpoints[-1]) == {"errors": wrong, "n": 360, "each": each}


def test_a_fold_that_runs_out_of_patience_keeps_its_last_row(tmp_path):
    settings = config(folds=2, epochs=12)
    settings["training"] |= {"patience": 1, "lr": 0.3}
    whole = run(tmp_path / "whole", settings)
    rows = whole.rows
    assert len(rows) < 12
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    stands = [name for name in ("val_error_f0_r0", "val_error_f1_r0") if rows[-1][name] == rows[-2][name]]
    assert stands, "one of them must have run out before the other for this to test anything"
    for stopped_after in range(1, len(rows)):
        broken = Recorder(tmp_path / f"broken-{stopped_after}")
        with pytest.raises(TrialStopped):
            recipe.train(settings, broken.trial(stop_after=stopped_after))
        recipe.train(settings, broken.trial(attempt=1))
        assert broken.results == whole.results
