"""What loading results into pandas costs, against the faster of Ray's two loaders on the same content.

    python benchmarks/results_load.py [--trials 1000] [--reports 50] [--large 10000x100] [--rounds 5] [--out …]

The same trials and reports are written as a journal of ours and as a directory of Ray Tune; the latter from one small
real Ray run (`tune_directory`), since running Ray on so many trials takes an hour. Each measurement is a process of its
own, in turn, and the median of several: processor seconds from call to frame (imports done before) and how far the
process's peak memory rose. Ray's loaders are `tune.ExperimentAnalysis` and `Tuner.restore(...).get_results()`; their
reports are the trials' frames put together. All must come to the same values.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import tune_directory

import hpo_ray
from hpo_ray.journal import Journal
from hpo_ray.results import compact

SLOTS = 8
# Source and level -> Ray's share that it may take at most; None: no bound was set.
BOUNDS = {
    ("journal", "trials"): 1 / 20,
    ("journal", "reports"): 1 / 5,
    ("parquet", "trials"): 1 / 20,
    ("parquet", "reports"): 1 / 50,
    ("ray directory", "trials"): 1 / 8,
    ("ray directory", "reports"): 1 / 8,
}


def write_journal(folder: Path, content: list[tuple[dict[str, Any], Any]]) -> None:
    """The journal of a run with these configurations and rows (epoch, train_loss, val_error, lr), `SLOTS` at a time."""
    # Nobody waits for this journal: it is neither synced nor dated by the clock.
    with (
        mock.patch("hpo_ray.journal.time.time", side_effect=map(float, itertools.count(1_790_000_000))),
        mock.patch("hpo_ray.journal.SYNC_PERIOD_S", math.inf),
        Journal(folder) as log,
    ):
        plan = {"name": "sweep", "metric": "val_error", "mode": "min", "trials": len(content), "fidelity": "epoch"}
        log.append("run_started", experiment={**plan, "seed": 0}, environment={})
        for begin in range(0, len(content), SLOTS):
            lot = [(f"{n:04d}", *content[n]) for n in range(begin, min(begin + SLOTS, len(content)))]
            for trial_id, config, _ in lot:
                log.append("trial_suggested", trial_id=trial_id, config_id=f"c{trial_id}", config=config, state={})
                log.append("trial_started", trial_id=trial_id, attempt=0, ray_id="x", gpus=0.0)
            for number in range(len(lot[0][2])):
                for trial_id, _, rows in lot:
                    names = ("epoch", "train_loss", "val_error", "lr")
                    metrics = dict(zip(names, rows[number].tolist(), strict=True))
                    about = {"trial_id": trial_id, "attempt": 0, "fidelity": metrics["epoch"], "metrics": metrics}
                    log.append("trial_reported", **about, elapsed_s=0.1 * (number + 1))
            for trial_id, _, _ in lot:
                log.append("trial_ended", trial_id=trial_id, attempt=0, status="completed", reason="")
        log.append("run_ended", status="completed", reason="")


def load(how: str, level: str, path: Path) -> pd.DataFrame:
    if how == "hpo_ray":
        return hpo_ray.load_results(path, level)  # type: ignore[arg-type]
    from ray import tune

    if how == "ExperimentAnalysis":
        analysis = tune.ExperimentAnalysis(str(path), default_metric="val_error", default_mode="min")
        frames = analysis.trial_dataframes.values()
        return analysis.dataframe() if level == "trials" else pd.concat(frames, ignore_index=True)
    grid = tune.Tuner.restore(str(path), tune_directory.objective).get_results()
    frames = (result.metrics_dataframe for result in grid)
    return grid.get_dataframe() if level == "trials" else pd.concat(frames, ignore_index=True)


def measure(how: str, level: str, path: Path) -> None:
    """Load once, in this process; print what it took."""
    import pyarrow.compute
    import pyarrow.json
    import pyarrow.parquet  # noqa: F401

    from hpo_ray.results import dtypes, source  # noqa: F401

    if how != "hpo_ray":
        from ray import tune  # noqa: F401
    before = peak_mb()
    start, wall = time.process_time(), time.perf_counter()
    frame = load(how, level, path)
    took = {"cpu_s": time.process_time() - start, "wall_s": time.perf_counter() - wall}
    took["peak_mb"] = peak_mb() - before
    print(json.dumps({**took, "rows": len(frame), "sum": math.fsum(frame["val_error"])}))


def peak_mb() -> float:
    """The most memory this program has held; `getrusage` would count what its parent held before it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measured(how: str, level: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", how, level, str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(folder: Path, trials: int, reports: int, rounds: int) -> pd.DataFrame:
    content = tune_directory.enlarge(tune_directory.template(folder), folder / "ray", trials, reports)
    write_journal(folder / "journal", content)
    write_journal(folder / "parquet", content)
    compact(folder / "parquet")
    ways = {
        "journal": ("hpo_ray", folder / "journal"),
        "parquet": ("hpo_ray", folder / "parquet"),
        "ray directory": ("hpo_ray", folder / "ray"),
        "ExperimentAnalysis": ("ExperimentAnalysis", folder / "ray"),
        "ResultGrid": ("ResultGrid", folder / "ray"),
    }
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _, level, (name, way) in itertools.product(range(rounds), ("trials", "reports"), ways.items()):
        runs.setdefault((name, level), []).append(measured(way[0], level, way[1]))
    middle = {
        key: {name: statistics.median(run[name] for run in found) for name in found[0]} for key, found in runs.items()
    }
    rows = []
    for (name, level), ours in middle.items():
        peers = [middle[peer, level] for peer in ("ExperimentAnalysis", "ResultGrid")]
        for peer in peers:
            if peer["rows"] != ours["rows"] or not math.isclose(peer["sum"], ours["sum"], rel_tol=1e-9):
                raise SystemExit(f"{name} and Ray do not come to the same {level}")
        share = ours["cpu_s"] / min(peer["cpu_s"] for peer in peers)
        bound = BOUNDS.get((name, level))
        rows.append(
            {
                "level": level,
                "loader": name,
                "cpu_s": round(ours["cpu_s"], 4),
                "of the faster Ray": f"1/{1 / share:.1f}",
                "bound": f"1/{1 / bound:.0f}" if bound else "",
                "held": "" if bound is None else "yes" if share <= bound else "no",
                "peak_mb": round(ours["peak_mb"], 1),
            }
        )
    return pd.DataFrame(rows).sort_values("level", kind="stable", ascending=False)


def growth(folder: Path, sizes: list[tuple[int, int]], rounds: int) -> pd.DataFrame:
    """What loading takes as runs grow: linear if the time a report stays as it is."""
    import numpy as np

    rows = []
    for trials, reports in sizes:
        rng, run_dir = np.random.default_rng(0), folder / f"{trials}x{reports}"
        epochs = np.arange(1, reports + 1)
        content = [
            ({"lr": 0.1, "layers": 2, "optimizer": "adam"}, np.column_stack([epochs, rng.random((reports, 3))]))
            for _ in range(trials)
        ]
        write_journal(run_dir, content)
        for source in ("journal", "parquet"):
            if source == "parquet":
                compact(run_dir)
            for level in ("trials", "reports"):
                found = [measured("hpo_ray", level, run_dir) for _ in range(rounds)]
                took = {name: statistics.median(run[name] for run in found) for name in found[0]}
                rows.append(
                    {
                        "trials x reports": f"{trials} x {reports}",
                        "loader": source,
                        "level": level,
                        "cpu_s": round(took["cpu_s"], 3),
                        "wall_s": round(took["wall_s"], 3),
                        "us a report": round(1e6 * took["cpu_s"] / trials / reports, 3),
                        "peak_mb": round(took["peak_mb"], 1),
                        "journal_mb": round((run_dir / "events.jsonl").stat().st_size / 1e6, 1),
                    }
                )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=50)
    parser.add_argument("--large", default="10000x100")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/results_load.csv"))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        how, level, path = arguments.measure
        measure(how, level, Path(path))
        return
    out = arguments.out.absolute()
    large = tuple(int(part) for part in arguments.large.split("x"))
    smaller = [(large[0] // 10, large[1]), (large[0] // 3, large[1]), large]
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        table = compare(Path(name), arguments.trials, arguments.reports, arguments.rounds)
        print(f"{arguments.trials} trials x {arguments.reports} reports\n{table.to_string(index=False)}\n", flush=True)
        grown = growth(Path(name), smaller, min(arguments.rounds, 3))
        print(grown.to_string(index=False))
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False)
    grown.to_csv(out.with_name(f"{out.stem}_growth.csv"), index=False)
    print(f"\nwritten to {out} and {out.stem}_growth.csv beside it")


if __name__ == "__main__":
    main()
