"""Checkpoints to a store and back: their list of files goes last and comes first, so that one that is there is whole.

Knows a checkpoint's list of files, not what is in them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hpo_ray.storage.store import Store

# What `trainables.checkpoints` puts into each.
MANIFEST = ".complete.json"


def push(store: Store, name: str, folder: Path) -> None:
    """Copy a checkpoint into a store.

    Args:
        store: The run's.
        name: Where in it, e.g. ``trials/0007/attempt-0/checkpoint-3``.
        folder: Where it lies here.

    Raises:
        Unreachable: The store, that is; it holds no such checkpoint then.
        OSError: The checkpoint cannot be read.
    """
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        store.put(f"{name}/{file.relative_to(folder).as_posix()}", file)
    store.write(f"{name}/{MANIFEST}", (folder / MANIFEST).read_bytes())


def pull(store: Store, name: str, folder: Path) -> bool:
    """Copy a checkpoint from a store, in the place of what may be left of it here; whether it was there.

    One that is whole here is left as it is: another process that fetched it may be reading it.

    Raises:
        Unreachable: The store, that is.
        OSError: There is no room for it here.
    """
    partial = folder.parent / f".partial-{folder.name}-{os.getpid()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    manifest = b""
    with _alone_in(folder.parent):
        try:
            manifest = store.read(f"{name}/{MANIFEST}")
            files = _files(manifest)
            if _is_whole(folder, manifest):
                return True
            for file in files:
                store.get(f"{name}/{file}", partial / file)
            partial.mkdir(parents=True, exist_ok=True)
            (partial / MANIFEST).write_bytes(manifest)
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        except (FileNotFoundError, ValueError):
            return False
        except OSError as error:
            # Where a network disk locks nothing another of the trial's processes may have been as quick.
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and _is_whole(folder, manifest):
                return True
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return True


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other process of this machine is; where the disk cannot lock, several may be."""
    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _is_whole(folder: Path, manifest: bytes) -> bool:
    """Whether a checkpoint lies here as its manifest says. Reads all of it."""
    try:
        if (folder / MANIFEST).read_bytes() != manifest:
            return False
        for name, (size, crc) in json.loads(manifest)["files"].items():
            if (folder / name).stat().st_size != size or _crc(folder / name) != crc:
                return False
    except (OSError, AttributeError, TypeError, ValueError):
        return False
    return True


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc


def _files(manifest: bytes) -> list[str]:
    """The files that a manifest names; it may be a stranger's.

    Raises:
        ValueError: It names none, or some outside its folder.
    """
    try:
        names = [str(name) for name in json.loads(manifest)["files"]]
    except (KeyError, TypeError) as error:
        raise ValueError from error
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise ValueError
    return names
