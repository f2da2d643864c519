"""Pictures of a model and of a range test: frames in, figures out. Those of a sweep: `sweep_plots`, `parameter_plots`.

Knows pandas and matplotlib; nothing of journals, torch or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpo_ray.results.calibration import calibration_error
from hpo_ray.results.style import BLUE, GREEN, ORANGE, PURPLE, STYLE, VERMILION, save, shortened

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BLUE",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "VERMILION",
    "calibration",
    "confusion_matrix",
    "lr_range",
    "save",
    "shortened",
]

_MARKS = {"steepest": (ORANGE, "v"), "valley": (GREEN, "o"), "minimum": (PURPLE, "s"), "slide": (VERMILION, "D")}


def lr_range(
    curve: pd.DataFrame, suggestions: Mapping[str, float | None], bounds: tuple[float, float] | None = None
) -> Figure:
    """The curve of a learning rate range test, with the rates that it suggests.

    Args:
        curve: Columns `lr`, `loss`, `smoothed`; losses may be NaN or infinite.
        suggestions: Rates by name; None where the curve gives none.
        bounds: The range to search in, shaded.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        finite = curve[np.isfinite(curve["smoothed"])]
        axes.plot(curve["lr"], curve["loss"], color="#999999", linewidth=0.8, label="loss of each batch")
        axes.plot(finite["lr"], finite["smoothed"], color=BLUE, linewidth=2, label="smoothed")
        if bounds is not None:
            axes.axvspan(
                *bounds, color=BLUE, alpha=0.08, linewidth=0, label=f"search {bounds[0]:.1e} to {bounds[1]:.1e}"
            )
        for name, rate in suggestions.items():
            if rate is not None:
                colour, marker = _MARKS.get(name, (BLUE, "x"))
                height = float(np.interp(np.log(rate), np.log(finite["lr"]), finite["smoothed"]))
                axes.plot(rate, height, marker, color=colour, markersize=8, label=f"{name} {rate:.1e}", zorder=3)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        if len(finite):
            low, high = finite["smoothed"].min(), finite["smoothed"].iloc[: max(3, len(finite) // 2)].max()
            axes.set_ylim(low - 0.15 * (high - low), high + 0.5 * (high - low))  # divergence would flatten the rest
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return figure


def confusion_matrix(frame: pd.DataFrame) -> Figure:
    """Which class was taken for which: each cell's shade is its share of the true class, errors in another colour.

    Counts are written where they fit into the cells, and every class is named, up to 60; long names lose their middle.

    Args:
        frame: From `hpo_ray.results.metrics.confusion`: counts, true classes x predicted ones, in the same order.
    """
    counts = frame.to_numpy()
    rows, columns = counts.shape
    down, across = ([shortened(str(name)) for name in axis] for axis in (frame.index, frame.columns))
    cell = min(max(6 / columns, 0.23), 0.9, 12 / columns)  # inches
    every = -(-columns // 60)
    points = min(10.0, 54 * cell * every)  # of the names
    long = max(map(len, [*down, *across])) * points * 0.0072 + 0.2  # inches
    upright = long > cell
    size = (cell * columns + long + 0.5, cell * rows + 0.75 + (long if upright else 0.25))
    number = min(11.0, 36 * cell, 61 * cell / (0.62 * len(str(counts.max()))))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(max(size[0], 3.2), size[1]), layout="constrained")
        axes = figure.subplots()
        colours = _cells(counts / np.maximum(counts.sum(1, keepdims=True), 1))
        axes.imshow(colours, interpolation="nearest")
        axes.set_xticks(range(0, columns, every), across[::every], rotation=90 if upright else 0, fontsize=points)
        axes.set_yticks(range(0, rows, every), down[::every], fontsize=points)
        axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        axes.tick_params(which="both", length=0)
        axes.grid(which="minor")
        axes.spines[:].set_visible(False)
        if number >= 4.5:
            for row, column in np.argwhere(counts).tolist():
                ink = "white" if colours[row, column] ** 2.2 @ (0.2126, 0.7152, 0.0722) < 0.26 else "black"
                said = str(counts[row, column])
                axes.text(column, row, said, ha="center", va="center_baseline", fontsize=number, color=ink)
        total, wrong = int(counts.sum()), int(counts.sum() - np.trace(counts))
        axes.set_title(f"{wrong} of {total} wrong ({100 * wrong / max(total, 1):.1f} %)", fontsize=10, loc="left")
        axes.set_xlabel("predicted class" if number >= 4.5 else "predicted class (shade: share of the true class)")
        axes.set_ylabel("true class")
        return figure


def calibration(table: pd.DataFrame) -> Figure:
    """How often the model is right against how sure it is, and how many images each point stands for.

    Args:
        table: From `hpo_ray.results.calibration.calibration`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 5.5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        sure, accuracy, n = (table[name].to_numpy() for name in ("confidence", "accuracy", "n"))
        above.plot([0, 1], [0, 1], "--", color="#666666", linewidth=1, label="as often right as sure")
        spread = np.abs(table[["accuracy_low", "accuracy_high"]].to_numpy().T - accuracy)
        above.errorbar(
            sure, accuracy, spread, fmt="o-", color=BLUE, linewidth=1, capsize=3, label="a bin, 95 % interval"
        )
        below.vlines(sure, 0, n, color=BLUE, linewidth=2)
        below.plot(sure, n, "o", color=BLUE, markersize=4)
        left, right = np.floor(10 * sure.min(initial=0.9)) / 10, np.ceil(10 * sure.max(initial=0.1)) / 10
        above.set_xlim(left - 0.02, right + 0.02)
        above.set_ylim(np.floor(10 * min([left, *table["accuracy_low"]])) / 10 - 0.02, 1.02)
        below.set_ylim(0, 1.25 * max([1, *n]))
        error = calibration_error(table)[0]
        above.set_title(
            f"{n.sum()} images in {len(table)} bins; calibration error {error:.3f}", fontsize=10, loc="left"
        )
        above.set_ylabel("share that is right")
        below.set_ylabel("images")
        below.set_xlabel("probability of the predicted class")
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def _cells(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours `rows x columns x 3`: from white, the diagonal to blue, errors to vermilion, small ones seen as well."""
    ink = np.where(np.eye(*share.shape)[..., None] > 0, to_rgb(BLUE), to_rgb(VERMILION))
    found: NDArray[np.float64] = 1 - np.sqrt(share)[..., None] * (1 - ink)
    return found
