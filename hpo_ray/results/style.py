"""What all pictures share: colours, their look on paper, names that fit, numbers on axes, and writing a file.

Knows matplotlib; nothing of journals, torch or Ray.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hpo_ray.results.values import missing

# Okabe & Ito 2008, "Color Universal Design": told apart with any colour vision, and mostly in grey.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
INK, GREY, GRID = "#222222", "#767676", "#dddddd"
# On cells of a colour map, which are the same on any page, ink must be too.
ALWAYS_WHITE, ALWAYS_BLACK = "#fefefe", "#010101"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",  # pictures keep their page on a dark screen
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "text.parse_math": False,  # names are the user's: a dollar is a dollar
}
# Statuses that a trial is drawn by: colour, line, marker; each alone tells them apart.
FATES: dict[str, tuple[str, Any, str]] = {
    "completed": (BLUE, "-", "o"),
    "stopped": (GREY, (0, (4, 1.5)), "v"),
    "failed": (VERMILION, (0, (1, 1.2)), "X"),
    "unfinished": (GREEN, (0, (5, 1.5, 1, 1.5)), ">"),
}


def fate_of(status: str) -> str:
    """Which of `FATES` a status is drawn as."""
    if status in ("failed", "out_of_memory"):
        return "failed"
    return status if status in ("completed", "stopped") else "unfinished"


def shortened(name: str, most: int = 24) -> str:
    """A name of `most` characters at most, without its middle if it is longer."""
    return name if len(name) <= most else f"{name[: most // 2].rstrip()}…{name[len(name) - (most - 1) // 2 :].lstrip()}"


def label(value: object, most: int = 24) -> str:
    """Any value as one short line: a user's name may hold what no picture can."""
    if missing(value):
        return "None"  # which a frame has as missing
    if isinstance(value, float):
        return f"{value:.4g}"
    return shortened("".join(c if c.isprintable() else " " for c in str(value)[:2000]).strip(), most)


def trial_gid(trial_id: str) -> str:
    """The group id that marks what is drawn of a trial, for pages that link pictures."""
    return f"trial-{trial_id}"


def log_axis(axis: Any, low: float, high: float) -> None:
    """A log scale from `low` to `high` whose ticks are plain numbers, at least two of them."""
    axes: Axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    decades = math.log10(high / low) if high > low > 0 else 1.0
    subs = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def titled(axes: Axes, finding: str) -> None:
    """What the picture shows, in words, above it."""
    axes.set_title(label(finding, 110), loc="left")


def save(figure: Figure, path: Path) -> None:
    """Writes a picture, whole or not at all; the format is the file's ending.

    Raises:
        OSError: It cannot be written.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box where the font lacks a letter will do
        figure.savefig(partial, dpi=150)
    partial.replace(path)
