"""What the journal costs: seconds a report, fsync included, from 100 to 10,000 trials; and `hpo-ray status` after it.

    python benchmarks/journal_cost.py [--trials 100,1000,10000] [--reports 5] [--out …/journal_cost.csv]

A driver without Ray: trials are suggested (random search), started, report and end, as fast as they are taken in.
`append_us`: microseconds of `Journal.append` for a report; `judge_us`: of everything that follows from one (history,
totals, searcher, rung decision, snapshot). The peer is a file that is written and synced for each line. `status` and
`--help` are whole processes, the median of several in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from hpo_ray import config
from hpo_ray.driver import Driver
from hpo_ray.history import History
from hpo_ray.journal import Event, Journal
from hpo_ray.keeper import Keeper
from hpo_ray.preflight import check
from hpo_ray.snapshot import Snapshots

OVERRIDES = (
    "experiment=function",
    "searcher=random",
    "scheduler=asha",
    "scheduler.max_t=1000",
    "fidelity=epoch",
    "space.x=uniform(0, 1)",
    "space.lr=loguniform(1e-5, 1)",
)


class TimedJournal(Journal):
    """A journal that notes how long writing each report took, what follows from it left out."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seconds: list[float] = []

    def append(self, event: str, **fields: object) -> Event:
        listener, self._listener = self._listener, None
        start = time.perf_counter()
        seen = super().append(event, **fields)
        if event == "trial_reported":
            self.seconds.append(time.perf_counter() - start)
        self._listener = listener
        if listener is not None:
            listener(seen)
        return seen


def sweep(run_dir: Path, trials: int, reports: int) -> tuple[float, float]:
    """Mean seconds of `append` and of `judge` for a report."""
    experiment = check(config.load([*OVERRIDES, f"trials={trials}"]), has_objective=True)
    history = History(run_dir)
    keeper, snapshots, judged = Keeper(history, 5), Snapshots(run_dir), []

    def follow(event: Event) -> None:
        history.apply(event)
        keeper.follow(event)
        snapshots.maybe_write(history.tally, log.offset)

    with TimedJournal(run_dir, follow) as log:
        driver = Driver(experiment, log, history, keeper)
        log.append("run_started", experiment=experiment.model_dump(), environment={})
        while (attempt := driver.next_attempt("ray")) is not None:
            driver.started("ray")
            for epoch in range(1, reports + 1):
                metrics = {"epoch": float(epoch), "loss": attempt["spec"]["config"]["x"] / epoch, "lr": 0.1, "acc": 0.5}
                report = {"fidelity": float(epoch), "metrics": metrics, "elapsed_s": 0.1 * epoch, "checkpoint": None}
                start = time.perf_counter()
                over = driver.judge("ray", {"report": report})
                judged.append(time.perf_counter() - start)
                if over:
                    break
            else:
                driver.judge("ray", {"ended": {"status": "completed", "reason": "", "problems": ()}})
            driver.ended("ray")
        log.append("run_ended", status="completed", reason="")
        snapshots.write(history.tally, log.offset)
    return statistics.fmean(log.seconds), statistics.fmean(judged)


def synced_write(folder: Path, lines: int) -> float:
    """Mean seconds of writing one line and syncing it, each time."""
    line = b"x" * 200 + b"\n"
    with (folder / "synced").open("wb", buffering=0) as file:
        start = time.perf_counter()
        for _ in range(lines):
            file.write(line)
            os.fsync(file.fileno())
        return (time.perf_counter() - start) / lines


def process_s(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hpo_ray.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=lambda text: [int(n) for n in text.split(",")], default=[100, 1000, 10_000])
    parser.add_argument("--reports", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/journal_cost.csv"))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, contextlib.chdir(folder):
        synced = synced_write(Path(folder), 200)
        for trials in arguments.trials:
            run_dir = Path(folder) / f"run-{trials}"
            append, judge = sweep(run_dir, trials, arguments.reports)
            pairs = [(process_s("status", str(run_dir)), process_s("--help")) for _ in range(7)]
            status, shown = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append(
                {
                    "trials": trials,
                    "append_us": round(1e6 * append, 1),
                    "judge_us": round(1e6 * judge, 1),
                    "synced_write_us": round(1e6 * synced, 1),
                    "status_s": round(status, 3),
                    "help_s": round(shown, 3),
                    "status / help": round(status / shown, 2),
                    "journal_mb": round((run_dir / "events.jsonl").stat().st_size / 1e6, 1),
                }
            )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, index=False)
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
