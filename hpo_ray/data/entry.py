"""One array on disk with its labels: written row by row, read as a map, whole or not at all.

    manifest.json   version, each file's bytes, files left out, and what people may want to know
    features.npy    `n x …` float32
    labels.npy      `n` int64

Knows files and numpy; nothing of locks, torch, models or Ray.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

VERSION = 1
_FEATURES, _LABELS, _MANIFEST = "features.npy", "labels.npy", "manifest.json"
_log = logging.getLogger(__name__)


class Unusable(Exception):
    """The entry cannot be kept on disk; the message says why."""


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """Turns what the file system raises into `Unusable`."""
    try:
        yield
    except OSError as error:
        raise Unusable(f"'{folder}' cannot be used: {error}") from error


@dataclass(frozen=True)
class Entry:
    """What was stored: features `n x …` float32, mapped; labels `n` int64; files left out, with reasons."""

    features: np.ndarray
    labels: np.ndarray
    unreadable: tuple[tuple[str, str], ...]


def read(folder: Path) -> Entry | None:
    """What was stored there; None if nothing was, or if it is damaged, which is logged."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        for name in (_FEATURES, _LABELS):
            if (folder / name).stat().st_size != manifest["bytes"][name]:
                raise ValueError(f"{name} has not the size that was written")
        features, labels = _mapped(folder / _FEATURES), np.load(folder / _LABELS, allow_pickle=False)
        if manifest["version"] != VERSION or features.dtype != np.float32 or len(features) != len(labels):
            raise ValueError("it is of another kind")
        return Entry(features, labels, tuple((str(path), str(why)) for path, why in manifest["unreadable"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if folder.exists():
            _log.warning("a damaged entry of the feature cache is computed anew: %s (%s)", folder, error)
        return None


class Writer:
    """Rows written one batch after another into a file whose blocks are reserved from the start."""

    def __init__(self, folder: Path, n: int, shape: Sequence[int], size: int) -> None:
        self.folder = folder
        self._shape = tuple(shape)
        self._rows = 0
        self._file: BinaryIO = (folder / _FEATURES).open("w+b")
        try:
            self._start = self._write_header(n)
            # A disk that is too small says so now. Writing through a map instead would end in a bus error.
            os.posix_fallocate(self._file.fileno(), 0, self._start + size)
        except OSError:
            self._file.close()
            raise

    def append(self, rows: np.ndarray) -> None:
        """Adds rows `b x …` float32.

        Raises:
            Unusable: They cannot be written.
        """
        with told(self.folder):
            self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data)
            self._file.flush()  # an error now is this batch's and not some later one's
            self._rows += len(rows)

    def finish(self, labels: np.ndarray, unreadable: Mapping[str, str], about: Mapping[str, Any]) -> None:
        """Brings all of it to the disk itself, the true number of rows and a manifest with it.

        Args:
            labels: `n` int64.
            unreadable: Files left out, with reasons.
            about: More for the manifest, for people.
        """
        self._file.truncate()
        self._file.seek(0)
        if self._write_header(self._rows) != self._start:
            raise OSError("the header changed its length")
        _sync(self._file)
        with (self.folder / _LABELS).open("wb") as file:
            np.save(file, labels, allow_pickle=False)
            _sync(file)
        sizes = {name: (self.folder / name).stat().st_size for name in (_FEATURES, _LABELS)}
        manifest = {"version": VERSION, "bytes": sizes, "unreadable": list(unreadable.items()), **about}
        with (self.folder / _MANIFEST).open("wb") as file:
            file.write(json.dumps(manifest).encode())
            _sync(file)
        sync_folder(self.folder)

    def close(self) -> None:
        """Gives the file up; what is not on disk by now will not be needed."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write_header(self, n: int) -> int:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)  # leaves space for the first axis to change
        return self._file.tell()


def _mapped(path: Path) -> np.ndarray:
    try:
        # Copy-on-write: torch takes it without complaint, and nothing that anybody writes reaches the file.
        return np.load(path, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]
    except OSError:  # the kernel refuses writable maps larger than its memory
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
