"""What a driver costs as sweeps grow: CPU an event and memory, to 1,000 slots and 10,000 trials, without Ray.

    python benchmarks/scale_loop.py [--searchers random,hyperopt,gp_ei] [--slots 10,100,1000] [--trials 100,1000,10000]
                                    [--slow 1000] [--profile] [--out benchmarks/results/scale_loop.csv]

The real searcher, scheduler, driver, history, keeper, journal and snapshots on a real disk. Their trials are a heap of
virtual times: nothing sleeps, nothing trains, a checkpoint is an empty folder. An event is a call that Tune makes of
the driver: a trial is handed out, a report judged, an end taken in. Figures are processor seconds of those calls alone,
in windows over the sweep, so that whatever grows shows. Each cell is a process of its own. --slow: the most trials for
the searchers that learn, whose suggestions take many times as long; 10,000 of them take some ten CPU minutes with
hyperopt, and half an hour with gp_ei. --profile: where the time goes, instead.
"""

from __future__ import annotations

import argparse
import cProfile
import heapq
import json
import math
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo_ray import config
from hpo_ray.driver import Driver
from hpo_ray.history import History
from hpo_ray.journal import Event, Journal
from hpo_ray.keeper import Keeper
from hpo_ray.preflight import check
from hpo_ray.snapshot import Snapshots

SPACE = {
    "lr": "loguniform(1e-4, 1)",
    "momentum": "uniform(0, 0.99)",
    "weight_decay": "loguniform(1e-6, 1e-2)",
    "dropout": "uniform(0, 0.7)",
    "layers": "int(1, 6)",
    "optimizer": "choice(sgd, adam, lars)",
}
EPOCHS = 27
KINDS = ("suggest", "report", "end")
# Measured so many events at a time, and told in so many windows of a sweep.
CHUNK = 50
WINDOWS = 20
SLOW = ("hyperopt", "gp_ei")


def loss_of(trial: dict[str, Any], epoch: int, rng: np.random.Generator) -> float:
    """A learning curve with noise; large learning rates diverge after a few epochs."""
    if trial["lr"] > 0.5 and epoch >= 3:
        return math.nan
    off = (math.log10(trial["lr"]) + 2) ** 2 / 4 + (trial["momentum"] - 0.9) ** 2 + (trial["dropout"] - 0.2) ** 2
    off += 0.05 * (trial["optimizer"] == "lars") + 0.02 * abs(trial["layers"] - 3)
    return 0.05 + off / (1 + off) + 0.5 * epoch**-0.7 + 0.01 * float(rng.standard_normal())


@dataclass
class Meter:
    """Processor seconds by kind of event, and resident memory, `CHUNK` events at a time."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    base_mb: float = 0.0
    _spent: dict[str, list[float]] = field(default_factory=lambda: {kind: [0, 0.0] for kind in KINDS})
    _events: int = 0

    def call(self, kind: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a driver's method returns; that it had nothing to hand out (None) is no event."""
        start = time.process_time()
        found = function(*arguments)
        seconds = time.process_time() - start
        if found is not None or kind == "end":
            spent = self._spent[kind]
            spent[0] += 1
            spent[1] += seconds
            self._events += 1
        return found

    def look(self, trials: int, *, last: bool = False) -> None:
        """Close a chunk that is full; `trials`: how many were handed out."""
        if self._events >= CHUNK or (last and self._events):
            spent = [number for kind in KINDS for number in self._spent[kind]]
            self.rows.append((trials, resident_mb() - self.base_mb, *spent))
            self._spent = {kind: [0, 0.0] for kind in KINDS}
            self._events = 0


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def sweep(run_dir: Path, searcher: str, slots: int, trials: int) -> tuple[pd.DataFrame, Path]:
    """A whole sweep; one row a chunk: trials handed out, memory, and (count, seconds) of each kind of event."""
    words = [f"space.{name}={text}" for name, text in SPACE.items()]
    words += ["experiment=function", f"searcher={searcher}", "scheduler=asha", f"scheduler.max_t={EPOCHS}"]
    words += ["fidelity=epoch", f"trials={trials}"]  # how many run at a time is Tune's to say, here `play`'s
    experiment = check(config.load(words), has_objective=True)
    history = History(run_dir)
    keeper, snapshots, meter = Keeper(history, experiment.storage.keep_checkpoints), Snapshots(run_dir), Meter()

    def follow(event: Event) -> None:
        history.apply(event)
        keeper.follow(event)
        snapshots.maybe_write(history.tally, log.offset)

    with Journal(run_dir, follow) as log:
        driver = Driver(experiment, log, history, keeper)
        log.append("run_started", experiment=experiment.model_dump(), environment={})
        meter.base_mb = resident_mb()
        play(driver, slots, meter)
        log.append("run_ended", status="completed", reason="")
        snapshots.write(history.tally, log.offset)
    if driver.failure is not None or history.tally.finished != trials:
        raise SystemExit(f"{history.tally.finished} of {trials} trials ended: {driver.failure}")
    columns = ["trials", "grown_mb", *(f"{kind}_{what}" for kind in KINDS for what in ("n", "s"))]
    return pd.DataFrame(meter.rows, columns=columns), log.path


def play(driver: Driver, slots: int, meter: Meter) -> None:
    """What Tune and the trials do, on a virtual clock: who reports next is the heap's to say."""
    rng = np.random.default_rng(0)
    waiting: list[tuple[float, int, dict[str, Any], int, float]] = []
    handed_out = 0

    def hand_out(ray_id: str) -> dict[str, Any] | None:
        attempt = driver.next_attempt(ray_id)
        if attempt is not None:
            driver.started(ray_id)
        return attempt

    def begin(now: float) -> None:
        nonlocal handed_out
        ray_id = str(handed_out)
        attempt = meter.call("suggest", hand_out, ray_id)
        if attempt is not None:
            epoch_s = float(rng.lognormal(0.0, 0.5)) * attempt["spec"]["config"]["layers"]
            heapq.heappush(waiting, (now + epoch_s, handed_out, attempt["spec"], 1, epoch_s))
            handed_out += 1
        meter.look(handed_out)

    for _ in range(slots):
        begin(0.0)
    while waiting:
        now, number, spec, epoch, epoch_s = heapq.heappop(waiting)
        ray_id = str(number)
        metrics = {"epoch": float(epoch), "loss": loss_of(spec["config"], epoch, rng), "seconds": epoch_s}
        saved = Path(spec["dir"]) / f"checkpoint-{epoch}"
        saved.mkdir(parents=True)
        report = {"fidelity": float(epoch), "metrics": metrics, "elapsed_s": epoch * epoch_s, "checkpoint": str(saved)}
        over = meter.call("report", driver.judge, ray_id, {"report": report})
        meter.look(handed_out)
        if not over:
            heapq.heappush(waiting, (now + epoch_s, number, spec, epoch + 1, epoch_s))
            continue
        meter.call("end", driver.ended, ray_id)
        begin(now)
    meter.look(handed_out, last=True)


def windows(chunks: pd.DataFrame) -> pd.DataFrame:
    """The same in `WINDOWS` parts of about as many events: microseconds an event, in all and by kind."""
    events = chunks[[f"{kind}_n" for kind in KINDS]].sum(axis=1).to_numpy()
    part = np.minimum(np.cumsum(events) * WINDOWS // (events.sum() + 1), WINDOWS - 1)
    rows = []
    for window, mine in chunks.groupby(part):
        n = {kind: int(mine[f"{kind}_n"].sum()) for kind in KINDS}
        s = {kind: float(mine[f"{kind}_s"].sum()) for kind in KINDS}
        rows.append(
            {
                "window": int(window),
                "trials_so_far": int(mine["trials"].iloc[-1]),
                "events": sum(n.values()),
                "event_us": 1e6 * sum(s.values()) / sum(n.values()),
                **{f"{kind}_n": n[kind] for kind in KINDS},
                **{f"{kind}_us": 1e6 * s[kind] / n[kind] if n[kind] else math.nan for kind in KINDS},
                "grown_mb": float(mine["grown_mb"].iloc[-1]),
            }
        )
    return pd.DataFrame(rows)


def cell(searcher: str, slots: int, trials: int, *, profile: bool = False) -> dict[str, Any]:
    """One sweep in this process; its table of windows as records."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".scale-") as folder:
        run_dir = Path(folder) / "run"
        if profile:
            profiler = cProfile.Profile()
            chunks, path = profiler.runcall(sweep, run_dir, searcher, slots, trials)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
        else:
            chunks, path = sweep(run_dir, searcher, slots, trials)
        journal_mb = path.stat().st_size / 1e6
    total_s = float(sum(chunks[f"{kind}_s"].sum() for kind in KINDS))
    return {"windows": windows(chunks).to_dict("records"), "cpu_s": total_s, "journal_mb": journal_mb}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: microseconds in the first and the last fifth of the windows with any such event, and memory."""
    rows = []
    for (searcher, slots, trials), mine in table.groupby(["searcher", "slots", "trials"], sort=False):
        row = {"searcher": searcher, "slots": slots, "trials": trials, "events": mine["events"].sum()}
        for kind in KINDS:
            known = mine[mine[f"{kind}_n"] > 0]
            fifth = max(1, len(known) // 5)
            for name, part in (("first", known.iloc[:fifth]), ("last", known.iloc[-fifth:])):
                row[f"{kind} {name}"] = float(np.average(part[f"{kind}_us"], weights=part[f"{kind}_n"]))
        row["grown MB"] = float(mine["grown_mb"].iloc[-1])
        row["KB a trial"] = 1000 * row["grown MB"] / trials
        row["cpu_s"] = mine["cpu_s"].iloc[-1]
        rows.append(row)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """CPU (above) and memory (below) over the longest sweep of each number of slots, a column a searcher."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from hpo_ray.results.style import BLUE, GREEN, STYLE, VERMILION, log_axis, save

    searchers = list(dict.fromkeys(table["searcher"]))
    colours = dict(zip(sorted(set(table["slots"])), (BLUE, VERMILION, GREEN, "C4", "C5", "C6"), strict=False))
    with plt.rc_context({**STYLE, "svg.fonttype": "none"}):
        size = (3.3 * len(searchers) + 0.7, 5.4)
        figure, axes = plt.subplots(2, len(searchers), figsize=size, sharex=True, sharey="row", squeeze=False)
        for searcher, (top, bottom) in zip(searchers, axes.T, strict=True):
            for slots, mine in table[table["searcher"] == searcher].groupby("slots"):
                longest = mine[mine["trials"] == mine["trials"].max()]
                line = {"color": colours[slots], "linewidth": 1.5, "label": f"{slots:,} slots"}
                handed_out = longest[longest["suggest_n"] >= 10]
                top.plot(handed_out["trials_so_far"], handed_out["suggest_us"] / 1e3, **line)
                top.plot(longest["trials_so_far"], longest["report_us"] / 1e3, **{**line, "linestyle": ":"})
                bottom.plot([0, *longest["trials_so_far"]], [0, *longest["grown_mb"]], **line)
            top.set_title(searcher, loc="left")
            bottom.set_xlabel("trials so far")
            bottom.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        known = table[["suggest_us", "report_us"]].to_numpy() / 1e3
        log_axis(axes[0, 0].yaxis, float(np.nanmin(known)), float(np.nanmax(known)))
        axes[0, 0].set(ylabel="CPU of the driver, ms", xlim=(0, None))
        axes[1, 0].set(ylabel="memory beyond the start, MB", ylim=(0, None))
        axes[1, 0].legend(loc="upper left")
        axes[0, -1].plot([], [], color="grey", label="a trial handed out")
        axes[0, -1].plot([], [], color="grey", linestyle=":", label="a report judged")
        axes[0, 0].legend(handles=axes[0, -1].get_lines()[-2:], loc="upper left")
        figure.tight_layout()
        save(figure, path)
        plt.close(figure)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searchers", type=words, default=["random", "hyperopt", "gp_ei"])
    parser.add_argument("--slots", type=numbers, default=[10, 100, 1000])
    parser.add_argument("--trials", type=numbers, default=[100, 1000, 10_000])
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale_loop.csv"))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cell(arguments.searchers[0], arguments.slots[0], arguments.trials[0])))
        return
    tables = []
    for searcher in arguments.searchers:
        for slots in arguments.slots:
            for trials in arguments.trials:
                if trials < slots or (searcher in SLOW and trials > arguments.slow):
                    continue
                if arguments.profile:
                    print(f"{searcher}, {slots} slots, {trials} trials")
                    cell(searcher, slots, trials, profile=True)
                    continue
                chosen = ["--searchers", searcher, "--slots", str(slots), "--trials", str(trials), "--cell"]
                done = subprocess.run([sys.executable, __file__, *chosen], check=True, stdout=subprocess.PIPE)
                found = json.loads(done.stdout)
                facts = {key: value for key, value in found.items() if key != "windows"}
                tables.append(
                    pd.DataFrame(found["windows"]).assign(searcher=searcher, slots=slots, trials=trials, **facts)
                )
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                table = pd.concat(tables, ignore_index=True)
                table.round(3).to_csv(arguments.out, index=False)
                print(summary(tables[-1]).round(1).to_string(index=False, header=len(tables) == 1), flush=True)
    if arguments.profile:
        return
    draw(table, arguments.out.with_suffix(".svg"))
    print(f"\n{summary(table).round(1).to_string(index=False)}\n\nwritten to {arguments.out} and its .svg")


if __name__ == "__main__":
    main()
