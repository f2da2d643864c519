"""Trials that several worker processes train together, on a real Ray: the same curves, under ASHA, through deaths."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray

import hpo_ray
from hpo_ray import journal
from tests.objectives import together

pytestmark = pytest.mark.usefixtures("ray_here")


def workers(n: int) -> str:
    return f"resources.workers_per_trial={n}"


def assert_alike(one: hpo_ray.Run, two: hpo_ray.Run, *columns: str) -> None:
    expected, found = one.frame("reports"), two.frame("reports")
    pd.testing.assert_frame_equal(found[["trial_id", "fidelity"]], expected[["trial_id", "fidelity"]])
    np.testing.assert_allclose(found[[*columns]], expected[[*columns]], rtol=1e-5, atol=1e-5)


def assert_all_is_given_back() -> None:
    deadline = time.monotonic() + 10
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2


def test_two_workers_learn_what_one_does_from_batches_twice_as_large(in_tmp: Path) -> None:
    """Over a whole sweep under ASHA, whose stopped trials give back what they held."""
    one, two = (
        hpo_ray.run(
            together.train,
            {"lr": "loguniform(0.003, 0.3)", "batch_size": 64 // n},
            metric="val_loss",
            fidelity="epoch",
            scheduler={"name": "asha", "max_t": 4},
            searcher="random",
            trials=8,
            slots=1,
            out=in_tmp / f"{n}",
            overrides=[workers(n)],
        )
        for n in (1, 2)
    )
    assert_alike(one, two, "train_loss", "val_loss", "val_error")
    assert two.frame()["status"].tolist() == one.frame()["status"].tolist()
    assert {"completed", "stopped"} == set(two.frame()["status"])
    assert_all_is_given_back()


@pytest.mark.slow
def test_so_does_the_image_recipe(in_tmp: Path) -> None:
    net = ["model.arch=resnet9", "model.norm=group", "model.activation=gelu", "model.dropout=0.0"]
    net += ["training.epochs=2", "training.optimizer=sgd"]
    one, two = (
        hpo_ray.run(
            "digits",
            {"lr": "choice(0.0001, 0.0002)"},
            searcher="grid",
            scheduler="none",
            slots=1,
            out=in_tmp / f"{n}",
            overrides=[
                *net,
                workers(n),
                "training.epochs=2",
                f"training.batch_size={64 // n}",
                "training.optimizer=sgd",
            ],
        )
        for n in (1, 2)
    )
    assert_alike(one, two, "train_loss", "val_loss", "val_error", "lr")


def dies_once(config: dict[str, Any], trial: Any) -> None:
    saved = trial.load_checkpoint()
    start = int((saved / "epoch").read_text()) if saved else 0
    for epoch in range(start + 1, 4):
        if trial.attempt == 0 and epoch == 3 and trial.rank == config["rank"]:
            os.kill(os.getpid(), signal.SIGKILL)
        trial.report(
            epoch=epoch, loss=1 / epoch, checkpoint=lambda at, epoch=epoch: (at / "epoch").write_text(f"{epoch}")
        )


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_trial_goes_on_when_one_of_its_workers_has_died(in_tmp: Path, rank: int) -> None:
    space = {"rank": rank, "x": "choice(1, 2)"}
    run = hpo_ray.run(dies_once, space, fidelity="epoch", searcher="grid", out=in_tmp / "r", overrides=[workers(2)])
    assert run.frame()["status"].tolist() == ["completed", "completed"]
    assert run.frame("reports")["fidelity"].tolist() == [1, 2, 3] * 2
    failures = run.frame("failures")
    assert failures["cause"].tolist() == ["killed", "killed"]
    assert failures["reason"].str.startswith(f"worker {rank}:" if rank else "the worker process").all()
    assert_all_is_given_back()


def one_is_wrong(config: dict[str, Any], trial: Any) -> None:
    import torch
    from torch import distributed

    from hpo_ray.training import parallel

    with parallel.group(trial.device):
        if trial.rank == config["rank"]:
            raise KeyError("mine")
        distributed.all_reduce(torch.ones(1))


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_one_that_is_wrong_is_named_and_not_those_that_wait_for_it(in_tmp: Path, rank: int) -> None:
    space = {"rank": rank, "x": "choice(1, 2)"}
    overrides = [workers(2), "retry.max_retries=0"]
    run = hpo_ray.run(one_is_wrong, space, searcher="grid", out=in_tmp / "r", overrides=overrides)
    reasons = run.frame()["reason"].astype(str)
    assert reasons.str.contains("KeyError: 'mine'").all(), reasons.tolist()
    assert reasons.str.startswith("worker 1:").all() == bool(rank)


def uneven(config: dict[str, Any], trial: Any) -> None:
    for step in range(2 + trial.rank * config["more"]):
        trial.report(loss=step)


@pytest.mark.slow
@pytest.mark.parametrize("more", [-1, 1])
def test_workers_that_report_unequally_often_are_told_so(in_tmp: Path, more: int) -> None:
    overrides = [workers(2), "retry.max_retries=0"]
    space = {"more": more, "x": "choice(1, 2)"}
    run = hpo_ray.run(uneven, space, searcher="grid", out=in_tmp / "r", overrides=overrides)
    assert run.frame()["status"].tolist() == ["failed", "failed"]
    assert run.frame()["reason"].astype(str).str.contains("all must report equally often").all()
    assert_all_is_given_back()


def test_the_journal_and_the_folder_are_the_first_workers(in_tmp: Path) -> None:
    def tells(config: dict[str, Any], trial: Any) -> None:
        print("worker", trial.rank, os.environ["RANK"], os.environ["WORLD_SIZE"])
        trial.report(loss=trial.rank, checkpoint=lambda folder: (folder / "rank").write_text(str(trial.rank)))

    run = hpo_ray.run(tells, {"x": "choice(1, 2)"}, searcher="grid", out=in_tmp / "r", overrides=[workers(2)])
    assert [event["metrics"] for event in journal.read(run.path).events if event["event"] == "trial_reported"] == [
        {"loss": 0.0},
        {"loss": 0.0},
    ]
    folder = run.path / "trials" / "0000" / "attempt-0"
    assert [(folder / name).read_text().strip() for name in ("output.log", "output-1.log")] == [
        "worker 0 0 2",
        "worker 1 1 2",
    ]
    assert [path.read_text() for path in folder.glob("*/rank")] == ["0"]
