"""A run's best configuration trained a last time: on everything but the test part, by several models."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

import hpo_ray
from hpo_ray import best_model, config, history, runner
from hpo_ray.data import folds, images
from hpo_ray.preflight import check
from hpo_ray.trainables import image_prediction
from hpo_ray.trainables.image_source import ImageSource
from hpo_ray.training.stages import Stage
from tests.sweeps import experiment, told

EPOCHS = 3


@pytest.fixture(scope="module")
def run(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "r"
    overrides = ["experiment=digits", "model.arch=mlp", "trials=2", f"scheduler.max_t={EPOCHS}", "searcher=random"]
    runner.start(check(config.load(overrides)), out=folder)
    return folder


def test_the_best_configuration_learns_from_all_images_but_the_test_part(run: Path, in_tmp: Path) -> None:
    refitted = hpo_ray.refit(run, repeats=2, out=in_tmp / "refitted")
    before, after = history.load(run), history.load(in_tmp / "refitted")
    chosen, [trial] = before.pick()[0], after.trials.values()
    assert trial.config == chosen.config
    assert [row.fidelity for row in trial.reports] == list(range(1, EPOCHS + 1))
    assert not any(name.startswith("val_") for row in trial.reports for name in row.metrics)

    ended = after.ended
    assert ended is not None
    test = refitted.best["test"]
    assert len(test["each"]) == 2
    model = best_model.load(in_tmp / "refitted")
    found = image_prediction.on_part(model.config, model.checkpoint, "test")
    labels = images.load("digits").test.labels
    assert [int((one.probabilities.argmax(1) != labels).sum()) for one in found.plain] == test["each"]
    together = torch.stack([one.probabilities for one in found.plain]).mean(0)
    assert int((together.argmax(1) != labels).sum()) == test["errors"]
    assert model.checkpoint.name == f"checkpoint-{EPOCHS}"


def test_the_answer_tells_the_models_together_and_alone(
    run: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = told(capfd, "refit", str(run), "--repeats", "3", "--out", "again", "--quiet")
    assert code == 0
    shares = [errors / 360 for errors in hpo_ray.Run(history.load(in_tmp / "again")).best["test"]["each"]]
    assert f"each        error {statistics.mean(shares):.2%} of each of the 3 models alone" in out
    assert f"trained     {EPOCHS} epochs, on all images but the test images" in out
    assert "flattering" not in out
    code, _, err = told(capfd, "evaluate", "again", "--part", "valid")
    assert code == 2
    assert "has learnt from the validation images" in err


def test_its_source_holds_each_image_once_and_validates_none() -> None:
    section = {"name": "digits", "train_on_valid": True}
    settings = {"data": section, "model": {"arch": "mlp"}, "training": {"batch_size": 64}}
    source, plain = ImageSource(settings, seed=0, device="cpu"), images.load("digits")
    learnt = list(folds.contents(source.data.train))
    assert sorted(learnt) == sorted([*folds.contents(plain.train), *folds.contents(plain.valid)])
    assert list(folds.contents(source.data.test)) == list(folds.contents(plain.test))
    stage = Stage(name="", since=0, epochs=1, train="all")
    assert source.valid(stage, source.model()) is None
    assert source.steps == -(-len(learnt) // 64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.arch=cnn"], "model.arch: the configuration was chosen with it; only 'seed', 'data.root', "),
        (["data.split_seed=1"], "data.split_seed: the configuration was chosen with it"),
        (["data.train_on_valid=false"], "data.train_on_valid: the configuration was chosen with it"),
        (["training.lr=0.1"], "training.lr: the configuration was chosen with it"),
        (["--trial", "0007"], "has no trial '0007'; it has '0000' to '0001'"),
        (["searcher=grid"], "searcher: the configuration was chosen with it"),
    ],
)
def test_what_cannot_be_refitted_is_told(
    run: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, _, err = told(capfd, "refit", str(run), *arguments, "--out", "nothing")
    assert code == 2
    assert words in err
    assert not (in_tmp / "nothing").exists()


def test_a_run_of_ones_own_objective_cannot_be_refitted(
    ray_here: None, in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def train(config: dict, trial: hpo_ray.Trial) -> None:
        trial.report(epoch=1, loss=config["x"])

    runner.start(experiment({"x": "uniform(0, 1)"}, "trials=1"), objective=train, out=in_tmp / "own")
    code, _, err = told(capfd, "refit", "own")
    assert code == 2
    assert "trained your own objective" in err


def test_without_validation_there_is_nothing_to_choose_by(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capfd, "validate", "experiment=digits", "data.train_on_valid=true")
    assert code == 2
    assert "there is no 'val_error' where validation images are learnt from" in err
    code, _, err = told(
        capfd, "validate", "experiment=digits", "data.train_on_valid=true", "metric=epoch", "mode=max", "folds=3"
    )
    assert code == 2
    assert "folds: data.train_on_valid=true leaves nothing to validate a fold on" in err
