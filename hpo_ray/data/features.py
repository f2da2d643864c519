"""Activations of a frozen trunk, computed once per machine and shared by all trials.

They depend on the images, the preprocessing and the trunk's weights alone, so a sweep over heads costs one pass over
the images instead of one per trial and epoch. Knows no models, training loops or Ray.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpo_ray.data import parts
from hpo_ray.data.augment import Augmentation
from hpo_ray.data.entry import VERSION, Entry, Unusable
from hpo_ray.data.samples import FolderImages, Part, TensorImages, raw_bytes
from hpo_ray.data.store import Store
from hpo_ray.errors import InvalidInput, Problem

CACHE_VARIABLE = "HPO_RAY_CACHE"
_log = logging.getLogger(__name__)


class FeaturePart(TensorImages):
    """Features in the place of images: `parts.batches` gives them as they are.

    Attributes:
        images: The features, `n x …` float32; mapped from disk if `stored`, so read them batch by batch.
        labels: `n` int64.
        stored: Whether other processes share them.
    """

    def __init__(self, features: Tensor, labels: Tensor, digest: str, *, stored: bool) -> None:
        super().__init__(features, labels)
        self.stored = stored
        self._known_digest = digest

    @property
    def features(self) -> Tensor:
        """The same as `images`, by its own name."""
        return self.images

    def take(self, indices: Tensor, augment: Augmentation | None = None, seeds: Tensor | None = None) -> Tensor:
        """The features of these indices, `b x …`.

        Raises:
            ValueError: They are to be augmented, which only images can be.
        """
        if augment is not None:
            raise ValueError("features cannot be augmented: the image that they come from is gone")
        return self.images[indices]

    def digest(self) -> str:
        """Of the images, their preprocessing and the key that the features were computed with."""
        return self._known_digest


def default_folder() -> Path:
    """Where features are kept: ``$HPO_RAY_CACHE``, else ``hpo_ray`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "hpo_ray"


def weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Says in 64 characters which weights these are: names, types, shapes, every bit; in any order."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        plain = tensor.detach().cpu().contiguous()
        found.update(repr((name, str(plain.dtype), tuple(plain.shape))).encode())
        found.update(raw_bytes(plain))
    return found.hexdigest()


def cached(
    part: Part,
    *,
    key: Mapping[str, str],
    compute: Callable[[Tensor], Tensor],
    folder: Path,
    max_bytes: int,
    batch_size: int,
    workers: int = 0,
) -> FeaturePart:
    """The features of a whole part, in its order: from disk if any process of this machine has computed them.

    Others that ask meanwhile wait for the first. A process may be killed at any moment: what it left half-written is
    never read. Features that cannot be kept on disk are computed for this process alone, and a warning says why.
    Unreadable images are left out, and recorded in `part.corrupt` whether or not they were met just now.

    Args:
        part: The images; not augmented.
        key: What the features depend on beside the part's own `digest`: the weights' digest, the architecture.
        compute: Images `b x c x h x w` float32 to features `b x …`; called without gradients. It must treat each
            image by itself, as a model does in evaluation mode.
        folder: Where entries are kept, see `default_folder`; on a disk of this machine.
        max_bytes: Of all entries in the folder together; the least lately used are thrown away first, and none that a
            living process uses.
        batch_size: Images per call of `compute`.
        workers: Processes that decode.

    Raises:
        InvalidInput: Too many images are unreadable.
    """
    about = {"part": part.digest(), "key": dict(sorted(key.items()))}
    digest = hashlib.sha256(json.dumps([VERSION, about]).encode()).hexdigest()
    run = _Pass(part, compute, batch_size, workers)
    try:
        store = Store(folder, max_bytes)
        held = store.hold(digest)
    except Unusable as error:
        return _alone(run, digest, str(error))
    try:
        entry, reason = _from_store(store, digest, run, about)
    except BaseException:
        os.close(held)
        raise
    if entry is None:
        os.close(held)
        return _alone(run, digest, reason, store)
    if isinstance(part, FolderImages):
        for path, why in entry.unreadable:
            part.corrupt.add(Path(path), why)
    with warnings.catch_warnings(action="ignore"):  # that it must not be written to, where the map is read-only
        found = FeaturePart(torch.from_numpy(entry.features), torch.from_numpy(entry.labels), digest, stored=True)
    # Closed, not unlocked: a forked process that drops its copy must not end the hold of this one.
    weakref.finalize(found, os.close, held)
    return found


def _from_store(store: Store, digest: str, run: _Pass, about: Mapping[str, object]) -> tuple[Entry | None, str]:
    """The entry, computed if need be; or None and the reason why it cannot be kept on disk."""
    try:
        entry = store.read(digest)
        if entry is None:
            with store.turn(digest):
                entry = store.read(digest)  # another process may have had its turn before
                if entry is None:
                    _compute(store, digest, run, about)
                    entry = store.read(digest)
        return entry, "it is damaged as soon as it is written"
    except Unusable as error:
        return None, str(error)


def _compute(store: Store, digest: str, run: _Pass, about: Mapping[str, object]) -> None:
    first = run.first()
    with store.writer(digest, len(run.part), first.shape[1:]) as writer:
        for rows in run:
            writer.append(rows)
        seconds = time.perf_counter() - run.began
        store.commit(digest, writer, run.labels(), run.unreadable(), {**about, "seconds": round(seconds, 3)})
    _log_pass(store, digest, run, stored=True)


def _alone(run: _Pass, digest: str, reason: str, store: Store | None = None) -> FeaturePart:
    _log.warning("features are not cached, every trial computes its own: %s", reason)
    rows = list(run)
    found = FeaturePart(torch.from_numpy(np.concatenate(rows)), torch.from_numpy(run.labels()), digest, stored=False)
    if store is not None:
        _log_pass(store, digest, run, stored=False)
    return found


def _log_pass(store: Store, digest: str, run: _Pass, *, stored: bool) -> None:
    seconds = round(time.perf_counter() - run.began, 3)
    line = {"digest": digest, "images": len(run.labels()), "seconds": seconds, "pid": os.getpid(), "stored": stored}
    store.log_pass(line)


class _Pass:
    """One pass over a part. Iterating gives features `b x …` float32; the first batch can be looked at before.

    Attributes:
        began: When, by `time.perf_counter`.
    """

    def __init__(self, part: Part, compute: Callable[[Tensor], Tensor], batch_size: int, workers: int) -> None:
        self.part = part
        self.began = time.perf_counter()
        self._compute = compute
        self._batch_size = batch_size
        self._workers = workers
        self._labels: list[Tensor] = []
        self._first: np.ndarray | None = None
        self._rest: Iterator[np.ndarray] | None = None

    def first(self) -> np.ndarray:
        """The first batch, which iterating will give again."""
        if self._first is None:
            self.began = time.perf_counter()
            self._labels = []
            self._rest = self._rows()
            found = next(self._rest, None)
            if found is None:
                raise InvalidInput(Problem("data.root", f"none of a part's {len(self.part)} images can be read"))
            self._first = found
        return self._first

    def __iter__(self) -> Iterator[np.ndarray]:
        """From where `first` stands; after an iteration, from the beginning."""
        yield self.first()
        rest, self._first, self._rest = self._rest, None, None
        yield from rest or ()

    def labels(self) -> np.ndarray:
        """Of what was read so far."""
        return torch.cat(self._labels).numpy()

    def unreadable(self) -> dict[str, str]:
        """This part's files that could not be read, with reasons."""
        if not isinstance(self.part, FolderImages):
            return {}
        reasons = self.part.corrupt.reasons
        return {str(path): reasons[path] for path, _ in self.part.samples if path in reasons}

    def _rows(self) -> Iterator[np.ndarray]:
        for images, labels in parts.batches(self.part, self._batch_size, workers=self._workers):
            with torch.no_grad():
                rows = self._compute(images).to("cpu", torch.float32).numpy()
            self._labels.append(labels)
            yield rows
