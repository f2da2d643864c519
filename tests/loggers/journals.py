"""A journal with all that loggers meet: conditions, levels of every type, restarts, failures, NaN, a resumed driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpo_ray import journal
from hpo_ray.journal import encode

BEGAN = 1_790_000_000.0
EXPERIMENT: dict[str, Any] = {
    "name": "sweep",
    "metric": "loss",
    "mode": "min",
    "fidelity": "epoch",
    "trials": 8,
    "seed": 3,
    "searcher": {"name": "random"},
    "scheduler": {"name": "asha"},
    "space": {
        "lr": "loguniform(1e-4, 1e-1)",
        "width": "int(1, 9, q=2)",
        "keep": "uniform(0, 1, q=0.1)",
        "optimizer": "choice(sgd, adam, null)",
        "momentum": "uniform(0.5, 0.9, when={optimizer: sgd})",
        "layers": "choice([8], [8, 16])",
        "flag": "choice(true, false)",
        "mixed": "choice(1, true, '1', 1.5)",
        "sizes": "ordinal(16, 32, 64)",
    },
}
SGD = {"lr": 0.01, "width": 3, "keep": 0.3, "optimizer": "sgd", "momentum": 0.75, "layers": [8, 16], "flag": True,
       "mixed": 1, "sizes": 32}  # fmt: skip
NONE = {"lr": 0.1, "width": 9, "keep": 1.0, "optimizer": None, "layers": [8], "flag": False, "mixed": True, "sizes": 64}


def sweep() -> list[dict[str, Any]]:
    """Its events but for their times."""
    lines: list[dict[str, Any]] = []

    def say(event: str, trial: int | None = None, attempt: int = 0, **fields: Any) -> None:
        identity = {} if trial is None else {"trial_id": f"{trial:04d}", "attempt": attempt}
        lines.append({"event": event, **identity, **fields})

    def suggest(trial: int, config: dict[str, Any]) -> None:
        same = 6 if trial == 7 else trial
        say("trial_suggested", trial, config=config, config_id=f"c{same}", state={})

    def start(trial: int, attempt: int = 0) -> None:
        say("trial_started", trial, attempt, gpus=0)

    def report(trial: int, epoch: float, loss: float, attempt: int = 0, **metrics: float) -> None:
        measured = {"epoch": float(epoch), "loss": loss, **metrics}
        say("trial_reported", trial, attempt, fidelity=epoch, elapsed_s=epoch / 10, metrics=measured)

    def end(trial: int, status: str, reason: str = "", attempt: int = 0, **fields: Any) -> None:
        say("trial_ended", trial, attempt, status=status, reason=reason, **fields)

    nan = float("nan")
    say("run_started", experiment=EXPERIMENT, environment={})
    for trial, config in enumerate([SGD, NONE]):
        suggest(trial, config)
        start(trial)
    for epoch in range(1, 5):
        report(0, epoch, 1 / epoch + (epoch == 4), acc=nan if epoch == 2 else 0.5)
        if epoch < 3:
            report(1, epoch, 2 / epoch)
    end(0, "completed")
    say("rung_decided", 1, rung=2, value=1.0, cutoff=0.5, kept=False, rank=2, n=2)
    end(1, "stopped", "rung 2: 1 ranked 2 of 2")
    suggest(2, {**NONE, "mixed": "1"})  # fails half-way, begins again at epoch 2, a late word of the dead between
    start(2)
    for epoch in (1, 2, 3):
        report(2, epoch, 3 / epoch)
    end(2, "interrupted", "boom; attempt 1 follows", cause="exception", fault="boom")
    suggest(3, {**SGD, "lr": 0.02})
    start(2, 1)
    report(2, 4, 0.0001, attempt=0)
    report(2, 2, 1.25, attempt=1)
    start(3)
    report(2, 3, 0.9, attempt=1)
    report(2, 4, 0.8, attempt=1)
    end(2, "completed", attempt=1)
    report(3, 1, 0.7)
    end(3, "failed", "RuntimeError: <b>no</b>", cause="exception", traceback="Traceback …\nRuntimeError: <b>no</b>")
    suggest(4, NONE)
    start(4)
    end(4, "out_of_memory", "out of memory", cause="out_of_memory")
    suggest(5, {**SGD, "mixed": 1.5})  # its driver dies, another goes on with it from its checkpoint of epoch 1
    start(5)
    report(5, 1, 0.5)
    report(5, 2, 0.4)
    suggest(6, SGD)
    say("run_started", experiment=EXPERIMENT, environment={})
    start(5, 1)
    start(6)
    report(5, 2, 0.45, attempt=1)
    report(5, 3, 0.3, attempt=1)
    report(6, 1, nan)
    end(6, "failed", "loss = nan at epoch 1", cause="nan")
    end(5, "completed", attempt=1)
    suggest(7, SGD)
    start(7)
    report(7, 1, 0.6)
    end(7, "interrupted", "time is up")
    say("run_ended", status="stopped", reason="time is up")
    return lines


def lines_of(events: list[dict[str, Any]], began: float = BEGAN) -> list[bytes]:
    """As they stand in a journal, a second apart."""
    dated = [{"v": 1, "time": began + second, **event} for second, event in enumerate(events)]
    return [json.dumps(encode(event)).encode() + b"\n" for event in dated]


def write(run_dir: Path, lines: list[bytes]) -> Path:
    """A run directory with this journal."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / journal.FILE_NAME).write_bytes(b"".join(lines))
    return run_dir


def no_failure(name: str, error: Exception) -> None:
    """For followers whose loggers must not fail."""
    raise error
