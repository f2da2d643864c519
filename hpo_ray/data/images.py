"""Images to learn from, split the same way for every trial: bundled, published, or the user's own pictures.

Knows torch, and nothing of models, training loops or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from hpo_ray.data import checks, copies, preprocess, published
from hpo_ray.data.decoding import CorruptFiles
from hpo_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from hpo_ray.data.samples import FolderImages, Part, TensorImages
from hpo_ray.errors import InvalidInput, Problem

FILES_SIZE = 160


@dataclass(frozen=True)
class ImageData:
    """A data set in three parts that no image shares.

    Attributes:
        train: For gradients.
        valid: For every choice: of hyperparameters, of when to stop.
        test: For the winner's error alone; no choice may look at it.
        classes: Class names; a label is an index into them.
        channels: 1 or 3.
        image_size: Height and width in pixels.
        ignored: Files in the folder that are no images of a class.
    """

    train: Part
    valid: Part
    test: Part
    classes: tuple[str, ...]
    channels: int
    image_size: int
    ignored: tuple[Path, ...] = ()

    @property
    def corrupt(self) -> list[Path]:
        """Unreadable files among the images that were asked for so far; they are left out of every batch."""
        return sorted(self.train.corrupt.paths) if isinstance(self.train, FolderImages) else []


def load(
    name: str,
    root: str | None = None,
    *,
    valid_fraction: float = 0.15,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    image_size: int | None = None,
    resize: int | None = None,
    interpolation: str = "bilinear",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    max_corrupt_fraction: float = 0.01,
    download: bool = False,
    valid_is_test: bool = False,
) -> ImageData:
    """Reads a data set and splits it, stratified by class; kept for the next call with the same arguments.

    Images that come divided keep their parts, and a part that they lack is taken from their ``train``: where there is
    ``train`` and ``valid`` only, `test_fraction` of ``train`` becomes the test part, because the choices are made on
    ``valid`` and an error measured there is too good. What is divided here has files that are the same byte for byte
    on one side. A published set's official test images are its test part. Files added later to a folder are not seen
    by this process.

    Args:
        name: ``digits`` (1,797 handwritten digits, 8 x 8, bundled with scikit-learn), ``folder``, ``csv``, or one of
            `published.SETS`.
        root: The image folder, laid out as in `folders.scan`; the CSV file, see `tables.scan`; or where a published
            set's files lie, see `published.locate`. None: the variable HPO_RAY_DATA.
        valid_fraction: Part of all images (of ``train`` where they come divided) that becomes ``valid``.
        test_fraction: Likewise for ``test``; without effect on a set that has one.
        split_seed: Same seed, same split, in every process.
        image_size: Pixels a side of the centre crop; None: `resize`, else 160 for files and as they are for others.
        resize: Pixels of the short side before the crop; None: `image_size`.
        interpolation: ``bilinear``, ``bicubic``, ``nearest`` or, for files, ``lanczos``.
        mean: Of 1 or 3 channels, of values in 0..1. None: ImageNet's for files, no normalisation for others. Three
            of them make a grey set one of three channels.
        std: Likewise.
        max_corrupt_fraction: Unreadable files beyond this part of all images end the training with an error.
        download: Whether a published set's missing files may be fetched into `root`.
        valid_is_test: Whether a set's own validation part becomes its test part; `valid_fraction` of ``train`` is
            then what choices are made on.

    Raises:
        InvalidInput: The name, the files, the fractions or the preprocessing are wrong, or a class has too few images
            to split.
    """
    if valid_fraction <= 0 or test_fraction <= 0 or valid_fraction + test_fraction >= 1:
        given = f"valid_fraction {valid_fraction:g} and test_fraction {test_fraction:g}"
        raise InvalidInput(Problem("data.valid_fraction", f"{given} must be above 0 and leave images to train on"))
    ready = preprocess.checked(image_size or resize, resize, interpolation, mean, std)
    if name in ("folder", "csv"):
        where = checks.resolve(root, name)
        fractions = (valid_fraction, test_fraction)
        return _files(name, where, fractions, split_seed, ready, max_corrupt_fraction, valid_is_test)
    if name in published.SETS and not valid_is_test:
        return _published(name, checks.resolve(root, name), valid_fraction, split_seed, ready, download)
    problems = checks.check(name, root, download=download, valid_is_test=valid_is_test)
    if problems:
        raise InvalidInput(*problems)
    return _digits(valid_fraction, test_fraction, split_seed, ready)


# Worker processes run hundreds of short trials: reading the data again for each would cost more than training.
@lru_cache(maxsize=4)
def _digits(valid_fraction: float, test_fraction: float, split_seed: int, ready: Preprocess) -> ImageData:
    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16  # 17 shades, which 256 would not hold exactly
    rest, test = split(digits.target, test_fraction, split_seed, "data.test_fraction")
    train, valid = split(digits.target[rest], valid_fraction / (1 - test_fraction), split_seed, "data.valid_fraction")
    chosen = {"train": rest[train], "valid": rest[valid], "test": test}
    parts = {part: (images[of], labels[of]) for part, of in chosen.items()}
    return _in_memory(parts, tuple(map(str, digits.target_names)), ready)


@lru_cache(maxsize=4)
def _published(
    name: str, root: Path, valid_fraction: float, split_seed: int, ready: Preprocess, download: bool
) -> ImageData:
    parts, classes = _published_parts(name, root, valid_fraction, split_seed, download)
    return _in_memory(parts, classes, ready)


@lru_cache(maxsize=1)  # shared by all preprocessings
def _published_parts(
    name: str, root: Path, valid_fraction: float, split_seed: int, download: bool
) -> tuple[dict[str, tuple[Tensor, Tensor]], tuple[str, ...]]:
    arrays = published.read(name, root, download=download)
    train, valid = split(arrays.train_labels, valid_fraction, split_seed, "data.valid_fraction")
    images = {"train": arrays.train_images[train], "valid": arrays.train_images[valid], "test": arrays.test_images}
    labels = {"train": arrays.train_labels[train], "valid": arrays.train_labels[valid], "test": arrays.test_labels}
    return {part: (torch.from_numpy(images[part]), torch.from_numpy(labels[part])) for part in images}, arrays.classes


def _in_memory(parts: Mapping[str, tuple[Tensor, Tensor]], classes: tuple[str, ...], ready: Preprocess) -> ImageData:
    channels, own_size = parts["train"][0].shape[1:3]
    if ready.interpolation == "lanczos":
        raise InvalidInput(Problem("data.interpolation", "'lanczos' is for image files; take 'bicubic' here"))
    train, valid, test = (TensorImages(*parts[part], ready) for part in ("train", "valid", "test"))
    return ImageData(train, valid, test, classes, ready.channels(channels), ready.size or own_size)


@lru_cache(maxsize=4)
def _files(
    name: str,
    root: Path,
    fractions: tuple[float, float],
    split_seed: int,
    given: Preprocess,
    max_corrupt_fraction: float,
    valid_is_test: bool,
) -> ImageData:
    found = checks.divided(name, root, valid_is_test=valid_is_test)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if given.mean is None else (given.mean, given.std)
    size = given.size or FILES_SIZE
    ready = Preprocess(size, given.resize, given.interpolation, mean, std)
    parts = dict(found.parts)
    undivided = not {"valid", "test"} <= set(parts)
    same = copies.same_bytes([path for path, _ in parts["train"]]) if undivided else np.zeros(0, np.int64)
    left = 1.0  # what is left of `train` as it came, so that both fractions are parts of the same whole
    for part, fraction in zip(("test", "valid"), reversed(fractions), strict=True):
        if part not in parts:
            labels = np.array([label for _, label in parts["train"]])
            kept, taken = split(labels, fraction / left, split_seed, f"data.{part}_fraction", same)
            parts[part] = tuple(parts["train"][i] for i in taken)
            parts["train"] = tuple(parts["train"][i] for i in kept)
            same = same[kept]
            left -= fraction
    corrupt = CorruptFiles(sum(map(len, parts.values())), max_corrupt_fraction)
    train, valid, test = (FolderImages(parts[part], ready, corrupt) for part in ("train", "valid", "test"))
    return ImageData(train, valid, test, found.classes, channels=3, image_size=size, ignored=found.ignored)


def split(
    labels: np.ndarray, fraction: float, seed: int, key: str, same: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images kept and of those taken away, both sorted and stratified by class.

    Args:
        labels: `n` integers.
        fraction: Part of the `n` to take away, rounded up to whole images; of the different images where some are
            copies.
        seed: Same seed, same split.
        key: Which setting to name in an error.
        same: `n` integers, equal where two images are the same: they stay together.
            None: all are different.

    Raises:
        InvalidInput: Some class has too few images to be in both.
    """
    group, distinct = _distinct(labels, np.arange(len(labels)) if same is None else same)
    classes = np.unique(labels)
    fewest = int(np.bincount(distinct, minlength=classes[-1] + 1)[classes].min())
    what = "images" if len(distinct) == len(labels) else "different images"
    few = f"{len(distinct)} {what} of {len(classes)} classes, the smallest with {fewest},"
    if fewest == 0:
        raise InvalidInput(Problem(key, f"{few} cannot be split by class: it has copies of others' images alone"))
    try:
        _, taken = train_test_split(
            np.arange(len(distinct)), test_size=fraction, stratify=distinct, random_state=seed, shuffle=True
        )
    except ValueError as error:
        raise InvalidInput(Problem(key, f"{few} cannot be split by class: {error}")) from error
    away = np.isin(group, taken)
    return np.flatnonzero(~away), np.flatnonzero(away)


def _distinct(labels: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of which different image each of the `n` is a copy, and these images' labels."""
    _, first, group = np.unique(same, return_index=True, return_inverse=True)
    distinct = labels[first]
    contradicting = np.unique(group[labels != distinct[group]])
    counts = np.bincount(np.delete(distinct, contradicting), minlength=labels.max() + 1)
    for which in contradicting:  # to the class that has the fewest, so that none is left without
        among = np.unique(labels[group == which])
        distinct[which] = among[counts[among].argmin()]
        counts[distinct[which]] += 1
    return group, distinct
