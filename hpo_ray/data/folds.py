"""Cross-validation: a data set's training and validation images divided anew, so that each image is validated once.

Equal images stay together, whatever their names. Knows torch and scikit-learn; nothing of models, trials or Ray.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from hpo_ray.data import copies
from hpo_ray.data.features import FeaturePart
from hpo_ray.data.images import ImageData
from hpo_ray.data.preprocess import Preprocess
from hpo_ray.data.samples import FolderImages, Part, TensorImages, raw_bytes
from hpo_ray.errors import InvalidInput, Problem


def fold(data: ImageData, folds: int, index: int, seed: int = 0) -> ImageData:
    """One fold: `valid` is a part of what was ``train`` and ``valid`` together, `train` is the rest; `test` stays.

    Args:
        data: The set as it was loaded.
        folds: How many, at least 2.
        index: Which one, from 0.
        seed: Another seed divides differently, as repeated cross-validation needs.

    Raises:
        InvalidInput: A class has fewer images than there are folds.
    """
    return divide(data, *rows(data, folds, index, seed))


def divide(data: ImageData, train: Tensor, valid: Tensor) -> ImageData:
    """A set whose `train` and `valid` are these images of what was ``train`` followed by ``valid``; `test` stays."""
    whole = joined(data.train, data.valid)
    return replace(data, train=subset(whole, train), valid=subset(whole, valid))


def rows(data: ImageData, folds: int, index: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Where a fold's images stand in ``train`` followed by ``valid``: two int64 tensors, for training and validation.

    Raises:
        InvalidInput: As for `fold`.
    """
    assigned = _assigned(_Key(joined(data.train, data.valid)), folds, seed)
    return torch.from_numpy(np.flatnonzero(assigned != index)), torch.from_numpy(np.flatnonzero(assigned == index))


def joined(one: Part, other: Part) -> Part:
    """Two parts of a data set, one after the other."""
    if isinstance(one, FolderImages) and isinstance(other, FolderImages):
        return FolderImages([*one.samples, *other.samples], one.preprocess, one.corrupt)
    if isinstance(one, TensorImages) and isinstance(other, TensorImages):
        return TensorImages(
            torch.cat([one.images, other.images]), torch.cat([one.labels, other.labels]), one.preprocess
        )
    raise TypeError("both parts must be in memory, or both in files")


def subset(part: Part, indices: Tensor) -> Part:
    """Some images of a part, in the order of `indices`."""
    if isinstance(part, FeaturePart):
        return FeaturePart(part.images[indices], part.labels[indices], part.digest(), stored=False)
    if isinstance(part, FolderImages):
        return FolderImages([part.samples[i] for i in indices.tolist()], part.preprocess, part.corrupt)
    return TensorImages(part.images[indices], part.labels[indices], part.preprocess)


def readable(part: Part) -> Tensor:
    """Where the images stand that were readable so far, int64: those that a part's features are of."""
    if isinstance(part, TensorImages):
        return torch.arange(len(part))
    corrupt = set(part.corrupt.paths)
    return torch.tensor([i for i, (path, _) in enumerate(part.samples) if path not in corrupt], dtype=torch.int64)


def contents(part: Part) -> Iterator[str]:
    """What tells an image from others whatever its name: a digest of its pixels; unreadable files by their bytes.

    Files are decoded, see `copies.pixels_digest` for what it costs.
    """
    if isinstance(part, TensorImages):
        for image in part.images:
            yield hashlib.sha256(raw_bytes(image)).hexdigest()
        return
    for path, _ in part.samples:
        yield copies.pixels_digest(path)


class _Key:
    """A part that hashes by what it holds, so that it is divided once in a process and not once a trial.

    The size that files are resized to does not count: equal pixels are equal at every size.
    """

    def __init__(self, part: Part) -> None:
        if isinstance(part, FolderImages):
            part = FolderImages(part.samples, Preprocess(size=1), part.corrupt)
        self.part = part
        self._digest = part.digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._digest == other._digest


@lru_cache(maxsize=8)
def _assigned(key: _Key, folds: int, seed: int) -> np.ndarray:
    """The fold of each image, `n`: stratified over distinct images, their copies where they are."""
    first, group = _distinct(key)
    labels = key.part.labels.numpy()[first]
    fewest = int(np.bincount(labels)[np.unique(labels)].min())
    if fewest < folds:
        message = f"{folds} folds need as many different images of each class, but the smallest class has {fewest}"
        raise InvalidInput(Problem("folds", message))
    assigned = np.empty(len(first), dtype=np.int64)
    divided = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(first)), labels)
    for index, (_, chosen) in enumerate(divided):
        assigned[chosen] = index
    found: np.ndarray = assigned[group]
    return found


@lru_cache(maxsize=8)  # for all seeds: decoding every file again for each would cost more than training
def _distinct(key: _Key) -> tuple[np.ndarray, np.ndarray]:
    """Where the first of each set of copies stands, and for each image, `n`, of which of them it is a copy."""
    looks = list(contents(key.part))
    if isinstance(key.part, FolderImages):
        # Two machines' decoders may round differently: the order that folds are drawn in must not depend on them.
        names: dict[str, str] = {}
        for (path, _), look in zip(key.part.samples, looks, strict=True):
            names[look] = min(names.get(look, "~"), copies.bytes_digest(path))
        looks = [names[look] for look in looks]
    _, first, group = np.unique(looks, return_index=True, return_inverse=True)
    return first, group
