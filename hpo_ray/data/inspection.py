"""Every picture opened once: its size, colours, orientation, a digest of its file, and a thumbnail to compare it by.

Knows Pillow, numpy and pandas; nothing of models, training or Ray.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from hpo_ray.data.decoding import UNREADABLE, decode
from hpo_ray.data.listing import Listing
from hpo_ray.data.samples import TensorImages

THUMBNAIL = 32
_ORIENTATION = 0x0112  # EXIF's tag
_GREY_MODES = ("1", "L", "LA", "La", "F")
_GREY_SPREAD = 3  # levels between the channels of a thumbnail that JPEG's rounding explains


@dataclass(frozen=True)
class Look:
    """What one file is.

    Attributes:
        size_bytes: Of the file.
        digest: Of its bytes, 32 characters.
        width: In pixels as stored, before the EXIF orientation turns it; 0 if unknown.
        height: Likewise.
        kind: The file's format, such as ``JPEG``; empty if it is no picture.
        mode: Pillow's name of the stored colours, such as ``RGB``, ``L``, ``RGBA``, ``CMYK``.
        colour: ``colour``, ``grey`` (also where three channels hold the same) or ``transparent``.
        orientation: EXIF's, 1 to 8; 1 is upright, and what files without one have.
        error: Why it cannot be decoded; empty if it can.
    """

    size_bytes: int = 0
    digest: str = ""
    width: int = 0
    height: int = 0
    kind: str = ""
    mode: str = ""
    colour: str = ""
    orientation: int = 1
    error: str = ""


@dataclass(frozen=True)
class Inspection:
    """All images of a set.

    Attributes:
        frame: One row per image: `path, part, label` (class name) and the fields of `Look`. For a set in memory `path`
            is ``train[17]``, and there are no size in bytes and no kind.
        thumbnails: `n x 32 x 32 x 3` uint8, in the rows' order; zeros for what cannot be read.
        comparable: `n` bool: which thumbnails show enough to be compared.
        other: What the files that training passes over are; same columns without `part` and `label`.
    """

    frame: pd.DataFrame
    thumbnails: np.ndarray
    comparable: np.ndarray
    other: pd.DataFrame


def inspect(listing: Listing, *, workers: int = 2) -> Inspection:
    """Opens every image of a set once, 3 KB of memory each beside those being decoded.

    Args:
        listing: What to open.
        workers: Threads; decoding does not hold Python's lock.
    """
    if listing.memory:
        return _in_memory(listing.memory, listing.classes)
    rows = [(path, part, label) for part, samples in listing.files.items() for path, label in samples]
    looks, thumbnails = _looks([path for path, _, _ in rows], workers)
    frame = pd.DataFrame(
        {
            "path": [str(path) for path, _, _ in rows],
            "part": [part for _, part, _ in rows],
            "label": [listing.classes[label] for _, _, label in rows],
        }
    )
    others, _ = _looks(listing.other, workers)
    other = pd.concat([pd.DataFrame({"path": [str(path) for path in listing.other]}), _table(others)], axis=1)
    frame = pd.concat([frame, _table(looks)], axis=1)
    return Inspection(frame, thumbnails, _comparable(thumbnails) & (frame["error"] == "").to_numpy(), other)


def look(path: Path) -> tuple[Look, np.ndarray | None]:
    """Opens one file and decodes it to its last byte.

    Returns:
        What it is, and its thumbnail `32 x 32 x 3` uint8, upright; None if it cannot be decoded.
    """
    known = Look()
    try:
        content = path.read_bytes()
        known = Look(size_bytes=len(content), digest=hashlib.blake2b(content, digest_size=16).hexdigest())
        with Image.open(path) as opened:
            width, height, mode = *opened.size, opened.mode
            known = Look(known.size_bytes, known.digest, width, height, opened.format or "", mode)
            orientation = int(opened.getexif().get(_ORIENTATION, 1))
            transparent = opened.has_transparency_data
        image = decode(path, 2 * THUMBNAIL).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    except (*UNREADABLE, MemoryError) as error:
        return Look(**{**asdict(known), "error": str(error) or type(error).__name__}), None
    thumbnail = np.asarray(image)
    spread = int((thumbnail.max(axis=-1).astype(int) - thumbnail.min(axis=-1)).max())
    grey = mode in _GREY_MODES or mode.startswith("I") or spread <= _GREY_SPREAD
    colour = "transparent" if transparent else "grey" if grey else "colour"
    return Look(**{**asdict(known), "orientation": orientation, "colour": colour}), thumbnail


def _looks(paths: Sequence[Path], workers: int) -> tuple[list[Look], np.ndarray]:
    thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL, 3), np.uint8)
    looks = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for index, (found, thumbnail) in enumerate(pool.map(look, paths)):
            looks.append(found)
            if thumbnail is not None:
                thumbnails[index] = thumbnail
    return looks, thumbnails


def _table(looks: Sequence[Look]) -> pd.DataFrame:
    return pd.DataFrame([asdict(found) for found in looks], columns=list(Look.__dataclass_fields__))


def _comparable(thumbnails: np.ndarray) -> np.ndarray:
    """Which are more than one shade: two blank pages are as alike as can be and say nothing."""
    grey = thumbnails.mean(axis=-1, dtype=np.float32)
    found: np.ndarray = grey.std(axis=(1, 2)) > 4
    return found


def _in_memory(parts: Mapping[str, TensorImages], classes: Sequence[str]) -> Inspection:
    """Images below the thumbnail's size are compared whole only: small digits of one class nearly all look alike."""
    tables, thumbnails = [], []
    for part, of in parts.items():
        images = of.images.numpy()
        height, width = images.shape[-2:]
        digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
        grey = images.shape[1] == 1
        tables.append(
            pd.DataFrame(
                {
                    "path": [f"{part}[{i}]" for i in range(len(of))],
                    "part": part,
                    "label": [classes[label] for label in of.labels.tolist()],
                    **asdict(Look(width=width, height=height, mode="L" if grey else "RGB")),
                    "colour": "grey" if grey else "colour",
                    "digest": digests,
                }
            )
        )
        exact = (height, width) == (THUMBNAIL, THUMBNAIL) and images.dtype == np.uint8
        small = images.transpose(0, 2, 3, 1) if exact else np.zeros((len(of), 1, 1, 3), np.uint8)
        thumbnails.append(np.repeat(small, 3, axis=-1) if small.shape[-1] == 1 else small)
    frame, pixels = pd.concat(tables, ignore_index=True), np.concatenate(thumbnails)
    return Inspection(frame, pixels, _comparable(pixels), pd.DataFrame(columns=["path", *Look.__dataclass_fields__]))
