"""The user's own objective: found by name, and the same in a worker process as where it was found."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from hpo_ray.errors import InvalidInput
from hpo_ray.trainables.function import load_target, pack
from hpo_ray.trainables.process import WorkerProcess
from hpo_ray.trainables.trial import Report, TrialSpec
from hpo_ray.trainables.worker import Ended, Setup

SCALE = 3.0


def run(objective: Any, folder: Path, **config: Any) -> tuple[dict[str, float], Ended]:
    """One trial in a worker process: its last report and its end."""
    worker = WorkerProcess(Setup(pack(objective), (str(folder),), str(folder), 512))
    metrics: dict[str, float] = {}
    try:
        worker.run(TrialSpec("0000", config, 0, 0, folder / "trial"))
        while isinstance(message := worker.next_message(60), Report):
            metrics = message.metrics
            worker.decide(True)
    finally:
        worker.close()
    assert isinstance(message, Ended)
    return metrics, message


def test_a_file_may_use_pools_neighbours_and_its_own_globals(in_tmp: Path) -> None:
    (in_tmp / "neighbour_of_mine.py").write_text("def half(x):\n    return x / 2\n")
    (in_tmp / "my.py").write_text(
        "import multiprocessing\nfrom neighbour_of_mine import half\ncalls = []\n"
        "def square(x):\n    return x * x\n"
        "def train(config, trial):\n"
        "    calls.append(1)\n"
        "    with multiprocessing.Pool(2) as pool:\n"
        "        total = sum(pool.map(square, range(5)))\n"
        "    trial.report(loss=half(total) + config['x'], calls=len(calls))\n"
    )
    metrics, ended = run(load_target("my.py:train"), in_tmp, x=1.0)
    assert ended == Ended("completed")
    assert metrics == {"loss": 16.0, "calls": 1.0}


def test_what_runs_is_what_was_there_when_it_was_found(in_tmp: Path) -> None:
    (in_tmp / "my.py").write_text("def train(config, trial):\n    trial.report(version=1)\n")
    objective = load_target("my.py:train")
    (in_tmp / "my.py").write_text("def train(config, trial):\n    trial.report(version=2)\n")
    assert run(objective, in_tmp)[0] == {"version": 1.0}
    assert run(load_target("my.py:train"), in_tmp)[0] == {"version": 2.0}


def test_a_files_traceback_shows_its_own_lines_only(in_tmp: Path) -> None:
    (in_tmp / "my.py").write_text("def train(config, trial):\n    raise KeyError('gone')  # here\n")
    _, ended = run(load_target("my.py:train"), in_tmp)
    assert ended.status == "failed"
    assert 'my.py", line 2, in train' in ended.traceback
    assert "# here" in ended.traceback
    assert "hpo_ray" not in ended.traceback


def test_closures_partials_and_callable_objects_travel(in_tmp: Path) -> None:
    class Objective:
        def __call__(self, config: dict[str, Any], trial: Any) -> None:
            trial.report(loss=SCALE * config["x"])

    def with_shift(shift: float, config: dict[str, Any], trial: Any) -> None:
        trial.report(loss=config["x"] + shift)

    assert run(Objective(), in_tmp, x=2.0)[0] == {"loss": 6.0}
    assert run(functools.partial(with_shift, 1.0), in_tmp, x=2.0)[0] == {"loss": 3.0}
    assert run(lambda config, trial: trial.report(loss=config["x"]), in_tmp, x=2.0)[0] == {"loss": 2.0}


def test_what_cannot_travel_is_named(in_tmp: Path) -> None:
    handle = (in_tmp / "file").open("w")

    def objective(config: dict[str, Any], trial: Any) -> None:
        handle.write("x")

    with pytest.raises(InvalidInput, match="'objective' cannot be sent to a worker process"):
        pack(objective)
    handle.close()
