"""What mattered, as pictures: importance, slices and contours of the surrogate.

Frames in, figures out; each title says what is seen, and what is drawn of a trial has its `trial_gid`. Knows pandas,
the search space and matplotlib; nothing of journals, torch or Ray.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hpo_ray.encoding import levels_of
from hpo_ray.results.style import (
    ALWAYS_BLACK,
    ALWAYS_WHITE,
    BLUE,
    FATES,
    INK,
    STYLE,
    fate_of,
    label,
    log_axis,
    titled,
    trial_gid,
)
from hpo_ray.results.values import missing, require, sign_of

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.domains import Domain
    from hpo_ray.space import SearchSpace

SIZE = (6.4, 3.7)  # inches
MOST_BARS = 12
# A share that may be smaller than this may be none.
LITTLE = 0.02


def importance(shares: pd.DataFrame, metric: str) -> Figure:
    """How much of the metric's variation each parameter and pair accounts for, with intervals; pairs are hatched.

    Args:
        shares: From `hpo_ray.results.importance.importance`; the 12 largest are drawn.
        metric: The metric.

    Raises:
        InvalidInput: A column is missing.
    """
    require(shares, "parameter", "with", "importance", "low", "high")
    rows = shares[shares["importance"].notna()].head(MOST_BARS).to_dict("records")
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x", "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(SIZE[0], 1.1 + 0.32 * max(len(rows), 1)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            pair = isinstance(row["with"], str)
            share, low, high = (100 * float(row[name]) for name in ("importance", "low", "high"))
            look: Any = {"facecolor": "none", "hatch": "////"} if pair else {"facecolor": BLUE}
            axes.barh(place, share, 0.62, edgecolor=BLUE, **look)
            axes.errorbar(share, place, xerr=[[share - low], [high - share]], fmt="none", ecolor=INK, capsize=3)
            axes.text(max(high, share) + 1.5, place, f"{share:.0f} %", va="center", fontsize=9)
        axes.set_yticks(range(len(rows)), [_named(row) for row in rows])
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"share of {label(metric)}'s variation, in % (line: 90 % interval)")
        title = "Nothing can be said of any parameter"
        if rows and rows[0]["importance"] > 0:
            first = rows[0]
            sure = f"90 % interval {100 * first['low']:.0f} to {100 * first['high']:.0f} %"
            word = "matters" if first["low"] > LITTLE else "may matter"
            title = f"{_named(first)} {word} most: {100 * first['importance']:.0f} % of the variation ({sure})"
        titled(axes, title)
        return figure


def slice_plot(
    curve: pd.DataFrame, trials: pd.DataFrame, name: str, domain: Domain, metric: str, mode: str = "min"
) -> Figure:
    """The metric against one parameter, averaged over the others, with its interval; the trials' values on top.

    Args:
        curve: From `hpo_ray.results.importance.partial_dependence` for that parameter.
        trials: As from `load_results`; trials far from the best are beyond the axis.
        name: The parameter.
        domain: Its domain: log scales and levels are drawn as such.
        metric: The metric.
        mode: ``min`` or ``max``.

    Raises:
        InvalidInput: A column is missing.
    """
    column = f"config/{name}"
    require(curve, column, "mean", "low", "high")
    require(trials, column, "trial_id", "status", metric)
    mean, low, high = (curve[part].to_numpy(dtype=float) for part in ("mean", "low", "high"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        levels = _levels(domain)
        x = _places(list(curve[column]), domain, levels)
        if levels is None:
            axes.fill_between(x, low, high, color=BLUE, alpha=0.18, linewidth=0)
            axes.plot(x, mean, color=BLUE, linewidth=2)
        else:
            axes.errorbar(x, mean, np.abs([low - mean, high - mean]), fmt="D", color=BLUE, capsize=8, markersize=7)
        _trials_on(axes, trials, name, domain, levels, metric)
        _axis(axes, "x", name, domain, levels)
        axes.set_ylabel(label(metric))
        _room(axes, trials, metric, mode, low, high)
        titled(axes, _slice_said(list(curve[column]), mean, name, metric, mode))
        return figure


def contour(
    surface: pd.DataFrame,
    trials: pd.DataFrame,
    names: tuple[str, str],
    space: SearchSpace,
    metric: str,
    mode: str = "min",
) -> Figure:
    """The metric over two parameters, averaged over the others, in ten shades from bad (light) to good (dark);
    trials of equal levels are spread a little.

    Args:
        surface: From `hpo_ray.results.importance.partial_dependence` for both.
        trials: As from `load_results`: where they lie.
        names: The parameters, across and up.
        space: What was searched.
        metric: The metric.
        mode: ``min`` or ``max``.

    Raises:
        InvalidInput: A column is missing.
    """
    columns = [f"config/{name}" for name in names]
    require(surface, *columns, "mean")
    require(trials, *columns, "trial_id", "status")
    domains = [space.domains[name] for name in names]
    levels = [_levels(domain) for domain in domains]
    spots = [
        _places(list(surface[c]), domain, known) for c, domain, known in zip(columns, domains, levels, strict=True)
    ]
    at = [sorted(set(side)) for side in spots]
    grid = np.full((len(at[1]), len(at[0])), np.nan)
    for across, up, mean in zip(*spots, surface["mean"], strict=True):
        grid[at[1].index(up), at[0].index(across)] = mean
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(SIZE[0], 4.4), layout="constrained")
        axes = figure.subplots()
        for side, domain, known, name in zip("xy", domains, levels, names, strict=True):
            _axis(axes, side, name, domain, known)
        shades = MaxNLocator(10).tick_values(float(np.nanmin(grid)), float(np.nanmax(grid)))
        colours = mpl.colormaps["cividis" if mode == "min" else "cividis_r"]
        cells = axes.pcolormesh(
            at[0],
            at[1],
            grid,
            cmap=colours,
            norm=BoundaryNorm(shades, colours.N),
            shading="nearest",
            edgecolors="face",
            linewidth=0.4,
        )
        bar = figure.colorbar(cells, ax=axes, format=FuncFormatter(lambda value, _: f"{value:g}"))
        bar.set_label(label(metric))
        rng = np.random.default_rng(0)
        for trial in trials.to_dict("records"):
            values = [trial[column] for column in columns]
            apart = [0.0 if known is None else float(rng.uniform(-0.25, 0.25)) for known in levels]
            spot = [_places([v], domain, known)[0] for v, domain, known in zip(values, domains, levels, strict=True)]
            if all(math.isfinite(place) for place in spot):
                axes.plot(
                    *(place + by for place, by in zip(spot, apart, strict=True)),
                    FATES[fate_of(str(trial["status"]))][2],
                    color=ALWAYS_BLACK,
                    markeredgecolor=ALWAYS_WHITE,
                    markersize=4.5,
                    markeredgewidth=0.7,
                    gid=trial_gid(str(trial["trial_id"])),
                )
        flat = sign_of(mode) * surface["mean"].to_numpy(dtype=float)
        best = surface.iloc[int(np.nanargmin(flat))]
        where = " and ".join(f"{label(n)} = {label(best[c], 16)}" for n, c in zip(names, columns, strict=True))
        titled(axes, f"{'Lowest' if mode == 'min' else 'Highest'} {metric} on average near {where}")
        return figure


def _named(row: dict[Any, Any]) -> str:
    return (
        f"{label(row['parameter'], 16)} with {label(row['with'], 16)}"
        if isinstance(row["with"], str)
        else label(row["parameter"])
    )


def _is_log(domain: Domain) -> bool:
    return getattr(domain, "scale", "") in ("log", "lognormal")


def _levels(domain: Domain) -> list[Any] | None:
    """The levels of what is no number."""
    return levels_of(domain) if domain.kind in ("choice", "ordinal") else None


def _places(values: list[Any], domain: Domain, levels: list[Any] | None) -> list[float]:
    """Where values are drawn: numbers where they are, levels side by side; NaN for what is none of them."""
    if levels is None:
        return [math.nan if missing(value) else float(value) for value in values]
    # A frame may have turned 64 into 64.0, or a list into its text.
    places = {str(level): float(i) for i, level in enumerate(levels)}
    numbers = {float(level): float(i) for i, level in enumerate(levels) if isinstance(level, int | float)}
    found = []
    for value in values:
        if missing(value):  # as a frame has None
            found.append(places.get("None", math.nan))
            continue
        number = numbers.get(float(value)) if isinstance(value, int | float | np.number) else None
        found.append(number if number is not None else places.get(str(value), math.nan))
    return found


def _axis(axes: Axes, side: str, name: str, domain: Domain, levels: list[Any] | None) -> None:
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_label_text(label(name) + (" (log scale)" if _is_log(domain) else ""))
    if levels is not None:
        most = max(6, 60 // max(len(levels), 1)) if side == "x" else 16
        axis.set_ticks(range(len(levels)), [label(level, most) for level in levels])
        (axes.set_xlim if side == "x" else axes.set_ylim)(-0.5, len(levels) - 0.5)
    elif _is_log(domain):
        log_axis(axis, float(getattr(domain, "low", 1.0)), float(getattr(domain, "high", 10.0)))


def _trials_on(
    axes: Axes, trials: pd.DataFrame, name: str, domain: Domain, levels: list[Any] | None, metric: str
) -> None:
    """The trials' own values; levels are spread a little, so that equal ones are seen."""
    rng = np.random.default_rng(0)
    for trial in trials.to_dict("records"):
        value, y = trial[f"config/{name}"], float(trial[metric])
        [x] = _places([value], domain, levels)
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        x += 0.0 if levels is None else float(rng.uniform(-0.22, 0.22))
        colour, _, marker = FATES[fate_of(str(trial["status"]))]
        axes.plot(
            x,
            y,
            marker,
            color=colour,
            markersize=4,
            markerfacecolor="none" if trial["status"] == "stopped" else colour,
            gid=trial_gid(str(trial["trial_id"])),
        )


def _room(axes: Axes, trials: pd.DataFrame, metric: str, mode: str, low: Any, high: Any) -> None:
    """Limits by the slice and most of the completed trials: those stopped early say little at the same height."""
    finite = np.isfinite(trials[metric].to_numpy(dtype=float))
    values = trials[metric].to_numpy(dtype=float)[finite]
    done = values[(trials["status"] == "completed").to_numpy(dtype=bool)[finite]]
    if not len(low) or not len(values):
        return
    quarter = np.quantile(done if len(done) > 2 else values, [0.0, 0.8] if mode == "min" else [0.2, 1.0])
    bottom, top = min(float(quarter[0]), float(np.min(low))), max(float(quarter[1]), float(np.max(high)))
    margin = 0.06 * (top - bottom) or 0.05 * abs(top) or 0.5
    axes.set_ylim(bottom - margin, top + margin)
    beyond = int(((values > top + margin) | (values < bottom - margin)).sum())
    if beyond:
        axes.set_ylabel(f"{label(metric)} ({beyond} trials lie beyond)")


def _slice_said(values: list[Any], mean: Any, name: str, metric: str, mode: str) -> str:
    if not len(mean):
        return f"Nothing is known of {name}"
    order = np.argsort(sign_of(mode) * np.asarray(mean))
    best, worst = int(order[0]), int(order[-1])
    word = "lowest" if mode == "min" else "highest"
    apart = f"{abs(mean[worst] - mean[best]):.2g} {'higher' if mode == 'min' else 'lower'}"
    said = f"{metric} is {word} near {label(name)} = {label(values[best], 16)}"
    return f"On average {said}, {apart} at {label(values[worst], 16)}"
