"""Where a run's rows come from: its Parquet files if they fit its journal, the journal, or Ray Tune's own files."""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

from hpo_ray import journal, lock, plain
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.results import compaction, tune_folder
from hpo_ray.results.fold import Fold
from hpo_ray.results.places import is_run
from hpo_ray.results.tables import table_of

if TYPE_CHECKING:
    from hpo_ray.results.places import Place
    from hpo_ray.results.tables import Table


def load(place: Place, level: str) -> tuple[Table, int]:
    """A run's rows of one level, and how many lines could not be read.

    Raises:
        InvalidInput: Its files cannot be read.
    """
    if not is_run(place.entries()):
        return tune_folder.load(place, level)
    kept = compaction.load(place, level)
    if kept is not None and not alive(place):  # one that was resumed has yet to say so
        return kept
    run = read(place)
    return table_of(run, level), run.damaged


def read(place: Place) -> Fold:
    """A run's journal.

    Raises:
        InvalidInput: It cannot be read.
    """
    run = Fold()
    try:
        run.read(place)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise InvalidInput(Problem("run", f"{place}/{journal.FILE_NAME} cannot be read: {reason}")) from None
    run.close(alive=alive(place))
    return run


def alive(place: Place) -> bool:
    """Whether a driver works on a run."""
    if place.local is not None:
        return lock.holder(place.local) is not None
    with contextlib.suppress(OSError, ValueError):
        with place.open(lock.FILE_NAME) as file:
            lock.holder_of(plain.loads(plain.whole(file)))
        return time.time() - place.stat(lock.FILE_NAME)[1] / 1e9 < lock.SILENCE_S
    return False
