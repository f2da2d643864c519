"""Ray's death is noticed and told: within seconds, with what to do next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpo_ray import journal
from hpo_ray.lock import process_start

OBJECTIVE = """
import time
def train(config, trial):
    for epoch in range(1, 100):
        time.sleep(0.2)
        trial.report(epoch=epoch, loss=config["x"] / epoch)
"""


def children(pid: int) -> dict[str, int]:
    """Name -> number of a process's own children."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, rest = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            if int(rest.split()[1]) == pid:
                found[name] = int(entry.name)
    return found


@pytest.mark.parametrize(
    ("victim", "in_background"), [("gcs_server", True), pytest.param("raylet", False, marks=pytest.mark.slow)]
)
def test_a_driver_whose_ray_has_died_says_so_and_ends(in_tmp: Path, victim: str, in_background: bool) -> None:
    """In the background, as a shell's `&` puts it, Ctrl-C's signal is ignored."""
    (in_tmp / "slow.py").write_text(OBJECTIVE)
    words = ["experiment=function", "trainable.target=slow.py:train", "space.x=uniform(0, 1)", "fidelity=epoch"]
    command = [sys.executable, "-m", "hpo_ray.cli", "run", *words, "slots=1", "--out", "r"]
    start = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"] if in_background else []
    driver = subprocess.Popen([*start, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    events = in_tmp / "r" / journal.FILE_NAME
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (events.exists() and "trial_reported" in events.read_text()):
        time.sleep(0.1)
    own = children(driver.pid)
    os.kill(own[victim], signal.SIGKILL)
    output, _ = driver.communicate(timeout=30)
    assert driver.returncode == 1
    assert f"Ray's process {victim} has died; go on with `hpo-ray resume {in_tmp / 'r'}`" in output
    last = journal.read(in_tmp / "r").events[-1]
    assert (last["event"], last["status"], last["cause"]) == ("run_ended", "failed", "ray_lost")
    assert not [name for name, pid in own.items() if process_start(pid)]
