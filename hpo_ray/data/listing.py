"""Which images there are and where training puts them, faults and all: what training would refuse is told, not raised.

Opens no picture; knows nothing of models, training or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo_ray.data import checks, folders, images
from hpo_ray.data.samples import FolderImages, TensorImages
from hpo_ray.errors import InvalidInput


@dataclass(frozen=True)
class Listing:
    """The images of a data set, in memory or in files.

    Attributes:
        root: The folder or file that they come from; None for a bundled set.
        classes: Class names; a label is an index into them. Those without images are among them.
        files: `(path, label)` pairs of each part, as training divides them where it can; empty for a set in memory.
        memory: The parts of a set in memory.
        other: Files that training passes over: no images by their extension, or in no class.
        empty: Class folders without an image, as ``train/bee``.
        unknown: Classes in ``valid`` or ``test`` that ``train`` lacks.
        refused: Why training would not start, where neither `empty` nor `unknown` tells.
    """

    root: Path | None
    classes: tuple[str, ...]
    files: Mapping[str, tuple[folders.Sample, ...]]
    memory: Mapping[str, TensorImages]
    other: tuple[Path, ...] = ()
    empty: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def list_images(name: str, root: str | None = None, **options: Any) -> Listing:
    """Lists a data set as training will see it; an image folder also where training would refuse it.

    Args:
        name: As for `images.load`.
        root: Likewise.
        **options: Likewise; they say how the images are divided.

    Raises:
        InvalidInput: There is nothing to look at: no such set, folder or file, no image at all, an unusable CSV file,
            two folders for the same part; `valid_is_test` and no validation part, or a test part besides.
    """
    images._files.cache_clear()  # a second look must see what was mended after the first
    where = checks.resolve(root, name) if name in checks.NAMES and name != "digits" else None
    try:
        data = images.load(name, root, **options)
    except InvalidInput as error:
        misused = any(problem.key == "data.valid_is_test" for problem in error.problems)
        if misused or name != "folder" or where is None or not where.is_dir():
            raise
        return _refused(where, error)
    found = {"train": data.train, "valid": data.valid, "test": data.test}
    files = {part: tuple(of.samples) for part, of in found.items() if isinstance(of, FolderImages)}
    memory = {part: of for part, of in found.items() if isinstance(of, TensorImages)}
    return Listing(where, data.classes, files, memory, data.ignored)


def _refused(root: Path, error: InvalidInput) -> Listing:
    """What lies in a folder that training refuses, in the parts in which it lies there."""
    found = {part: folders.by_class(folder) for part, folder in folders.divisions(root).items()}
    for part in ("valid", "test"):
        if part in found and not found[part][0]:  # without class folders: no part, see `folders.scan`
            found["train"][1].extend(found.pop(part)[1])
    by_class = {part: by for part, (by, _) in found.items()}
    if not any(paths for by in by_class.values() for paths in by.values()):
        raise error
    classes = tuple(sorted({name for by in by_class.values() for name in by}))
    label = {name: index for index, name in enumerate(classes)}
    files = {
        part: tuple((path, label[name]) for name in sorted(by) for path in by[name]) for part, by in by_class.items()
    }
    empty = tuple(
        f"{part}/{name}" if len(found) > 1 else name
        for part, by in by_class.items()
        for name in sorted(by)
        if not by[name]
    )
    unknown = tuple(sorted({name for by in by_class.values() for name in by} - set(by_class["train"])))
    other = tuple(path for _, rest in found.values() for path in rest)
    messages = () if empty or unknown else tuple(problem.message for problem in error.problems)
    return Listing(root, classes, files, {}, other, empty, unknown, messages)
