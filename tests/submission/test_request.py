"""What is checked before anything is sent, and the script that runs on the cluster: really run, by a shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpo_ray.errors import InvalidInput
from hpo_ray.submission import request
from tests.sweeps import told

MINE = ["experiment=function", "space.x=uniform(0, 1)"]
TARGET = "trainable.target=my.py:train"


@pytest.fixture
def work(in_tmp: Path) -> Path:
    (in_tmp / "my.py").write_text("def train(config, trial): ...")
    (in_tmp / "conf" / "experiment").mkdir(parents=True)
    return in_tmp


def mistakes(work: Path, *overrides: str, config_dir: Path | None = None) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        request.name_of(overrides, work, config_dir)
    return sorted(problem.key for problem in caught.value.problems)


def test_mistakes_are_told_before_anything_is_sent(work: Path) -> None:
    assert mistakes(work, *MINE, "trainable.target=other.py:train", "trails=3", "slots=x") == ["slots", "trails"]
    assert mistakes(work, *MINE, "trainable.target=other.py:train") == ["trainable.target"]
    assert mistakes(work, *MINE, TARGET, "ray.address=auto", "ray=cluster") == ["ray", "ray.address"]
    assert mistakes(work, *MINE, TARGET, config_dir=Path("/etc")) == ["--config-dir"]
    assert mistakes(work, "experiment=images", "data.root=photos") == ["data.root"]  # it would have to travel
    assert mistakes(work / "nowhere", *MINE, TARGET) == ["--working-dir"]


def test_what_only_the_cluster_can_know_is_left_to_it(work: Path) -> None:
    assert request.name_of([*MINE, TARGET, "slots=64", "resources.gpus_per_trial=8"], work, None) == "function"
    assert request.name_of([*MINE, TARGET, "resources.gpus_per_trial=0.5"], work, None) == "function"
    assert request.name_of([*MINE, "trainable.target=/shared/me/my.py:train"], work, None) == "function"
    assert request.name_of(["experiment=images", "data.root=/shared/photos"], work, None) == "images"
    both = ["experiment=images", "data.root=/shared/photos", "data.rot=1"]
    assert mistakes(work, *both) == ["data.rot"]


def test_relative_paths_start_at_the_folder_that_is_sent(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert request.name_of([*MINE, TARGET], work, Path("conf")) == "function"


def test_the_run_directory_is_a_whole_path_on_the_cluster() -> None:
    assert request.run_directory("mine", "/shared/a/") == "/shared/a"
    assert request.run_directory("mine", None).startswith("~/runs/mine-20")
    with pytest.raises(InvalidInput, match="'runs/a' is a path on the cluster: give a whole one"):
        request.run_directory("mine", "runs/a")


@pytest.mark.parametrize("out", ["~/some runs/a'b", "{tmp}/some runs/$x"])
def test_the_script_starts_a_run_and_resumes_one_that_is_there(in_tmp: Path, out: str) -> None:
    """With a stand-in for `hpo-ray` that says how it was called."""
    home, package, tools = (in_tmp / name for name in ("home", "package", "bin"))
    for folder in (home, package, tools):
        folder.mkdir()
    (package / "my.py").write_text("")
    status = """if [ "$1" = status ]; then printf '{"state": "%s"}' "$(cat "$2/driver.lock")"; exit; fi"""
    (tools / "hpo-ray").write_text(f'#!/bin/sh\n{status}\npwd\nprintf "%s\\n" "$@"\n')
    (tools / "hpo-ray").chmod(0o755)
    out = out.format(tmp=in_tmp)
    run = Path(out.replace("~", str(home)))
    overrides = ["experiment=function", 'space.x=choice(a\'b, "c d")', "trials=3", "stop.wall_time_s=5"]

    def called() -> list[str]:
        words = ["sh", "-c", request.script(out, overrides, Path("conf"))]
        environment = {"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}"}
        done = subprocess.run(words, cwd=package, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    code = str(run.parent / ".code" / run.name)
    assert called() == [code, "run", *overrides, "ray.address=auto", "--config-dir", "conf", "--out", str(run)]
    assert Path(code, "my.py").exists()
    run.mkdir()
    (run / "events.jsonl").touch()
    assert called() == [code, "resume", str(run), "trials=3", "stop.wall_time_s=5", "ray.address=auto"]
    (run / "driver.lock").write_text("running")
    Path(code, "my.py").unlink()
    assert called() == [str(package), "resume", str(run)]  # which refuses
    assert not Path(code, "my.py").exists()


def test_an_address_without_a_dashboard_is_a_mistake(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for address, message in (
        ("auto", "expected the dashboard's URL"),
        ("http://127.0.0.1:1", "no Ray dashboard answers"),
    ):
        code, _, err = told(capfd, "submit", *MINE, TARGET, "--address", address)
        assert code == 2
        assert message in err or "pip install 'hpo-ray[cluster]'" in err
    code, _, err = told(capfd, "submit", *MINE, TARGET, "trails=3", "--address", "http://127.0.0.1:1")
    assert (code, "did you mean 'trials'" in err) == (2, True)
    assert told(capfd, "submit", *MINE, "--follow", "x")[0] == 2
