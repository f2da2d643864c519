"""Where run directories are: a path, a glob or a URI turned into folders; files in them opened so that none leads out.

Knows this machine's files and pyarrow's file systems; nothing of what the files hold.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hpo_ray import journal, plain
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.storage import address
from hpo_ray.storage.failures import told

_MAGIC = re.compile(r"[*?\[]")
# What Ray Tune puts into an experiment's folder: its state, readable, and a pickle that is never opened.
_TUNE = re.compile(r"experiment_state-.*\.json|tuner\.pkl")


@dataclass(frozen=True)
class Place:
    """A folder.

    Attributes:
        path: Where, as its file system says it.
        system: A `pyarrow.fs.FileSystem`; None: this machine's files.
    """

    path: str
    system: Any = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(os.path.abspath(self.path)).name if self.system is None else self.path.rstrip("/").split("/")[-1]  # noqa: PTH100

    @property
    def local(self) -> Path | None:
        """The folder on this machine; None if it is elsewhere."""
        return Path(self.path) if self.system is None else None

    def inner(self, name: str) -> Place:
        """A folder in it."""
        return Place(f"{self.path.rstrip('/')}/{name}" if self.path else name, self.system)

    def entries(self, *, links: bool = False) -> dict[str, bool]:
        """Name -> whether it is a folder, of all that lies in it; empty if it is not there, or no folder. One on this
        machine that may not be listed is empty too.

        Args:
            links: Take a link to a folder for one; else it is none.

        Raises:
            InvalidInput: It is elsewhere, and cannot be reached.
        """
        try:
            if self.system is None:
                with os.scandir(self.path or ".") as found:
                    return {entry.name: entry.is_dir(follow_symlinks=links) for entry in found}
            from pyarrow.fs import FileSelector, FileType

            listed = self.system.get_file_info(FileSelector(self.path))
            return {info.base_name: info.type == FileType.Directory for info in listed}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            if self.system is None:
                return {}
            raise InvalidInput(Problem("run", str(told(f"{self.system.type_name}://{self.path}", error)))) from None

    def open(self, *names: str) -> BinaryIO:
        """A file in it, for reading; never one that lies outside.

        Raises:
            OSError: It is not there, may not be read, or is no plain file in this folder.
        """
        if self.system is None:
            return plain.open_inside(self.path or ".", *names)
        stream: BinaryIO = self.system.open_input_stream("/".join((self.path.rstrip("/"), *names)))
        return stream

    def stat(self, *names: str) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds of a file in it.

        Raises:
            OSError: There is none.
        """
        if self.system is None:
            found = os.lstat(Path(self.path, *names))
            if not stat.S_ISREG(found.st_mode):
                raise OSError(0, "it is not a plain file")
            return found.st_size, found.st_mtime_ns
        info = self.system.get_file_info("/".join((self.path.rstrip("/"), *names)))
        if info.size is None:
            raise FileNotFoundError(2, "no such file")
        return info.size, info.mtime_ns or 0

    def __str__(self) -> str:
        return self.path


def is_run(names: dict[str, bool]) -> bool:
    """Whether a folder with these entries is a run of ours."""
    return not names.get(journal.FILE_NAME, True)


def is_tune(names: dict[str, bool]) -> bool:
    """Whether a folder with these entries is an experiment of plain Ray Tune."""
    return not is_run(names) and any(_TUNE.fullmatch(name) for name in names)


def find(pattern: str | os.PathLike[str]) -> list[Place]:
    """The run directories, ours and Ray Tune's, that a path, a glob or a URI names, in name order.

    ``**`` stands for any number of folders and enters neither links nor runs; names that begin with a dot are left out.

    Raises:
        InvalidInput: There are none, or the URI is none that pyarrow knows.
    """
    text = os.fspath(pattern)
    root, parts = _rooted(text)
    found = {place.path: place for place in _expand(root, parts)}
    if not found:
        expected = f"folders that hold {journal.FILE_NAME}, or Ray Tune's experiment_state-*.json"
        shown = address.shown(text) if address.is_uri(text) else text
        raise InvalidInput(Problem("run", f"no run found at '{shown}': expected {expected}"))
    return [found[path] for path in sorted(found, key=lambda path: path.split("/"))]


def _rooted(text: str) -> tuple[Place, list[str]]:
    """The folder before the first component with a wildcard, and the components from there."""
    if not address.is_uri(text):
        exact = is_run(Place(text).entries()) or is_tune(Place(text).entries())  # its name may have brackets
        head, tail = (text, []) if exact else _split(text)
        return Place(head), tail
    from pyarrow.fs import LocalFileSystem

    place, question, options = text.partition("?")  # in a URI it begins the options
    scheme, _, rest = place.partition("://")
    head, tail = _split(rest, re.compile(r"[*\[]"))
    uri = f"{scheme}://{head}{question}{options}"
    try:
        system, path = address.opened(uri)
        if isinstance(system, LocalFileSystem):
            system = None
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.scandir(path).close()
    except OSError as error:
        raise InvalidInput(Problem("run", str(told(uri, error)))) from None
    except (ValueError, NotImplementedError) as error:
        why = str(error).splitlines()[0].replace(uri, address.shown(uri))
        raise InvalidInput(Problem("run", f"'{address.shown(text)}' cannot be opened: {why}")) from None
    return Place(path, system), tail


def _split(text: str, magic: re.Pattern[str] = _MAGIC) -> tuple[str, list[str]]:
    parts = text.split("/")
    first = next((n for n, part in enumerate(parts) if magic.search(part)), len(parts))
    head = "/".join(parts[:first])
    return ("/" if not head and first and text.startswith("/") else head), [part for part in parts[first:] if part]


def _expand(place: Place, parts: list[str]) -> Iterator[Place]:
    """The runs that lie below a folder along these components."""
    names = place.entries(links=True)
    if not parts:
        if is_run(names) or is_tune(names):
            yield place
        return
    head, *tail = parts
    if head == "**":
        yield from _expand(place, tail)
        if not (is_run(names) or is_tune(names)):
            for name in (name for name, folder in place.entries().items() if folder and not name.startswith(".")):
                yield from _expand(place.inner(name), parts)
    elif not _MAGIC.search(head):
        yield from _expand(place.inner(head), tail)
    else:
        for name, folder in names.items():
            hidden = name.startswith(".") and not head.startswith(".")
            if folder and not hidden and fnmatch.fnmatchcase(name, head):
                yield from _expand(place.inner(name), tail)
