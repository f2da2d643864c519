"""CPU milliseconds of one suggest and observe, refits included, after n observations in six dimensions.

    python benchmarks/search_latency.py [--n 100,200,500,1000] [--large 10000] [--calls 20]

The mean of consecutive calls, on one thread, all peers in one process, n outer and peers inner, so that a ratio's two
sides are measured shortly after each other. All but the last ten of the n observations come from elsewhere; those ten
are the peer's own, for some searchers begin blindly whatever they were told. `--large` is for ours only, each in a
process of its own, with what its memory's peak grew by.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from search_peers import OURS, Peer, resolve
from search_tasks import select

WARM_UP = 10
[TASK] = select("hartmann6")


def cycle(peer: Peer) -> float:
    """CPU seconds of a suggestion and its observation."""
    start = time.process_time()
    proposal = peer.suggest()
    spent = time.process_time() - start
    if proposal is None:
        raise RuntimeError("the searcher has nothing to suggest")
    handle, config = proposal
    loss = TASK.true(config)
    start = time.process_time()
    peer.observe(handle, config, loss)
    return spent + time.process_time() - start


def measure(name: str, n: int, calls: int, limit: float) -> dict[str, Any]:
    """One row; calls stop after `limit` CPU seconds, as does the warm-up."""
    peer, rng = resolve([name])[name](TASK.space, 0), np.random.default_rng(0)
    for _ in range(n - WARM_UP):
        config = TASK.space.sample(rng)
        peer.add(config, TASK.true(config))
    warm_up = [cycle(peer)]
    while len(warm_up) < WARM_UP and sum(warm_up) < limit:
        warm_up.append(cycle(peer))
    spent: list[float] = []
    while not spent or (len(spent) < calls and sum(spent) < limit):
        spent.append(cycle(peer))
    return {"peer": name, "n": n, "cpu_ms": 1e3 * float(np.mean(spent)), "calls": len(spent)}


def measure_large(name: str, n: int, calls: int, limit: float) -> dict[str, Any]:
    """In a new process: the same, with the growth of its peak memory over what a small search needs."""

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    measure(name, 2 * WARM_UP, 1, limit)
    before = peak()
    row = measure(name, n, calls, limit)
    return {**row, "memory_mb": peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="gp_ei,hyperopt,random,optuna_tpe,optuna_gp,botorch", help="ours first")
    parser.add_argument("--n", default="100,200,500,1000", help="observations, with commas")
    parser.add_argument("--large", type=int, default=10_000, help="observations for ours only; 0: none")
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--limit", type=float, default=60, help="CPU seconds after which a peer's calls stop")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_latency.csv"))
    arguments = parser.parse_args()
    names = list(resolve(arguments.peers.split(",")))
    rows = []
    for n in map(int, arguments.n.split(",")):
        for name in names:
            rows.append(measure(name, n, arguments.calls, arguments.limit))
            print("{peer:>12} n={n:<6} {cpu_ms:9.2f} ms, {calls} calls".format(**rows[-1]), flush=True)
    for name in [name for name in names if name.split(":")[0] in OURS and arguments.large]:
        # Not "spawn": Linux lets a process that a bigger one executes begin with the bigger one's peak.
        with multiprocessing.get_context("forkserver").Pool(1) as pool:
            rows.append(pool.apply(measure_large, (name, arguments.large, arguments.calls, arguments.limit)))
        print("{peer:>12} n={n:<6} {cpu_ms:9.2f} ms, {calls} calls, {memory_mb:.0f} MB".format(**rows[-1]), flush=True)
    frame = pd.DataFrame(rows)
    ours = frame[frame["peer"] == names[0]].set_index("n")["cpu_ms"]
    frame["ratio"] = frame["cpu_ms"] / frame["n"].map(ours)
    table = frame.pivot_table(index="peer", columns="n", values=["cpu_ms", "ratio"])
    table.columns = [f"{'ms' if kind == 'cpu_ms' else 'ratio'}@{n}" for kind, n in table.columns]
    if "memory_mb" in frame:
        table[f"MB@{arguments.large}"] = frame.groupby("peer")["memory_mb"].max()
    print(f"\nCPU ms of a suggestion and its observation, and the ratio to {names[0]}")
    print(table.reindex(names).to_string(float_format="%.2f", na_rep=""))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(arguments.out, index=False)
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
