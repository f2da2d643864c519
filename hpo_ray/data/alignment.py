"""Whether two thumbnails show the same picture, cut or lit a little differently: one is fitted onto the other.

Lucas and Kanade's registration (1981) with the shift and stretch of each axis, gain and offset of the light, on many
pairs at once. Arrays in, arrays out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEPS = 8
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LIMITS = np.array([0.3, 6.0, 0.3, 6.0])  # of stretch and shift (pixels), down and across
_FARTHEST = _LIMITS / 2  # in one step


@dataclass(frozen=True)
class Match:
    """How alike the pairs are once fitted, `n` each.

    Attributes:
        detail: Correlation of what is finer than 7 of 32 pixels, from -1 to 1: 1 is the same picture.
        colour: Mean difference of the colours (brightness apart), in levels of 255.
        shared: Part of the first picture that the second covers.
    """

    detail: np.ndarray
    colour: np.ndarray
    shared: np.ndarray


def match(first: np.ndarray, second: np.ndarray) -> Match:
    """Fits each of the second onto the first.

    Args:
        first: `n x s x s x 3` uint8.
        second: Likewise.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    light_a, light_b = a @ _LUMA, b @ _LUMA
    where = _fit(_blurred(light_a), _blurred(light_b))
    fitted, inside = _warped(light_b, where)
    detail = _correlation(_details(light_a), _details(fitted), inside)
    gain = np.clip(_slope(fitted, light_a, inside), 0.5, 2)[:, None, None, None]
    tint = np.stack([_warped(b[..., channel], where)[0] for channel in range(3)], axis=-1) - fitted[..., None]
    apart = np.abs(a - light_a[..., None] - gain * tint).mean(axis=-1)
    colour = (apart * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    return Match(detail, colour, inside.mean(axis=(1, 2)))


def _fit(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Stretch and shift, `n x 4` (down, then across), that put b onto a, by least squares a step at a time."""
    n, side = a.shape[:2]
    centred = np.arange(side, dtype=np.float32) - (side - 1) / 2
    found = np.zeros((n, 4))
    for _ in range(_STEPS):
        warped, inside = _warped(b, found)
        down, across = np.gradient(warped, axis=(1, 2))
        columns = [down * centred[:, None], down, across * centred, across, warped, np.ones_like(warped)]
        design = np.stack(columns, axis=-1).reshape(n, -1, 6) * inside.reshape(n, -1, 1)
        normal = (design.transpose(0, 2, 1) @ design).astype(np.float64) + 1e-3 * np.eye(6)
        aim = (design.transpose(0, 2, 1) @ a.reshape(n, -1, 1)).astype(np.float64)
        solved = np.linalg.solve(normal, aim)[..., 0]
        gain = np.maximum(np.abs(solved[:, 4:5]), 0.2)
        found = np.clip(found + np.clip(solved[:, :4] / gain, -_FARTHEST, _FARTHEST), -_LIMITS, _LIMITS)
    return found


def _warped(images: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stretched and shifted, `n x s x s`, and which pixels come from inside."""
    down, inside_down = _weights(where[:, 0], where[:, 1], images.shape[1])
    across, inside_across = _weights(where[:, 2], where[:, 3], images.shape[1])
    return down @ images @ across.transpose(0, 2, 1), inside_down[:, :, None] & inside_across[:, None, :]


def _weights(stretch: np.ndarray, shift: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation along one axis as `n x s x s` matrices: no rotation, so both axes are independent."""
    pixels = np.arange(side)
    middle = (side - 1) / 2
    at = middle + shift[:, None] + (1 + stretch[:, None]) * (pixels - middle)
    inside = (at >= -0.5) & (at <= side - 0.5)
    weights = np.maximum(0, 1 - np.abs(np.clip(at, 0, side - 1)[:, :, None] - pixels))
    return weights.astype(np.float32), inside


def _details(images: np.ndarray) -> np.ndarray:
    """Without noise and without what varies slowly, which plain photographs of one kind of thing have in common."""
    found: np.ndarray = _blurred(images) - _smoothed(images, np.full(7, 1 / 7, np.float32))
    return found


def _blurred(images: np.ndarray) -> np.ndarray:
    return _smoothed(images, np.array([0.25, 0.5, 0.25], np.float32))


def _smoothed(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    side, reach = images.shape[1], len(kernel) // 2
    matrix = np.zeros((side, side), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
        matrix[np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)] += weight
    found: np.ndarray = matrix @ images @ matrix.T
    return found


def _correlation(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> np.ndarray:
    a, b = _centred(a, inside), _centred(b, inside)
    size = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    found: np.ndarray = (a * b).sum(axis=(1, 2)) / np.maximum(size, 1e-6)
    return found


def _slope(x: np.ndarray, y: np.ndarray, inside: np.ndarray) -> np.ndarray:
    x, y = _centred(x, inside), _centred(y, inside)
    found: np.ndarray = (x * y).sum(axis=(1, 2)) / np.maximum((x * x).sum(axis=(1, 2)), 1e-6)
    return found


def _centred(images: np.ndarray, inside: np.ndarray) -> np.ndarray:
    mean = (images * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    found: np.ndarray = (images - mean[:, None, None]) * inside
    return found
