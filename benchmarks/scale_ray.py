"""How sweeps on a real Ray scale with slots and trials: trials a second, and what one costs the driver.

    python benchmarks/scale_ray.py [--slots 2,4,8,16,32] [--trials 500] [--ends 5000] [--searcher random]
                                   [--profile] [--out benchmarks/results/scale_ray.csv]

Ray is started closed, as a run starts it, on two processors that the slots share in fractions; the objective reports
once and ends. The first trial of each slot waits for those of all others, so that every slot's processes are up before
anything is measured: from there to the end, in fifths of the trials, whatever grows shows. Each sweep is a process of
its own. --ends: so many trials besides with the fewest and the most slots. --profile: where the driver's time goes.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import platform
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from hpo_ray import config, runner
from hpo_ray.history import History
from hpo_ray.journal import Event
from hpo_ray.preflight import check
from hpo_ray.session import ray_session

CPUS = 2
FIFTHS = 5
# Should a slot never come up, its trial must not wait for ever.
PATIENCE_S = 300.0


def objective_for(folder: str, slots: int) -> Callable[..., None]:
    def train(config: dict, trial: Any) -> None:
        there, deadline = Path(folder), time.monotonic() + PATIENCE_S
        if int(trial.id) < slots:
            (there / trial.id).touch()
            while len(list(there.iterdir())) < slots and time.monotonic() < deadline:
                time.sleep(0.05)
        trial.report(loss=config["x"], worker=os.getpid())

    return train


class Meter:
    """A run's listener: when each trial ended, by the clock and by the driver's own processor time, and its memory."""

    def __init__(self, slots: int, trials: int) -> None:
        measured = trials - slots
        # Where a fifth begins or ends, in trials ended.
        self._marks = {slots + measured * i // FIFTHS for i in range(FIFTHS + 1)}
        self._half = slots + measured // 2
        self._ended = 0
        self.marks: list[tuple[int, float, float, float]] = []
        self.workers: set[float] = set()
        self.others_mb = 0.0

    def __call__(self, event: Event, run: History) -> None:
        if event["event"] == "trial_reported":
            self.workers.add(event["metrics"]["worker"])
        elif event["event"] == "trial_ended":
            self._ended += 1
            if self._ended in self._marks:
                self.marks.append((self._ended, time.perf_counter(), time.process_time(), resident_mb()))
            if self._ended == self._half:
                self.others_mb = descendants_mb()


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descendants_mb() -> float:
    """Memory of all processes that this one has started and those they have, shared pages divided among them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    total, left = 0.0, list(children.get(os.getpid(), []))
    while left:
        pid = left.pop()
        left += children.get(pid, [])
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(float(line.split()[1]) / 1e3 for line in lines if line.startswith("Pss:"))
    return total


def cell(searcher: str, slots: int, trials: int, *, profile: bool = False) -> list[dict[str, Any]]:
    """One sweep in this process; a row for each fifth of the trials after each slot's first."""
    words = ["experiment=function", f"searcher={searcher}", "scheduler=none", "space.x=uniform(0, 1)"]
    words += [f"trials={trials}", f"slots={slots}", f"resources.cpus_per_trial={CPUS / slots:g}"]
    meter = Meter(slots, trials)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        here = Path(folder) / "slots"
        here.mkdir()
        train = objective_for(str(here), slots)
        experiment = check(config.load(words), has_objective=True)
        # The session that the run would start on a machine with so many processors.
        with ray_session(address=None, cpus=CPUS, gpus=0):
            profiler, start = cProfile.Profile(), time.perf_counter()
            call = profiler.runcall if profile else lambda function, *a, **k: function(*a, **k)
            run = call(runner.start, experiment, objective=train, out=Path(folder) / "run", listener=meter)
    if profile:
        for order in ("tottime", "cumtime"):
            pstats.Stats(profiler).sort_stats(order).print_stats(45)
    if run.tally.counts["completed"] != trials or len(meter.workers) < slots:
        raise SystemExit(f"{run.tally.counts} of {trials} trials, in {len(meter.workers)} processes of {slots}")
    rows = []
    for fifth, (before, after) in enumerate(zip(meter.marks, meter.marks[1:], strict=False)):
        (n0, wall0, cpu0, _), (n1, wall1, cpu1, mb) = before, after
        rows.append(
            {
                "slots": slots,
                "trials": trials,
                "fifth": fifth + 1,
                "trials_so_far": n1,
                "trials_per_s": (n1 - n0) / (wall1 - wall0),
                "driver_ms": 1e3 * (cpu1 - cpu0) / (n1 - n0),
                "grown_mb": mb - meter.marks[0][3],
                "start_s": meter.marks[0][1] - start,
                "others_mb": meter.others_mb,
            }
        )
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a sweep: its first and its last fifth."""
    rows = []
    for (slots, trials), mine in table.groupby(["slots", "trials"], sort=False):
        first, last = mine.iloc[0], mine.iloc[-1]
        more = last["trials_so_far"] - first["trials_so_far"]
        rows.append(
            {
                "slots": slots,
                "trials": trials,
                "all up after s": first["start_s"],
                "trials/s first": first["trials_per_s"],
                "trials/s last": last["trials_per_s"],
                "driver ms first": first["driver_ms"],
                "driver ms last": last["driver_ms"],
                "driver KB a trial": 1e3 * (last["grown_mb"] - first["grown_mb"]) / more,
                "other processes MB": first["others_mb"],
            }
        )
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Trials a second over slots; the driver's processor time and memory over the trials of the longest sweeps."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from hpo_ray.results.style import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILION, save

    with plt.rc_context({**STYLE, "svg.fonttype": "none"}):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.6, 3.3))
        shortest = table[table["trials"] == table["trials"].min()]
        for fifth, colour, name in ((1, GREY, "first fifth"), (FIFTHS, BLUE, "last fifth")):
            mine = shortest[shortest["fifth"] == fifth].sort_values("slots")
            left.plot(mine["slots"], mine["trials_per_s"], color=colour, marker="o", markersize=4, label=name)
        slots = sorted(set(shortest["slots"]))
        left.set_xscale("log", base=2)
        left.set(xticks=slots, xticklabels=slots, xlabel="slots on two processors", title="trials a second")
        longest = table[table["trials"] == table["trials"].max()]
        for colour, (number, mine) in zip((GREEN, VERMILION, ORANGE), longest.groupby("slots"), strict=False):
            style = {"color": colour, "marker": "o", "markersize": 4, "label": f"{number} slots"}
            middle.plot(mine["trials_so_far"], mine["driver_ms"], **style)
            right.plot([number, *mine["trials_so_far"]], [0, *mine["grown_mb"]], **style)
        middle.set(xlabel="trials ended", title="the driver's CPU for a trial, ms")
        right.set(xlabel="trials ended", title="the driver's memory beyond the start, MB")
        for axis in (left, middle, right):
            axis.set_ylim(bottom=0)
            axis.legend(loc="lower right")
            axis.title.set_horizontalalignment("left")
            axis.title.set_x(0)
        for axis in (middle, right):
            axis.set_xlim(left=0)
        figure.tight_layout()
        save(figure, path)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=lambda text: [int(n) for n in text.split(",")], default=[2, 4, 8, 16, 32])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--ends", type=int, default=5000)
    parser.add_argument("--searcher", default="random")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale_ray.csv"))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cell(arguments.searcher, arguments.slots[0], arguments.trials, profile=arguments.profile)))
        return
    ends = sorted({min(arguments.slots), max(arguments.slots)}) if arguments.ends else []
    rows: list[dict[str, Any]] = []
    for slots, trials in [*((s, arguments.trials) for s in arguments.slots), *((s, arguments.ends) for s in ends)]:
        chosen = ["--slots", str(slots), "--trials", str(trials), "--searcher", arguments.searcher, "--cell"]
        command = [sys.executable, __file__, *chosen]
        if arguments.profile:
            subprocess.run([*command, "--profile"], check=True)
            continue
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found = json.loads(done.stdout.splitlines()[-1])
        rows += found
        table = pd.DataFrame(rows)
        table["ray"], table["python"] = ray.__version__, platform.python_version()
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        table.round(3).to_csv(arguments.out, index=False)
        print(summary(pd.DataFrame(found)).round(2).to_string(index=False, header=len(rows) == len(found)), flush=True)
    if arguments.profile:
        return
    draw(table, arguments.out.with_suffix(".svg"))
    print(f"\n{summary(table).round(2).to_string(index=False)}\n\nwritten to {arguments.out} and its .svg")


if __name__ == "__main__":
    main()
