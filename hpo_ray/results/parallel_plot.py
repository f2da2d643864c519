"""All trials at once, as lines through their parameters. A frame in, a figure out.

Knows pandas, the search space and matplotlib; nothing of journals, torch or Ray.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo_ray.encoding import levels_of
from hpo_ray.results.style import BLUE, FATES, GREY, INK, STYLE, fate_of, label, titled, trial_gid
from hpo_ray.results.surrogate import config_of
from hpo_ray.results.values import losses, require, sign_of

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.domains import Domain
    from hpo_ray.space import SearchSpace

WIDTH = 6.4  # inches, or more where there are many parameters
# Of the trials with a value, the share drawn as the best; at least three.
BEST_SHARE = 0.1


def parallel_coordinates(trials: pd.DataFrame, space: SearchSpace, metric: str, mode: str = "min") -> Figure:
    """Each trial as a line through its parameters and its value; the best tenth thick, the failed dotted.

    Axes are as trials are sampled: log scales as such. What a trial does not use is at the foot of the axis.

    Args:
        trials: As from `load_results`; configurations outside the space are left out.
        space: What was searched.
        metric: The metric, its last value; beyond its 95 % quantile on the bad side all are drawn alike.
        mode: ``min`` or ``max``.

    Raises:
        InvalidInput: A column is missing.
    """
    require(trials, "trial_id", "status")
    loss = losses(trials, metric, mode).to_numpy(dtype=float)
    configs = [config_of(row, space) for _, row in trials.iterrows()]
    known = np.flatnonzero(np.isfinite(loss))
    few = max(3, round(BEST_SHARE * len(known)))
    best = set(known[np.argsort(loss[known], kind="stable")][:few].tolist()) if len(known) > 3 else set()
    names = space.names
    width = min(max(WIDTH, 1.05 * (len(names) + 1)), 16)
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(width, 3.9), layout="constrained")
        axes = figure.subplots()
        ends = np.quantile(loss[known], [0, 0.95]) if len(known) else np.zeros(2)
        span = float(ends[1] - ends[0]) or 1.0
        used = np.full((len(trials), len(names)), np.nan)
        for i in sorted(range(len(trials)), key=lambda i: i in best):
            config = configs[i]
            if config is None:
                continue
            heights = [_height(space.domains[name], config[name]) if name in config else -0.12 for name in names]
            used[i] = [height if name in config else np.nan for name, height in zip(names, heights, strict=True)]
            places = list(range(len(names)))
            if math.isfinite(loss[i]):
                heights.append(1 - float(np.clip((loss[i] - ends[0]) / span, 0, 1)))
                places.append(len(names))
            fate = fate_of(str(trials["status"].iloc[i]))
            look: dict[str, Any] = {"color": GREY, "linewidth": 0.6, "alpha": 0.6}
            if i in best:
                look = {"color": BLUE, "linewidth": 1.8}
            elif fate == "failed":
                look = {"color": FATES[fate][0], "linestyle": FATES[fate][1], "linewidth": 1.0}
            axes.plot(places, heights, **look, gid=trial_gid(str(trials["trial_id"].iloc[i])))
        for place in range(len(names) + 1):
            axes.plot([place, place], [0, 1], color=INK, linewidth=1)
        for place, name in enumerate(names):
            _ticks(axes, place, _axis_ticks(space.domains[name]))
            if any(config is not None and name not in config for config in configs):
                axes.text(place, -0.12, "not in use ", ha="right", va="center", fontsize=7, color=GREY)
        sign = sign_of(mode)
        if len(known):
            _ticks(axes, len(names), [(1.0, f"{sign * ends[0]:.3g}"), (0.0, f"{sign * ends[1]:.3g}")])
        said = [label(name, 14) for name in [*names, metric]]
        axes.set_xticks(range(len(said)), [text + ("\n" if i % 2 else "") for i, text in enumerate(said)], fontsize=9)
        axes.xaxis.tick_top()
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.set_xlim(-0.45, len(names) + 0.45)
        titled(axes, _best_said(used, sorted(best), space, metric))
        return figure


def _height(domain: Domain, value: Any) -> float:
    if domain.kind in ("choice", "ordinal"):
        levels = levels_of(domain)
        place = next((i for i, level in enumerate(levels) if level == value), 0)
        return place / max(len(levels) - 1, 1) if len(levels) > 1 else 0.5
    return float(domain.to_unit(value))


def _axis_ticks(domain: Domain) -> list[tuple[float, str]]:
    if domain.kind in ("choice", "ordinal"):
        levels = levels_of(domain)
        every = -(-len(levels) // 8)
        return [(_height(domain, level), label(level, 9)) for level in levels[::every]]
    return [(unit, f"{_number(domain, unit):.3g}") for unit in (0.0, 0.5, 1.0)]


def _ticks(axes: Axes, place: int, ticks: list[tuple[float, str]]) -> None:
    for height, text in ticks:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
        axes.text(place + 0.05, height, text, ha="left", va="center", fontsize=8, bbox=box, zorder=4)


def _best_said(used: Any, best: list[int], space: SearchSpace, metric: str) -> str:
    """Where the best trials are closer together than all are: at most two parameters, the narrowest first."""
    said = []
    for column, name in enumerate(space.names):
        heights = used[best, column] if best else np.zeros(0)
        heights = heights[np.isfinite(heights)]
        if len(heights) < 3:
            continue
        low, high = (float(end) for end in np.quantile(heights, [0.1, 0.9]))
        domain = space.domains[name]
        if domain.kind in ("choice", "ordinal"):
            if high == low and len(levels_of(domain)) > 1:
                level = next(each for each in levels_of(domain) if _height(domain, each) == low)
                said.append((0.3, f"{label(name)} = {label(level, 12)}"))
        elif high - low < 0.5:
            ends = [_number(domain, unit) for unit in (low, high)]
            said.append((high - low, f"{label(name)} {ends[0]:.2g} to {ends[1]:.2g}"))
    close = ", ".join(text for _, text in sorted(said)[:2])
    if not best:
        return "Each trial as a line through its parameters"
    return f"Most of the best {len(best)} trials have " + (close or f"little in common but their {label(metric)}")


def _number(domain: Domain, unit: float) -> float:
    value: Any = domain.from_unit(unit)
    return float(value)
