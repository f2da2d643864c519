"""What lies in an image folder, found by names alone: no picture is opened, so a look costs milliseconds.

The driver calls it before any process starts, so it must import neither torch nor scikit-learn; it knows no model
and no Ray.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpo_ray.errors import InvalidInput, Problem

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})

# Spellings of the three parts, compared in lower case.
PARTS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}

Sample = tuple[Path, int]
_NOTHING: tuple[dict[str, list[Path]], list[Path]] = ({}, [])


@dataclass(frozen=True)
class Folder:
    """The images of one folder, or of one CSV file (see `tables.scan`), with their labels.

    Attributes:
        classes: Class names in sorted order; a label is an index into them.
        parts: `(path, label)` pairs under ``train``, ``valid``, ``test`` as far as the images are divided already, or
            all under ``train`` where they are not.
        ignored: Files that are no images by their extension, and images that belong to no class.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, tuple[Sample, ...]]
    ignored: tuple[Path, ...]


def scan(root: Path) -> Folder:
    """Lists a folder of images: ``root/{train,valid|val|validation[,test]}/<class>/…`` or ``root/<class>/…``.

    Images may lie any number of folders below their class. Names that start with a dot are passed over: they are
    droppings of editors and file managers (``.ipynb_checkpoints`` is no class, ``._a.jpg`` no picture). A ``valid`` or
    ``test`` folder without class folders has no labels: it counts as absent and its files as ignored.

    Args:
        root: An absolute path.

    Returns:
        What was found.

    Raises:
        InvalidInput: With every problem found: no such folder, unreadable, fewer than two classes, a class without
            images, a class in ``valid`` or ``test`` that ``train`` lacks, two validation folders.
    """
    _require_folder(root)
    try:
        divided = divisions(root)
        found = {part: by_class(folder) for part, folder in divided.items()}
    except OSError as error:
        raise InvalidInput(Problem("data.root", f"'{error.filename}' cannot be read: {error.strerror}")) from error
    unlabelled = [
        path for part in ("valid", "test") if not found.get(part, _NOTHING)[0] for path in found.pop(part, _NOTHING)[1]
    ]
    problems = _problems(root, {part: images for part, (images, _) in found.items()})
    if problems:
        raise InvalidInput(*problems)
    classes = tuple(sorted(found["train"][0]))
    label = {name: index for index, name in enumerate(classes)}
    parts = {
        part: tuple((path, label[name]) for name in sorted(images) for path in images[name])
        for part, (images, _) in found.items()
    }
    ignored = tuple(path for _, other in found.values() for path in other) + tuple(unlabelled)
    return Folder(classes, parts, ignored)


def _require_folder(root: Path) -> None:
    if not root.exists():
        raise InvalidInput(Problem("data.root", f"'{root}' does not exist"))
    if not root.is_dir():
        hint = ": data.name=csv reads a table of paths and labels" if root.suffix.lower() == ".csv" else ""
        raise InvalidInput(Problem("data.root", f"'{root}' is not a folder{hint}"))
    if not os.access(root, os.R_OK | os.X_OK):
        raise InvalidInput(Problem("data.root", f"'{root}' cannot be read: permission denied"))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def divisions(root: Path) -> dict[str, Path]:
    """The folder of each part; the whole root as ``train`` where it is not divided."""
    folders = _subfolders(root)
    named = [folder for folder in folders if folder.name.lower() in PARTS]
    by_part: dict[str, Path] = {}
    for folder in named:
        part = PARTS[folder.name.lower()]
        if part in by_part:
            names = f"'{by_part[part].name}' and '{folder.name}'"
            raise InvalidInput(Problem("data.root", f"'{root}' has both {names}; keep one {part} folder"))
        by_part[part] = folder
    # A folder 'train' that holds pictures and no folders is a class beside 'bus' and 'tram', not a part.
    if "train" in by_part and _subfolders(by_part["train"]):
        return by_part
    if named and len(named) == len(folders) and "train" not in by_part:
        names = ", ".join(f"'{folder.name}'" for folder in named)
        raise InvalidInput(Problem("data.root", f"'{root}' has {names} but no 'train' folder"))
    return {"train": root}


def by_class(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Images of each class folder below `folder`, and the files that are no such image."""
    images: dict[str, list[Path]] = {}
    other = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    for class_folder in _subfolders(folder):
        images[class_folder.name] = []
        for path in _files(class_folder):
            (images[class_folder.name] if path.suffix.lower() in IMAGE_SUFFIXES else other).append(path)
    return images, other


def _files(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error  # os.walk passes over unreadable folders silently otherwise

    found = []
    for where, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _problems(root: Path, found: Mapping[str, Mapping[str, list[Path]]]) -> list[Problem]:
    train = found["train"]
    if not any(train.values()):
        hint = "its images must lie in one folder per class"
        return [Problem("data.root", f"'{root}' has no images ({', '.join(sorted(IMAGE_SUFFIXES))}); {hint}")]
    messages = []
    if len(train) < 2:
        messages.append(f"'{root}' has 1 class folder, '{next(iter(train))}'; at least 2 are needed")
    empty = [f"'{part}/{name}'" if len(found) > 1 else f"'{name}'" for part in found for name in _empty(found[part])]
    if empty:
        messages.append(f"'{root}' has class folders without an image: {', '.join(empty)}; fill or remove them")
    for part in found:
        unknown = sorted(set(found[part]) - set(train))
        if unknown:
            names = ", ".join(f"'{name}'" for name in unknown)
            messages.append(f"'{root}' has classes in its {part} folder that train lacks: {names}")
    return [Problem("data.root", message) for message in messages]


def _empty(images: Mapping[str, list[Path]]) -> list[str]:
    return sorted(name for name, paths in images.items() if not paths)
