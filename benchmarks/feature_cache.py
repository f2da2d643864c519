"""A sweep over heads on a frozen trunk, with the trunk's activations cached and without: processor time of everything.

    python benchmarks/feature_cache.py [--data /photos --weights mobilenet_v2.pt] [--heads 24] [--epochs 10]

Whole `hpo-ray run` commands, Ray and its workers included, their processor time read while they run. The sweep without
the cache is measured with one head and with two, and scaled: the first has the cost of starting, the difference is a
head's. By default it takes the photographs and weights that the tests take, from the folder HPO_RAY_TEST_DATA; without
them there is nothing to measure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

CACHED = "training.stages=[{train: head, cached: true}]"
UNCACHED = "training.stages=[{train: head}]"


def cpu_s(arguments: list[str], environment: dict[str, str]) -> float:
    """Processor seconds of a command and all that it starts, each process read until it is gone."""
    command = subprocess.Popen(
        [sys.executable, "-m", "hpo_ray.cli", *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    root, used = psutil.Process(command.pid), {}
    while command.poll() is None:
        try:
            for process in [root, *root.children(recursive=True)]:
                times = process.cpu_times()
                used[process.pid, process.create_time()] = times.user + times.system
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    if command.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {command.returncode}")
    return sum(used.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(os.environ.get("HPO_RAY_TEST_DATA", "/nowhere"))
    weights = shared / "pretrained" / "mobilenet_v2_imagenet_from_tflite.pt"
    parser.add_argument("--data", type=Path, default=shared / "hymenoptera")
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "feature_cache.csv")
    given = parser.parse_args()
    if not (given.data.is_dir() and given.weights.is_file()):
        print(f"skipped: no photographs at '{given.data}' or no weights at '{given.weights}'")
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HPO_RAY_CACHE": f"{folder}/cache"}

        def sweep(heads: int, stages: str) -> float:
            options = [
                "experiment=finetune_mobilenet",
                f"data.root={given.data}",
                f"model.weights={given.weights}",
                f"data.image_size={given.size}",
                "data.augment=none",
                "searcher=random",
                "scheduler=none",
                f"training.epochs={given.epochs}",
                stages,
                "~space.lr_ratio",
                "slots=1",
                f"trials={heads}",
            ]
            return cpu_s(["run", *options, "--quiet", "--out", f"{folder}/{heads}-{stages == CACHED}"], environment)

        one, two = sweep(1, UNCACHED), sweep(2, UNCACHED)
        cached = sweep(given.heads, CACHED)
        logs = Path(folder, "cache").rglob("passes.jsonl")
        passes = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    each = two - one
    uncached = one + (given.heads - 1) * each
    table = pd.DataFrame(
        [
            {
                "heads": given.heads,
                "epochs": given.epochs,
                "uncached_head_s": each,
                "uncached_s": uncached,
                "cached_s": cached,
                "ratio": uncached / cached,
                "images_passed": sum(line["images"] for line in passes),
            }
        ]
    )
    print(table.round(2).to_string(index=False))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
