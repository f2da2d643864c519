"""A run's journal, folded into columns: what `history` makes of the events, for frames, without an object a report.

Equal to `history.load` by a property test: reports that come after their attempt's death are left out, what is measured
again at a fidelity replaces what was there, what has not ended is interrupted once no driver lives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_ray import journal, plain
from hpo_ray.events import Event
from hpo_ray.history import UNFINISHED
from hpo_ray.results.reports import COLUMNS, Block, Reports

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpo_ray.results.places import Place

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

FAILED = ("failed", "out_of_memory")


@dataclass
class Trial:
    """A trial but for its reports. Times are Unix seconds.

    Attributes:
        first: The line that told of it first; -1: none has, likewise the next.
        last: The line that told of it last.
        said: The line that said its status.
    """

    trial_id: str
    config_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    status: str = "pending"
    reason: str = ""
    attempt: int = 0
    started_at: float = math.nan
    first: int = -1
    last: int = -1
    said: int = -1
    last_seen: float = math.nan


@dataclass
class Attempt:
    """One start of a trial, `position` being its line; `trial` is the trial's number."""

    trial: int
    attempt: int
    position: int
    started_at: float
    gpus: float
    status: str = ""
    ended_at: float = math.nan


class Fold:
    """A run in columns.

    Attributes:
        experiment: As the last driver started it.
        trials: By number; `order` has the numbers as they appeared.
        reports: Those that count, by trial as they appeared, then by rising fidelity.
        accepted: Those of living attempts, without metrics, sorted by trial number and place; here what was measured
            twice is there twice.
        attempt_of: The attempt (its place in `attempts`, -1: none) of each of `accepted`.
        rungs: Decisions, as trial number and event, likewise `failures`, with the fidelity reached besides.
        ended: Whether the last driver said so.
        damaged: Lines that could not be read.
    """

    def __init__(self) -> None:
        self.experiment: dict[str, Any] = {}
        self.trials: list[Trial] = []
        self.attempts: list[Attempt] = []
        self.rungs: list[tuple[int, Event]] = []
        self.failures: list[tuple[int, Event, float]] = []
        self.ended = False
        self.damaged = 0
        self._numbers: dict[str, int] = {}
        self._open: dict[int, Attempt] = {}

    def read(self, place: Place) -> None:
        """Take in a run's journal.

        Raises:
            OSError: It cannot be read.
        """
        reports, line = Reports(self._numbers), 0
        with place.open(journal.FILE_NAME) as file:
            for text, too_long in plain.text_blocks(file):
                self.damaged += too_long
                line += reports.take(text, line)
        self.damaged += reports.damaged
        self._apply(sorted(reports.others, key=lambda pair: pair[0]), reports.whole(), line)

    def close(self, *, alive: bool) -> None:
        """Say how what has not ended stands: whether a driver lives was looked up after the journal was read."""
        over = self.ended or not alive
        for trial in self.trials:
            if over and trial.status in UNFINISHED:
                trial.status = "interrupted"
        for attempt in self._open.values():
            attempt.ended_at, attempt.status = self._last_time, "interrupted" if over else "running"

    def _apply(self, others: list[tuple[int, Event]], block: Block, lines: int) -> None:
        for _, event in others:
            if "trial_id" in event:
                self._numbers.setdefault(event["trial_id"], len(self._numbers))
        self.trials = [Trial(trial_id) for trial_id in self._numbers]
        by_place = np.argsort(block.position)
        places, times = block.position[by_place], block.time[by_place]
        self._last_time, seen, run_ended, failed = math.nan, -1, -1, []

        def last_time(position: int) -> float:
            """When the run was last heard of before a line."""
            before = int(np.searchsorted(places, position)) - 1
            return float(times[before]) if before >= 0 and places[before] > seen else self._last_time

        for position, event in others:
            match event["event"]:
                case "run_started":
                    self.experiment, self.ended = event["experiment"], False
                    for attempt in self._open.values():  # their driver died with them
                        attempt.ended_at, attempt.status = last_time(position), "interrupted"
                    self._open.clear()
                case "run_ended":
                    self.ended, run_ended = True, position
                case kind:
                    number = self._numbers[event["trial_id"]]
                    trial = self.trials[number]
                    trial.first = position if trial.first < 0 else trial.first
                    if kind == "rung_decided":
                        self.rungs.append((number, event))
                    else:
                        trial.last, trial.last_seen = position, event["time"]
                        self._tell(number, trial, position, event)
                    if kind == "trial_ended" and (event["status"] in FAILED or "cause" in event):
                        failed.append((number, event, position))
            self._last_time, seen = event["time"], position
        self._last_time = last_time(lines)
        self._sort(block, lines)
        for trial in self.trials:
            if trial.status in UNFINISHED and max(trial.first, trial.said) < run_ended:
                trial.status = "interrupted"
        self.failures = [(number, event, self._reached(number, position)) for number, event, position in failed]

    def _tell(self, number: int, trial: Trial, position: int, event: Event) -> None:
        match event["event"]:
            case "trial_suggested":
                trial.config, trial.config_id = event["config"], event["config_id"]
            case "trial_started":
                trial.attempt, trial.status, trial.said = event["attempt"], "running", position
                trial.started_at = event["time"] if math.isnan(trial.started_at) else trial.started_at
                begun = Attempt(number, trial.attempt, position, event["time"], float(event.get("gpus", 0.0)))
                earlier = self._open.pop(number, None)
                if earlier is not None:  # its end stood in a damaged line
                    earlier.ended_at, earlier.status = begun.started_at, "interrupted"
                self._open[number] = begun
                self.attempts.append(begun)
            case "trial_ended":
                trial.status, trial.reason, trial.said = event["status"], event.get("reason", ""), position
                attempt = self._open.pop(number, None)
                if attempt is not None:
                    attempt.ended_at, attempt.status = event["time"], event["status"]

    def _sort(self, block: Block, lines: int) -> None:
        """Which reports count, and in what order."""
        number = len(self.trials)
        by_place = np.lexsort((block.position, block.trial))
        trial, position = block.trial[by_place], block.position[by_place]
        if len(trial):
            begins = np.flatnonzero(np.diff(trial, prepend=-1))
            ends = np.append(begins[1:], len(trial)) - 1
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                known = self.trials[trial[begin]]
                first = int(position[begin])
                known.first = first if known.first < 0 else min(known.first, first)
                if position[end] > known.last:
                    known.last_seen = float(block.time[by_place[end]])
        # The attempt that was under way at each report: the last that was started on an earlier line.
        starts = np.array([a.trial * (lines + 1) + a.position for a in self.attempts], np.int64)
        by_start = np.argsort(starts)
        at = np.searchsorted(starts[by_start], trial * (lines + 1) + position) - 1
        if len(starts):
            under_way = np.where(at >= 0, by_start[np.maximum(at, 0)], -1)
            owner = np.array([a.trial for a in self.attempts], np.int64)[under_way]
            under_way = np.where((under_way >= 0) & (owner == trial), under_way, -1)
            current = np.where(under_way >= 0, np.array([a.attempt for a in self.attempts])[under_way], 0)
        else:
            under_way, current = np.full(len(trial), -1), np.zeros(len(trial), np.int64)
        alive = block.attempt[by_place] == current
        counted = by_place[alive]
        self.accepted = Block(**{name: getattr(block, name)[counted] for name in COLUMNS})
        self.attempt_of: Ints = under_way[alive]
        self.order = sorted(range(number), key=lambda n: self.trials[n].first)
        rank = np.empty(number, np.int64)
        rank[self.order] = np.arange(number)
        found = self.accepted
        rows = np.lexsort((found.position, found.fidelity, rank[found.trial]))
        same = (np.diff(found.trial[rows]) == 0) & (np.diff(found.fidelity[rows]) == 0)
        self.reports = _taken(block, counted[rows[~np.append(same, np.zeros(min(len(rows), 1), bool))]])

    def _reached(self, number: int, position: int) -> float:
        """The highest fidelity that a trial had reported before a line; NaN: none."""
        begin, end = np.searchsorted(self.accepted.trial, [number, number + 1])
        rows = slice(begin, begin + np.searchsorted(self.accepted.position[begin:end], position))
        return float(self.accepted.fidelity[rows].max(initial=-math.inf)) if rows.stop > begin else math.nan


def _taken(block: Block, rows: Ints) -> Block:
    metrics = {name: (v[rows], None if known is None else known[rows]) for name, (v, known) in block.metrics.items()}
    metrics = {name: pair for name, pair in metrics.items() if (len(rows) if pair[1] is None else pair[1].any())}
    return Block(**{name: getattr(block, name)[rows] for name in COLUMNS}, metrics=metrics)
