"""Published image sets from local files: MNIST and its kin as IDX files, CIFAR as torchvision keeps it.

Finding them imports neither torch nor torchvision, since the driver does it; reading gives numpy arrays. Knows nothing
of splits, models or Ray.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo_ray.errors import InvalidInput, Problem

# Our name -> torchvision's class.
_IDX_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_CIFAR_SETS = {"cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python")}
SETS = (*_IDX_SETS, *_CIFAR_SETS)

_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# What gzip raises on files that are damaged or cut short.
_DAMAGED = (OSError, EOFError, ValueError, zlib.error)


@dataclass(frozen=True)
class Arrays:
    """A published set: images `n x c x h x w` uint8, labels `n` int64, class names."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]


def locate(name: str, root: Path) -> Path:
    """The folder that holds a set's files.

    The IDX files, gzipped or not, may lie in ``root``, in a folder there that is named after the set
    (``fashion-mnist``, ``FashionMNIST``), or in ``raw`` below either, where torchvision puts them; CIFAR's in
    ``cifar-10-batches-py`` or ``cifar-100-python`` below ``root``, or ``root`` is that folder.

    Args:
        name: One of `SETS`.
        root: An absolute path.

    Raises:
        InvalidInput: They are not there; the message says what was looked for, and where.
    """
    tried = list(_places(name, root))
    wanted = _IDX_FILES if name in _IDX_SETS else ("train",) if name == "cifar100" else ("data_batch_1",)
    for folder in tried:
        if all(_file(folder, file) for file in wanted):
            return folder
    what = ", ".join(f"{file}[.gz]" for file in wanted) if name in _IDX_SETS else f"{_CIFAR_SETS[name][1]}/{wanted[0]}"
    where = ", ".join(f"'{folder}'" for folder in tried)
    missing = "does not exist" if not root.exists() else f"has no '{name}': looked for {what} in {where}"
    raise InvalidInput(Problem("data.root", f"'{root}' {missing}; data.download=true would fetch it"))


def _places(name: str, root: Path) -> Iterator[Path]:
    if name in _CIFAR_SETS:
        own = _CIFAR_SETS[name][1]
        yield root / own
        if root.name == own:
            yield root
        return
    named = _plain(name)
    # All these sets have the same file names: a folder called after one of them holds no other.
    of_another = {_plain(other) for other in _IDX_SETS} - {named}
    own_name = root.parent.name if root.name == "raw" else root.name
    folders = [root] if _plain(own_name) not in of_another else []
    if root.is_dir():
        folders += sorted(path for path in root.iterdir() if path.is_dir() and _plain(path.name) == named)
    for folder in folders or [root / _IDX_SETS[name]]:
        yield folder
        yield folder / "raw"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read(name: str, root: Path, *, download: bool = False) -> Arrays:
    """Reads a set whole.

    Args:
        name: One of `SETS`.
        root: Where to look, see `locate`.
        download: Whether to fetch missing files into ``root``, by torchvision.

    Raises:
        InvalidInput: The files are missing, damaged, or cannot be downloaded.
    """
    try:
        folder = locate(name, root)
    except InvalidInput:
        if not download:
            raise
        _download(name, root)
        folder = locate(name, root)
    return _read_cifar(name, folder) if name in _CIFAR_SETS else _read_idx(name, folder)


def _download(name: str, root: Path) -> None:
    try:
        for train in (True, False):
            _torchvision(name)(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: every mirror failed, or what came is damaged
        message = f"'{name}' could not be downloaded into '{root}': {error}; without a network, put its files there"
        raise InvalidInput(Problem("data.download", message)) from error


def _torchvision(name: str) -> Any:
    from torchvision import datasets  # two seconds, which other sets need not wait for

    return getattr(datasets, _IDX_SETS.get(name) or _CIFAR_SETS[name][0])


def _read_idx(name: str, folder: Path) -> Arrays:
    images, labels, test_images, test_labels = (_read_idx_file(folder, file) for file in _IDX_FILES)
    classes = tuple(text.partition(" - ")[0] if name == "mnist" else text for text in _torchvision(name).classes)
    for of, (pixels, numbers) in {"train": (images, labels), "t10k": (test_images, test_labels)}.items():
        if pixels.ndim != 3 or numbers.ndim != 1 or len(pixels) != len(numbers) or numbers.max(initial=0) > 9:
            raise InvalidInput(Problem("data.root", f"the images and labels of '{of}' in '{folder}' do not fit"))
    return Arrays(images[:, None], labels.astype(np.int64), test_images[:, None], test_labels.astype(np.int64), classes)


def _read_idx_file(folder: Path, name: str) -> np.ndarray:
    """Two zero bytes, the type (8: uint8), the number of axes, each axis's length as a big-endian int32, the values."""
    path = _file(folder, name)
    if path is None:
        raise InvalidInput(Problem("data.root", f"'{folder / name}' has vanished"))
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
        if content[:3] != b"\0\0\x08":
            raise ValueError("it does not begin as an IDX file of bytes does")
        axes = content[3]
        shape = np.frombuffer(content, ">i4", axes, offset=4)
        # A copy, because torch wants to own memory that it may write to.
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
    except _DAMAGED as error:
        raise InvalidInput(Problem("data.root", f"'{path}' cannot be read: {error}")) from error


def _read_cifar(name: str, folder: Path) -> Arrays:
    try:
        # torchvision compares checksums before it unpickles: only the published files are ever read.
        train, test = (_torchvision(name)(folder.parent, train=train, download=False) for train in (True, False))
    except (OSError, RuntimeError) as error:
        message = f"'{folder}' is incomplete or not the published '{name}': {error}"
        raise InvalidInput(Problem("data.root", message)) from error
    images, test_images = (np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)) for part in (train, test))
    labels, test_labels = (np.array(part.targets, dtype=np.int64) for part in (train, test))
    return Arrays(images, labels, test_images, test_labels, tuple(train.classes))
