"""Who works on a run that is kept at a URI, and how a run is brought from there: one driver at a time, on any machine.

Knows the lock's and the journal's files, nothing of what the events mean.
"""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from hpo_ray import journal, lock, plain
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.storage import address
from hpo_ray.storage.carrying import MANIFEST, push
from hpo_ray.storage.copied import Copy, Diverged
from hpo_ray.storage.failures import Refused, Unreachable
from hpo_ray.storage.store import Store

KEY = "storage.uri"
# A storage that was good and is away is tried again so often, and for so long where a run waits for it.
RETRY_S = 2.0
PATIENCE_S = 300.0
# Beside a journal that came from a URI: how long it was then.
_BROUGHT = ".brought"


def check_new(uri: str) -> None:
    """See that a new run can be kept at a URI: it is written to, read back, and holds none yet.

    Raises:
        InvalidInput: It cannot.
    """
    store = Store(uri)
    try:
        store.now()
        if store.changed(journal.FILE_NAME) is not None:
            name = address.split(uri)[1]
            raise InvalidInput(Problem(KEY, f"'{store}' already holds a run called '{name}': choose another --out"))
    except Unreachable as error:
        raise InvalidInput(Problem(KEY, _advised(error))) from None


def claim(uri: str, run_dir: Path, say: Callable[[str], None] | None = None) -> list[str]:
    """Take a run's lock at its URI, as this machine's driver, which holds the one in `run_dir`.

    Args:
        uri: The run's.
        run_dir: Its folder here.
        say: Told once that the place, which was good before, cannot be reached: it is waited for. None: it is not.

    Returns:
        The checkpoints that are there, as paths from the run's folder.

    Raises:
        InvalidInput: Another driver holds it, or has gone on with the run; or the place cannot be written to.
    """
    store, deadline, said = Store(uri), time.monotonic() + PATIENCE_S, False
    while True:
        try:
            return _claim(store, run_dir)
        except Unreachable as error:
            if say is None or isinstance(error, Refused) or time.monotonic() > deadline:
                raise InvalidInput(Problem(KEY, _advised(error))) from None
            if not said:
                say(f"{error}; waiting for it, {PATIENCE_S:g} s at most")
            said = True
            time.sleep(RETRY_S)


def _claim(store: Store, run_dir: Path) -> list[str]:
    _refuse_living(store)
    try:
        Copy(store).check((run_dir / journal.FILE_NAME).read_bytes())
    except Diverged:
        raise _elsewhere(store, run_dir) from None
    store.write(lock.FILE_NAME, (run_dir / lock.FILE_NAME).read_bytes())
    return checkpoints(store)


def carry(uri: str, run_dir: Path, paths: Iterable[str], there: Iterable[str]) -> None:
    """Copy the checkpoints to a URI that it does not have: the run has not been kept there from its beginning.

    Args:
        uri: The run's.
        run_dir: Its folder here.
        paths: The checkpoints, from there. Those that do not lie here are left out.
        there: Those that the URI has.

    Raises:
        InvalidInput: The place cannot be written to, or a checkpoint cannot be read.
    """
    store = Store(uri)
    try:
        for path in set(paths) - set(there):
            if (run_dir / path / MANIFEST).is_file():
                push(store, path, run_dir / path)
    except Unreachable as error:
        raise InvalidInput(Problem(KEY, _advised(error))) from None
    except OSError as error:
        raise InvalidInput(Problem("run", f"'{run_dir}' cannot be read: {error.strerror}")) from None


def catch_up(uri: str, run_dir: Path, paths: Iterable[str]) -> None:
    """Bring what is at the URI up to date with a run which has ended; `paths`: its checkpoints, from its folder.

    Raises:
        InvalidInput: The run went on elsewhere, or the place cannot be written to.
    """
    store, here = Store(uri), (run_dir / journal.FILE_NAME).read_bytes()
    copy = Copy(store)
    try:
        if copy.check(here) != len(here):
            _refuse_living(store)
            carry(uri, run_dir, paths, checkpoints(store))
            copy.write(here)
    except Diverged:
        raise _elsewhere(store, run_dir) from None
    except Unreachable as error:
        raise InvalidInput(Problem(KEY, _advised(error))) from None


def bring(uri: str, out: Path | None) -> Path:
    """Bring a run's journal from its URI into a folder of this machine, to go on with it; its checkpoints stay there
    until a trial needs one.

    Args:
        uri: The run's, ``<storage.uri>/<name>``.
        out: The folder; None: ``runs/<name>``. One that holds this run already is brought up to date.

    Raises:
        InvalidInput: There is no such run, its driver lives, or the folder holds something else.
    """
    wrong = address.problem_of(uri)
    if wrong:
        raise InvalidInput(Problem("run", wrong))
    store, run_dir = Store(uri), (out or Path("runs") / address.split(uri)[1]).absolute()
    key = "--out" if out is not None else "runs"
    try:
        try:
            data = store.read(journal.FILE_NAME)
        except FileNotFoundError:
            store.check()
            raise InvalidInput(Problem("run", f"'{store}' is not a run: it has no {journal.FILE_NAME}")) from None
        _refuse_living(store)
        found = checkpoints(store)
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / journal.FILE_NAME
        if not path.exists() and any(run_dir.iterdir()):
            raise InvalidInput(Problem(key, f"'{run_dir}' is not empty: choose another folder"))
        with path.open("a+b") as file:  # as a driver holds it; what it does not have is added, nothing is replaced
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            here = file.read()
            if not here.startswith(data):
                if not data.startswith(here):
                    raise InvalidInput(Problem(key, f"'{run_dir}' holds another run: choose another folder with --out"))
                if lock.holder(run_dir) is not None:
                    raise BlockingIOError
            (run_dir / _BROUGHT).write_text(str(max(len(here), len(data))))
            file.write(data[len(here) :])
        for name in found:  # their numbers are taken: see `attempts.next_number`
            (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
    except Unreachable as error:
        raise InvalidInput(Problem("run", _advised(error))) from None
    except BlockingIOError:
        raise InvalidInput(Problem("run", f"'{run_dir}' is still running: stop it first")) from None
    except OSError as error:
        raise InvalidInput(Problem(key, f"'{run_dir}' cannot be used: {error.strerror}")) from None
    return run_dir


def is_brought(run_dir: Path) -> bool:
    """Whether all that a run's journal says last came from a URI: nobody has gone on with it here since."""
    try:
        brought = int(plain.document(run_dir, _BROUGHT))
        return (run_dir / journal.FILE_NAME).stat().st_size <= brought + 1  # a last line's end may be added
    except (OSError, TypeError, ValueError):
        return False


def checkpoints(store: Store) -> list[str]:
    """The checkpoints in a run's store, as paths from its folder.

    Raises:
        Unreachable: The store, that is.
    """
    found = []
    for name in store.files("trials"):
        parts = name.split("/")
        # trials/<id>/attempt-<n>/checkpoint-<f>/.complete.json; a stranger may have put anything there
        ours = len(parts) == 4 and parts[0].isdigit() and parts[1].startswith("attempt-") and ".." not in parts
        if ours and parts[2].startswith("checkpoint-") and parts[3] == MANIFEST:
            found.append("/".join(("trials", *parts[:3])))
    return found


def _refuse_living(store: Store) -> None:
    """See that a run at a URI has no living driver but this one, by the rules of `lock.holder`."""
    try:
        found = lock.holder_of(plain.loads(store.read(lock.FILE_NAME)))
        touched = store.changed(lock.FILE_NAME)
    except (FileNotFoundError, ValueError):
        return
    silent_s = 0.0
    if lock.is_here(found):
        alive = lock.process_start(found.pid) == found.process_start
    else:
        silent_s = math.inf if touched is None else store.now() - touched
        alive = silent_s < lock.SILENCE_S
    if alive and replace(found, since=0.0) != replace(lock.myself(), since=0.0):
        message = f"'{store}' is still running ({found}): stop it there first{lock.runs_out(found, silent_s)}"
        raise InvalidInput(Problem("run", message))


def _elsewhere(store: Store, run_dir: Path) -> InvalidInput:
    way = f"`hpo-ray resume '{store.uri}'` in another folder goes on from there"
    message = f"the run at '{store}' went on elsewhere, from what '{run_dir}' does not have: {way}"
    return InvalidInput(Problem("run", message))


def _advised(error: Unreachable) -> str:
    if isinstance(error, Refused):
        return str(error)
    return f"{error}; it is to be writable, with credentials from the environment or the machine's role"
