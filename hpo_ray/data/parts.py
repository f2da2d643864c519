"""The batches in which one part of a data set is read: order, balance, augmentation, worker processes.

Knows torch; nothing of splits, models, training loops or Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpo_ray.data.augment import Augmentation, kept_generator
from hpo_ray.data.decoding import UNREADABLE
from hpo_ray.data.samples import FolderImages, Part, TensorImages

__all__ = ["FolderImages", "Part", "TensorImages", "batches", "class_weights", "epoch_generator"]

_Seeded = tuple[int, int]  # an image's index and the seed of its augmentation
_Item = tuple[Tensor, int] | tuple[Path, str]


class _Reader(Dataset[list[_Item]]):
    """What a loader's worker does: reads files, and varies the images, for one batch."""

    def __init__(self, part: FolderImages, augment: Augmentation | None) -> None:
        self._part = part
        self._augment = augment

    def __getitems__(self, chosen: Sequence[_Seeded]) -> list[_Item]:
        """A file that cannot be read comes as `(path, reason)`: a worker has no other way to tell the process that
        counts them."""
        items: list[_Item] = []
        with kept_generator():
            for index, seed in chosen:
                try:
                    items.append(self._part.read(index, self._augment, seed))
                except UNREADABLE as error:
                    items.append((self._part.samples[index][0], str(error) or type(error).__name__))
        return items


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator that depends on the trial's seed and the epoch only.

    A trial resumed at an epoch thereby sees the batches that it would have seen unbroken.
    """
    words = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def class_weights(part: Part, classes: int | None = None) -> Tensor:
    """Weights `classes` float32, inversely as frequent as each class is in the part, 1 on average.

    A class without images weighs nothing, and does not count in the average.

    Args:
        part: Whose labels to count.
        classes: How many classes there are; None: up to the largest label.
    """
    counts = part.labels.bincount(minlength=classes or 0)
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
    return weights * ((counts > 0).sum() / weights.sum())


def batches(
    part: Part,
    size: int,
    *,
    order: torch.Generator | None = None,
    workers: int = 0,
    augment: Augmentation | None = None,
    augment_seed: int | None = None,
    balance: bool = False,
    drop_short: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields `(images b x c x h x w float32, labels b)` over a whole part once; the last batch may be short.

    What comes out depends on the arguments and `order`'s state, not on `workers`; torch's global generator is left
    alone.

    Args:
        part: What to read.
        size: Images per batch; unreadable files make a batch shorter.
        order: Draws the order; None: as they lie.
        workers: Processes that decode; 0 decodes here. Images in memory need none.
        augment: How to vary the images.
        augment_seed: Of that alone; None: `order` draws it, or 0 where there is no order.
        balance: As many draws as there are images, with replacement, each class as often as any other; needs `order`.
        drop_short: Batches of a single image are left out: BatchNorm cannot learn from them.
        share: Which of how many equal parts of every batch to yield, from 0: several processes with the same `order`
            read what one would. As many batches come for each, an empty one where there are too few images.

    Raises:
        InvalidInput: Too many files are unreadable.
    """
    indices = _indices(part, order, balance)
    varied = augment if augment is not None and augment.kind != "none" else None
    seeds = _seeds(len(indices), order, augment_seed) if varied is not None else torch.zeros_like(indices)
    own = slice(share[0], None, share[1])
    chunks = [(chosen[own], of[own]) for chosen, of in zip(indices.split(size), seeds.split(size), strict=True)]
    if isinstance(part, TensorImages):
        # Indexing whole batches is ten times faster than a DataLoader, which takes one sample at a time.
        found: Iterator[tuple[Tensor, Tensor]] = (
            (part.take(chosen, varied, of), part.labels[chosen]) for chosen, of in chunks
        )
    else:
        found = _from_files(part, chunks, varied, workers, order, keep_empty=share[1] > 1)
    for images, labels in found:
        if len(labels) > 1 or not drop_short:
            yield images, labels


def _indices(part: Part, order: torch.Generator | None, balance: bool) -> Tensor:
    if balance:
        if order is None:
            raise ValueError("a balanced sample is drawn at random: it needs `order`")
        return torch.multinomial(class_weights(part)[part.labels], len(part), replacement=True, generator=order)
    return torch.randperm(len(part), generator=order) if order is not None else torch.arange(len(part))


def _seeds(n: int, order: torch.Generator | None, given: int | None) -> Tensor:
    """One for each image, so that it matters neither which process varies it nor what was drawn before."""
    generator = torch.Generator().manual_seed(given or 0) if given is not None or order is None else order
    return torch.randint(2**32, (n,), generator=generator)


def _from_files(
    part: FolderImages,
    chunks: Sequence[tuple[Tensor, Tensor]],
    augment: Augmentation | None,
    workers: int,
    order: torch.Generator | None,
    *,
    keep_empty: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(
        _Reader(part, augment),
        batch_sampler=[list(zip(chosen.tolist(), of.tolist(), strict=True)) for chosen, of in chunks],
        num_workers=workers,
        collate_fn=_collate,
        # Without a generator of its own a DataLoader draws from the global one, which dropout uses.
        generator=order if order is not None else torch.Generator(),
    )
    for images, labels, unreadable in loader:
        for path, reason in unreadable:
            part.corrupt.add(path, reason)
        if len(labels) or keep_empty:
            yield images, labels


def _collate(items: Sequence[_Item]) -> tuple[Tensor, Tensor, list[tuple[Path, str]]]:
    images = [item[0] for item in items if isinstance(item[0], Tensor)]
    labels = torch.tensor([item[1] for item in items if isinstance(item[1], int)], dtype=torch.int64)
    unreadable = [(item[0], item[1]) for item in items if isinstance(item[0], Path) and isinstance(item[1], str)]
    return torch.stack(images) if images else torch.empty(0), labels, unreadable
