"""What a sweep cost, and what failed in it and why. Frames in, frames out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hpo_ray.results.values import require

if TYPE_CHECKING:
    import pandas as pd

FAILED = ("failed", "out_of_memory")
# What differs between failures of one cause: addresses, quoted text, paths, numbers.
_VARIES = (
    (re.compile(r"0x[0-9a-fA-F]+"), "…"),
    (re.compile(r"(['\"`]).*?\1"), "…"),
    (re.compile(r"(?<!\w)(?:[A-Za-z]:)?[\\/][^\s:,;)]+"), "…"),
    (re.compile(r"[-+]?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?"), "…"),
)


def cost(trials: pd.DataFrame, *, gpus_per_trial: float = 0.0) -> pd.DataFrame:
    """What each run spent on trials of each status.

    Args:
        trials: As from `load_results`.
        gpus_per_trial: How many GPUs a trial has: the frame does not say. What each attempt held is in ``gpu_s`` of
            ``load_results(path, level="cost")``.

    Returns:
        A row per run and status that occurs: ``run, status, trials, fidelity`` (trained by all of them, mostly epochs),
        ``seconds`` (of all of them, side by side or not), ``gpu_seconds``, ``share`` (of the run's seconds, NaN if it
        spent none).

    Raises:
        InvalidInput: A column is missing.
    """
    require(trials, "run", "status", "fidelity", "duration_s")
    rows = trials.assign(status=trials["status"].astype("str"))
    groups = rows.groupby(["run", "status"], sort=False, as_index=False)
    frame = groups.agg(trials=("status", "size"), fidelity=("fidelity", "sum"), seconds=("duration_s", "sum"))
    whole = frame.groupby("run", sort=False)["seconds"].transform("sum")
    return frame.assign(gpu_seconds=gpus_per_trial * frame["seconds"], share=frame["seconds"] / whole.where(whole > 0))


def failures(trials: pd.DataFrame) -> pd.DataFrame:
    """What trials failed of, run by run, the most frequent cause first.

    A cause is the reason without what differs between trials: numbers, paths, quoted text, addresses.

    Args:
        trials: As from `load_results`.

    Returns:
        ``run, status, cause, trials, share`` (of the run's trials), ``fidelity`` (trained, and lost), ``seconds``
        (likewise), ``example`` (the first such trial) and its ``reason`` in full. Empty if none failed.

    Raises:
        InvalidInput: A column is missing.
    """
    require(trials, "run", "trial_id", "status", "reason", "fidelity", "duration_s")
    counts = trials.groupby("run", sort=False).size()
    bad = trials[trials["status"].isin(FAILED)]
    reasons = bad["reason"].astype("str")
    rows = bad.assign(status=bad["status"].astype("str"), reason=reasons, cause=[cause_of(text) for text in reasons])
    frame = rows.groupby(["run", "status", "cause"], sort=False, as_index=False).agg(
        trials=("trial_id", "size"),
        fidelity=("fidelity", "sum"),
        seconds=("duration_s", "sum"),
        example=("trial_id", "first"),
        reason=("reason", "first"),
    )
    # Of no rows at all pandas makes columns of text.
    frame.insert(4, "share", frame["trials"].astype("float64") / frame["run"].map(counts).astype("float64"))
    return frame.sort_values("trials", ascending=False, kind="stable", ignore_index=True)


def cause_of(reason: str) -> str:
    """A reason's first line without what differs between trials; ``not told`` of an empty one.

    >>> cause_of("CUDA out of memory: tried to allocate 512.00 MiB in '/tmp/x'")
    'CUDA out of memory: tried to allocate … MiB in …'
    """
    lines = reason.strip().splitlines()
    text = lines[0] if lines else ""
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return text.strip()[:200] or "not told"
