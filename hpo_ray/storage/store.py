"""A folder at a URI: files written whole or not at all, read, listed and deleted; one kind of error for all that fails.

Knows pyarrow's file systems, nothing of what the files hold.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpo_ray.storage import address
from hpo_ray.storage.failures import Unreachable, told

# Where a file becomes visible only when it was written to its end; elsewhere it is renamed then.
_ATOMIC = ("s3", "gcs", "abfs")
_CHUNK_BYTES = 8 << 20
_PROBE = ".hpo-ray-probe"


class Store:
    """A folder at a URI. It is opened when it is first used, so that making one never waits or fails."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: tuple[Any, str] | None = None

    def __str__(self) -> str:
        return address.shown(self.uri)

    def read(self, name: str) -> bytes:
        """A file's contents.

        Raises:
            FileNotFoundError: There is none.
            Unreachable: The storage, that is.
        """
        with self._reaching(), self._system.open_input_stream(self._at(name)) as file:
            return bytes(file.read())

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in the place of one that is there.

        Raises:
            Unreachable: The storage, that is.
        """
        with self._writing(name) as file:
            file.write(data)

    def put(self, name: str, source: Path) -> None:
        """Copy a file of this machine's there. One that cannot be read to its end leaves a file that is cut short.

        Raises:
            OSError: It cannot be read.
            Unreachable: The storage, that is.
        """
        with source.open("rb") as local, self._writing(name) as file:
            while chunk := local.read(_CHUNK_BYTES):
                file.write(chunk)

    def get(self, name: str, target: Path) -> None:
        """Copy a file to this machine.

        Raises:
            FileNotFoundError: There is none.
            Unreachable: The storage, that is.
            OSError: It cannot be written here.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._reaching():
            file = self._system.open_input_stream(self._at(name))
        with file, target.open("wb") as local:
            while True:
                with self._reaching():
                    chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    break
                local.write(chunk)
            local.flush()
            os.fsync(local.fileno())

    def changed(self, name: str) -> float | None:
        """When a file was last written, in Unix seconds by the storage's clock; None if there is none.

        Raises:
            Unreachable: The storage, that is.
        """
        stamp = self.stamp(name)
        return None if stamp is None else stamp[1] / 1e9

    def stamp(self, name: str) -> tuple[int, int] | None:
        """A file's size in bytes and when it was last written, in nanoseconds by the storage's clock; None if there
        is none.

        Raises:
            Unreachable: The storage, that is.
        """
        with self._reaching():
            info = self._system.get_file_info(self._at(name))
        return None if info.mtime_ns is None or info.size is None else (info.size, info.mtime_ns)

    def check(self) -> None:
        """See that the place can be listed, be there something in it or not: a file that is missing tells less.

        Raises:
            Unreachable: It cannot, or its bucket is not there.
        """
        from pyarrow.fs import FileSelector

        with contextlib.suppress(FileNotFoundError), self._reaching():
            self._system.get_file_info(FileSelector(self._at("")))

    def files(self, folder: str) -> list[str]:
        """The names of all files below a folder, from there; empty if there is no such folder.

        Raises:
            Unreachable: The storage, that is.
        """
        from pyarrow.fs import FileSelector, FileType

        base = self._at(folder)
        with self._reaching():
            found = self._system.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
        return [info.path[len(base) :].lstrip("/") for info in found if info.type == FileType.File]

    def delete(self, folder: str, first: str = "") -> None:
        """Delete a folder, or a file, if it is there; `first`: the file in it that goes before all others.

        Raises:
            Unreachable: The storage, that is.
        """
        from pyarrow.fs import FileType

        with self._reaching(), contextlib.suppress(FileNotFoundError):
            if first:
                with contextlib.suppress(FileNotFoundError):
                    self._system.delete_file(self._at(f"{folder}/{first}"))
            kind = self._system.get_file_info(self._at(folder)).type
            if kind == FileType.Directory:
                self._system.delete_dir(self._at(folder))
            elif kind == FileType.File:
                self._system.delete_file(self._at(folder))

    def now(self) -> float:
        """What the storage's clock says, in Unix seconds; shows that it can be written to, read and deleted from.

        Raises:
            Unreachable: The storage, that is.
        """
        name, data = f"{_PROBE}-{os.getpid()}", os.urandom(16)
        self.write(name, data)
        try:
            changed = self.changed(name)
            if changed is None or self.read(name) != data:
                raise Unreachable(f"storage '{self}' does not give back what was written to it")
        except FileNotFoundError:
            raise Unreachable(f"storage '{self}' does not give back what was written to it") from None
        finally:
            with contextlib.suppress(Unreachable):
                self.delete(name)
        return changed

    @property
    def _system(self) -> Any:
        if self._opened is None:
            self._opened = address.opened(self.uri)
        return self._opened[0]

    def _at(self, name: str) -> str:
        """The path of something in the folder, as the file system has it."""
        assert self._opened is not None or self._system is not None
        return f"{self._opened[1].rstrip('/')}/{name}".rstrip("/") if self._opened else name

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Any]:
        with self._reaching(missing=False):
            system, path = self._system, self._at(name)
            if system.type_name in _ATOMIC:
                with system.open_output_stream(path) as file:
                    yield file
                return
            partial = f"{path}.{os.getpid()}.partial"
            system.create_dir(path.rpartition("/")[0], recursive=True)
            with system.open_output_stream(partial) as file:
                yield file
            system.move(partial, path)

    @contextlib.contextmanager
    def _reaching(self, *, missing: bool = True) -> Iterator[None]:
        """All that fails is `Unreachable`; but for a file that is not there, where that is an answer."""
        try:
            yield
        except FileNotFoundError as error:
            if missing:
                raise
            raise told(self.uri, error) from error
        except Unreachable:
            raise
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own are among these
            raise told(self.uri, error) from error
