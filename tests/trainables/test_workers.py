"""Trials that several worker processes train together, on a real Ray: the same curves, under ASHA, through deaths."""

from __future__ import annotations

import contextlib
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


def listening() -> list[str]:
    """The addresses that this process listens on, as the kernel writes them."""
    own = set()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            own.add(str(number.readlink()))
    rows = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]


def says_who_listens(config: dict[str, Any], trial: Any) -> None:
    import torch
    from torch import distributed

    from hpo_ray.training import parallel

    if config["own"]:
        distributed.init_process_group("gloo")
        distributed.all_reduce(torch.ones(1))
        found = listening()
        distributed.destroy_process_group()
    for _ in range(0 if config["own"] else 5):  # one group after the other
        with parallel.group(trial.device):
            distributed.all_reduce(torch.ones(1))
            found = listening()
            assert parallel.gathered({"é": "x" * 5 * trial.rank}) == [{"é": ""}, {"é": "xxxxx"}]
    (trial.dir / f"listens-{trial.rank}").write_text("\n".join(found))
    trial.report(loss=1.0)


def test_workers_on_one_machine_listen_on_no_network(in_tmp: Path) -> None:
    """Not for what comes of torchrun's variables in an objective of one's own either."""
    run = hpo_ray.run(
        says_who_listens,
        {"own": "choice(True, False)"},
        searcher="grid",
        out=in_tmp / "r",
        overrides=[workers(2), "retry.max_retries=0"],
    )
    assert run.frame()["status"].tolist() == ["completed", "completed"], run.frame()["reason"].tolist()
    found = [path.read_text().split() for path in sorted(run.path.glob("trials/*/*/listens-*"))]
    assert [bool(addresses) for addresses in found] == [True] * 4
    assert {address.split(":")[0] for addresses in found for address in addresses} == {"0100007F"}


def finds_less(config: dict[str, Any], trial: Any) -> None:
    """What the first worker goes on from is gone for the second one, on the second attempt."""
    has_read = trial.dir / "read"
    if trial.rank and trial.attempt == config["blind"]:
        while not has_read.exists():
            time.sleep(0.01)
        (trial.dir.parent / "attempt-0" / "checkpoint-3" / "epoch").unlink()
    saved = trial.load_checkpoint()
    start = int((saved / "epoch").read_text()) if saved else 0
    if not trial.rank:
        has_read.touch()
    for epoch in range(start + 1, 5):
        if trial.attempt == 0 and epoch == 4:
            raise OSError("once")
        trial.report(
            epoch=epoch, loss=1 / epoch, checkpoint=lambda at, epoch=epoch: (at / "epoch").write_text(f"{epoch}")
        )


def test_all_go_on_from_the_same_checkpoint_or_none_does(in_tmp: Path) -> None:
    run = hpo_ray.run(
        finds_less,
        {"blind": 1},
        fidelity="epoch",
        trials=1,
        searcher="random",
        out=in_tmp / "r",
        overrides=[workers(2), "retry.backoff_s=0.1"],
    )
    assert run.frame()["status"].tolist() == ["completed"]
    failures = run.frame("failures")
    lacking = failures[failures["attempt"] == 1]["reason"].astype(str)
    told = "worker 1: RuntimeError: worker 1 cannot go on from checkpoint '.*3' as worker 0 does: here its file 'epoch'"
    assert lacking.str.contains(told).all(), lacking.tolist()
    reports = run.frame("reports")
    assert reports["fidelity"].tolist() == [1, 2, 3, 4]
    assert reports["attempt"].tolist() == [0, 0, 2, 2]  # nothing from the one that was mixed, whatever it measured


def sleeps(config: dict[str, Any], trial: Any) -> None:
    for epoch in range(1, 3):
        if trial.rank == 1 and epoch == 2 and trial.attempt == 0:
            time.sleep(100)
        trial.report(epoch=epoch, loss=1 / epoch)


@pytest.mark.slow
def test_the_limit_on_a_trial_that_says_nothing_holds_for_every_worker(in_tmp: Path) -> None:
    began = time.monotonic()
    run = hpo_ray.run(
        sleeps,
        {"x": 1},
        fidelity="epoch",
        trials=1,
        searcher="random",
        out=in_tmp / "r",
        overrides=[workers(2), "retry.timeout_s=15", "retry.backoff_s=0.1"],
    )
    assert run.frame()["status"].tolist() == ["completed"]
    failure = run.frame("failures").iloc[0]
    assert failure["cause"] == "hung"
    assert failure["reason"].startswith("worker 0 reported, worker 1 had not 15 s later"), failure["reason"]
    assert time.monotonic() - began < 90
