"""Worker processes that end with their test, and a disk that is easily filled."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import pytest

from hpo_ray.trainables.process import WorkerProcess
from hpo_ray.trainables.trial import Trial
from hpo_ray.trainables.worker import Setup


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts a worker process for an objective."""
    started: list[WorkerProcess] = []

    def make(objective: Callable[[dict, Trial], None], max_growth_mb: int = 512) -> WorkerProcess:
        payload = cloudpickle.dumps(objective)
        started.append(WorkerProcess(Setup(payload, (), str(tmp_path), max_growth_mb)))
        return started[-1]

    yield make
    for worker in started:
        worker.close()


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a disk of its own, of 4 MiB."""
    folder = tmp_path_factory.mktemp("small-disk")
    if shutil.which("mount") is None:
        pytest.skip("there is no 'mount' to make a small disk with")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted (not root?): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no room on a folder's disk; deleting the returned file gives it back."""
    ballast = folder / "ballast"
    try:
        with ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
    except OSError:
        return ballast
