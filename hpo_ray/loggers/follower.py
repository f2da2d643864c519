"""Follows a run's journal, from its first event to its last or as it grows, and passes it on to loggers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from hpo_ray import events, journal, lock, plain
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.events import Event
from hpo_ray.history import History
from hpo_ray.loggers.sink import Sink

_BLOCK = 1 << 16


class Tail:
    """The reading end of a journal that may still grow.

    A last line without its end is left for later: it may be half an event, and its writer may take it back.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._offset = 0

    def read(self, *, to_end: bool = False) -> Iterator[Event]:
        """The events that are new since the last call; damaged lines and kinds of a newer version are left out.

        Args:
            to_end: There will be no more: a last line that lacks nothing but its end counts.

        Raises:
            InvalidInput: There is no journal, or it cannot be read.
        """
        try:
            with plain.open_inside(self._run_dir, journal.FILE_NAME) as file:
                size = file.seek(0, 2)
                end = size if to_end else _last_whole(file, self._offset, size)
                file.seek(self._offset)
                for lines, _ in plain.line_blocks(_Until(file, end)):  # type: ignore[arg-type]  # it only reads
                    for line in lines:
                        event = events.parse(line) if line else None
                        if event is not None and event["event"] in events.KNOWN:
                            yield event
                self._offset = max(self._offset, end)
        except (FileNotFoundError, NotADirectoryError):
            message = f"'{self._run_dir}' is not a run: it has no {journal.FILE_NAME}"
            raise InvalidInput(Problem("run", message)) from None
        except OSError as error:
            reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
            where = self._run_dir / journal.FILE_NAME
            raise InvalidInput(Problem("run", f"{where} cannot be read: {reason}")) from None


class Follower:
    """Passes a run's events on.

    Attributes:
        run: The run's history, up to the last event that was passed on.
        sinks: Who is still told; one that raised an error is told no more.
    """

    def __init__(self, run_dir: Path, sinks: Mapping[str, Sink], failed: Callable[[str, Exception], None]) -> None:
        """Follow `run_dir`.

        Args:
            run_dir: The run's folder.
            sinks: Name -> logger.
            failed: Called with the name of a logger that raised an error, and the error.
        """
        self.run = History(run_dir.absolute())
        self.sinks = dict(sinks)
        self._tail = Tail(run_dir)
        self._failed = failed

    def step(self, *, to_end: bool = False) -> None:
        """Pass on what the journal says by now.

        Args:
            to_end: Nothing more comes, or nobody waits for it: a run without a driver is over.

        Raises:
            InvalidInput: The journal cannot be read.
        """
        for event in self._tail.read(to_end=to_end):
            self.run.apply(event)
            self._each(lambda sink, event=event: sink.take(event, self.run))  # type: ignore[misc]
        over = self.run.ended is not None
        if to_end and not over and lock.holder(self.run.run_dir) is None:
            self.run.interrupt()
            over = True
        self._each(lambda sink: sink.flush(self.run, over=over))

    def close(self) -> None:
        """Let go of all that is open."""
        self._each(lambda sink: sink.close())
        self.sinks.clear()

    def _each(self, tell: Callable[[Sink], None]) -> None:
        for name, sink in list(self.sinks.items()):
            try:
                tell(sink)
            except Exception as error:  # a logger's own, of any kind: the others go on
                del self.sinks[name]
                sink.close()
                self._failed(name, error)


class _Until:
    """A file up to a place in it."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, self._end - self._file.tell())))


def _last_whole(file: BinaryIO, start: int, end: int) -> int:
    """Where the last line that has its end ends, from `start` on."""
    while end > start:
        begin = max(start, end - _BLOCK)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return start
