"""A run's totals as last written beside its journal, and brought up to date from the journal's tail.

What `hpo-ray status` reads: quick however long the run is. Knows the journal's file, nothing of Ray or the screen.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

from hpo_ray import events, journal, plain
from hpo_ray.journal import encode
from hpo_ray.tally import FINAL, Tally

FILE_NAME = "snapshot.json"
VERSION = 2
PERIOD_S = 2.0
_TRIAL = {"fidelity", "value", "best", "gpus", "since", "reached"}
_NUMBERS = _TRIAL | {"started_at", "earlier_s", "total_fidelity", "gpu_s", "last_seen"}


class Snapshots:
    """Writes a run's totals now and then; the whole file or none of it. Losing one costs a reader time, no more."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE_NAME
        self._written_at = -math.inf

    def maybe_write(self, tally: Tally, offset: int) -> None:
        """Write, unless that was done a moment ago. `offset`: bytes of the journal that `tally` has taken in."""
        if time.monotonic() - self._written_at > PERIOD_S:
            self.write(tally, offset)

    def write(self, tally: Tally, offset: int) -> None:
        """Write now; never raises (a full disk is the journal's to notice)."""
        self._written_at = time.monotonic()
        partial = self._path.with_suffix(".partial")
        with contextlib.suppress(OSError):
            document = {"v": VERSION, "offset": offset, "tally": encode(tally.state())}
            partial.write_text(json.dumps(document, separators=(",", ":")))
            partial.replace(self._path)


def load(run_dir: Path) -> Tally:
    """A run's totals as they stand.

    Raises:
        InvalidInput: `run_dir` holds no journal, or one that may not be read.
    """
    found = _read(run_dir)
    tally, offset = found if found is not None else (Tally(), 0)
    for event in journal.read(run_dir, offset=offset).events:
        tally.apply(event)
    return tally


def _read(run_dir: Path) -> tuple[Tally, int] | None:
    """The totals last written and how much of the journal they hold; None if there are none that fit the journal."""
    try:
        document = plain.document(run_dir, FILE_NAME)
        offset = document["offset"]
        if document["v"] != VERSION or not 0 <= offset <= (run_dir / journal.FILE_NAME).stat().st_size:
            return None
        return Tally(**_checked(document["tally"])), int(offset)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON cannot hold back from their names; a configuration's own strings stay strings.

    Raises:
        ValueError: A part is not what `Tally` has there: the folder may be a stranger's.
    """
    for part in (state, *state["open"].values(), *([state["best"]] if state["best"] else [])):
        for key in _NUMBERS & part.keys():
            if not (key == "best" and part is state):
                part[key] = events.number(part[key])
                _expect(part[key], float)
    for trial_id, trial in state["open"].items():
        for key, kind in (("config", dict), ("attempt", int), ("improved", bool)):
            _expect(trial[key], kind)
        if not events.is_trial_id(trial_id) or trial["status"] not in events.STATUSES or _TRIAL - trial.keys():
            raise ValueError
    best = state["best"]
    if best and not (events.is_trial_id(best["trial_id"]) and {"value", "fidelity"} <= best.keys()):
        raise ValueError
    if best:
        _expect(best["config"], dict)
    if state["counts"].keys() != set(FINAL):
        raise ValueError
    for count in (
        *state["counts"].values(),
        state["since_best"],
        *(n for pair in state["rungs"].values() for n in pair),
    ):
        _expect(count, int)
    if any(len(pair) != 2 or not math.isfinite(float(rung)) for rung, pair in state["rungs"].items()):
        raise ValueError
    for key in ("name", "metric", "mode", "fidelity"):
        _expect(state["head"].get(key), str, type(None))
    for key in ("trials", "seed"):
        _expect(state["head"].get(key), int, type(None))
    for text in (state["ended"] or {"status": "", "reason": ""}).values():
        _expect(text, str)
    return state


def _expect(value: Any, *kinds: type) -> None:
    """Raises ValueError where `value` is none of these; an integer that is no float's passes for none."""
    if float in kinds and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kinds):
        raise ValueError
