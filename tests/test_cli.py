"""The command as a program: streams, exit codes, what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.processes import with_variable

HPO_RAY = [sys.executable, "-m", "hpo_ray.cli"]
MINE = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)", "trials=4"]


@pytest.fixture
def folder(in_tmp: Path) -> Path:
    (in_tmp / "my.py").write_text(
        "import time\n"
        "def train(config, trial):\n"
        "    print('on stdout', flush=True)\n"
        "    time.sleep(config.get('sleep', 0))\n"
        "    trial.report(loss=config['x'])\n"
    )
    return in_tmp


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HPO_RAY, *arguments], capture_output=True, text=True, timeout=120)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The command's folder for temporary files, which also marks its process and all that it starts."""
    folder = Path(tempfile.mkdtemp(prefix="cli-", dir="/tmp"))  # short, for Ray's sockets
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def gone(temporary: Path) -> bool:
    """Whether nothing is left: no file, no process of ours or Ray's; ends may take a moment."""
    deadline = time.time() + 10
    while (left := with_variable("TMPDIR", str(temporary))) and time.time() < deadline:
        time.sleep(0.2)
    return not left and not list(temporary.iterdir())


def test_json_is_the_only_thing_on_stdout_and_nothing_is_left_behind(folder: Path, temporary: Path) -> None:
    home = Path.home() / ".ray" / "auth_token"
    had_token = home.exists()
    done = call("run", *MINE, "--json", "--out", "r")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    contract = (
        "run_dir metric mode best_trial best_config best_value interval trials completed stopped failed total_fidelity "
        "wall_time_s seed"
    )
    assert set(contract.split()) <= summary.keys()
    assert (summary["trials"], summary["completed"], summary["failed"]) == (4, 4, 0)
    assert summary["best_config"].keys() == {"x"}
    assert summary["best_value"] == pytest.approx(summary["best_config"]["x"])
    assert done.stderr == ""
    assert home.exists() == had_token  # Ray's own token file, readable by everyone, is not made
    assert gone(temporary)
    assert "on stdout" in (folder / "r/trials/0000/attempt-0/output.log").read_text()
    again = call("show", "r", "--json")
    assert json.loads(again.stdout) == summary


def test_without_a_terminal_lines_are_plain_and_the_answer_is_whole(folder: Path) -> None:
    done = call("run", *MINE)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.startswith("run directory ")
    run_dir = next((folder / "runs").iterdir())
    assert run_dir.name.startswith("function-")
    for line in (
        "best        trial ",
        "validation  loss ",
        "trials      4: 4 completed, 0 stopped early, 0 failed",
        f"report      hpo-ray report runs/{run_dir.name}",
        f"load        hpo_ray.load_results('runs/{run_dir.name}')",
    ):
        assert line in done.stdout
    assert "resume" not in done.stdout


@pytest.mark.slow
def test_quiet_leaves_the_answer_only(folder: Path) -> None:
    done = call("run", *MINE, "--quiet")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("best ")


@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_exits_130_and_can_be_resumed(folder: Path, temporary: Path, end: signal.Signals) -> None:
    driver = subprocess.Popen(
        [*HPO_RAY, "run", *MINE, "space.sleep=0.4", "trials=12", "--out", "r"], stderr=subprocess.PIPE, text=True
    )
    events = folder / "r/events.jsonl"
    deadline = time.time() + 60
    while time.time() < deadline and (not events.exists() or events.read_text().count("trial_ended") < 2):
        time.sleep(0.1)
    driver.send_signal(end)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert gone(temporary)
    assert "Traceback" not in err
    assert err.endswith(f"note: `hpo-ray resume {folder}/r` goes on\ninterrupted: what was journalled is kept\n")
    ends = [json.loads(line) for line in events.read_text().splitlines()]
    assert ends[-1]["event"] == "run_ended"
    assert ends[-1]["status"] == "interrupted"
    assert "hpo-ray resume r" in call("show", "r").stdout
    done = call("resume", "r", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["completed"] == 12


def test_a_run_whose_objective_lacks_the_metric_exits_2_and_keeps_its_journal(folder: Path) -> None:
    done = call("run", *MINE, "metric=accuracy", "mode=max", "--out", "r")
    assert done.returncode == 2
    assert "metric: the objective does not report 'accuracy'" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"trial_reported"' in (folder / "r/events.jsonl").read_text() or (folder / "r/events.jsonl").exists()


def test_a_run_without_an_answer_has_failed(folder: Path) -> None:
    (folder / "my.py").write_text(
        "def train(config, trial):\n    if config['x'] > 0.5:\n        raise ValueError('no')\n"
    )
    done = call("run", *MINE)
    assert done.returncode == 1
    assert "the objective ended without a report" in done.stdout
    assert "ValueError: no" in done.stdout
    assert "none: no trial reported a finite value" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_run_where_ray_cannot_be_joined_says_so(folder: Path) -> None:
    done = call("run", *MINE, "ray.address=127.0.0.1:1", "--out", "r")
    assert done.returncode == 2
    assert "ray.address: nothing answers at '127.0.0.1:1'" in done.stderr
    assert not (folder / "r").exists()


def test_config_prints_yaml_that_says_everything(in_tmp: Path) -> None:
    done = call("config", "experiment=digits", "searcher=hyperopt")
    document = yaml.safe_load(done.stdout)
    assert document["searcher"] == {"name": "hyperopt"}
    assert document["training"]["epochs"] == 27
    assert document["space"]["momentum"] == "uniform(0.5, 0.99, when={optimizer: sgd})"


def test_validate_says_good(in_tmp: Path) -> None:
    done = call("validate", "experiment=digits")
    assert (done.returncode, done.stderr) == (0, "")
    assert "experiment 'digits', 6 parameters" in done.stdout


def test_the_run_directory_is_private_to_nobody_but_the_token_is(folder: Path, temporary: Path) -> None:
    """While a run lives its token file is 0600 in a 0700 folder."""
    driver = subprocess.Popen(
        [*HPO_RAY, "run", *MINE, "space.sleep=1", "trials=50", "--out", "r"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.time() + 60
        token = None
        while time.time() < deadline and token is None:
            token = next(temporary.glob("hpo_ray-*/token"), None)
            time.sleep(0.1)
        assert token is not None
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.parent.stat().st_mode & 0o777 == 0o700
        assert token.stat().st_uid == os.getuid()
    finally:
        driver.send_signal(signal.SIGINT)
        driver.wait(60)
