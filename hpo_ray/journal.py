"""The run directory's event log: append-only, one JSON object a line, readable while the run lives and after it died.

Knows no Ray, no pandas, and nothing of what the events mean; nothing in it is ever pickled.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo_ray import events, plain
from hpo_ray.errors import InvalidInput, Problem, RunFailed, nearest

Event = events.Event
FILE_NAME = "events.jsonl"
VERSION = 1
# Each event is written at once, so that a killed driver loses nothing; the disk is made to keep it at most this often.
SYNC_PERIOD_S = 0.5
# Neighbours of a path that is no run, among which the one that was meant is looked for.
MOST_LOOKED_AT = 1000
# How often a full disk is tried again.
FULL_PERIOD_S = 2.0
_FULL = "waiting until there is room (Ctrl-C ends the sweep, which can be resumed)"


class Journal:
    """The writing end of a run's log.

    Use as a context manager; `listener` is called with every event after it was written.

    Attributes:
        path: The file.
        offset: Its length in bytes.
        patient: Whether to wait for room when the disk is full; else that is an error like any other.
    """

    def __init__(
        self,
        run_dir: Path,
        listener: Callable[[Event], None] | None = None,
        on_full: Callable[[str], None] | None = None,
    ) -> None:
        """Open the log of `run_dir` (made if missing) to append to it; a torn last line is cut off first.

        Args:
            run_dir: The run's folder.
            listener: Called with each event.
            on_full: Called with a message, once each time that the disk is full; None: a full disk is an error.

        Raises:
            InvalidInput: Another process writes to it, or it cannot be written to.
        """
        self.path = run_dir / FILE_NAME
        self.patient = on_full is not None
        self._listener = listener
        self._on_full = on_full
        self._synced_at = time.monotonic()
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk has not taken must not wait in memory to be written twice.
            self._file = self.path.open("ab", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _mend_tail(self.path)
            self.offset = self.path.stat().st_size
        except BlockingIOError:
            self._file.close()
            raise InvalidInput(Problem("run", f"another process is writing to '{run_dir}': stop it first")) from None
        except OSError as error:
            message = f"'{run_dir}' cannot be written to: {error.strerror}"
            raise InvalidInput(Problem("run", message)) from None

    def append(self, event: str, **fields: object) -> Event:
        """Write one event and pass it on. A full disk is waited for (see `patient`): nothing is ever half written.

        Args:
            event: One of the kinds in the contract, e.g. ``trial_reported``.
            **fields: JSON-able values; NaN and infinities become strings, paths become text.

        Returns:
            The event as a reader will see it.

        Raises:
            RunFailed: The disk took no more (full, or gone).
        """
        record: Event = {"v": VERSION, "time": round(time.time(), 3), "event": event, **fields}
        line = json.dumps(encode(record), allow_nan=False, separators=(",", ":"))
        try:
            self._write(line.encode() + b"\n")
            if time.monotonic() - self._synced_at > SYNC_PERIOD_S:
                self._sync()
        except OSError as error:
            raise RunFailed(f"the journal {self.path} cannot be written: {error.strerror}") from error
        seen: Event = events.parse(line.encode()) or json.loads(line)
        if self._listener is not None:
            self._listener(seen)
        return seen

    def close(self) -> None:
        """Make the disk write what is left, and close the file. Never raises: what could be kept, was."""
        try:
            self._sync()
        except (OSError, ValueError):
            pass
        finally:
            self._file.close()

    def _write(self, data: bytes) -> None:
        said = False
        while True:
            try:
                left = data
                while left:
                    left = left[self._file.write(left) :]
                self.offset += len(data)
                return
            except BaseException as error:  # an interruption, too, must leave no half line
                os.ftruncate(self._file.fileno(), self.offset)
                full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not full or not self.patient or self._on_full is None:
                    raise
            if not said:
                self._on_full(f"the disk that holds '{self.path.parent}' is full: {_FULL}")
                said = True
            time.sleep(FULL_PERIOD_S)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class Log:
    """What a reader found.

    Attributes:
        run_dir: The run's folder.
        events: In order. Kinds from a newer version are left out.
        damaged: How many lines could not be read; a killed driver leaves at most one, the last. Likewise a line that is
            longer than `plain.LINE_LIMIT`, and an event that is not as `events` wants it.
    """

    run_dir: Path
    events: list[Event]
    damaged: int = 0


def read(run_dir: Path, offset: int = 0) -> Log:
    """Read a run's events, whether it is live, finished or dead.

    Args:
        run_dir: The run's folder.
        offset: Bytes at the file's start to leave out: whole lines.

    Raises:
        InvalidInput: `run_dir` holds no journal, or one that may not be read.
    """
    found, damaged = [], 0
    try:
        with plain.open_inside(run_dir, FILE_NAME) as file:
            file.seek(offset)
            for lines, too_long in plain.line_blocks(file):
                damaged += too_long
                for line in lines:
                    if not line or line.isspace():
                        continue
                    event = events.parse(line)
                    if event is None:
                        damaged += 1
                    elif event["event"] in events.KNOWN:
                        found.append(event)
    except (FileNotFoundError, NotADirectoryError):
        message = f"'{run_dir}' is not a run: it has no {FILE_NAME}{_what_else(run_dir)}"
        raise InvalidInput(Problem("run", message)) from None
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise InvalidInput(Problem("run", f"{run_dir / FILE_NAME} cannot be read: {reason}")) from None
    return Log(run_dir, found, damaged)


def find_runs(pattern: str | os.PathLike[str]) -> list[Path]:
    """The run directories that a path or glob names, in name order.

    Raises:
        InvalidInput: There are none.
    """
    path = Path(pattern)
    if (path / FILE_NAME).is_file():
        return [path]
    found = sorted(folder for folder in _glob(str(pattern)) if (folder / FILE_NAME).is_file())
    if not found:
        message = f"no run found at '{pattern}': expected folders that hold {FILE_NAME}{_what_else(path)}"
        raise InvalidInput(Problem("run", message))
    return found


def _what_else(path: Path) -> str:
    """What a path that is no run may have been meant for, as the end of a sentence."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        return "; runs at a URI are for `hpo-ray resume` and `export`, and `hpo_ray.load_results`"
    with contextlib.suppress(OSError, ValueError):
        if any(path.glob("experiment_state-*.json")):
            return "; it is plain Ray Tune's, which `load_results` and `hpo-ray export` read"
        if any((folder / FILE_NAME).is_file() for folder in itertools.islice(path.glob("*"), MOST_LOOKED_AT)):
            return f"; its folders are runs: '{path}/*'"
        beside = itertools.islice(path.absolute().parent.glob("*"), MOST_LOOKED_AT)
        runs = [str(path.parent / folder.name) for folder in beside if (folder / FILE_NAME).is_file()]
        return f"; {nearest(str(path), runs)}" if runs and not glob.has_magic(str(path)) else ""
    return ""


def encode(value: Any) -> Any:
    """`value` as plain JSON data: non-finite floats as strings, tuples as lists, numpy and paths as plain values."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if hasattr(value, "item"):  # numpy scalar
        return encode(value.item())
    return str(value)


def _mend_tail(path: Path) -> None:
    """End a last line that lacks nothing but its end, as readers have counted it; drop one that was torn.

    A later append would otherwise spoil a good event too.
    """
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if events.parse(data[whole:]) is not None:
        with path.open("ab", buffering=0) as file:
            file.write(b"\n")
    elif whole < len(data):
        os.truncate(path, whole)


def _glob(pattern: str) -> Iterator[Path]:
    # Path.glob takes no absolute pattern.
    return (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
