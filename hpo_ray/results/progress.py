"""How a sweep went: the best value so far against trials, training, time or GPU time. Frames in, frames out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.results.values import losses, require, sign_of

if TYPE_CHECKING:
    import pandas as pd

Over = Literal["trials", "fidelity", "seconds", "gpu_seconds"]
OVER = ("trials", "fidelity", "seconds", "gpu_seconds")
COLUMNS = ["run", "spent", "value", "trial_id", "fidelity", "at"]


def incumbent(
    trials: pd.DataFrame,
    metric: str,
    mode: str = "min",
    *,
    over: Over = "trials",
    reports: pd.DataFrame | None = None,
    gpus_per_trial: float = 0.0,
) -> pd.DataFrame:
    """The best value so far, one row for each time that it changed, run by run.

    Args:
        trials: As from `load_results`.
        metric: The metric.
        mode: ``min`` or ``max``.
        over: What was spent until then: ``trials`` (that started by then), ``fidelity`` (trained by all of them, mostly
            epochs), ``seconds`` since the run's first trial started, or ``gpu_seconds`` (of all trials together, with
            pauses between a trial's attempts).
        reports: Every report, for the moment that each value came in; None: a trial's best value counts when it ends.
        gpus_per_trial: How many GPUs a trial has, for ``gpu_seconds``; the frame does not say.

    Returns:
        ``run, spent, value, trial_id, fidelity`` (where it was measured) and ``at`` (a time). Trials without a start do
        not count; those without a finite value do, as spent. Each run's last row is repeated at all that it spent, so
        that a curve drawn in steps ends where the run did.

    Raises:
        InvalidInput: A column is missing, `mode` or `over` is none of its values.
    """
    import pandas as pd

    if over not in OVER:
        raise InvalidInput(Problem("over", f"'{over}' is no measure; {nearest(over, OVER)}"))
    sign = sign_of(mode)
    events = _events(trials, metric, mode, reports)
    pieces = []
    for _, run in events.groupby("run", sort=False):
        run = run.sort_values("at", kind="stable")
        best = run["loss"].fillna(np.inf).cummin()
        improved = run[run["loss"].notna() & (best < best.shift(fill_value=np.inf))]
        if not len(improved):
            continue
        spent = _spent(run, over, gpus_per_trial)
        piece = improved.assign(spent=spent[improved.index], value=sign * improved["loss"])
        last = piece.tail(1).assign(spent=spent.max(), at=run["at"].max())
        pieces.append(pd.concat([piece, last]) if float(last["spent"].iloc[0]) > piece["spent"].iloc[-1] else piece)
    frame = pd.concat(pieces) if pieces else pd.DataFrame(columns=COLUMNS)
    return frame[COLUMNS].reset_index(drop=True)


def _events(trials: pd.DataFrame, metric: str, mode: str, reports: pd.DataFrame | None) -> pd.DataFrame:
    """A row for each moment that something came in: a report, or a trial's end.

    Columns: those of the result, ``loss``, ``gained`` (fidelity since the trial's row before) and ``started``.
    """
    import pandas as pd

    require(trials, "run", "trial_id", "fidelity", "started_at", "duration_s")
    known = trials[trials["started_at"].notna()]
    lasts = pd.to_timedelta(known["duration_s"].fillna(0.0), unit="s")
    if reports is None:
        peak = f"{metric}_best" if f"{metric}_best" in trials.columns else metric
        events = known[["run", "trial_id", "fidelity"]].assign(
            loss=losses(known, peak, mode),
            at=known["started_at"] + lasts,
            started=known["started_at"],
            gained=known["fidelity"].fillna(0.0),
        )
        return events.reset_index(drop=True)
    require(reports, "run", "trial_id", "attempt", "fidelity", "elapsed_s")
    ends = known[["run", "trial_id"]].assign(started=known["started_at"], end=known["started_at"] + lasts)
    events = reports.assign(loss=losses(reports, metric, mode)).merge(ends, on=["run", "trial_id"])
    each = events.groupby(["run", "trial_id"], sort=False)
    # A clock starts with each attempt: the first began with the trial, the last ended with it.
    later = events["attempt"] > 0
    left = each["elapsed_s"].transform("last") - events["elapsed_s"]
    first = events["started"] + pd.to_timedelta(events["elapsed_s"], unit="s")
    anchored = events["end"] - pd.to_timedelta(left.clip(lower=0.0), unit="s")
    events["at"] = first.where(~later, anchored)
    events["gained"] = each["fidelity"].diff().fillna(events["fidelity"]).clip(lower=0.0)
    # Each trial's end, too: some have no report, and all hold their GPUs until then.
    reached = events.groupby(["run", "trial_id"], sort=False)["fidelity"].max().rename("reached").reset_index()
    ended = known[["run", "trial_id", "fidelity"]].merge(reached, on=["run", "trial_id"], how="left")
    gained = (ended["fidelity"].fillna(0.0) - ended["reached"].fillna(0.0)).clip(lower=0.0).astype("float64")
    ended = ended.assign(gained=gained, loss=np.nan, at=ends["end"].array, started=ends["started"].array)
    columns = ["run", "trial_id", "fidelity", "loss", "at", "started", "gained"]
    return pd.concat([events[columns], ended[columns]], ignore_index=True)


def _spent(run: pd.DataFrame, over: Over, gpus: float) -> pd.Series[float]:
    """What one run had spent by each of its events, in the order of `at`."""
    import pandas as pd

    if over == "fidelity":
        return run["gained"].astype("float64").cumsum()
    if over == "seconds":
        seconds = (run["at"] - run["started"].min()).dt.total_seconds()
        return pd.Series(seconds, index=run.index)
    starts = run.drop_duplicates("trial_id")["started"]
    if over == "trials":
        order = np.sort(starts.to_numpy())
        return pd.Series(np.searchsorted(order, run["at"].to_numpy(), side="right"), index=run.index, dtype="float64")
    # Each trial holds its GPUs from its start to its last event.
    zero = run["started"].min()
    begin = (run.groupby("trial_id")["started"].min() - zero).dt.total_seconds().to_numpy()
    end = (run.groupby("trial_id")["at"].max() - zero).dt.total_seconds().to_numpy()
    now = (run["at"] - zero).dt.total_seconds().to_numpy()
    held = np.clip(np.minimum(now[:, None], end) - begin, 0.0, None).sum(axis=1)
    return pd.Series(gpus * held, index=run.index)
