"""A run's journal at its URI, kept up to date by a process of its own; and the driver's end of that process.

The driver never waits for the storage: it starts the process, passes on what it says, and tells it at the end that the
journal is complete. Should the driver die, the process copies what is left and gives up the run's lock at the URI.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hpo_ray import journal, lock
from hpo_ray.beside import Process, stand_back
from hpo_ray.storage.carrying import MANIFEST
from hpo_ray.storage.copied import Copy, Diverged
from hpo_ray.storage.failures import Unreachable
from hpo_ray.storage.holding import PATIENCE_S, RETRY_S
from hpo_ray.storage.store import Store

# A journal that grows is copied this often, but for one that takes long: at most a tenth of the time is spent copying.
PERIOD_S = 4.0
SHARE = 10.0
TICK_S = 0.5
# A process that dies is started again after these pauses, if it does not live long: then at the run's end only.
AGAIN_S = (1.0, 5.0, 30.0, 60.0)
LIVED_S = 600.0
LAST_TRIES = 2
# Of more checkpoints than that it is asked first which are there.
MANY = 20
_LOOK_S = 0.2


class Mirror:
    """The driver's end. `messages` are lines for the user."""

    def __init__(self, run_dir: Path, uri: str) -> None:
        """Start the process; never raises.

        Args:
            run_dir: The run's folder, with its journal begun and its lock held, there and at the URI.
            uri: Where the run is kept besides.
        """
        self.messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._run_dir = run_dir
        self._uri = uri
        self._forgotten: list[str] = []
        self._tasks: queue.SimpleQueue[dict[str, str] | None] = queue.SimpleQueue()
        self._process: Process | None = None
        self._why = ""  # of its death
        self._deaths = 0
        self._closing = False
        self._guard = threading.RLock()
        with self._guard:
            self._start()

    def forget(self, path: str) -> None:
        """Have a checkpoint deleted at the URI, once the journal there says why it is not needed any more."""
        with self._guard:
            self._forgotten.append(path)
            self._tasks.put({"delete": path})

    def close(self, look: Callable[[], None]) -> None:
        """Say that the journal is complete, and wait until it is at the URI, for `PATIENCE_S` while it is away.

        Args:
            look: Called now and then meanwhile; what it raises ends the waiting, not the copying.
        """
        for _ in range(LAST_TRIES):
            with self._guard:
                self._closing = True
                if self._why:
                    self._start()
                self._tasks.put({"end": "end"})
                self._tasks.put(None)
            while self._process is not None and not self._process.wait(_LOOK_S):
                look()
            if not self._why:
                return
        way = f"`hpo-ray resume {self._run_dir}` brings the journal there up to date"
        self.messages.put(f"the run's end is not at its storage: {self._why}; {way}")

    def _start(self) -> None:
        self._why, self._tasks = "", queue.SimpleQueue()
        for path in self._forgotten:  # nobody knows how many of them one that has died came to
            self._tasks.put({"delete": path})
        self._began = time.monotonic()
        try:
            self._process = Process(__name__, str(self._run_dir), self._uri, hear=self.messages.put, gone=self._gone)
        except OSError as error:
            self._gone(f"its process cannot be started: {error.strerror}")
            return
        threading.Thread(target=_tell, args=(self._process, self._tasks), name="storage-tasks", daemon=True).start()

    def _gone(self, why: str) -> None:
        with self._guard:
            self._why = why
            self._tasks.put(None)
            self._deaths = 1 if time.monotonic() - self._began > LIVED_S else self._deaths + 1
            if self._closing:
                return
            if self._deaths > len(AGAIN_S):
                self.messages.put(f"the storage is no longer written to: {why}; it is tried again when the run ends")
                return
            self.messages.put(f"the storage was not written to: {why}, and is started again")
            timer = threading.Timer(AGAIN_S[self._deaths - 1], self._again)
            timer.daemon = True
            timer.start()

    def _again(self) -> None:
        with self._guard:
            if self._why and not self._closing:
                self._start()


def _tell(process: Process, tasks: queue.SimpleQueue[dict[str, str] | None]) -> None:
    """Pass tasks on, in a thread of its own: a pipe whose reader waits for the storage takes only so much."""
    with contextlib.suppress(OSError, ValueError):
        while (task := tasks.get()) is not None:
            process.tell(json.dumps(task))


class Copier:
    """Copies a journal as it grows, and keeps the lock beside the copy alive. What it has to say it tells once."""

    def __init__(self, run_dir: Path, store: Store, say: Callable[[str], None]) -> None:
        """Args: the run's folder, its store, and what takes lines for the user.

        Raises:
            OSError: There is no journal, or no lock.
        """
        self._run_dir = run_dir
        self._store = store
        self._say = say
        # Held open: of a killed driver's run, even one that was deleted, what is there can be copied.
        self._journal: BinaryIO = (run_dir / journal.FILE_NAME).open("rb", buffering=0)
        self._lock = (run_dir / lock.FILE_NAME).read_bytes()
        self._copy = Copy(store)
        self._seen = self._copied = -1
        self._due = self._beat_at = -math.inf
        self._condemned: list[str] = []
        self._away_since: float | None = None
        self.superseded = False

    def condemn(self, path: str) -> None:
        """A checkpoint is to be deleted, after the next copy."""
        if path not in self._condemned:
            self._condemned.append(path)

    @property
    def complete(self) -> bool:
        """Whether all is done."""
        return self._seen == os.fstat(self._journal.fileno()).st_size and not self._condemned

    def step(self, *, now: bool = False) -> None:
        """Copy if there is something new and it is time, or `now`; never raises for the storage's sake."""
        began = time.monotonic()
        copy = (now or began >= self._due) and not self.complete
        beat = began - self._beat_at >= lock.BEAT_S
        if not (copy or beat) or self.superseded:
            return
        try:
            if not self._locked() or beat:
                self._store.write(lock.FILE_NAME, self._lock)
                self._beat_at = began
            if copy:
                self._catch_up()
        except Diverged as error:
            self._give_way(error)
            return
        except Unreachable as error:
            self._due = time.monotonic() + RETRY_S
            if self._away_since is None:
                self._away_since = time.monotonic()
                self._say(f"{error}; it is tried again, nothing is lost")
            return
        if copy:
            ended = time.monotonic()
            self._due = ended + max(PERIOD_S, (SHARE - 1) * (ended - began))
        if self._away_since is not None:
            self._say(f"storage '{self._store}' is back after {time.monotonic() - self._away_since:.0f} s")
            self._away_since = None

    def release(self) -> None:
        """Give the lock at the URI up; never raises."""
        try:
            if not self.superseded and self._locked():
                self._store.delete(lock.FILE_NAME)
        except Diverged as error:
            self._give_way(error)
        except Unreachable:
            pass

    def _catch_up(self) -> None:
        doomed = list(self._condemned)  # what comes meanwhile may be for a reason that this copy does not hold
        data = self._read()
        whole = data.rfind(b"\n") + 1
        if whole != self._copied:
            self._copy.write(data[:whole])
            self._copied = whole
        else:
            self._copy.check(data)
        self._seen = len(data)
        there = set(doomed)
        if len(doomed) > MANY:  # told again, after another process's death, perhaps: most are gone
            there = {"/".join(("trials", *name.split("/")[:3])) for name in self._store.files("trials")}
        for path in doomed:
            if path in there:
                self._store.delete(path, first=MANIFEST)
            self._condemned.remove(path)

    def _locked(self) -> bool:
        """Whether the lock there is this driver's. One that is gone may have been another driver's, which went on with
        the run and is done: it is not taken for nobody's before what is there was looked at.

        Raises:
            Diverged: The run is another driver's.
        """
        try:
            found = self._store.read(lock.FILE_NAME)
        except FileNotFoundError:
            self._copy.check(self._read())
            return False
        if found != self._lock:
            who: object = "another driver"
            with contextlib.suppress(ValueError):
                who = lock.holder_of(json.loads(found))
            raise Diverged(f"{who} has taken it over")
        return True

    def _give_way(self, error: Diverged) -> None:
        """The run is another driver's: nothing is written there any more, and this driver is asked to end."""
        self.superseded = True
        why = str(error) or f"it went on elsewhere, with what '{self._run_dir}' does not have"
        self._say(f"storage '{self._store}': the run is no longer this driver's, which ends: {why}")
        with contextlib.suppress(OSError):
            if (self._run_dir / lock.FILE_NAME).read_bytes() == self._lock:  # else that driver works here
                lock.ask_to_stop(self._run_dir)

    def _read(self) -> bytes:
        self._journal.seek(0)
        parts = []
        while part := self._journal.read(8 << 20):
            parts.append(part)
        return b"".join(parts)


def keep(run_dir: Path, uri: str) -> None:
    """Copy a run's journal as it grows, until the driver says on standard input that it is done, or is dead."""
    stand_back()

    def say(text: str) -> None:
        with contextlib.suppress(OSError):  # the driver may be gone
            print(text, flush=True)  # noqa: T201  # to the driver

    copier = Copier(run_dir, Store(uri), say)
    os.set_blocking(0, False)
    rest, over = b"", False
    while not over and not copier.superseded:
        ready, _, _ = select.select([0], [], [], TICK_S)
        block = os.read(0, 1 << 16) if ready else None
        over = block == b""
        *lines, rest = (rest + (block or b"")).split(b"\n")
        for task in map(json.loads, lines):
            if "delete" in task:
                copier.condemn(task["delete"])
            else:
                over = True
        if not over:
            copier.step()
    deadline, said = time.monotonic() + PATIENCE_S, False
    while not (copier.complete or copier.superseded) and time.monotonic() < deadline:
        copier.step(now=True)
        if not (copier.complete or copier.superseded):
            if not said:
                say(
                    f"the run's end is not yet at its storage: waiting for it, {PATIENCE_S:g} s at most "
                    "(Ctrl-C leaves that to the background)"
                )
            said = True
            time.sleep(RETRY_S)
    if not (copier.complete or copier.superseded):
        say(f"the run's end is not at its storage; later, `hpo-ray resume {run_dir}` brings it there")
    copier.release()


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2])
