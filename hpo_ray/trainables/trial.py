"""What an objective holds while it runs: its identity, its folder, and `report`.

Knows nothing of Ray, the searcher or the journal: it hands each message to a callable and waits for the answer.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hpo_ray.storage import carrying
from hpo_ray.storage.failures import Refused, Unreachable
from hpo_ray.storage.store import Store
from hpo_ray.trainables import checkpoints
from hpo_ray.trainables.faults import DiskFull, is_disk_full

T = TypeVar("T")

# Names that the frames give to other things.
COLUMNS = frozenset(
    ["run", "trial_id", "config_id", "status", "reason", "fidelity", "attempt", "started_at", "duration_s", "elapsed_s"]
)


class TrialStopped(BaseException):
    """Raised inside `Trial.report` when the trial is not to go on.

    Not an `Exception`, so that an objective's `except Exception` doesn't swallow it; `finally` blocks run.
    """


@dataclass(frozen=True)
class Report:
    """One report.

    Attributes:
        fidelity: How far training got.
        metrics: What was measured there.
        elapsed_s: Seconds since the attempt began.
        checkpoint: Where its checkpoint lies, if it has one.
        since: On the first report of an attempt that goes on from a checkpoint: that checkpoint's fidelity.
    """

    fidelity: float
    metrics: dict[str, float]
    elapsed_s: float
    checkpoint: Path | None = None
    since: float | None = None


@dataclass(frozen=True)
class Paused:
    """The trial waits for something that is out of its hands. `reason`: one line, to be followed by "it goes on"."""

    reason: str


@dataclass(frozen=True)
class Splits:
    """The objective has asked how finely to split its batches: it would need less memory if told a higher number."""


@dataclass(frozen=True)
class Ready:
    """The first of several processes that train a trial together is about to: the others may begin.

    Attributes:
        meeting: ``host:port`` where they find each other.
        checkpoints: What all go on from, one folder; empty: they start afresh.
    """

    meeting: str
    checkpoints: tuple[Path, ...]


Message = Report | Paused | Splits | Ready


@dataclass(frozen=True)
class TrialSpec:
    """Everything an objective is told about its trial; plain data, so that it crosses process borders.

    Attributes:
        id: Suggestion order as text, e.g. ``"0007"``; stable over resume.
        config: What the objective receives.
        seed: The trial's own seed, a function of the run's seed and the trial's number.
        attempt: 0 for the first start, then 1, 2, … after each restart.
        dir: The attempt's folder: its output, its checkpoints, and whatever else the objective writes.
        device: ``"cpu"`` or ``"cuda"`` (the visible devices are the trial's own).
        cpus: Processors the trial may use; at least 1.
        fidelity: The reported key that counts how far training got; None: reports are counted.
        metric: The reported key that the run optimises.
        checkpoints: What earlier attempts saved, the newest first; empty: start afresh.
        timeout_s: Seconds that may pass without a report before the trial is taken to hang; None: any number.
        micro_batches: In how many pieces the objective should split each batch; at least 1.
        rank: Which of the processes that train this trial together this one is, from 0.
        workers: How many they are.
        meeting: ``host:port`` where they find each other; port 0: the first one chooses it. Empty for one alone.
        stored: The URI that the run is kept at besides its folder; empty: none.
    """

    id: str
    config: dict
    seed: int
    attempt: int
    dir: Path
    device: str = "cpu"
    cpus: int = 1
    fidelity: str | None = None
    metric: str = ""
    checkpoints: tuple[Path, ...] = ()
    timeout_s: float | None = None
    micro_batches: int = 1
    rank: int = 0
    workers: int = 1
    meeting: str = ""
    stored: str = ""


class Trial:
    """A running trial, as its objective ``train(config, trial)`` sees it.

    Attributes are those of `TrialSpec`: ``id, seed, attempt, dir, device, cpus, micro_batches, rank, workers``. Where
    there are several workers, the objective runs in each of them, with torchrun's variables in its environment; all
    must report equally often. The first one's reports and checkpoints count.
    """

    def __init__(self, spec: TrialSpec, send: Callable[[Message], bool]) -> None:
        """Args: the trial's identity, and what takes each message, waits as it must, and returns whether to go on."""
        self.id = spec.id
        self.seed = spec.seed
        self.attempt = spec.attempt
        self.dir = spec.dir
        self.device = spec.device
        self.cpus = spec.cpus
        self.rank = spec.rank
        self.workers = spec.workers
        self._spec = spec
        self._send = send
        self._reports = 0.0
        self._ended = False
        self._fidelity = -math.inf
        self._loaded: Path | None = None
        self._looked = self._asked = False
        self._splits = False
        self._store = Store(spec.stored) if spec.stored else None
        self._since: float | None = None
        self._start = time.perf_counter()

    @property
    def micro_batches(self) -> int:
        """In how many pieces to split each batch; gradients add up. More than 1 after the trial ran out of memory."""
        if not self._splits:
            self._splits = True
            self._send(Splits())
        return self._spec.micro_batches

    def report(self, *, checkpoint: Callable[[Path], None] | None = None, **metrics: float) -> None:
        """Report how training stands; blocks until the run decides whether the trial goes on.

        Args:
            checkpoint: Called with an empty folder to save the trial's state into; called again, until it
                succeeds, if the disk is full. The newest ones and the best one are kept. Where the run is kept at
                a URI too, it is there before the report counts; while the storage is away the trial waits.
            **metrics: Numbers by name, the fidelity (e.g. ``epoch``) and the metric among them. A key
                ``<metric>_se`` is taken as the metric's standard error. NaN and infinities may be reported.

        Raises:
            TypeError: A metric is not a number.
            ValueError: The fidelity did not increase since the last report.
            TrialStopped: The trial is not to go on.
        """
        if self._ended:
            raise RuntimeError(f"trial {self.id} has ended: a thread of its own still reports")
        values = {name: self._number(name, value) for name, value in metrics.items()}
        self._reports += 1
        fidelity = self._next_fidelity(values)
        folder = self._save(checkpoint, fidelity) if checkpoint is not None and self.rank == 0 else None
        since, self._since = self._since, None
        if not self._send(Report(fidelity, values, time.perf_counter() - self._start, folder, since)):
            raise TrialStopped
        self._fidelity = fidelity

    def load_checkpoint(self) -> Path | None:
        """The folder of the newest undamaged checkpoint that an earlier attempt of this trial reported, or None.

        Where several workers train the trial, it is the same for all.

        Raises:
            RuntimeError: This one of several workers lacks the checkpoint that the first one goes on from.
        """
        loaded = self.newest_checkpoint()
        if not self._asked:
            self._asked = True
            if loaded is not None and self._reports == 0:
                self._since = checkpoints.fidelity_of(loaded)
                self._reports = self._since
        return loaded

    def newest_checkpoint(self) -> Path | None:
        """As `load_checkpoint`, which says besides that the trial goes on from there."""
        if not self._looked:
            self._loaded = self._undamaged()
            self._looked = True
        return self._loaded

    def end(self) -> None:
        """Called when the objective has returned: a report from a thread it left behind is nobody's."""
        self._ended = True

    def _next_fidelity(self, values: dict[str, float]) -> float:
        key = self._spec.fidelity
        fidelity = values.get(key or "", self._reports)
        if not fidelity > self._fidelity:
            name = key if key in values else "report"
            raise ValueError(
                f"{name}={fidelity:g} was reported after {name}={self._fidelity:g}: the fidelity must increase "
                f"with every report"
            )
        return fidelity

    def _save(self, checkpoint: Callable[[Path], None], fidelity: float) -> Path:
        """Save a checkpoint here, and at the run's URI if it has one."""
        folder = self._patiently(lambda: checkpoints.save(self.dir, fidelity, checkpoint))
        store = self._store
        if store is not None:
            self._patiently(lambda: carrying.push(store, _name_of(folder), folder))
        return folder

    def _patiently(self, act: Callable[[], T]) -> T:
        """Do something as soon as the disk has room for it and the storage can be reached; what was trained so far is
        not thrown away.

        Raises:
            TrialStopped: The trial is to end meanwhile.
            Refused: The storage denies it to this machine: waiting would not help.
        """
        while True:
            try:
                return act()
            except DiskFull as error:
                reason = f"{error}; once there is some"
            except Refused:
                raise
            except Unreachable as error:
                reason = f"{error}; once it can be"
            if not self._send(Paused(reason)):
                raise TrialStopped

    def _undamaged(self) -> Path | None:
        """The newest checkpoint that is whole; says in the trial's output which are not."""
        for folder in self._spec.checkpoints:
            wrong = checkpoints.verify(folder)
            if wrong and self._store is not None and self._fetched(self._store, folder):
                wrong = checkpoints.verify(folder)
            if not wrong:
                return folder
            if self.rank:
                begins = f"worker {self.rank} cannot go on from checkpoint '{folder}' as worker 0 does"
                raise RuntimeError(f"{begins}: here {wrong}")
            sys.stdout.write(f"checkpoint '{folder}' is passed over: {wrong}\n")
        return None

    def _fetched(self, store: Store, folder: Path) -> bool:
        """Whether a checkpoint that another machine saved could be brought here, to the place it had there."""

        def pull() -> bool:
            try:
                return carrying.pull(store, _name_of(folder), folder)
            except Unreachable:
                raise
            except OSError as error:
                if is_disk_full(error, folder.parent):
                    raise DiskFull(f"no room for checkpoint '{folder}'") from error
                raise

        return self._patiently(pull)

    def _number(self, name: str, value: object) -> float:
        """A reported value as a float (numpy scalars and 0-d tensors too), or an error that says what to do."""
        if name in COLUMNS or name == f"{self._spec.metric}_best":
            raise ValueError(f"report({name}=…): '{name}' is a column of every frame, choose another name")
        if not isinstance(value, str | bytes):
            with contextlib.suppress(TypeError, ValueError):
                return float(value)  # type: ignore[arg-type]
        raise TypeError(f"report({name}=…) got {type(value).__name__} {value!r:.60}, expected a number")


def _name_of(folder: Path) -> str:
    """A checkpoint's path from the run's folder: trials, trial, attempt, checkpoint."""
    return "/".join(folder.parts[-4:])
