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

from hpo_ray import journal
from hpo_ray.journal import encode
from hpo_ray.tally import Tally

FILE_NAME = "snapshot.json"
VERSION = 2
PERIOD_S = 2.0


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
        document = json.loads((run_dir / FILE_NAME).read_text())
        if document["v"] != VERSION or document["offset"] > (run_dir / journal.FILE_NAME).stat().st_size:
            return None
        return Tally(**_decoded(document["tally"])), int(document["offset"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _decoded(state: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON cannot hold back from their names; a configuration's own strings stay strings."""
    for part in (state, *state["open"].values()):
        for key in ("started_at", "last_seen", "fidelity", "value", "best", "since"):
            if key in part:
                part[key] = journal.number(part[key])
    return state
