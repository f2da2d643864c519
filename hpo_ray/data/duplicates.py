"""The same picture more than once: byte for byte, or saved again, resized, lit or cut a little differently.

Copies are found by digest. Near copies are first sought by perceptual hashes of 128 bits, then compared themselves.
Knows numpy and pandas; nothing of files, models, training or Ray.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hpo_ray.data import alignment

# Of 128 bits. Copies saved again, at another size or 10 % brighter differ in at most 16, those cut by 2 % of each side
# in 18, by 5 % in 38; of pairs of different photographs one in 700 differs in 32 or fewer (300 copies of each sort, 7.2
# million pairs of ants, bees and clothes).
FARTHEST = 32
# Copies reach 0.985 (cut by 2 %: 19 of 20 reach 0.977). Of those 7.2 million pairs two do: a real copy, and two shirts
# whose colours differ by 24. Of CIFAR-10's 1.2 billion no pair of different classes passes for the same picture.
LEAST_DETAIL = 0.97
MOST_COLOUR = 10.0
_LEAST_SHARED = 0.7
MAX_PAIRS = 40_000  # to be fitted, half a millisecond each
_ROWS = 64  # compared with all others at once
_BATCH = 500

_Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Perceptual hashes: pHash's and dHash's 64 bits each (both described by N. Krawetz, hackerfactor.com, 2011-13).

    pHash says which of the lowest 8 x 8 cosine frequencies are above their median, dHash which of 9 x 8 shrunken pixels
    are brighter than their neighbour. Neither changes much with size, encoding, light or contrast.

    Args:
        thumbnails: `n x 32 x 32 x 3` uint8.

    Returns:
        `n x 2` uint64.
    """
    side = thumbnails.shape[1]
    pixels = np.arange(side)
    waves = np.cos(np.pi * (2 * pixels + 1) * np.arange(8)[:, None] / (2 * side)).astype(np.float32)
    found = np.empty((len(thumbnails), 2), np.uint64)
    for start in range(0, len(thumbnails), 4096):
        light = thumbnails[start : start + 4096].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        low = (waves @ light @ waves.T).reshape(-1, 64)
        low[:, 0] = -np.inf  # the mean light
        shrunk = _shrinking(8, side) @ light @ _shrinking(9, side).T
        bits = (low > np.median(low[:, 1:], axis=1, keepdims=True), shrunk[:, :, 1:] > shrunk[:, :, :-1])
        for column, of in enumerate(bits):
            found[start : start + 4096, column] = np.packbits(of.reshape(-1, 64), axis=1).view(np.uint64)[:, 0]
    return found


def candidates(codes: np.ndarray, *, farthest: int = FARTHEST, most: int = MAX_PAIRS) -> tuple[_Pairs, int]:
    """The pairs whose hashes differ least: every pair is looked at, 50,000 images in a quarter of a minute.

    Args:
        codes: `n x 2` uint64.
        farthest: Bits in which a pair may differ.
        most: How many pairs are enough; where more are found, the limit is lowered for all.

    Returns:
        Rows `i < j` and bits of each pair, and the limit that was kept.
    """
    found: list[_Pairs] = []
    count = 0
    for start in range(0, len(codes) - 1, _ROWS):
        rows, rest = codes[start : start + _ROWS], codes[start + 1 :]
        bits = np.bitwise_count(rows[:, None, 0] ^ rest[None, :, 0])
        bits += np.bitwise_count(rows[:, None, 1] ^ rest[None, :, 1])
        i, j = np.nonzero(bits <= farthest)
        later = j >= i  # row i of the rest is image start + 1 + i
        i, j = i[later], j[later]
        found.append((start + i, start + 1 + j, bits[i, j]))
        count += len(i)
        while count > most and farthest > 0:
            every = _joined(found)
            farthest = max(0, min(farthest - 2, int(np.sort(every[2])[most]) - 1))
            found = [tuple(column[every[2] <= farthest] for column in every)]  # type: ignore[list-item]
            count = len(found[0][0])
            if farthest == 0:
                break
    return (_joined(found) if found else (np.zeros(0, int),) * 3), farthest


def near_pairs(thumbnails: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, int]:
    """Pairs of thumbnails that show the same picture.

    Args:
        thumbnails: `n x 32 x 32 x 3` uint8.
        grey: `n` bool: which have no colours, so that a picture and its grey copy are compared without.

    Returns:
        `m x 2` rows, and in how many bits of 128 the hashes of a pair might differ to be compared at all.
    """
    (first, second, _), limit = candidates(hashes(thumbnails))
    kept = []
    for start in range(0, len(first), _BATCH):
        i, j = first[start : start + _BATCH], second[start : start + _BATCH]
        found = alignment.match(thumbnails[i], thumbnails[j])
        same_colours = (found.colour <= MOST_COLOUR) | (grey[i] != grey[j])
        same = (found.detail >= LEAST_DETAIL) & same_colours & (found.shared >= _LEAST_SHARED)
        kept.append(np.stack([i[same], j[same]], axis=1))
    return (np.concatenate(kept) if kept else np.zeros((0, 2), int)), limit


def groups(frame: pd.DataFrame, thumbnails: np.ndarray, comparable: np.ndarray) -> tuple[pd.DataFrame, int]:
    """Which images are the same picture.

    Args:
        frame: Of `inspection.Inspection`, as the other two.
        thumbnails: `n x 32 x 32 x 3` uint8.
        comparable: `n` bool: which thumbnails to compare; the others only count as copies of the same bytes.

    Returns:
        One row per image that has a copy: `group` (0, 1, …), `kind` (``exact`` if the whole group has the same bytes,
        else ``near``), `path, part, label`; and the hashes' limit, see `near_pairs`.
    """
    readable = np.flatnonzero((frame["digest"] != "").to_numpy())
    parent = np.arange(len(frame))
    _, first, which = np.unique(frame["digest"].to_numpy(str)[readable], return_index=True, return_inverse=True)
    parent[readable] = readable[first][which]
    alone = np.flatnonzero((parent == np.arange(len(frame))) & comparable)  # one of each set of copies
    pairs, limit = near_pairs(thumbnails[alone], (frame["colour"] == "grey").to_numpy()[alone])
    for i, j in alone[pairs]:
        a, b = _root(parent, i), _root(parent, j)
        parent[max(a, b)] = min(a, b)
    root = np.array([_root(parent, i) for i in range(len(frame))])
    table = frame[["path", "part", "label", "digest"]].assign(group=root)
    table = table[table.groupby("group")["path"].transform("size") > 1]
    one = table.groupby("group")["digest"].transform("nunique") == 1
    table = table.assign(kind=np.where(one, "exact", "near"), group=pd.factorize(table["group"])[0])
    return table.sort_values("group", kind="stable")[["group", "kind", "path", "part", "label"]].reset_index(
        drop=True
    ), limit


def _root(parent: np.ndarray, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return int(index)


def _shrinking(to: int, side: int) -> np.ndarray:
    """`to x side`: means over equal stretches."""
    edges = np.linspace(0, side, to + 1)
    pixels = np.arange(side)
    weights = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    found: np.ndarray = (np.maximum(weights, 0) * to / side).astype(np.float32)
    return found


def _joined(found: list[_Pairs]) -> _Pairs:
    first, second, bits = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return first, second, bits
