"""The report on a data set, and the fine-tuning regime that it advises."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpo_ray import config, preflight
from hpo_ray.data import similarity
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.models import vision
from hpo_ray.trainables import regimes
from hpo_ray.trainables.data_check import DataReport, check_data


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of coloured blobs: large ones and small ones."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name, blobs in (("large", 4), ("small", 12)):
        (root / name).mkdir()
        for i in range(20):
            coarse = Image.fromarray(rng.integers(0, 256, (blobs, blobs, 3), dtype=np.uint8))
            coarse.resize((90, 80), Image.Resampling.BICUBIC).save(root / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that nobody trained."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pt"
    torch.save(vision.build("mobilenet_v2", classes=1000, channels=3, image_size=32).state_dict(), path)
    return path


def check(data: dict[str, Any], arch: str = "mobilenet_v2", weights: Path | str | None = None) -> DataReport:
    model = {"arch": arch, "weights": None if weights is None else str(weights)}
    return check_data({"data": data, "model": model, "training": {}}, sample=60)


def text(report: DataReport) -> str:
    return "\n".join(f"{name} {line}" for name, line, _ in report.lines())


def test_good_images_without_weights(photographs):
    report = check({"name": "folder", "root": str(photographs)})
    assert report.findings == ()
    assert report.counts.to_dict("index") == {name: {"train": 13, "valid": 3, "test": 4} for name in ("large", "small")}
    assert report.sizes == {"width": [90, 90, 90], "height": [80, 80, 80]}
    assert (report.advice.regime, report.advice.similarity, report.advice.command) == ("small", None, "")
    said = text(report)
    assert "train 26 images, 13 a class\n" in said
    assert "findings none" in said
    assert "similarity not measured: without model.weights" in said


def test_a_fault_is_named_with_its_files(photographs, tmp_path):
    root = Path(shutil.copytree(photographs, tmp_path / "faulty"))
    for i in range(7):
        (root / "large" / f"broken{i}.jpg").write_bytes(b"broken")
    (root / "none").mkdir()
    report = check({"name": "folder", "root": str(root)})
    assert [finding.kind for finding in report.findings if finding.severity == "error"] == ["empty class", "corrupt"]
    lines = report.lines(shown=2)
    [row] = [i for i, (_, line, _) in enumerate(lines) if line.startswith("corrupt: 7 of 47 images cannot be read")]
    assert lines[row][0] == "error"
    assert lines[row + 1][1] == f"  large/broken0.jpg: cannot identify image file '{root / 'large/broken0.jpg'}'"
    assert lines[row + 3][1] == "  … 5 more"
    assert len(report.counts) == 3
    assert report.counts.loc["none"].sum() == 0


def test_the_state_is_json_and_names_every_file(photographs, tmp_path):
    root = Path(shutil.copytree(photographs, tmp_path / "faulty"))
    for i in range(9):
        shutil.copy(root / "large" / f"{i}.jpg", root / "small" / f"copy{i}.jpg")
    state = json.loads(json.dumps(check({"name": "folder", "root": str(root)}).state(), allow_nan=False))
    [finding] = state["findings"]
    assert (finding["kind"], finding["severity"]) == ("exact contradiction", "error")
    assert len(finding["groups"]) == 9
    assert state["images"] == 49
    assert sum(state["counts"]["train"].values()) + sum(state["counts"]["valid"].values()) < 49
    assert state["modes"] == {"RGB": 49}
    assert state["advice"]["similarity"] is None


def test_images_that_weights_know_nothing_of(photographs, weights):
    report = check({"name": "folder", "root": str(photographs), "image_size": 48}, weights=weights)
    found = report.advice.similarity
    assert found is not None
    assert found.images == 32  # of 26 to train on and 6 to validate on
    assert report.advice.regime == f"small, {found.verdict}"
    assert f"model.weights={weights}" in report.advice.command
    assert "data.image_size=48" in report.advice.command
    assert report.state()["advice"]["similarity"]["gain"] == pytest.approx(found.gain)


def test_similarity_is_measured_even_where_training_would_not_start(photographs, tmp_path, weights):
    root = Path(shutil.copytree(photographs, tmp_path / "faulty"))
    (root / "none").mkdir()
    (root / "large" / "broken.jpg").write_bytes(b"broken")
    report = check({"name": "folder", "root": str(root), "image_size": 32}, weights=weights)
    assert report.advice.similarity is not None
    assert report.advice.images_per_class == 20.5


def test_too_few_images_for_a_measurement(photographs, tmp_path, weights):
    for name in ("large", "small"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for i in range(4):
            shutil.copy(photographs / name / f"{i}.jpg", tmp_path / "few" / name)
    report = check({"name": "folder", "root": str(tmp_path / "few"), "image_size": 32}, weights=weights)
    assert report.advice.similarity is None
    assert "fewer than two classes have the five images" in text(report)


def test_weights_that_cannot_be_had_are_an_error(photographs, tmp_path):
    with pytest.raises(InvalidInput, match=r"model\.weights"):
        check({"name": "folder", "root": str(photographs)}, weights=tmp_path / "none.pt")


def test_a_model_that_takes_one_size_gets_it(monkeypatch):
    assert regimes._network({"arch": "resnet18", "weights": None}, None, 224)[1] == 128
    assert regimes._network({"arch": "resnet18", "weights": None}, 64, 224)[1] == 64
    build = vision.build

    def picky(arch: str, *, image_size: int, **options: Any) -> torch.nn.Module:
        if image_size != 224:
            raise InvalidInput(Problem("data.image_size", "must be 224"))
        return build(arch, image_size=image_size, **options)

    monkeypatch.setattr(vision, "build", picky)
    assert regimes._network({"arch": "resnet18", "weights": None}, None, 224)[1] == 224
    with pytest.raises(InvalidInput, match="must be 224"):
        regimes._network({"arch": "resnet18", "weights": None}, 64, 32)


@pytest.mark.parametrize("arch", ["mobilenet_v2", "resnet18", "efficientnet_b0"])
@pytest.mark.parametrize("data", ["folder", "digits"])
@pytest.mark.parametrize("regime", regimes._REGIMES, ids=" ".join)
def test_every_command_that_is_advised_is_a_valid_one(photographs, weights, monkeypatch, regime, data, arch):
    listing = regimes.Listing(photographs if data == "folder" else None, (), {}, {})
    command = regimes._command(
        listing, {"name": data}, {"arch": arch, "weights": str(weights)}, regimes._REGIMES[regime][1]
    )
    words = shlex.split(command)
    assert words[:2] == ["hpo-ray", "run"]
    experiment = preflight.check(config.load(words[2:]))
    assert (experiment.model.arch, experiment.data.name) == (arch, data)
    stages = [stage.train for stage in experiment.training.stages]
    assert ("all" in stages) == (regime != ("small", "similar") and regime != ("small", "dissimilar"))
    assert (regime[1] != "unclear") or regimes._REGIMES[regime][1] == ()


def test_a_validation_part_that_is_kept_for_the_winner_is_counted_as_test(photographs, tmp_path, weights):
    for part in ("train", "val"):
        shutil.copytree(photographs, tmp_path / part)
    data = {"name": "folder", "root": str(tmp_path), "image_size": 32, "valid_is_test": True, "valid_fraction": 0.3}
    report = check(data | {"split_seed": 0, "test_fraction": 0.1, "max_corrupt_fraction": 0.5}, weights=weights)
    assert report.counts.sum().to_dict() == {"train": 28, "valid": 12, "test": 40}
    words = shlex.split(report.advice.command)
    experiment = preflight.check(config.load(words[2:])).data
    assert (experiment.valid_is_test, experiment.valid_fraction, experiment.test_fraction) == (True, 0.3, 0.1)
    assert experiment.max_corrupt_fraction == 0.5
    assert not any("split_seed" in word for word in words)
    assert "data.split_seed=3" in check(data | {"split_seed": 3}, weights=weights).advice.command


@pytest.mark.parametrize("parts", [(), ("train", "val", "test")])
def test_what_validate_says_of_a_validation_part_that_cannot_be_kept_is_said(photographs, tmp_path, parts):
    for part in parts or (".",):
        shutil.copytree(photographs, tmp_path / part, dirs_exist_ok=True)
    overrides = ["experiment=images", "data=folder", f"data.root={tmp_path}", "data.valid_is_test=true"]
    with pytest.raises(InvalidInput) as said:
        preflight.check(config.load(overrides))
    with pytest.raises(InvalidInput) as told:
        check({"name": "folder", "root": str(tmp_path), "valid_is_test": True})
    assert [problem.message for problem in told.value.problems] == [problem.message for problem in said.value.problems]
    assert [problem.key for problem in told.value.problems] == ["data.valid_is_test"]


def test_features_that_tell_more_than_pixels_are_similar():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 40)
    noise = rng.normal(size=(160, 30))
    telling = noise + 5 * np.eye(30)[labels]
    found = similarity.measure(telling, noise, labels)
    assert found.similar
    assert found.features > 0.9
    assert found.pixels < 0.5
    assert similarity.measure(noise, telling, labels).similar is False
    assert not similarity.measure(telling, telling, labels).similar


def right(both: int, features: int, pixels: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each is right, given how often both, one or none of them is."""
    counts = [both, features, pixels, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize("counts", [(150, 200, 30, 60), (400, 40, 60, 40), (900, 50, 20, 30)])
def test_the_interval_of_the_gain_is_the_bootstraps_where_errors_are_many(counts):
    features, pixels = right(*counts)
    rows = np.random.default_rng(1).integers(0, len(features), (4000, len(features)))
    gains = 1 - (~features[rows]).sum(axis=1) / (~pixels[rows]).sum(axis=1)
    assert similarity.gain_interval(features, pixels) == pytest.approx(np.quantile(gains, [0.025, 0.975]), abs=0.04)


@pytest.mark.parametrize("gain", [0.0, 0.3, 0.7])
def test_the_interval_of_the_gain_holds_the_truth_about_as_often_as_it_says(gain):
    rng = np.random.default_rng(2)
    wrong = 0.4 * np.array([1 - gain, 1])  # of features and of pixels
    held = 0
    for _ in range(300):
        pixels = rng.random(48) >= wrong[1]
        features = np.where(pixels, True, rng.random(48) >= wrong[0] / wrong[1])
        low, high = similarity.gain_interval(features, pixels, draws=2000)
        held += low <= gain <= high
    assert held >= 0.92 * 300


def test_few_images_leave_open_whether_they_are_similar():
    few = similarity.Similarity(40 / 48, 33 / 48, 48, *similarity.gain_interval(*right(30, 10, 3, 5)))
    assert few.low < similarity.LEAST_GAIN < few.high
    assert (few.similar, few.verdict) == (None, "unclear")
    many = similarity.Similarity(400 / 480, 330 / 480, 480, *similarity.gain_interval(*right(300, 100, 30, 50)))
    assert (many.similar, many.verdict) == (True, "similar")
    none = similarity.Similarity(1.0, 1.0, 10, *similarity.gain_interval(*right(10, 0, 0, 0)))
    assert none.verdict == "unclear"


def test_unclear_images_get_the_usual_recipe_and_the_reason(photographs, weights, monkeypatch):
    found = similarity.Similarity(40 / 48, 33 / 48, 48, *similarity.gain_interval(*right(30, 10, 3, 5)))
    monkeypatch.setattr(regimes, "_similarity", lambda *_: found)
    report = check({"name": "folder", "root": str(photographs)}, weights=weights)
    said = text(report)
    assert report.advice.regime == "small, unclear"
    assert "similarity unclear: a linear probe gets 83% right from the trunk's features, 69% from pixels" in said
    assert f"{found.low:.0%} to {found.high:.0%} with 95% confidence on 48 images, and 30% tell the two apart" in said
    assert "advice small, unclear: train the head, then all layers, the lower ones more slowly" in said
    assert "stages" not in report.advice.command
    assert json.loads(json.dumps(report.state()))["advice"]["similarity"]["similar"] is None


def test_a_sample_has_as_many_of_each_class():
    labels = np.repeat(np.arange(30), 50)
    labels[:47] = 1  # class 0 has 3 left
    chosen = similarity.sample(labels, 200)
    counts = np.bincount(labels[chosen])
    assert set(counts[counts > 0]) == {10}
    assert (counts > 0).sum() == 20
    assert counts[0] == 0
    assert np.array_equal(chosen, similarity.sample(labels, 200))
    assert not np.array_equal(chosen, similarity.sample(labels, 200, seed=1))
    assert len(similarity.sample(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1]))) == 0


@pytest.mark.parametrize(
    ("data", "regime"),
    [("digits", "small, dissimilar"), ("hymenoptera", "small, similar"), ("clothing-small", "large, similar")],
)
def test_the_regime_of_shared_data(data, regime):
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    section = {"name": "digits"} if data == "digits" else {"name": "folder", "root": str(Path(folder, data))}
    weights = Path(folder, "pretrained/mobilenet_v2_imagenet_from_tflite.pt")
    model = {"arch": "mobilenet_v2", "weights": str(weights)}
    report = check_data({"data": section | {"image_size": 96}, "model": model, "training": {}}, sample=300)
    assert report.advice.regime == regime, text(report)
