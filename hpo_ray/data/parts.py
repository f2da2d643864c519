"""One part of a data set, in memory or on disk, and the batches it is read in.

Knows torch and Pillow; nothing of splits, models, training loops or Ray.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpo_ray.errors import InvalidInput, Problem

# Mean and deviation of ImageNet's channels: what torchvision's weights expect, and harmless without weights.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What Pillow raises on files that are damaged, empty, gone or no picture at all.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_log = logging.getLogger(__name__)


class CorruptFiles:
    """The unreadable files met so far among `total` images, and the limit on them."""

    def __init__(self, total: int, max_fraction: float) -> None:
        self.paths: list[Path] = []
        self._total = total
        self._max_fraction = max_fraction

    def add(self, path: Path, reason: str) -> None:
        """Records a file once.

        Raises:
            InvalidInput: More than the allowed fraction of all images is unreadable.
        """
        if path not in self.paths:
            self.paths.append(path)
            _log.warning("unreadable image skipped: %s (%s)", path, reason)
        if len(self.paths) > self._max_fraction * self._total:
            shown = ", ".join(map(str, self.paths[:5])) + (", …" if len(self.paths) > 5 else "")
            count = f"{len(self.paths)} of {self._total} images cannot be read"
            raise InvalidInput(
                Problem("data.max_corrupt_fraction", f"{count}, more than {self._max_fraction:g} of them: {shown}")
            )


class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    """Images held in memory: `images` `n x c x h x w` float32 in 0..1, `labels` `n` int64."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


class FolderImages(Dataset[tuple[Tensor, int]]):
    """Images read when asked for: `3 x size x size` float32, normalised as for ImageNet.

    The short side is resized to `size` and the centre cut out.
    """

    def __init__(self, samples: Sequence[tuple[Path, int]], size: int, corrupt: CorruptFiles) -> None:
        from torchvision.transforms import v2  # two seconds, which images in memory need not wait for

        self.samples = samples
        self.corrupt = corrupt
        self._size = size
        self._transform = v2.Compose(
            [
                v2.Resize(size, antialias=True),
                v2.CenterCrop(size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        return self._transform(decode(path, self._size)), label

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int] | tuple[Path, str]]:
        """Several at once; a file that cannot be read comes as `(path, reason)`: a loader's worker has no other way
        to tell the process that counts them."""
        items: list[tuple[Tensor, int] | tuple[Path, str]] = []
        for index in indices:
            try:
                items.append(self[index])
            except _UNREADABLE as error:
                items.append((self.samples[index][0], str(error) or type(error).__name__))
        return items


Part = TensorImages | FolderImages


def decode(path: Path, size: int) -> Image.Image:
    """One picture as RGB, turned upright by its EXIF orientation; decoded no finer than `size` needs.

    Raises:
        OSError: And others, see `_UNREADABLE`: the file is no readable picture.
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


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator that depends on the trial's seed and the epoch only.

    A trial resumed at an epoch thereby sees the batches that it would have seen unbroken.
    """
    words = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def batches(
    part: Part, size: int, *, order: torch.Generator | None = None, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields `(images b x c x h x w, labels b)` over a whole part once; the last batch may be short.

    Args:
        part: What to read.
        size: Images per batch; unreadable files make a batch shorter.
        order: Draws the order; None: as they lie.
        workers: Processes that decode; 0 decodes here. Images in memory need none.

    Raises:
        InvalidInput: Too many files are unreadable.
    """
    indices = torch.randperm(len(part), generator=order) if order is not None else torch.arange(len(part))
    if isinstance(part, TensorImages):
        # Indexing whole batches is ten times faster than a DataLoader, which takes one sample at a time.
        for chosen in indices.split(size):
            yield part.images[chosen], part.labels[chosen]
        return
    loader = DataLoader(
        part,
        batch_sampler=[chosen.tolist() for chosen in indices.split(size)],
        num_workers=workers,
        collate_fn=_collate,
        # Without a generator of its own a DataLoader draws from the global one, which dropout uses.
        generator=order if order is not None else torch.Generator(),
    )
    for images, labels, unreadable in loader:
        for path, reason in unreadable:
            part.corrupt.add(path, reason)
        if len(labels):
            yield images, labels


def _collate(
    items: Sequence[tuple[Tensor, int] | tuple[Path, str]],
) -> tuple[Tensor, Tensor, list[tuple[Path, str]]]:
    images = [item[0] for item in items if isinstance(item[0], Tensor)]
    labels = torch.tensor([item[1] for item in items if isinstance(item[1], int)], dtype=torch.int64)
    unreadable = [(item[0], item[1]) for item in items if isinstance(item[0], Path) and isinstance(item[1], str)]
    return torch.stack(images) if images else torch.empty(0), labels, unreadable
