"""A race, and the models of a refit, as pictures: each value, means, and differences with their intervals.

Frames in, figures out; what is drawn of a trial has its `trial_gid`. Knows pandas and matplotlib; nothing of journals,
torch or Ray.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from hpo_ray.results.style import BLUE, GREEN, GREY, INK, STYLE, VERMILION, label, titled, trial_gid
from hpo_ray.results.values import require

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 6.4  # inches
# How a contender stands: colour and marker, each of which tells it apart; the words are beside it.
LEADS, OPEN, OUT, FAILED = (BLUE, "D"), (GREEN, "o"), (GREY, "v"), (VERMILION, "X")


def race(scores: pd.DataFrame, standing: pd.DataFrame, metric: str, finding: str) -> Figure:
    """Contenders, the best first: their values, a thin line joining those of one repeat, and beside them each mean
    less the leader's with its interval.

    Parallel lines are luck that all contenders share, which comparing them repeat by repeat leaves out.

    Args:
        scores: Columns ``trial_id, config_id, repeat, value``; what is not finite is left out.
        standing: The `table` of `hpo_ray.results.racing.Standing`.
        metric: The metric.
        finding: What is seen, in words.

    Raises:
        InvalidInput: A column is missing.
    """
    require(scores, "trial_id", "config_id", "repeat", "value")
    require(standing, "config_id", "mean", "difference", "low", "high", "verdict")
    rows = standing.to_dict("records")
    places = {str(row["config_id"]): place for place, row in enumerate(rows)}
    known = scores[np.isfinite(scores["value"].to_numpy(dtype=float))]
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        apart = ConstrainedLayoutEngine(wspace=0.12)  # so that numbers on the two axes do not meet
        figure = Figure(figsize=(WIDTH, 1.3 + 0.5 * max(len(rows), 2)), layout=apart)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        for _, repeat in known.groupby("repeat"):
            heights = repeat["config_id"].map(places)
            order = np.argsort(heights.to_numpy(), kind="stable")
            left.plot(
                repeat["value"].to_numpy()[order], heights.to_numpy()[order], color=GREY, linewidth=0.6, alpha=0.7
            )
        for row in known.to_dict("records"):
            look = _look(rows[places[str(row["config_id"])]])
            left.plot(row["value"], places[str(row["config_id"])], "o", color=look[0], markersize=4.5,
                      markerfacecolor="none", gid=trial_gid(str(row["trial_id"])))  # fmt: skip
        for place, row in enumerate(rows):
            colour, marker = _look(row)
            if math.isfinite(row["mean"]):
                left.plot(row["mean"], place, marker, color=colour, markersize=8, zorder=4)
            if place and math.isfinite(row["difference"]):
                ends = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
                spread = ends if np.isfinite(ends).all() else None  # one repeat says nothing of how far it may be off
                right.errorbar(row["difference"], place, xerr=spread, fmt=marker, color=colour, capsize=4, markersize=7)
        right.axvline(0, color=INK, linewidth=1)
        left.set_yticks(range(len(rows)), [f"{label(row['config_id'], 12)}\n{_short(row['verdict'])}" for row in rows])
        left.set_ylim(len(rows) - 0.5, -0.5)
        left.set_xlabel(f"{label(metric)} of each repeat; filled: mean")
        right.set_xlabel(f"less that of {label(rows[0]['config_id'], 12)} (interval)" if rows else "")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(axis="y", length=0)
        titled(left, finding)
        return figure


def together(models: pd.DataFrame, metric: str, finding: str) -> Figure:
    """Values with their intervals, one a row: several models alone, and what they say together.

    Args:
        models: Columns ``name, value, low, high``; the last row is all of them together.
        metric: What the values are.
        finding: What is seen, in words.

    Raises:
        InvalidInput: A column is missing.
    """
    require(models, "name", "value", "low", "high")
    rows = models.to_dict("records")
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.36 * max(len(rows), 2)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            whole = place == len(rows) - 1
            (colour, marker), size = (LEADS if whole else OPEN), 8 if whole else 5
            spread = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
            axes.errorbar(row["value"], place, xerr=spread, fmt=marker, color=colour, capsize=4, markersize=size,
                          linewidth=2 if whole else 1)  # fmt: skip
        axes.set_yticks(range(len(rows)), [label(row["name"]) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label(metric, 60))
        titled(axes, finding)
        return figure


def _look(row: Any) -> tuple[str, str]:
    verdict = str(row["verdict"])
    kinds = {"best mean": LEADS, "may be as good": OPEN}
    return kinds.get(verdict, FAILED if verdict.startswith("failed") else OUT)


def _short(verdict: str) -> str:
    """``beaten by 0004 after 2 repeats`` as ``beaten after 2``: the table has it whole."""
    words = verdict.split()
    return f"beaten after {words[-2]}" if words[:1] == ["beaten"] and len(words) > 2 else label(verdict, 22)
