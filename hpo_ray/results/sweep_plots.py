"""How a sweep went, as pictures: curves by fate, the best so far, rungs, early against late. Frames in, figures out.

Each title says what is seen. Fates differ in line and marker besides colour; what is drawn of a trial has its
`trial_gid`, so that a page may link pictures. Knows pandas and matplotlib; nothing of journals, torch or Ray.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpo_ray.results.style import BLUE, FATES, GREY, STYLE, VERMILION, fate_of, label, log_axis, titled, trial_gid
from hpo_ray.results.values import require

if TYPE_CHECKING:
    import pandas as pd

SIZE = (6.4, 3.7)  # inches
HUGE = 1e100  # a value from which no axis is computed: differences and margins overflow
# Markers of the fidelities at which trials were stopped, the lowest first; later ones share the last.
RUNG_MARKERS = "v^sDP*"


def learning_curves(
    trials: pd.DataFrame, reports: pd.DataFrame, metric: str, mode: str = "min", *, fidelity: str = "report"
) -> Figure:
    """A metric against the fidelity, a line a trial, by what became of it: completed, stopped at which rung, failed.

    Args:
        trials: As from `load_results`, of one run.
        reports: As from `load_results` with ``level="reports"``.
        metric: The metric.
        mode: ``min`` or ``max``: far on the bad side, values beyond the axis are counted in its label.
        fidelity: What the fidelity is, on the axis: ``epoch``.

    Raises:
        InvalidInput: A column is missing.
    """
    require(trials, "trial_id", "status", "fidelity")
    require(reports, "trial_id", "fidelity", metric)
    finite = reports[np.isfinite(reports[metric].astype("float64"))].sort_values("fidelity", kind="stable")
    curves = dict(tuple(finite.groupby("trial_id", sort=False)))
    rungs = sorted({float(f) for f in trials.loc[trials["status"] == "stopped", "fidelity"].dropna()})
    counts: dict[tuple[str, str], int] = {}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        order = trials.assign(_=trials["status"].map(lambda s: s == "completed").astype(int)).sort_values("_")
        for trial in order.to_dict("records"):
            fate, end = fate_of(str(trial["status"])), float(trial["fidelity"])
            colour, line, marker = FATES[fate]
            said = fate
            if fate == "stopped" and math.isfinite(end):
                place = min(rungs.index(end), len(RUNG_MARKERS) - 1)
                marker = RUNG_MARKERS[place]
                last = len(rungs) > len(RUNG_MARKERS) and place == len(RUNG_MARKERS) - 1
                said = f"stopped at {fidelity} {rungs[place]:g}" + (" or later" if last else "")
            counts[said, marker] = counts.get((said, marker), 0) + 1
            curve = curves.get(trial["trial_id"])
            if curve is not None:
                axes.plot(
                    curve["fidelity"],
                    curve[metric],
                    color=colour,
                    linestyle=line,
                    linewidth=1.7 if fate == "completed" else 1.0,
                    marker=marker,
                    markevery=[len(curve) - 1],
                    markersize=5,
                    gid=trial_gid(str(trial["trial_id"])),
                )
        _whole_ticks(axes, finite["fidelity"])
        axes.set_xlabel(label(fidelity))
        axes.set_ylabel(label(metric))
        _bounds(axes, finite, metric, mode)
        if len(finite) and finite["fidelity"].min() > 0:
            low, high = float(finite["fidelity"].min()), float(finite["fidelity"].max())
            if high >= 9 * low:
                log_axis(axes.xaxis, low, high)
                if rungs:
                    axes.set_xticks(sorted({low, *(rung for rung in rungs[:8] if low < rung), high}))
        handles = [_handle(said, marker, n) for (said, marker), n in sorted(counts.items())]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=9)
        titled(axes, _fates_said(trials, fidelity))
        return figure


def incumbent(curve: pd.DataFrame, metric: str, unit: str) -> Figure:
    """The best value so far against what was spent, a step and a mark for each improvement.

    Args:
        curve: From `hpo_ray.results.progress.incumbent`, of one run.
        metric: The metric.
        unit: What was spent, on the axis: ``trials``, ``epochs``, ``seconds``.

    Raises:
        InvalidInput: A column is missing.
    """
    require(curve, "spent", "value", "trial_id")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.plot(curve["spent"], curve["value"], drawstyle="steps-post", color=BLUE, linewidth=2)
        found = curve[curve["value"].diff() != 0]
        for row in found.to_dict("records"):
            axes.plot(row["spent"], row["value"], "o", color=BLUE, markersize=5, gid=trial_gid(str(row["trial_id"])))
        _whole_ticks(axes, curve["spent"])
        axes.set_xlabel(label(f"{unit} spent"))
        axes.set_ylabel(label(f"best {metric} so far", 40))
        axes.margins(x=0.02)
        title = "No trial reported a finite value"
        if len(curve):
            best, first, whole = found.iloc[-1], float(curve["spent"].min()), float(curve["spent"].max())
            left = best["spent"] <= first + 0.6 * (whole - first)
            if (curve["value"] > 0).all() and curve["value"].max() > 8 * curve["value"].min():
                log_axis(axes.yaxis, float(curve["value"].min()), float(curve["value"].max()))
            axes.annotate(
                f"{best['value']:.4g}  trial {label(best['trial_id'], 12)}",
                (best["spent"], best["value"]),
                (8 if left else 0, 9),  # beside the steps that came before it
                textcoords="offset points",
                ha="left" if left else "right",
                fontsize=9,
            )
            after = f"after {best['spent']:.4g} of {whole:.4g} {unit}"
            title = f"Best {metric} {best['value']:.4g}, by trial {best['trial_id']} {after}"
        titled(axes, title)
        return figure


def rung_survival(rungs: pd.DataFrame, fidelity: str = "report") -> Figure:
    """What became of the trials that reached each rung: kept, stopped, ended otherwise.

    Args:
        rungs: From `hpo_ray.results.rung_analysis.rung_survival`, of one run.
        fidelity: What the fidelity is: ``epoch``.

    Raises:
        InvalidInput: A column is missing.
    """
    require(rungs, "rung", "reached", "kept", "stopped", "other")
    shown = rungs.head(12)
    with mpl.rc_context({**STYLE, "axes.grid": False, "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(SIZE[0], 1.2 + 0.42 * max(len(shown), 1)), layout="constrained")
        axes = figure.subplots()
        left = np.zeros(len(shown))
        places = np.arange(len(shown))
        whole = max(float(shown["reached"].max()), 1.0) if len(shown) else 1.0
        for name, said, fill, edge, hatch in (
            ("kept", "trained further or completed", BLUE, BLUE, None),
            ("stopped", "stopped here", "none", GREY, "////"),
            ("other", "ended here otherwise", "none", VERMILION, "...."),
        ):
            width = shown[name].to_numpy(dtype=float)
            axes.barh(places, width, 0.68, left=left, facecolor=fill, edgecolor=edge, hatch=hatch, label=said)
            for place, start, n in zip(places.tolist(), left.tolist(), width.tolist(), strict=True):
                if n > 0.045 * whole:
                    box = None if fill != "none" else {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                    ink: Any = {"color": "white"} if fill != "none" else {}
                    axes.text(start + n / 2, place, f"{n:g}", ha="center", va="center", fontsize=9, bbox=box, **ink)
            left += width
        axes.set_yticks(places, [f"{label(fidelity, 14)} {rung:g}" for rung in shown["rung"]])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("trials that reached it")
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
        parts = [f"{row['kept']} of {row['reached']} at {row['rung']:g}" for row in rungs.head(4).to_dict("records")]
        went = f"Kept at {fidelity}: " + ", ".join(parts) + (", …" if len(rungs) > 4 else "")
        titled(axes, went if len(rungs) else "No trial was stopped early")
        return figure


def fidelity_correlation(table: pd.DataFrame, metric: str, fidelity: str = "report") -> Figure:
    """How far early values rank trials as the last ones do: Spearman's correlation and its interval.

    Args:
        table: From `hpo_ray.results.rung_analysis.fidelity_correlation`; of its pairs those with the highest fidelity
            that at least three trials reached.
        metric: The metric.
        fidelity: What the fidelity is: ``epoch``.

    Raises:
        InvalidInput: A column is missing.
    """
    require(table, "low_fidelity", "high_fidelity", "n", "rho", "low", "high")
    known = table[table["rho"].notna()]
    top = float(known["high_fidelity"].max()) if len(known) else math.nan
    rows = known[known["high_fidelity"] == top]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], 3.2), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color=GREY, linewidth=0.8)
        x, y = rows["low_fidelity"].to_numpy(dtype=float), rows["rho"].to_numpy(dtype=float)
        spread = np.abs(rows[["low", "high"]].to_numpy(dtype=float).T - y)
        axes.errorbar(x, y, spread, fmt="o-", color=BLUE, capsize=3, linewidth=1.2)
        if len(rows):
            log_axis(axes.xaxis, float(x.min()), max(top, 2 * float(x.min()))) if x.min() > 0 else None
            axes.set_xticks(x if len(x) <= 8 else x[:: -(-len(x) // 8)])
            for row in rows.to_dict("records"):
                place = (row["low_fidelity"], -1.08)
                axes.text(*place, f"n={row['n']:g}", ha="center", va="bottom", fontsize=8)
        axes.set_ylim(-1.1, 1.1)
        axes.set_xlabel(label(fidelity))
        axes.set_ylabel(f"rank correlation with {label(fidelity, 14)} {top:g}" if len(rows) else "rank correlation")
        title = "Too few trials went far enough to compare early values with late ones"
        if len(rows):
            first = rows.iloc[0]
            sure = f" ({first['low']:.2f} to {first['high']:.2f})" if math.isfinite(first["low"]) else ""
            pair = f"{fidelity} {first['low_fidelity']:g} ranks the {first['n']:g} survivors as {fidelity} {top:g} does"
            if not abs(first["rho"]) > 0 or not first["low"] * first["high"] > 0:
                pair = f"Too few to tell whether {pair}"
            title = f"{pair}: ρ = {first['rho']:.2f}{sure}"
            title = title[0].upper() + title[1:]
        titled(axes, title)
        return figure


def _whole_ticks(axes: Axes, values: pd.Series[float]) -> None:
    """There is no half epoch where there are whole ones only."""
    if len(values) and (values == values.round()).all():
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _handle(said: str, marker: str, n: int) -> Line2D:
    colour, line, _ = FATES[said.split()[0]]
    return Line2D([], [], color=colour, linestyle=line, marker=marker, markersize=5, label=f"{label(said, 40)} ({n})")


def _fates_said(trials: pd.DataFrame, fidelity: str) -> str:
    fates = [fate_of(str(status)) for status in trials["status"]]
    n = {fate: fates.count(fate) for fate in FATES}
    reached = trials.loc[[fate == "completed" for fate in fates], "fidelity"].max()
    done = f"{n['completed']} completed" + (f" ({fidelity} {reached:g})" if n["completed"] and reached > 0 else "")
    rest = [f"{n[fate]} {said}" for fate, said in (("stopped", "stopped early"), ("failed", "failed")) if n[fate]]
    rest += [f"{n['unfinished']} unfinished"] if n["unfinished"] else []
    return f"Of {len(fates)} trial{'s' if len(fates) != 1 else ''} {', '.join([done, *rest])}"


def _bounds(axes: Axes, finite: pd.DataFrame, metric: str, mode: str) -> None:
    """Room for the good values: one that diverged must not flatten the others."""
    if not len(finite):
        return
    values = finite[metric].to_numpy(dtype=float)
    low, high = float(values.min()), float(values.max())
    if max(high, -low) > HUGE:  # no picture can be made of it anyway
        return
    if low > 0 and high > 20 * float(np.median(values)) and mode == "min":
        log_axis(axes.yaxis, low, high)
        return
    ends: Any = np.quantile(values, [0.02, 0.98])
    pad = 0.15 * (float(ends[1]) - float(ends[0]))
    if mode == "min" and high > ends[1] + 4 * pad > low:
        high = float(ends[1]) + pad
    elif mode == "max" and low < ends[0] - 4 * pad < high:
        low = float(ends[0]) - pad
    beyond = int(((values < low) | (values > high)).sum())
    if beyond:
        axes.set_ylabel(f"{label(metric)} ({beyond} values lie beyond)")
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    axes.set_ylim(low - margin, high + margin)
