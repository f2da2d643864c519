"""Fine-tuning in stages: a head on cached activations, unfreezing, rates by depth; each resumed exactly."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpo_ray.models import vision
from hpo_ray.trainables import image_classification as recipe
from hpo_ray.trainables import image_training
from hpo_ray.trainables.image_source import ImageSource
from hpo_ray.trainables.trial import TrialStopped
from hpo_ray.training import stages
from tests.trainables.test_image_classification import DIGITS, Recorder, same_weights

CACHED = {"name": "cached", "train": "head", "cached": True}
HEAD = {"name": "head", "train": "head"}
ALL = {"name": "all", "train": "all", "lr_factor": 0.1}
SIZE = 32


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of stripes in as many directions, some as JPEG."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :40]
    for index, waves in enumerate((x, y, x + y)):
        (root / f"class{index}").mkdir()
        for i in range(24):
            pixels = 128 + 60 * np.sin(waves / 2 + rng.uniform(0, 6)) + rng.normal(0, 25, waves.shape)
            colours = np.stack([pixels, pixels * rng.uniform(0.7, 1), pixels], axis=-1).clip(0, 255).astype(np.uint8)
            Image.fromarray(colours).save(root / f"class{index}" / f"{i}.{('png', 'jpg')[i % 2]}")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that nobody trained, but the same for all."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(vision.build("resnet18", classes=1000, channels=3, image_size=SIZE).state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def config(photographs: Path, weights: Path) -> dict[str, Any]:
    return config_of(photographs, weights)


def config_of(photographs: Path, weights: Path) -> dict[str, Any]:
    found = copy.deepcopy(DIGITS)
    found["data"] |= {"name": "folder", "root": str(photographs), "image_size": SIZE}
    found["model"] |= {"arch": "resnet18", "weights": str(weights), "dropout": 0.2}
    found["training"] |= {"optimizer": "adamw", "lr": 0.01, "batch_size": 16, "momentum": None}
    return found


def run(folder: Path, config: dict[str, Any]) -> Recorder:
    recorder = Recorder(folder)
    recipe.train(config, recorder.trial())
    return recorder


def staged(config: dict[str, Any], *stages: dict[str, Any], **training: Any) -> dict[str, Any]:
    found = copy.deepcopy(config)
    epochs = sum(stage["epochs"] for stage in stages)
    found["training"] |= {"stages": stages, "epochs": epochs, **training}
    return found


def passes(cache: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in cache.rglob("passes.jsonl") for line in path.read_text().splitlines()]


def test_a_head_learns_the_same_from_cached_activations_as_from_the_images(tmp_path, config, cache):
    plain = run(tmp_path / "plain", staged(config, HEAD | {"epochs": 3}))
    assert passes(cache) == []
    kept = run(tmp_path / "kept", staged(config, CACHED | {"epochs": 3}))
    for mine, theirs in zip(kept.results, plain.results, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    mine, theirs = kept.weights(), plain.weights()
    changed = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert set(changed) <= {"fc.weight", "fc.bias"}
    assert kept.rows[-1]["train_loss"] < kept.rows[0]["train_loss"]


def test_the_trunk_sees_each_image_once_however_many_heads_there_are(tmp_path, config, cache):
    for index, lr in enumerate((0.001, 0.01, 0.1)):
        run(tmp_path / str(index), staged(config, CACHED | {"epochs": 2}, lr=lr))
    assert sum(line["images"] for line in passes(cache)) == 72 - 15  # all but the test part


def everything(config: dict[str, Any]) -> dict[str, Any]:
    """All kinds of stages, and all that has a state."""
    stages = [CACHED | {"epochs": 2}, HEAD | {"epochs": 2}, {"train": 2, "epochs": 1}, ALL | {"epochs": 2}]
    found = staged(config, *stages, schedule="one_cycle", cycle_momentum=True, lr_ratio=3.0, ema_decay=0.8)
    found["data"]["augment"] = "side_on"
    found["training"] |= {"mixup": 0.2, "clip_norm": 1.0, "label_smoothing": 0.1}
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, photographs: Path, weights: Path) -> Recorder:
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_RAY_CACHE", str(folder / "cache"))
        return run(folder, everything(config_of(photographs, weights)))


def test_folds_share_the_trunks_activations(tmp_path, config, cache):
    plain = run(tmp_path / "plain", staged(config, HEAD | {"epochs": 2}) | {"folds": 3})
    kept = run(tmp_path / "kept", staged(config, CACHED | {"epochs": 2}) | {"folds": 3})
    for mine, theirs in zip(kept.results, plain.results, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    assert sum(line["images"] for line in passes(cache)) == 72 - 15


@pytest.mark.parametrize("stopped_after", [1, 3, 4, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6))])
def test_an_interrupted_training_goes_on_exactly_in_every_stage(tmp_path, config, unbroken, stopped_after):
    broken = Recorder(tmp_path / "broken")
    with pytest.raises(TrialStopped):
        recipe.train(everything(config), broken.trial(stop_after=stopped_after))
    recipe.train(everything(config), broken.trial(attempt=1))
    assert broken.results == unbroken.results
    assert same_weights(broken, unbroken)


def test_only_what_a_stage_trains_is_moved(tmp_path, config, weights):
    start = torch.load(weights, weights_only=True)

    def moved(*stages):
        last = run(tmp_path / str(len(stages[0])) / str(stages), staged(config, *stages, weight_decay=0.1)).weights()
        del last["fc.weight"], last["fc.bias"]
        return {name.split(".")[0] for name, value in last.items() if not torch.equal(value, start[name])}

    assert moved(HEAD | {"epochs": 1}) == set()
    assert moved({"train": 2, "epochs": 1}) == {"layer3", "layer4"}
    assert moved(ALL | {"epochs": 1}) == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}


def source_of(config: dict[str, Any]) -> ImageSource:
    return ImageSource(config, seed=0, device="cpu")


def test_layers_near_the_input_learn_slower(config):
    config["training"] |= {"lr_ratio": 3.0}
    source = source_of(config)
    model = source.model()
    groups = image_training.optimizer_of(model, config["training"]).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.01 / 9, 0.01 / 3, 0.01])
    config["training"] |= {"layer_decay": 0.5}
    rates = [group["lr"] for group in image_training.optimizer_of(model, config["training"]).param_groups]
    assert rates == pytest.approx([0.01 * 0.5**depth for depth in reversed(range(len(rates)))])
    assert len(rates) == 10  # the stem, eight blocks, the head


def test_the_rate_of_a_stage_starts_afresh(tmp_path, config):
    config = staged(config, HEAD | {"epochs": 2}, ALL | {"epochs": 2}, schedule="cosine")
    rates = [row["lr"] for row in run(tmp_path, config).rows]
    assert rates[0] == pytest.approx(10 * rates[2])
    assert rates[1] == pytest.approx(10 * rates[3])
    assert rates[1] < rates[0] < 0.01


def test_patience_ends_a_trial_early(tmp_path, config):
    config = staged(config, HEAD | {"epochs": 30}, lr=5.0, patience=2)
    rows = run(tmp_path, config).rows
    best = min(range(len(rows)), key=lambda epoch: rows[epoch]["val_loss"])
    assert len(rows) == best + 3 < 30


def test_classes_can_be_balanced(tmp_path, config):
    """Sixteen of the first class's images are gone."""
    root = tmp_path / "unequal"
    shutil.copytree(config["data"]["root"], root)
    for path in sorted((root / "class0").iterdir())[:16]:
        path.unlink()
    config["data"]["root"] = str(root)
    stage = stages.plan([HEAD], 1)[0]

    def seen(**options):
        source = source_of({**config, "data": {**config["data"], **options}})
        model = source.model()
        batches = [labels for epoch in range(1, 21) for _, labels in source.train(epoch, stage, model)]
        return source, torch.cat(batches).bincount() / sum(map(len, batches))

    source, shares = seen()
    assert source.loss_weights is None
    assert shares.tolist() == pytest.approx([5 / 37, 16 / 37, 16 / 37], abs=0.03)
    assert seen(balance="sampler")[1].tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
    weights = seen(balance="weights")[0].loss_weights
    assert (weights * shares).tolist() == pytest.approx([float(weights[0] * shares[0])] * 3)
    config["data"]["balance"] = "weights"
    rows = [run(tmp_path / name, staged(settings, HEAD | {"epochs": 1})).results for name, settings in
            (("weighted", config), ("plain", {**config, "data": {**config["data"], "balance": "none"}}))]  # fmt: skip
    assert rows[0][0]["train_loss"] != rows[1][0]["train_loss"]


def test_the_range_test_leaves_no_trace_and_finds_a_rate(config):
    before = torch.get_rng_state()
    for stage in (CACHED, HEAD, ALL):
        found = recipe.range_test(staged(config, stage | {"epochs": 1}), steps=40)
        assert len(found.lrs) >= 10
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_bring_their_normalisation_and_size(config):
    del config["data"]["image_size"]
    data = source_of(config).data
    assert data.image_size == 224
    config["data"]["image_size"] = 112
    assert source_of(config).data.train.preprocess.short_side == 128  # as 256 is to 224


def test_real_photographs_on_real_weights(tmp_path, config):
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    config["data"] |= {"root": f"{folder}/hymenoptera", "image_size": 96}
    config["model"] |= {"arch": "mobilenet_v2", "weights": f"{folder}/pretrained/mobilenet_v2_imagenet_from_tflite.pt"}
    plain = run(tmp_path / "plain", staged(config, HEAD | {"epochs": 1}))
    kept = run(tmp_path / "kept", staged(config, CACHED | {"epochs": 4}))
    assert kept.results[0] == pytest.approx(plain.results[0], abs=1e-5)
    assert kept.rows[-1]["val_error"] < 0.2
    assert not same_weights(plain, kept)
