"""The images of one part of a data set with their labels: in memory, or in files.

Knows torch; nothing of splits, order, models, training loops or Ray.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from hpo_ray.data.augment import Augmentation, kept_generator
from hpo_ray.data.decoding import CorruptFiles, decode
from hpo_ray.data.preprocess import Preprocess


class TensorImages:
    """Images held in memory.

    Attributes:
        images: `n x c x h x w`, uint8 in 0..255 (a quarter of the memory) or float32, before preprocessing.
        labels: `n` int64.
        preprocess: What becomes of a batch before it is given out; None: uint8 is scaled to 0..1, float32 stays.
    """

    def __init__(self, images: Tensor, labels: Tensor, preprocess: Preprocess | None = None) -> None:
        self.images = images
        self.labels = labels
        self.preprocess = preprocess or Preprocess()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor, augment: Augmentation | None = None, seeds: Tensor | None = None) -> Tensor:
        """The images of these indices, `b`, as float32; varied, each by its seed, if there are some."""
        images = self.images[indices]
        if not len(images):
            return images.float()
        if augment is not None and seeds is not None:
            with kept_generator():
                pairs = zip(images, seeds.tolist(), strict=True)
                images = torch.stack([augment.varied(image, seed) for image, seed in pairs])
        return self.preprocess.finished(self.preprocess.resized(images))

    @cached_property
    def _digest(self) -> str:
        found = hashlib.sha256(repr((tuple(self.images.shape), self.images.dtype, self.preprocess)).encode())
        for tensor in (self.images, self.labels):
            found.update(raw_bytes(tensor))
        return found.hexdigest()

    def digest(self) -> str:
        """Says in 64 characters what images these are, in which order, with which labels and preprocessing."""
        return self._digest


class FolderImages:
    """Images read from files when asked for, as RGB.

    Attributes:
        samples: Paths and labels.
        labels: `n` int64.
        preprocess: What becomes of each image; its `size` must be given.
        corrupt: Where unreadable files are recorded.
    """

    def __init__(self, samples: Sequence[tuple[Path, int]], preprocess: Preprocess, corrupt: CorruptFiles) -> None:
        if preprocess.size is None:
            raise ValueError("images from files need a size to be put into a batch")
        self.samples = samples
        self.labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        self.preprocess = preprocess
        self.corrupt = corrupt

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.read(index)

    def read(self, index: int, augment: Augmentation | None = None, seed: int = 0) -> tuple[Tensor, int]:
        """One image, `3 x size x size` float32, and its label; varied by its seed if `augment` is given.

        It is varied after the resize and before the crop: what a turn or a shift brings in is the picture itself
        where there is some beyond the crop.

        Raises:
            OSError: And others, see `decoding.UNREADABLE`: the file is no readable picture.
        """
        from torchvision.transforms import v2  # two seconds, which images in memory need not wait for

        path, label = self.samples[index]
        side = self.preprocess.short_side or 1
        image: Tensor = v2.functional.pil_to_tensor(self.preprocess.resized(decode(path, side)))
        if augment is not None:
            image = augment.varied(image, seed)
        return self.preprocess.finished(image), label

    def digest(self) -> str:
        """As for images in memory; a file counts as the same while its path, size and time of change stay."""
        found = hashlib.sha256(repr(self.preprocess).encode())
        for path, label in self.samples:
            try:
                stat = path.stat()
                state: tuple[int, ...] = (stat.st_size, stat.st_mtime_ns)
            except OSError:
                state = ()
            found.update(repr((str(path), label, state)).encode())
        return found.hexdigest()


Part = TensorImages | FolderImages


def raw_bytes(tensor: Tensor) -> memoryview:
    """A tensor's values, bit for bit, as what hashes take."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
