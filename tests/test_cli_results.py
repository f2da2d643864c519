"""Runs from the command line: listed, their best as overrides, compared with each other, exported."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpo_ray
from hpo_ray import config, history
from hpo_ray.journal import Journal
from hpo_ray.preflight import check
from hpo_ray.space import SearchSpace
from tests.sweeps import HPO_RAY, call, told


def train(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
    trial.report(loss=(config["x"] - 0.3) ** 2)


@pytest.fixture(scope="module")
def runs(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for searcher in ("random", "hyperopt"):
        for seed in range(2):
            name = f"{searcher}-{seed}"
            hpo_ray.run(train, {"x": "uniform(0, 1)"}, searcher=searcher, trials=3, seed=seed, out=folder / name)
    return folder


def test_runs_are_listed_the_latest_last(runs: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capfd, "ls", f"{runs}/*", "--json")
    assert code == 0
    rows = json.loads(out)["runs"]
    assert [Path(row["run_dir"]).name for row in rows] == ["random-0", "random-1", "hyperopt-0", "hyperopt-1"]
    for row in rows:
        assert (row["state"], row["trials"], row["of"]) == ("completed", 3, 3)
        best = hpo_ray.load_results(row["run_dir"])["loss"].min()
        assert row["best_value"] == pytest.approx(best)
    code, out, _ = told(capfd, "ls", f"{runs}/*")
    assert code == 0
    assert out.count("completed") == 4
    code, _, err = told(capfd, "ls", f"{runs}/nothing-*")
    assert code == 2
    assert "no run found" in err
    (in_tmp / "tune").mkdir()
    (in_tmp / "tune" / "experiment_state-2026.json").touch()
    for path, meant in (
        (runs / "random-00", f"did you mean '{runs / 'random-0'}'?"),
        (runs, f"its folders are runs: '{runs}/*'"),
        (Path("tune"), "it is plain Ray Tune's"),
    ):
        for command in ("show", "best", "report", "ls"):
            code, _, err = told(capfd, command, str(path))
            assert (code, meant in " ".join(err.split())) == (2, True), (command, err)


def test_a_run_that_cannot_be_read_does_not_hide_the_others(
    runs: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "good").symlink_to(runs / "random-0")
    (in_tmp / "bad").mkdir()
    (in_tmp / "bad" / "events.jsonl").write_bytes(b"\xff\xfe no journal\n")
    code, out, _ = told(capfd, "ls", "*", "--json")
    assert code == 0
    assert "good" in {Path(row["run_dir"]).name for row in json.loads(out)["runs"]}


def test_the_best_configuration_comes_as_overrides(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capfd, "best", str(runs / "random-0"))
    trials = hpo_ray.load_results(runs / "random-0")
    best = trials.loc[trials["loss"].idxmin()]
    assert code == 0
    assert out == f"space.x={best['config/x']}\n"
    assert f"trial {best['trial_id']}" in err
    code, out, _ = told(capfd, "best", str(runs / "random-0"), "--json")
    assert json.loads(out)["config"] == {"x": best["config/x"]}


def test_what_a_stranger_named_is_quoted_and_commands_no_terminal(in_tmp: Path) -> None:
    """As bytes of a process: neither a shell into which the overrides are pasted nor the terminal obeys them."""
    config = {"a": "two words", "b": "$(touch pwned)", "c": "x\nspace.lr=9", "d": "\x1b]52;c;x\x07\x1b[2J", "e": None}
    plan = {"name": "r", "metric": "loss", "mode": "min", "trials": 1, "space": {}}
    with Journal(in_tmp / "r") as log:
        log.append("run_started", experiment=plan, environment={})
        log.append("trial_suggested", trial_id="0000", config_id="c", config=config, state={})
        log.append("trial_started", trial_id="0000", attempt=0, ray_id="x", gpus=0.0)
        report = {"trial_id": "0000", "attempt": 0, "fidelity": 1, "metrics": {"loss": 1.0}}
        log.append("trial_reported", **report, elapsed_s=1.0)
        log.append("trial_ended", trial_id="0000", attempt=0, status="failed", reason=config["d"], cause="exception")
    printed = call("best", "r").stdout.splitlines()
    assert len(printed) == len(config)
    pasted = ["sh", "-c", "printf '%s\\n' " + " ".join(printed)]
    read = subprocess.run(pasted, capture_output=True, text=True, check=True).stdout.splitlines()
    assert not Path("pwned").exists()
    space = dict(word.removeprefix("space.").split("=", 1) for word in read)
    assert SearchSpace.parse(space).constants == config
    for command in (["show", "r"], ["show", "r", "0"], ["best", "r"], ["ls", "r"], ["status", "r"]):
        done = call(*command)
        assert "\x1b" not in done.stdout + done.stderr, command
        assert "\x07" not in done.stdout + done.stderr, command


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(runs: Path) -> None:
    for command in (
        ["ls", f"{runs}/*"],
        ["report", str(runs / "random-0"), "--markdown"],
        ["ls", f"{runs}/*", "--json"],
    ):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([*HPO_RAY, *command], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1] == "failed: the output cannot be written: No space left on device"
        assert "Traceback" not in done.stderr


def test_the_overrides_are_what_a_command_takes(
    ray_here: None, in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = ["model.arch=softmax", "scheduler=none", "training.epochs=1", "searcher=random"]
    hpo_ray.run("digits", overrides=overrides, trials=1, out=in_tmp / "r")
    code, out, _ = told(capfd, "best", "r")
    assert code == 0
    given = [line for line in out.splitlines() if line]
    made = check(config.load(["experiment=digits", *given]))  # every line is one that a command takes
    [trial] = history.load(in_tmp / "r").trials.values()
    assert made.trial_config({})["training"]["lr"] == trial.config["lr"]


def test_groups_are_compared_by_seed(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capfd, "compare", f"{runs}/*", "--json")
    assert code == 0
    found = json.loads(out)
    assert {row["searcher"] for row in found["ranks"]} == {"random", "hyperopt"}
    [difference] = found["differences"]
    best = {name: hpo_ray.load_results(runs / name)["loss"].min() for name in ("random-0", "random-1")}
    other = {name: hpo_ray.load_results(runs / name)["loss"].min() for name in ("hyperopt-0", "hyperopt-1")}
    gap = (sum(best.values()) - sum(other.values())) / 2
    sign = 1 if difference["a"] == "random" else -1
    assert difference["difference"] == pytest.approx(sign * gap)
    assert difference["pairs"] == 2
    assert told(capfd, "compare", f"{runs}/*")[0] == 0


def test_what_else_compared_runs_differ_in_is_told(runs: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capfd, "compare", f"{runs}/*")
    assert (code, err) == (0, "")
    for name in ("random-0", "hyperopt-0"):
        shutil.copytree(runs / name, in_tmp / name)
    path = in_tmp / "random-0" / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if '"0002"' in line)
    path.write_text("".join(lines[:first]).replace('"scheduler":{"name":"none"', '"scheduler":{"name":"asha"'))
    code, _, err = told(capfd, "compare", "random-0", "hyperopt-0")
    assert code == 0
    assert "the runs have 2 to 3 trials: more tries find better ones" in err
    assert "the runs differ in their scheduler, too: asha, none" in err
    assert "not ended: random-0" in err


@pytest.mark.parametrize(("file", "level"), [("t.csv", "trials"), ("t.parquet", "reports"), ("f.parquet", "failures")])
def test_tables_are_exported(
    runs: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str], file: str, level: str
) -> None:
    code, out, _ = told(capfd, "export", f"{runs}/*", file, "--level", level)
    frame = pd.read_csv(in_tmp / file) if file.endswith(".csv") else pd.read_parquet(in_tmp / file)
    assert code == 0
    assert f"{len(frame)} {level} written to {file}" in out
    assert len(frame) == {"trials": 12, "reports": 12, "failures": 0}[level]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "RUN", "t.xlsx"], "FILE: 't.xlsx' ends neither in .csv nor in .parquet"),
        (["export", "RUN", "t.csv", "--level", "trial"], "did you mean 'trials'?"),
        (["export", "RUN", "no/t.csv"], "'no/t.csv' cannot be written"),
        (["compare", "RUN"], "all runs have the searcher 'random'"),
        (["compare", "RUN", "--by", "serch"], "--by: 'serch' is no such thing"),
        (["best", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told(
    runs: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    given = [str(runs / "random-0") if word == "RUN" else word for word in arguments]
    code, _, err = told(capfd, *given)
    assert code == 2
    assert words in err
