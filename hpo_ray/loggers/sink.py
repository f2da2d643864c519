"""What every logger is: told of each event, asked now and then to write. And what they share: places, steps, names.

Knows the journal's history; none of the tools.
"""

from __future__ import annotations

import abc
import contextlib
import fcntl
import logging
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hpo_ray.domains.levels import freeze, level_text
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.events import EXACT
from hpo_ray.space import Domain, SearchSpace

if TYPE_CHECKING:
    from hpo_ray.events import Event
    from hpo_ray.history import History, ReportRow, TrialRecord

FINISHED = ("completed", "stopped", "failed", "out_of_memory")
FAILED = ("failed", "out_of_memory")
_POLL_S = 0.2
_FINEST = 1000


class Sink(abc.ABC):
    """Writes a run for another tool.

    What it has written is a function of the journal's beginning: one that is told the same events again, by another
    process after a death, adds what is missing and nothing twice.

    Attributes:
        identity: What tells the run from any other, wherever its folder is moved: its name and when it began.
    """

    identity = ""

    def take(self, event: Event, run: History) -> None:
        """Be told of an event, `run` being the history after it. In order, from the journal's first."""
        if event["event"] == "run_started" and not self.identity:
            self.identity = f"{event['experiment'].get('name')} {event['time']:.3f}"

    @abc.abstractmethod
    def flush(self, run: History, *, over: bool) -> None:
        """Write what was told of: the journal has no more at the moment.

        Args:
            run: As it stands.
            over: No driver works on it: what is interrupted stays so, unless it is resumed.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of what is open. Never raises."""


class Claim:
    """One writer at a time for one place, and one run: a small file beside or in it, locked while it is written to."""

    def __init__(self, path: Path, *, patient: bool) -> None:
        """Take it.

        Args:
            path: The file, made if missing.
            patient: Wait for another writer, which is about to end; else it is a mistake.

        Raises:
            InvalidInput: Another process writes there, or nobody may, or the file is a link.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file: IO[str] = os.fdopen(os.open(path, flags, 0o666), "r+")
        except OSError as error:
            raise InvalidInput(Problem("target", f"'{path.parent}' cannot be written to: {error.strerror}")) from None
        self._path = path
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if not patient:
                    self._file.close()
                    message = f"'{path.parent}' is being written to by another process: the running sweep's logger?"
                    raise InvalidInput(Problem("target", message)) from None
            time.sleep(_POLL_S)

    def belongs_to(self, identity: str) -> None:
        """See that the place holds nothing, or this run.

        Raises:
            InvalidInput: It holds another.
        """
        self._file.seek(0)
        known = self._file.read(200)
        if known and known != identity:
            message = f"'{self._path.parent}' holds another run ({known}): choose another place, or remove it"
            raise InvalidInput(Problem("target", message))
        if not known:
            self._file.write(identity)
            self._file.flush()

    def release(self) -> None:
        """Let others write. Never raises."""
        self._file.close()


@contextlib.contextmanager
def hushed(*names: str) -> Iterator[None]:
    """Packages say errors only: what they log at work is not for our user. Import them first, they set their levels."""
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def refuse_link(path: Path) -> Path:
    """`path`, unless it is a link: a stranger's run directory must not make us write elsewhere.

    Raises:
        InvalidInput: It is one.
    """
    if path.is_symlink():
        raise InvalidInput(Problem("target", f"'{path}' is a link: remove it, or name another place"))
    return path


def scale_of(trial: TrialRecord) -> int:
    """How many steps a unit of the fidelity has: one, or a thousand for a trial whose first report is at a fraction."""
    return 1 if not trial.reports or float(trial.reports[0].fidelity).is_integer() else _FINEST


def step_of(fidelity: float, scale: int) -> int:
    """A fidelity as these tools have it: a whole number. Those that fall together count as one, the last."""
    return math.floor(min(max(fidelity * scale, -EXACT), EXACT))


def rows_by_step(trial: TrialRecord, scale: int) -> dict[int, ReportRow]:
    """A trial's reports that count, by rising step."""
    return {step_of(row.fidelity, scale): row for row in trial.reports}


def shown(metrics: Mapping[str, float], best: float, run: History) -> dict[str, float]:
    """A report's metrics but the fidelity, which is the step; beside them the best value so far (NaN: none)."""
    named = {name: value for name, value in metrics.items() if name != run.experiment.get("fidelity")}
    return named if math.isnan(best) else {f"{run.metric}_best": best} | named


def better(best: float, value: float, mode: str) -> float:
    """The better of the best so far (NaN: none) and a value, which counts if it is finite."""
    if not math.isfinite(value):
        return best
    if math.isnan(best):
        return value
    return max(best, value) if mode == "max" else min(best, value)


def facts_of(trial: TrialRecord) -> dict[str, Any]:
    """What is said of a trial in words, where there is something to say."""
    facts = {
        "trial_id": trial.trial_id,
        "config_id": trial.config_id,
        "status": trial.status,
        "reason": trial.reason,
        "attempt": trial.attempt,
        "restarts": "; ".join(f"{fault.cause}: {fault.reason}" for fault in trial.faults),
    }
    return {key: value for key, value in facts.items() if value != ""}


def domains_of(run: History) -> Mapping[str, Domain]:
    """The parameters that a run searches."""
    space = run.experiment.get("space")
    try:
        return SearchSpace.parse(space if isinstance(space, dict) else {}).domains
    except InvalidInput:  # a stranger's: what is known of parameters is their values
        return {}


def text_of(value: Any) -> str:
    """A parameter's value in words: text as it is, None, booleans and lists as the search space writes them."""
    try:
        return value if isinstance(value, str) else level_text(freeze(value))
    except InvalidInput:
        return str(value)
