"""Pictures of results: frames in, matplotlib figures out. Readable in print, on dark pages and by the colour-blind.

Knows pandas and matplotlib; nothing of journals, torch or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

# Okabe & Ito 2008, "Color Universal Design": told apart with any colour vision, and mostly in grey.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",  # pictures keep their page on a dark screen
    "legend.frameon": False,
    "legend.handlelength": 1.6,
}
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
    with mpl.rc_context(_STYLE):
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


def save(figure: Figure, path: Path) -> None:
    """Writes a picture, whole or not at all; the format is the file's ending.

    Raises:
        OSError: It cannot be written.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    figure.savefig(partial, dpi=150)
    partial.replace(path)
