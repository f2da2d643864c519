"""The image recipe: what it reports, that it learns, and that it goes on exactly after a break."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpo_ray.data import images, parts
from hpo_ray.errors import InvalidInput, RunFailed
from hpo_ray.trainables import TRAINABLES
from hpo_ray.trainables import image_classification as recipe
from hpo_ray.trainables.trial import Report, Trial, TrialSpec, TrialStopped

DIGITS = {
    "data": {
        "name": "digits",
        "root": None,
        "valid_fraction": 0.15,
        "test_fraction": 0.2,
        "split_seed": 0,
        "image_size": None,
        "max_corrupt_fraction": 0.01,
        "workers": 0,
    },
    "model": {"arch": "mlp", "weights": None, "units": 32, "layers": 1, "activation": "relu", "dropout": 0.2},
    "training": {
        "lr": 0.01,
        "batch_size": 64,
        "epochs": 2,
        "optimizer": "adam",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "stages": (),
    },
}


def config_with(**changes) -> dict:
    """The digits configuration; a key of any section may be changed."""
    config = copy.deepcopy(DIGITS)
    for key, value in changes.items():
        [section] = [section for section in config.values() if key in section]
        section[key] = value
    return config


class Recorder:
    """A trial's folder, and the reports of its attempts; stops the trial after `stop_after` reports."""

    def __init__(self, folder: Path, seed: int = 0, cpus: int = 1, micro_batches: int = 1) -> None:
        self.folder = folder
        self.rows: list[dict] = []
        self.checkpoints: list[Path] = []
        self._spec = {"id": "0001", "config": {}, "seed": seed, "cpus": cpus, "fidelity": "epoch"}
        self._spec["micro_batches"] = micro_batches

    def trial(self, attempt: int = 0, stop_after: int | None = None) -> Trial:
        def send(message):
            if not isinstance(message, Report):
                return True
            self.rows.append(message.metrics)
            self.checkpoints.append(message.checkpoint)
            return stop_after is None or len(self.rows) < stop_after

        saved = list(self.folder.glob(f"attempt-{attempt - 1}/checkpoint-*"))
        saved.sort(key=lambda path: -int(path.name.partition("-")[2]))
        folder = self.folder / f"attempt-{attempt}"
        spec = TrialSpec(**self._spec, attempt=attempt, dir=folder, checkpoints=tuple(saved))
        return Trial(spec, send)

    @property
    def results(self) -> list[dict]:
        return [{key: value for key, value in row.items() if key != "epoch_s"} for row in self.rows]

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.checkpoints[-1] / "state.pt", weights_only=True)["model"]


def run(folder: Path, config: dict, **options) -> Recorder:
    recorder = Recorder(folder, **options)
    recipe.train(config, recorder.trial())
    return recorder


def same_weights(one: Recorder, other: Recorder) -> bool:
    mine, theirs = one.weights(), other.weights()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.fixture(scope="module")
def folder_of_pictures(tmp_path_factory) -> str:
    """Two classes that differ in brightness, with noise."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, light in (("dark", 80), ("light", 150)):
        (root / name).mkdir()
        for i in range(40):
            pixels = (light + rng.integers(-70, 70, (12, 12, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return str(root)


def test_it_reports_its_metrics_after_every_epoch(tmp_path):
    rows = run(tmp_path, config_with(lr=0.003, epochs=3)).rows
    assert [tuple(row) for row in rows] == [TRAINABLES["image_classification"].metrics] * 3
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["val_accuracy"] == pytest.approx(1 - row["val_error"])
        assert (row["val_error"] * 270) == pytest.approx(round(row["val_error"] * 270))
        assert row["lr"] == 0.003
        assert 0 < row["epoch_s"] < 60
    assert rows[2]["train_loss"] < rows[0]["train_loss"]


def test_the_cnn_reads_digits(tmp_path):
    config = config_with(arch="cnn", units=128, dropout=0.4, lr=0.003, epochs=8)
    recorder = run(tmp_path, config)
    assert recorder.rows[-1]["val_error"] < 0.05
    errors, n = recipe.errors_on_test(config, recorder.checkpoints[-1]).values()
    assert n == 360
    assert errors < 0.04 * n


def test_a_folder_of_pictures_is_learnt(tmp_path, folder_of_pictures):
    config = config_with(
        name="folder", root=folder_of_pictures, image_size=8, arch="softmax", batch_size=16, lr=0.01, epochs=8
    )
    recorder = run(tmp_path, config)
    assert recorder.rows[-1]["val_error"] < 0.1
    errors, n = recipe.errors_on_test(config, recorder.checkpoints[-1]).values()
    assert n == 16
    assert errors <= 2


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("arch", ["mlp", "cnn"])
def test_a_resumed_trial_is_the_unbroken_one(tmp_path, arch, optimizer):
    config = config_with(arch=arch, optimizer=optimizer, epochs=6)
    unbroken = run(tmp_path / "unbroken", config)

    broken = Recorder(tmp_path / "broken")
    with pytest.raises(TrialStopped):
        recipe.train(config, broken.trial(stop_after=3))
    run(tmp_path / "another", config_with(epochs=1), seed=7)
    recipe.train(config, broken.trial(attempt=1))

    assert broken.results == unbroken.results
    assert same_weights(broken, unbroken)


IN_A_NEW_PROCESS = """
import json, sys
from pathlib import Path
import torch
from tests.trainables.test_image_classification import Recorder, recipe
torch.rand(5)
recorder = Recorder(Path(sys.argv[1]))
recipe.train(json.loads(sys.argv[2]), recorder.trial(attempt=1))
print(json.dumps(recorder.results))
"""


def test_a_trial_resumed_in_a_new_process_is_the_unbroken_one(tmp_path):
    config = config_with(arch="cnn", epochs=6)
    unbroken = run(tmp_path / "unbroken", config)
    run(tmp_path / "broken", {**config, "training": {**config["training"], "epochs": 3}})
    answer = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, tmp_path / "broken", json.dumps(config)],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(answer.stdout) == unbroken.results[3:]
    last = [
        torch.load(tmp_path / path / "checkpoint-6/state.pt", weights_only=True)["model"]
        for path in ("unbroken/attempt-0", "broken/attempt-1")
    ]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])


def test_a_folder_trial_resumes_exactly_too(tmp_path, folder_of_pictures):
    config = config_with(name="folder", root=folder_of_pictures, image_size=8, arch="cnn", batch_size=16, epochs=4)
    unbroken = run(tmp_path / "unbroken", config)
    broken = Recorder(tmp_path / "broken")
    with pytest.raises(TrialStopped):
        recipe.train(config, broken.trial(stop_after=2))
    config["data"]["workers"] = 1
    recipe.train(config, broken.trial(attempt=1))
    assert broken.results == unbroken.results
    assert same_weights(broken, unbroken)


def test_a_finished_trial_that_is_resumed_reports_nothing(tmp_path):
    recorder = run(tmp_path, config_with(epochs=1))
    recipe.train(config_with(epochs=1), recorder.trial(attempt=1))
    assert len(recorder.rows) == 1


def test_batches_in_pieces_train_the_same_model(tmp_path, monkeypatch):
    asked, batches = [], parts.batches
    monkeypatch.setattr(parts, "batches", lambda part, size, **more: asked.append(size) or batches(part, size, **more))
    config = config_with(dropout=0.0, optimizer="sgd", epochs=1, batch_size=60)
    whole = run(tmp_path / "whole", config)
    pieces = run(tmp_path / "pieces", config, micro_batches=7)
    assert asked == [60, 120, 60, 17]  # to train on and to evaluate on
    for key, weights in whole.weights().items():
        torch.testing.assert_close(pieces.weights()[key], weights, rtol=0, atol=1e-6)
    assert pieces.rows[0]["train_loss"] == pytest.approx(whole.rows[0]["train_loss"], abs=1e-6)
    assert pieces.rows[0]["val_error"] == whole.rows[0]["val_error"]
    asked.clear()
    recipe.errors_on_test(config, pieces.checkpoints[-1], micro_batches=1000)
    assert asked == [1]


def test_a_trial_depends_on_its_seed_and_not_on_the_process(tmp_path):
    first = run(tmp_path / "1", DIGITS, seed=3)
    torch.rand(7)
    run(tmp_path / "2", config_with(arch="softmax"), seed=4)
    assert run(tmp_path / "3", DIGITS, seed=3).results == first.results
    assert run(tmp_path / "4", DIGITS, seed=5).results != first.results


def test_the_order_of_batches_follows_the_trials_seed_and_the_epoch(tmp_path, monkeypatch):
    asked, generator = [], parts.epoch_generator
    monkeypatch.setattr(parts, "epoch_generator", lambda *key: asked.append(key) or generator(*key))
    run(tmp_path, config_with(arch="softmax", epochs=2), seed=5)
    assert asked == [(5, 1), (5, 2)]


def test_the_callers_generators_are_left_alone(tmp_path):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    recorder = Recorder(tmp_path)
    with pytest.raises(TrialStopped):
        recipe.train(DIGITS, recorder.trial(stop_after=1))
    recipe.train(DIGITS, recorder.trial(attempt=1))
    recipe.errors_on_test(DIGITS, recorder.checkpoints[-1])
    assert states() == before


def test_divergence_is_reported_and_not_raised(tmp_path):
    rows = run(tmp_path, config_with(optimizer="sgd", lr=1e30, epochs=3)).rows
    assert math.isnan(rows[-1]["train_loss"])
    assert math.isnan(rows[-1]["val_loss"])
    assert rows[-1]["val_error"] == 1
    assert len(rows) == 3


def test_threads_are_the_trials_processors(tmp_path):
    before = torch.get_num_threads()
    try:
        run(tmp_path, config_with(arch="softmax", epochs=1), cpus=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_numpy_values_from_a_searcher_are_taken(tmp_path):
    config = config_with(
        lr=np.float64(0.01), batch_size=np.int64(256), epochs=np.int64(1), units=np.int64(16), dropout=np.float64(0.1)
    )
    recorder = run(tmp_path, config)
    recipe.train({**config, "training": {**config["training"], "epochs": 2}}, recorder.trial(attempt=1))
    assert [row["epoch"] for row in recorder.rows] == [1, 2]


def test_the_test_part_is_scored_with_the_checkpoints_weights(tmp_path):
    config = config_with(epochs=2)
    recorder = run(tmp_path, config)
    test = images.load("digits").test
    weights = recorder.weights()
    hidden = (test.images.flatten(1) @ weights["1.weight"].T + weights["1.bias"]).relu()
    predicted = (hidden @ weights["4.weight"].T + weights["4.bias"]).argmax(1)
    wrong = int((predicted != test.labels).sum())
    assert 0 < wrong < 360
    assert recipe.errors_on_test(config, recorder.checkpoints[-1]) == {"errors": wrong, "n": 360}


def test_scoring_needs_no_pretrained_weights(tmp_path):
    config = config_with(arch="squeezenet1_1", image_size=32, epochs=1, batch_size=256)
    recorder = run(tmp_path, config)
    config["model"]["weights"] = str(tmp_path / "gone.pt")
    assert recipe.errors_on_test(config, recorder.checkpoints[-1])["n"] == 360


def test_a_damaged_checkpoint_or_one_of_another_model_is_told(tmp_path):
    recorder = run(tmp_path, config_with(epochs=1))
    with pytest.raises(RunFailed, match="does not fit this configuration"):
        recipe.errors_on_test(config_with(units=16), recorder.checkpoints[-1])
    (recorder.checkpoints[-1] / "state.pt").write_bytes(b"")
    with pytest.raises(RunFailed, match="cannot be read"):
        recipe.errors_on_test(config_with(), recorder.checkpoints[-1])


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    config = config_with(epochs=4)
    unbroken = run(tmp_path / "unbroken", config)
    broken = Recorder(tmp_path / "broken")
    with pytest.raises(TrialStopped):
        recipe.train(config, broken.trial(stop_after=3))
    (broken.checkpoints[-1] / "state.pt").write_bytes(b"")
    recipe.train(config, broken.trial(attempt=1))
    assert [row["epoch"] for row in broken.rows] == [1, 2, 3, 3, 4]
    assert broken.results[2] == broken.results[3]
    assert same_weights(broken, unbroken)


def test_check_collects_every_mistake(tmp_path):
    assert recipe.check(DIGITS, {}) == []
    wrong = config_with(name="folder", root=str(tmp_path / "none"), arch="resnet81")
    assert [problem.key for problem in recipe.check(wrong, {})] == ["data.root", "model.arch"]
    wrong = config_with(root="/photos", weights="none.pt")
    assert [problem.key for problem in recipe.check(wrong, {})] == ["data.root", "model.weights"]


@pytest.mark.parametrize(
    ("changes", "sampled", "keys"),
    [
        ({"stages": [{"epochs": 1}]}, {}, ["training.epochs"]),
        ({"stages": [{"epochs": 2}]}, {"epochs": [1, 3]}, ["space.epochs"]),
        ({"stages": [{"train": 9}]}, {}, ["training.stages[0].train"]),
        ({"stages": [{"epochs": 1}, {}], "schedule": "sgdr", "warmup_epochs": 0.5}, {}, []),
        ({"layer_decay": 0.8}, {"lr_ratio": [1.0, 9.0]}, ["space.lr_ratio"]),
        ({"schedule": "constant"}, {"schedule": ["cosine", "composed"]}, ["training.parts"]),
        ({"optimizer": "nesterov", "momentum": 0}, {}, ["training.momentum"]),
        ({"stages": [{"train": "head", "cached": True, "epochs": 2}]}, {}, ["training.stages"]),
        ({"schedule": "cosine", "cycle_len": 2.0}, {}, ["training.cycle_len"]),
        ({"schedule": "cosine", "cycle_len": 2.0}, {"schedule": ["cosine", "sgdr"]}, []),
        ({"schedule": "cosine", "cycle_len": 2.0}, {"cycle_len": [1.0, 2.0]}, []),
        ({"schedule": "sgdr", "warmup_epochs": 2.0}, {}, ["training.warmup_epochs"]),
        ({}, {"arch": ["cnn", "resnet81"]}, ["model.arch"]),
    ],
    ids=str,
)
def test_check_sees_stages_and_schedules_that_do_not_fit(changes, sampled, keys):
    config = copy.deepcopy(DIGITS)
    config["training"] |= changes
    config["training"]["stages"] = [{"cached": False, **stage} for stage in config["training"]["stages"]]
    assert [problem.key for problem in recipe.check(config, sampled)] == keys


def test_what_check_passes_over_is_refused_by_training(tmp_path):
    with pytest.raises(InvalidInput, match="no optimizer is called"):
        run(tmp_path, config_with(optimizer="adagrat"))


def test_the_driver_checks_our_own_models_without_torch(folder_of_pictures):
    config = config_with(name="folder", root=folder_of_pictures, schedule="one_cycle", stages=[{"epochs": 2}])
    code = (
        "import sys\n"
        "from hpo_ray.trainables import image_classification as recipe\n"
        f"assert recipe.check({config!r}, {{}}) == []\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'scipy', 'ray', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_real_photographs(tmp_path):
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    weights = f"{folder}/pretrained/mobilenet_v2_imagenet_from_tflite.pt"
    config = config_with(
        name="folder", root=f"{folder}/hymenoptera", image_size=96, arch="mobilenet_v2", weights=weights,
        optimizer="adamw", lr=3e-4, batch_size=32, epochs=1, dropout=0.0,
    )  # fmt: skip
    assert recipe.check(config, {}) == []
    recorder = run(tmp_path, config, cpus=2)
    assert recorder.rows[-1]["val_error"] < 0.3
