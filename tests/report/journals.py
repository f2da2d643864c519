"""Journals of sweeps that were never run: written in a second, of any size and of any state."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hpo_ray.space import SearchSpace

SPACE: dict[str, Any] = {
    "lr": "loguniform(1e-4, 0.3)",
    "batch_size": "choice(32, 64, 128)",
    "optimizer": "choice(sgd, adam)",
    "momentum": "uniform(0.5, 0.99, when={optimizer: sgd})",
    "dropout": "uniform(0, 0.6)",
}
COMMAND = ["/usr/bin/hpo-ray", "run", "experiment=digits", "space.lr=loguniform(1e-4, 0.3)"]
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u2028$x_1^2$|`*"


def sweep(
    folder: Path,
    trials: int,
    *,
    seed: int = 0,
    top: int = 9,
    space: dict[str, Any] | None = None,
    metric: str = "val_error",
    mode: str = "min",
    fidelity: str | None = "epoch",
    fails: float = 0.06,
    reason: str = "RuntimeError: CUDA error at 0x1f: assert\nsecond line",
    ended: bool = True,
    experiment: dict[str, Any] | None = None,
) -> Path:
    """A run with ASHA's rungs at 1 and 3, some failures, and a bowl in `lr` and `dropout`, if they are there."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    written = SPACE if space is None else space
    known = SearchSpace.parse(written)
    now, lines = 1_795_000_000.0, []
    head = {"name": "synthetic", "trials": trials, "seed": seed, "metric": metric, "mode": mode, "fidelity": fidelity}
    git = {"commit": "abc123", "dirty": True}
    environment = {"versions": {"python": "3.11.7", "ray": None}, "git": git, "command": COMMAND, "cwd": "/home/me"}

    def add(event: str, **fields: Any) -> None:
        lines.append({"v": 1, "time": round(now, 3), "event": event, **fields})

    add("run_started", experiment={**head, "space": written, **(experiment or {})}, environment=environment)
    seen: dict[int, list[float]] = {1: [], 3: []}
    for number in range(trials):
        config, name = known.sample(rng), f"{number:04}"
        add("trial_suggested", trial_id=name, config_id=f"c{number}", config=config, state={})
        now += 0.5
        add("trial_started", trial_id=name, attempt=0, ray_id="x")
        final = 0.03 + 0.02 * (math.log10(config.get("lr", 0.01)) + 2.2) ** 2 + rng.normal(0, 0.002)
        final += 0.1 * (config.get("dropout", 0.2) - 0.25) ** 2
        fate, why, start = "completed", "", now
        die_at = int(rng.integers(0, 4)) if rng.random() < fails else top + 1
        for epoch in range(1, top + 1):
            if epoch > die_at:
                fate, why = "failed", reason
                break
            value = final + 0.4 * math.exp(-epoch / 2)
            value = -value if mode == "max" else value
            now += 0.8
            metrics = {"epoch": float(epoch), metric: value}
            elapsed = round(now - start, 3)
            add("trial_reported", trial_id=name, attempt=0, fidelity=float(epoch), elapsed_s=elapsed, metrics=metrics)
            if epoch in seen:
                seen[epoch].append(-value if mode == "max" else value)
                rank = sorted(seen[epoch]).index(seen[epoch][-1]) + 1
                kept = rank <= max(1, len(seen[epoch]) // 3)
                verdict = {"value": value, "cutoff": value, "kept": kept, "rank": rank, "n": len(seen[epoch])}
                add("rung_decided", trial_id=name, rung=float(epoch), **verdict)
                if not kept:
                    fate, why = "stopped", f"rung {epoch}: {value:.4g} ranked {rank} of {len(seen[epoch])}"
                    break
        trace = f"Traceback (most recent call last):\n  File my.py\n{reason}" if fate == "failed" else ""
        if ended or number < trials - 1:
            add("trial_ended", trial_id=name, attempt=0, status=fate, reason=why, traceback=trace)
    if ended:
        add("run_ended", status="completed", reason="")
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
