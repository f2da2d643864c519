"""The main job: a sweep of image classifiers on the bundled digits, scored on images that no choice was made on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hpo_ray
from hpo_ray import journal


@pytest.mark.usefixtures("ray_here")
def test_a_sweep_ends_with_the_winners_test_error(in_tmp: Path) -> None:
    run = hpo_ray.run(
        "digits", trials=4, seed=1, out=in_tmp / "r", overrides=["scheduler.max_t=3", "storage.keep_checkpoints=1"]
    )
    best = run.best
    assert best["metric"] == "val_error"
    assert best["test"]["n"] == 360
    low, high, confidence = best["interval"]
    assert 0 <= low <= best["test"]["error"] <= high <= 1
    assert confidence == 0.95
    trials = run.frame()
    assert set(trials["status"]) <= {"completed", "stopped"}
    metrics = {"epoch", "train_loss", "val_loss", "val_error", "val_accuracy", "lr", "epoch_s", "val_error_best"}
    assert metrics <= set(trials.columns)
    assert trials["val_error_best"].min() == best["best_value"]
    # The winner's best checkpoint is there, the only one left, and is plain tensors.
    import torch

    trial = best["best_trial"]
    state = run.path / f"trials/{trial}/attempt-0/checkpoint-{best['best_fidelity']:g}/state.pt"
    assert torch.load(state, weights_only=True)
    assert list(run.path.glob("trials/*/*/checkpoint-*")) == [state.parent]


@pytest.mark.usefixtures("ray_here")
def test_an_experiment_that_no_worker_can_run_is_the_users_mistake(in_tmp: Path) -> None:
    """Found out only when the pictures are opened: more than the tolerated share can't be read."""
    from PIL import Image

    for name in ("cats", "dogs"):
        (in_tmp / "photos" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(in_tmp / "photos" / name / f"{number}.png")
        for number in range(5):
            (in_tmp / "photos" / name / f"bad{number}.png").write_bytes(b"not a picture")
    with pytest.raises(hpo_ray.InvalidInput, match="data") as caught:
        hpo_ray.run("images", trials=6, out=in_tmp / "r",
                    overrides=["data.root=photos", "model=cnn", "data.image_size=16", "scheduler.max_t=2"])  # fmt: skip
    assert "could not be read" in str(caught.value) or "corrupt" in str(caught.value)
    assert len(hpo_ray.load_results(in_tmp / "r")) <= 3
    assert journal.read(in_tmp / "r").events[-1]["status"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_demo_reaches_its_accuracy(in_tmp: Path, seed: int) -> None:
    """24 trials with ASHA: at least 97.5 % of the test digits right, whatever the seed."""
    command = [sys.executable, "-m", "hpo_ray.cli", "run", "experiment=digits", f"seed={seed}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    summary = json.loads(done.stdout)
    assert summary["trials"] == 24
    assert summary["test"]["error"] <= 0.025
