"""Small sweeps for tests: in this process, or by the command as a process of its own; and what came of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hpo_ray import cli, config, console, journal, runner
from hpo_ray.experiment import Experiment
from hpo_ray.history import History
from hpo_ray.journal import Event
from hpo_ray.preflight import check

T = TypeVar("T")
HPO_RAY = [sys.executable, "-m", "hpo_ray.cli"]


def experiment(space: dict[str, Any], *overrides: str) -> Experiment:
    """An experiment on a function that is given as such: two slots, random search, epochs, short pauses."""
    mine = ["experiment=function", "trainable.target=tests:train", "fidelity=epoch", "slots=2", "retry.backoff_s=0.1"]
    document = config.load([*mine, "searcher=random", *overrides])
    document.data["space"] = space
    return check(document, has_objective=True)


class Listener:
    """Keeps what a run tells its user, and acts on it: ``actions`` are called with each event and the run."""

    def __init__(self, *actions: Callable[[Event, History], None]) -> None:
        self.notes: list[str] = []
        self._actions = actions

    def __call__(self, event: Event, history: History) -> None:
        if event["event"] == "note":
            self.notes.append(event["text"])
        for act in self._actions:
            act(event, history)


def events_of(run_dir: Path, kind: str | None = None, trial_id: str | None = None) -> list[Event]:
    """A journal's events, of one kind or all, of one trial or all. Every line of it must be whole."""
    log = journal.read(run_dir)
    assert log.damaged == 0
    wanted = (event for event in log.events if kind in (None, event["event"]))
    return [event for event in wanted if trial_id in (None, event.get("trial_id"))]


def resume(run_dir: Path, objective: Callable[..., Any], *overrides: str, **options: Any) -> History:
    return runner.resume(run_dir, objective=objective, overrides=overrides, **options)


def wait_for(condition: Callable[[], T], timeout_s: float = 90.0) -> T:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run([*HPO_RAY, *arguments], capture_output=True, text=True, timeout=180)


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command in this process, and so with the Ray that is there: exit code, stdout, stderr."""
    capfd.readouterr()
    code = console.guarded(lambda: cli.app(list(arguments), standalone_mode=False))
    return (code, *capfd.readouterr())


def written(run_dir: Path, event: str) -> int:
    """How many events of a kind a run's journal holds, also while it is written."""
    path = run_dir / journal.FILE_NAME
    return path.read_text().count(f'"event":"{event}"') if path.exists() else 0


class Command:
    """The command, under way, in a session of its own; a context manager that leaves nothing running."""

    def __init__(self, *arguments: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen([*HPO_RAY, *arguments], stdout=out, stderr=err, start_new_session=True)

    @property
    def out(self) -> str:
        return Path(self._folder.name, "out").read_text()

    @property
    def err(self) -> str:
        return Path(self._folder.name, "err").read_text()

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if one is given, and wait for the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(120)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.send_signal(signal.SIGINT)
                self.process.wait(60)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._folder.cleanup()


def driver_of(run_dir: Path) -> int:
    """The process that works on a run."""
    return int(json.loads((run_dir / "driver.lock").read_text())["pid"])
