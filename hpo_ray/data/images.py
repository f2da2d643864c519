"""Images to learn from: scikit-learn's digits or a folder of pictures, split the same way for every trial.

Knows torch, and nothing of models, training loops or Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hpo_ray.data import checks
from hpo_ray.data.parts import CorruptFiles, FolderImages, Part, TensorImages
from hpo_ray.errors import InvalidInput, Problem

DIGITS_SIZE = 8
FOLDER_SIZE = 160


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
    max_corrupt_fraction: float = 0.01,
) -> ImageData:
    """Reads a data set and splits it, stratified by class; kept for the next call with the same arguments.

    A folder that comes divided keeps its parts, and a part that it lacks is taken from its ``train``: where there is
    ``train`` and ``valid`` only, `test_fraction` of ``train`` becomes the test part, because the choices are made on
    ``valid`` and an error measured there is too good. Files added later to a folder are not seen by this process.

    Args:
        name: ``digits`` (1,797 handwritten digits, 8 x 8) or ``folder``.
        root: The image folder, laid out as in `checks.scan`; None: the variable HPO_RAY_DATA.
        valid_fraction: Part of all images (of ``train`` where the folder is divided) that becomes ``valid``.
        test_fraction: Likewise for ``test``.
        split_seed: Same seed, same split, in every process.
        image_size: Pixels; None: 8 for digits, 160 for a folder.
        max_corrupt_fraction: Unreadable files beyond this part of all images end the training with an error.

    Raises:
        InvalidInput: The name, the folder or the fractions are wrong, or a class has too few images to split.
    """
    if valid_fraction <= 0 or test_fraction <= 0 or valid_fraction + test_fraction >= 1:
        given = f"valid_fraction {valid_fraction:g} and test_fraction {test_fraction:g}"
        raise InvalidInput(Problem("data.valid_fraction", f"{given} must be above 0 and leave images to train on"))
    if name != "folder":
        problems = checks.check(name, root)
        if problems:
            raise InvalidInput(*problems)
        return _digits(valid_fraction, test_fraction, split_seed, image_size or DIGITS_SIZE)
    size = image_size or FOLDER_SIZE
    return _folder(checks.resolve(root), valid_fraction, test_fraction, split_seed, size, max_corrupt_fraction)


# Worker processes run hundreds of short trials: reading the data again for each would cost more than training.
@lru_cache(maxsize=4)
def _digits(valid_fraction: float, test_fraction: float, split_seed: int, size: int) -> ImageData:
    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    if size != DIGITS_SIZE:
        images = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    rest, test = split(digits.target, test_fraction, split_seed, "data.test_fraction")
    train, valid = split(digits.target[rest], valid_fraction / (1 - test_fraction), split_seed, "data.valid_fraction")
    of = [TensorImages(images[chosen], labels[chosen]) for chosen in (rest[train], rest[valid], test)]
    classes = tuple(map(str, digits.target_names))
    return ImageData(of[0], of[1], of[2], classes, channels=1, image_size=size)


@lru_cache(maxsize=4)
def _folder(
    root: Path, valid_fraction: float, test_fraction: float, split_seed: int, size: int, max_corrupt_fraction: float
) -> ImageData:
    folder = checks.scan(root)
    parts = dict(folder.parts)
    left = 1.0  # what is left of `train` as it came, so that both fractions are parts of the same whole
    for part, fraction in (("test", test_fraction), ("valid", valid_fraction)):
        if part not in parts:
            labels = np.array([label for _, label in parts["train"]])
            kept, taken = split(labels, fraction / left, split_seed, f"data.{part}_fraction")
            parts[part] = tuple(parts["train"][i] for i in taken)
            parts["train"] = tuple(parts["train"][i] for i in kept)
            left -= fraction
    corrupt = CorruptFiles(sum(map(len, parts.values())), max_corrupt_fraction)
    train, valid, test = (FolderImages(parts[part], size, corrupt) for part in ("train", "valid", "test"))
    return ImageData(train, valid, test, folder.classes, channels=3, image_size=size, ignored=folder.ignored)


def split(labels: np.ndarray, fraction: float, seed: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images kept and of those taken away, both sorted and stratified by class.

    Args:
        labels: `n` integers.
        fraction: Part of the `n` to take away.
        seed: Same seed, same split.
        key: Which setting to name in an error.

    Raises:
        InvalidInput: Some class has too few images to be in both.
    """
    try:
        kept, taken = train_test_split(
            np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed, shuffle=True
        )
    except ValueError as error:
        few = f"{len(labels)} images of {len(np.unique(labels))} classes, the smallest with {_fewest(labels)},"
        raise InvalidInput(Problem(key, f"{few} cannot be split by class: {error}")) from error
    return np.sort(kept), np.sort(taken)


def _fewest(labels: np.ndarray) -> int:
    return int(np.unique(labels, return_counts=True)[1].min())
