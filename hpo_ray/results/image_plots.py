"""Photographs in a grid with what a model said about them: paths or arrays in, matplotlib figures out.

Knows pandas, Pillow and matplotlib; nothing of models, data sets, torch or Ray.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hpo_ray.results.plots import shortened

if TYPE_CHECKING:
    import pandas as pd

_TILE = 400  # pixels of the long side, more than the page shows
_WIDTH, _CAPTION, _GAP = 2.5, 0.42, 0.1  # inches
_WRONG = "#A04700"  # vermilion, darker: as thin a thing as letters needs the contrast
# What Pillow raises on files that are damaged, empty, gone or no picture at all.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def top_losses(images: Sequence[Any], table: pd.DataFrame, n: int = 9) -> Figure:
    """The images that a model was most wrong about, each with its class and what it was taken for.

    Args:
        images: Of the whole data set, looked up by the table's ``index``: paths, Pillow images, or arrays
            `h x w`, `h x w x c` or `c x h x w`, uint8 in 0..255 or float in 0..1. A file that cannot be read is a
            grey tile with its name.
        table: From `hpo_ray.results.metrics.top_losses`.
        n: How many of its rows to show at most.
    """
    rows = table.head(n).to_dict("records")
    tiles = [_pixels_or_name(images[row["index"]]) for row in rows]
    across = max(1, math.ceil(math.sqrt(len(rows))))
    lines = [list(zip(rows, tiles, strict=True))[at : at + across] for at in range(0, len(rows), across)]
    heights = [max(_WIDTH * _ratio(tile) for _, tile in line) for line in lines]
    whole = sum(heights) + len(lines) * (_CAPTION + _GAP) + _GAP
    figure = Figure(figsize=(across * (_WIDTH + _GAP) + _GAP, whole), facecolor="white")
    top = whole
    for line, height in zip(lines, heights, strict=True):
        top -= _CAPTION + _GAP
        for column, (row, tile) in enumerate(line):
            corner = (_GAP + column * (_WIDTH + _GAP), top - height)
            axes = figure.add_axes(_shares(figure, *corner, _WIDTH, height), anchor="NW")
            _show(axes, tile)
            _caption(figure, row, corner[0], top)
        top -= height
    return figure


def _shares(figure: Figure, *inches: float) -> tuple[float, float, float, float]:
    """Left, bottom, width and height as shares of the page."""
    width, height = figure.get_size_inches()
    return inches[0] / width, inches[1] / height, inches[2] / width, inches[3] / height


def _ratio(tile: NDArray[Any] | str) -> float:
    """Height to width; a panorama keeps a strip that can be seen, a tower is made smaller."""
    return 0.75 if isinstance(tile, str) else min(max(tile.shape[0] / tile.shape[1], 0.3), 1.25)


def _caption(figure: Figure, row: Mapping[Any, Any], left: float, bottom: float) -> None:
    said = [
        (f"taken for {shortened(row['predicted'], 19)}  {row['p_predicted']:.2f}", 0.23, _WRONG),
        (f"is {shortened(row['true'], 24)}  {row['p_true']:.2f}", 0.06, "black"),
    ]
    if row["predicted"] == row["true"]:
        said = [
            (f"is {shortened(row['true'], 24)}  {row['p_true']:.2f}", 0.23, "black"),
            ("and was seen as such", 0.06, "black"),
        ]
    for text, above, colour in said:
        x, y, *_ = _shares(figure, left, bottom + above, 0, 0)
        figure.text(x, y, text, fontsize=9, color=colour)


def _show(axes: Axes, tile: NDArray[Any] | str) -> None:
    axes.set_axis_off()
    if isinstance(tile, str):
        axes.imshow(np.full((3, 4), 0.8), cmap="gray", vmin=0, vmax=1)
        said = f"unreadable\n{shortened(tile, 30)}"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, fontsize=8, ha="center", va="center")
    else:
        small = max(tile.shape[:2]) < 64  # its pixels are to be seen
        axes.imshow(tile, cmap="gray", interpolation="nearest" if small else "antialiased")


def _pixels_or_name(image: Any) -> NDArray[Any] | str:
    try:
        return _pixels(image)
    except _UNREADABLE:
        if not isinstance(image, str | Path):
            raise
        return Path(image).name


def _pixels(image: Any) -> NDArray[Any]:
    """`h x w`, or `h x w x 3`, as matplotlib takes them."""
    if isinstance(image, str | Path):
        with Image.open(image) as opened:
            opened.draft("RGB", (_TILE, _TILE))  # JPEG can be decoded at a fraction of its size, many times faster
            return _pixels(opened.copy())
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):  # Pillow's own conversion makes nearly every pixel white
            return np.asarray(upright)
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        upright = upright.convert("RGB")
        upright.thumbnail((_TILE, _TILE))
        return np.asarray(upright)
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
