"""Folders that hold a trial's state: saved whole or not at all, and verified before they are used.

Knows files and their checksums; nothing of what a checkpoint holds, of trials, of the journal or of Ray.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpo_ray.trainables.faults import DiskFull, is_disk_full

# Written last: a folder without it was not finished.
MANIFEST = ".complete.json"
_CHUNK_BYTES = 2**20


def save(folder: Path, fidelity: float, write: Callable[[Path], None]) -> Path:
    """Saves a checkpoint as ``<folder>/checkpoint-<fidelity>``, on disk when this returns.

    A kill or a power cut at any moment leaves no such folder, or a whole one.

    Args:
        folder: Where; made if need be.
        fidelity: How far training got.
        write: Called with an empty folder to write into.

    Returns:
        The checkpoint's folder.

    Raises:
        DiskFull: There is no room; what was written so far is gone again.
        Exception: Whatever `write` raises; likewise.
    """
    name = str(int(fidelity)) if fidelity.is_integer() else repr(fidelity)
    final, partial = folder / f"checkpoint-{name}", folder / f".partial-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        _seal(partial, fidelity)
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
        _sync_folder(folder)
    except Exception as error:
        full = is_disk_full(error, partial)
        shutil.rmtree(partial, ignore_errors=True)
        if full:
            raise DiskFull(f"no room to save checkpoint {fidelity:g} in '{folder}'") from error
        raise
    return final


def verify(folder: Path) -> str:
    """What is wrong with a checkpoint, in one line; empty if it is as it was saved. Reads all of it."""
    if not folder.is_dir():
        return "it is missing"
    try:
        manifest = _manifest(folder)
        files = [(name, int(size), int(crc)) for name, (size, crc) in manifest["files"].items()]
        float(manifest["fidelity"])
    except FileNotFoundError:
        return f"it was not saved to its end: there is no {MANIFEST}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read: {type(error).__name__}: {error}"
    for name, size, crc in files:
        path = folder / name
        try:
            found = path.stat().st_size
            if found != size:
                return f"its file '{name}' has {found} bytes, {size} were saved"
            if _crc(path) != crc:
                return f"the contents of its file '{name}' have changed since it was saved"
        except FileNotFoundError:
            return f"its file '{name}' is missing"
        except OSError as error:
            return f"its file '{name}' cannot be read: {error.strerror}"
    return ""


def fidelity_of(folder: Path) -> float:
    """How far training had got when a checkpoint, one that `verify` found good, was saved."""
    return float(_manifest(folder)["fidelity"])


def _manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))


def _seal(folder: Path, fidelity: float) -> None:
    """Write down what was saved, and see all of it onto the disk."""
    found = [path for path in sorted(folder.rglob("*")) if path.name != MANIFEST]
    files = {}
    for path in found:
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = [path.stat().st_size, _crc(path, sync=True)]
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({"fidelity": fidelity, "files": files}, file)
        file.flush()
        os.fsync(file.fileno())
    for path in [*found, folder]:
        if path.is_dir():
            _sync_folder(path)


def _crc(path: Path, *, sync: bool = False) -> int:
    """A file's CRC-32; `sync`: once it is on the disk."""
    crc = 0
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def _sync_folder(folder: Path) -> None:
    """See a folder's list of files onto the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks can't, and need not
            raise
    finally:
        os.close(number)
