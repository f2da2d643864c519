"""Picture files: one decoded, and an account of those that cannot be.

Knows Pillow and numpy; nothing of torch, splits, models or Ray.
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hpo_ray.errors import InvalidInput, Problem

# What Pillow raises on files that are damaged, empty, gone or no picture at all.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_log = logging.getLogger(__name__)


class CorruptFiles:
    """The unreadable files met so far among `total` images, and the limit on them.

    Attributes:
        reasons: Why each could not be read, in the order in which they were met.
    """

    def __init__(self, total: int, max_fraction: float) -> None:
        self.reasons: dict[Path, str] = {}
        self._total = total
        self._max_fraction = max_fraction

    @property
    def paths(self) -> list[Path]:
        """The files, in the order in which they were met."""
        return list(self.reasons)

    def add(self, path: Path, reason: str) -> None:
        """Records a file once.

        Raises:
            InvalidInput: More than the allowed fraction of all images is unreadable.
        """
        if path not in self.reasons:
            self.reasons[path] = reason
            _log.warning("unreadable image skipped: %s (%s)", path, reason)
        if len(self.reasons) > self._max_fraction * self._total:
            shown = ", ".join(map(str, self.paths[:5])) + (", …" if len(self.reasons) > 5 else "")
            count = f"{len(self.reasons)} of {self._total} images cannot be read"
            raise InvalidInput(
                Problem("data.max_corrupt_fraction", f"{count}, more than {self._max_fraction:g} of them: {shown}")
            )


def decode(path: Path, size: int) -> Image.Image:
    """One picture as RGB, turned upright by its EXIF orientation; decoded no finer than `size` needs.

    Args:
        path: The file.
        size: The short side in pixels that it will be resized to.

    Raises:
        OSError: And others, see `UNREADABLE`: the file is no readable picture.
    """
    with Image.open(path) as opened:
        # JPEG can be decoded at 1/2, 1/4 or 1/8 scale, many times faster; twice the size keeps the resize clean.
        opened.draft("RGB", (2 * size, 2 * size))
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            # Pillow's own conversion clips 16 bits at 255, which makes nearly every pixel white.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            # What hides under transparent pixels is often black: show them as the white page they are drawn on.
            page = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(page, image.convert("RGBA"))
        return image.convert("RGB")
