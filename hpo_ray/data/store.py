"""Arrays on disk shared by all processes of a machine: written once, mapped by many, the least lately used thrown away.

    entries/<digest>/   complete, since it came by one rename; see `entry`
    partial/<digest>.…  being written or thrown away; with nobody at work on it, the leftover of a dead process
    locks/<digest>.use  held shared by all who have the entry mapped; its time of change is the last use
    locks/<digest>.turn held by the one who computes the entry
    locks/room          held while room is made
    passes.jsonl        one line for each time that something was computed

Knows files, locks and numpy; nothing of torch, images, models or Ray.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpo_ray.data import entry
from hpo_ray.data.entry import Entry, Unusable, Writer, told

_MANIFEST_BYTES = 4096  # about


class Store:
    """A folder of entries that together stay below `max_bytes`.

    Raises, here and in every method:
        Unusable: The folder cannot be written to, or the disk is full.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._entries, self._partial, self._locks = (folder / name for name in ("entries", "partial", "locks"))
        with told(folder):
            for each in (self._entries, self._partial, self._locks):
                each.mkdir(parents=True, exist_ok=True)

    def hold(self, digest: str) -> int:
        """Keeps an entry, there or still to come, from being thrown away.

        Returns:
            A file descriptor; closing it, or the process's death, ends the hold.
        """
        with told(self._folder):
            descriptor = _lock(self._locks / f"{digest}.use", fcntl.LOCK_SH)
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            return descriptor

    @contextlib.contextmanager
    def turn(self, digest: str) -> Iterator[None]:
        """Waits until no other process computes this entry; within it, no other starts to."""
        with contextlib.ExitStack() as stack:
            with told(self._folder):
                stack.enter_context(_locked(self._locks / f"{digest}.turn"))
            yield

    def read(self, digest: str) -> Entry | None:
        """The entry, mapped; None if there is none or it is damaged."""
        return entry.read(self._entries / digest)

    @contextlib.contextmanager
    def writer(self, digest: str, n: int, shape: Sequence[int]) -> Iterator[Writer]:
        """Room for at most `n` rows of this shape; within `turn` only. What is not committed is removed.

        Raises:
            Unusable: There is not enough room: the entry alone exceeds the cap, or others are in use.
        """
        size = n * int(np.prod(shape, dtype=np.int64)) * 4
        beside = n * 8 + _MANIFEST_BYTES
        with told(self._folder):
            for leftover in self._partial.glob(f"{digest}.*"):  # we have the turn, so whoever wrote it is dead
                shutil.rmtree(leftover, ignore_errors=True)
            self._throw_away(digest)  # damaged, or it would not be written again
            with _locked(self._locks / "room"):
                self._make_room(size + beside)
                folder = self._new_folder(digest)
                try:
                    writer = Writer(folder, n, shape, size)
                except OSError:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
        try:
            yield writer
        finally:
            writer.close()
            shutil.rmtree(folder, ignore_errors=True)

    def commit(
        self, digest: str, writer: Writer, labels: np.ndarray, unreadable: Mapping[str, str], about: Mapping[str, Any]
    ) -> None:
        """Makes what was written the entry, at once and for good; see `Writer.finish`."""
        with told(self._folder):
            writer.finish(labels, unreadable, about)
            writer.folder.chmod(0o755)  # a temporary folder's own mode shuts out everybody else
            writer.folder.rename(self._entries / digest)
            entry.sync_folder(self._entries)

    def log_pass(self, line: Mapping[str, Any]) -> None:
        """Adds a line to ``passes.jsonl``: short enough to be written whole, whoever else writes."""
        with contextlib.suppress(OSError), (self._folder / "passes.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _make_room(self, size: int) -> None:
        """Throws entries away, the least lately used first and never one in use, until `size` bytes fit."""
        self._sweep()
        if size > self._max_bytes:
            raise Unusable(f"it takes {_mb(size)}, more than the cap of {_mb(self._max_bytes)}")
        entries = sorted(self._entries.iterdir(), key=lambda folder: _last_use(self._locks / f"{folder.name}.use"))
        while self._taken() + size > self._max_bytes or shutil.disk_usage(self._folder).free < size:
            if not entries:
                free, taken = _mb(shutil.disk_usage(self._folder).free), _mb(self._taken())
                cap = _mb(self._max_bytes)
                raise Unusable(f"it takes {_mb(size)}, entries in use {taken} of {cap}, and the disk has {free} left")
            digest = entries.pop(0).name
            with contextlib.suppress(BlockingIOError), _locked(self._locks / f"{digest}.use", wait=False):
                self._throw_away(digest)

    def _throw_away(self, digest: str) -> None:
        """In two steps, so that nobody ever sees half an entry. Who has it mapped keeps it."""
        if (self._entries / digest).exists():
            gone = self._new_folder(digest)
            (self._entries / digest).rename(gone / "entry")
            shutil.rmtree(gone, ignore_errors=True)

    def _new_folder(self, digest: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{digest}.", dir=self._partial))

    def _sweep(self) -> None:
        """Removes what dead processes left."""
        for leftover in self._partial.iterdir():
            turn = self._locks / f"{leftover.name.partition('.')[0]}.turn"
            with contextlib.suppress(BlockingIOError), _locked(turn, wait=False):  # else its writer lives
                shutil.rmtree(leftover, ignore_errors=True)

    def _taken(self) -> int:
        """Bytes of all entries, and of those being written, whose files have their full length from the start."""
        total = 0
        for top in (self._entries, self._partial):
            for where, _, names in os.walk(top):
                for name in names:
                    with contextlib.suppress(OSError):
                        total += Path(where, name).stat().st_size
        return total


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Alone with a lock.

    Raises:
        BlockingIOError: Somebody else has it, and `wait` is false.
    """
    descriptor = _lock(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    try:
        yield
    finally:
        # Unlocked and not just closed: a loader's worker may have inherited it and outlive this for a moment.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _lock(path: Path, kind: int) -> int:
    """Locks a file, which is made if need be and never removed: two processes must mean the same one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _last_use(lock: Path) -> float:
    try:
        return lock.stat().st_mtime
    except OSError:
        return 0.0


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e6:.2g} MB"
