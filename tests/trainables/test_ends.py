"""How a trial's end says what went wrong with it, for real: limits on memory, full disks, kills, exits."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.trainables import checkpoints
from hpo_ray.trainables.process import WorkerProcess
from hpo_ray.trainables.trial import Paused, Report, Trial, TrialSpec
from hpo_ray.trainables.worker import Ended
from tests.trainables.conftest import fill

Start = Callable[..., WorkerProcess]


def spec_in(folder: Path, number: int = 0, **config: Any) -> TrialSpec:
    return TrialSpec(f"{number:04d}", config, number, 0, folder / f"{number:04d}", fidelity="epoch", metric="loss")


def end_of(worker: WorkerProcess, spec: TrialSpec) -> Ended:
    worker.run(spec)
    while isinstance(message := worker.next_message(60), Report):
        worker.decide(True)
    assert isinstance(message, Ended), message
    return message


# Causes


def raise_invalid(config: dict, trial: Trial) -> None:
    raise InvalidInput(Problem("model.arch", "no such model"))


def raise_cuda_out_of_memory(config: dict, trial: Trial) -> None:
    import torch

    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def wrap_out_of_memory(config: dict, trial: Trial) -> None:
    try:
        raise_cuda_out_of_memory(config, trial)
    except RuntimeError as error:
        raise ValueError("training failed") from error


def limit_memory() -> None:
    """Allow this process 200 MiB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 200 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def too_large_for_python(config: dict, trial: Trial) -> None:
    limit_memory()
    kept = [bytearray(2**24) for _ in range(100)]
    trial.report(epoch=1, loss=len(kept))


def too_many_small_things(config: dict, trial: Trial) -> None:
    limit_memory()
    kept: Any = None
    while True:
        kept = (kept, object())  # to the last byte


def too_large_for_torch(config: dict, trial: Trial) -> None:
    import torch

    limit_memory()
    model = torch.nn.Conv2d(3, 64, 7)
    model(torch.rand(256, 3, 64, 64)).sum().backward()


def too_large_for_a_memory_map(config: dict, trial: Trial) -> None:
    import mmap

    limit_memory()
    mmap.mmap(-1, 2**31)


@pytest.mark.parametrize(
    ("objective", "status", "cause", "reason"),
    [
        (lambda config, trial: config["x"], "failed", "exception", "KeyError: 'x'"),
        (raise_invalid, "failed", "input", "InvalidInput: model.arch: no such model"),
        (lambda config, trial: sys.exit(3), "failed", "exited", "SystemExit: 3"),
        (lambda config, trial: os._exit(3), "failed", "exited", "the worker process ended with exit code 3"),
        (lambda config, trial: os._exit(0), "failed", "exited", "the worker process ended with exit code 0"),
        (lambda config, trial: os.abort(), "failed", "killed", "the worker process was killed by SIGABRT"),
        (lambda config, trial: os.kill(os.getpid(), signal.SIGKILL), "failed", "killed", "killed by SIGKILL"),
        (raise_cuda_out_of_memory, "out_of_memory", "out_of_memory", "OutOfMemoryError: CUDA out of memory"),
        (wrap_out_of_memory, "out_of_memory", "out_of_memory", "ValueError: training failed"),
        (too_large_for_python, "out_of_memory", "out_of_memory", "MemoryError"),
        (too_many_small_things, "out_of_memory", "out_of_memory", "MemoryError"),
        (too_large_for_torch, "out_of_memory", "out_of_memory", "DefaultCPUAllocator: can't allocate memory"),
        (too_large_for_a_memory_map, "out_of_memory", "out_of_memory", "OSError: [Errno 12]"),
        (lambda config, trial: None, "completed", "", ""),
    ],
)
def test_the_cause_is_told(
    start: Start, tmp_path: Path, objective: Callable[[dict, Trial], None], status: str, cause: str, reason: str
) -> None:
    ended = end_of(start(objective), spec_in(tmp_path))
    assert (ended.status, ended.cause) == (status, cause)
    assert reason in ended.reason
    assert bool(ended.replaced) == (status == "out_of_memory")
    assert bool(ended.problems) == (cause == "input")


def test_a_process_whose_memory_ran_out_gives_itself_up(start: Start, tmp_path: Path) -> None:
    worker = start(too_large_for_python)
    assert end_of(worker, spec_in(tmp_path)).replaced == "it ran out of memory"
    assert worker._process.wait(10) == 0


# What the kernel does


@pytest.fixture
def small_group(tmp_path: Path) -> Iterator[Path]:
    """A control group whose processes may hold 400 MiB together (cgroup v1)."""
    parent = next(
        (path for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line
         for path in [Path("/sys/fs/cgroup/memory") / line.split(":")[2].lstrip("/")]), None
    )  # fmt: skip
    if parent is None:
        pytest.skip("there is no memory control group (v1) to make one in")
    group = parent / f"hpo-ray-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(400 * 2**20))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group can be made (not root?): {error}")
    yield group
    for _ in range(100):  # until the last process in it is gone
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return


IN_A_GROUP = """
import os, signal, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
import cloudpickle
from hpo_ray.trainables.process import WorkerProcess
from hpo_ray.trainables.trial import TrialSpec
from hpo_ray.trainables.worker import Setup

def train(config, trial):
    if config["too_large"]:
        trial.micro_batches
        kept = [b"x" * 2**24 for _ in range(100)]
    os.kill(os.getpid(), signal.SIGKILL)

for number, too_large in enumerate([False, True, False]):
    worker = WorkerProcess(Setup(cloudpickle.dumps(train), (), sys.argv[2], 512))
    worker.run(TrialSpec(str(number), {"too_large": too_large}, 0, 0, Path(sys.argv[2], str(number))))
    ended = worker.next_message(60)
    print(ended.status, ended.cause, ended.splits, "/", ended.reason)
    worker.close()
"""


def test_a_kill_for_memory_is_told_from_other_kills_before_and_after(small_group: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", IN_A_GROUP, small_group, tmp_path],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.splitlines() == [
        "failed killed False / the worker process was killed by SIGKILL; the machine may have run out of memory",
        "out_of_memory out_of_memory True / the worker process was killed by SIGKILL: the machine ran out of memory",
        "failed killed False / the worker process was killed by SIGKILL; the machine may have run out of memory",
    ]


# Splitting batches


def test_whether_the_objective_can_split_is_told_with_every_end(start: Start, tmp_path: Path) -> None:
    def objective(config: dict, trial: Trial) -> None:
        if config["look"]:
            assert trial.micro_batches == 1
        if config["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        trial.report(epoch=1, loss=1.0)

    worker = start(objective)
    assert end_of(worker, spec_in(tmp_path, 0, look=True, die=False)) == Ended("completed", splits=True)
    assert end_of(worker, spec_in(tmp_path, 1, look=False, die=False)) == Ended("completed")
    assert end_of(worker, spec_in(tmp_path, 2, look=True, die=True)).splits


# A full disk


def save(folder: Path) -> None:
    (folder / "w").write_bytes(bytes(2**21))


def objective_that_saves(config: dict, trial: Trial) -> None:
    for epoch in (1, 2):
        trial.report(epoch=epoch, loss=1.0, checkpoint=save)


def test_a_trial_waits_for_room_and_goes_on(start: Start, small_disk: Path) -> None:
    worker, spec = start(objective_that_saves), spec_in(small_disk)
    ballast = fill(small_disk)
    ballast.write_bytes(bytes(3 * 2**20))  # room for the output and half a checkpoint
    worker.run(spec)
    assert worker.next_message(20) == Paused(f"no room to save checkpoint 1 in '{spec.dir}'; once there is some")
    assert worker.next_message(3) is None  # it has tried again, and does not say so every time
    assert not list(spec.dir.glob("*checkpoint*"))
    assert not list(spec.dir.glob(".partial-*"))
    ballast.unlink()
    report = worker.next_message(20)
    assert isinstance(report, Report)
    assert report.checkpoint is not None
    assert checkpoints.verify(report.checkpoint) == ""
    worker.decide(True)
    assert isinstance(worker.next_message(5), Paused)  # no room for two: another wait, which is said at once
    shutil.rmtree(report.checkpoint)
    assert isinstance(worker.next_message(20), Report)
    worker.decide(True)
    assert worker.next_message(20) == Ended("completed")


def test_a_paused_trial_can_be_ended_and_its_process_takes_the_next(start: Start, small_disk: Path) -> None:
    worker = start(objective_that_saves)
    ballast = fill(small_disk)
    ballast.write_bytes(bytes(3 * 2**20))
    worker.run(spec_in(small_disk))
    assert isinstance(worker.next_message(20), Paused)
    began = time.monotonic()
    worker.decide(False)
    worker.decide(False)  # one that comes too late is nobody's
    assert worker.unwind(20) == Ended("stopped")
    assert time.monotonic() - began < 5
    ballast.unlink()
    worker.run(spec_in(small_disk, 1))
    assert isinstance(worker.next_message(20), Report)


def print_a_lot(config: dict, trial: Trial) -> None:
    for _ in range(100):
        print("x" * 10_000, flush=True)
    trial.report(epoch=1, loss=1.0)


def save_in_own_folder(config: dict, trial: Trial) -> None:
    import torch

    torch.save(torch.rand(1_500_000), trial.dir / "mine.pt")


@pytest.mark.parametrize(
    ("objective", "free"),
    [(print_a_lot, 0), (print_a_lot, 2**15), (save_in_own_folder, 0), (save_in_own_folder, 2**20)],
)
def test_elsewhere_a_full_disk_ends_the_trial_and_says_so(
    start: Start, small_disk: Path, tmp_path: Path, objective: Callable[[dict, Trial], None], free: int
) -> None:
    worker = start(objective)
    ballast = fill(small_disk)
    os.truncate(ballast, ballast.stat().st_size - free)
    ended = end_of(worker, spec_in(small_disk))
    assert (ended.status, ended.cause) == ("failed", "disk_full")
    pid = worker.pid
    if objective is print_a_lot:
        assert end_of(worker, spec_in(tmp_path)) == Ended("completed")  # the process lives on, with its output
        assert worker.pid == pid
        assert (tmp_path / "0000" / "output.log").stat().st_size == 100 * 10_001


def test_a_disk_that_holds_no_more_folders_is_full(start: Start, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", small_disk], check=True)
    with contextlib.suppress(OSError):
        (small_disk / "last").touch()
    worker = start(objective_that_saves)
    for number in range(2):
        ended = end_of(worker, spec_in(small_disk, number))
        assert (ended.status, ended.cause) == ("failed", "disk_full")
        assert "No space left on device" in ended.reason
