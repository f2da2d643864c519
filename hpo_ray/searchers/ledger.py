"""What a model-based searcher knows of its trials, as growing arrays.

Must not know: models, Ray. Rows are trials, in the order in which they were first heard of.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

FAILURES = ("failed", "out_of_memory")


class Ledger:
    """Points, what was measured there, and how each trial stands."""

    def __init__(self, d: int) -> None:
        self._rows: dict[str, int] = {}
        self._order: list[int] = []  # rows in the order of their first measurement
        self._points = np.empty((16, d))
        self._used = np.empty((16, d), dtype=bool)
        self._numbers = np.empty((16, 3))  # loss, fidelity, se
        self._open: dict[int, None] = {}  # not ended
        self._failed: dict[int, None] = {}
        self._ended: set[int] = set()
        self.generation = 0  # changes when a measurement is taken back

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, trial_id: str, point: Array, used: Mask) -> None:
        """A trial at a point (`d`), and which of its entries are in use."""
        row = self._rows[trial_id] = len(self._rows)
        if row == len(self._points):
            self._points = np.vstack([self._points, np.empty_like(self._points)])
            self._used = np.vstack([self._used, np.empty_like(self._used)])
            self._numbers = np.vstack([self._numbers, np.empty_like(self._numbers)])
        self._points[row], self._used[row], self._numbers[row] = point, used, math.nan

    def tell(self, trial_id: str, loss: float | None, fidelity: float | None, status: str, se: float | None) -> None:
        """How a trial stands.

        Its loss at the highest fidelity counts, the latest one there. A failure takes its losses back; one that fails
        and runs again starts anew. What is reported after a good end comes too late.
        """
        row = self._rows[trial_id]
        if status in ("pending", "running"):
            if row in self._ended:
                return
            self._open[row] = None
        else:
            self._open.pop(row, None)
        if status in FAILURES:
            self._failed[row] = None
            if not math.isnan(self._numbers[row, 0]):
                self._order.remove(row)
                self._numbers[row] = math.nan
                self.generation += 1
            return
        if status in ("completed", "stopped"):
            self._ended.add(row)
        if loss is None or (fidelity is not None and fidelity < self._numbers[row, 1]):
            return
        self._failed.pop(row, None)
        if math.isnan(self._numbers[row, 0]):
            self._order.append(row)
        self._numbers[row] = loss, math.nan if fidelity is None else fidelity, math.nan if se is None else se

    @property
    def measured(self) -> Rows:
        """Rows with a loss, in the order of their first one."""
        return np.array(self._order, dtype=np.int64)

    @property
    def failed(self) -> Rows:
        """Rows that failed."""
        return np.array(list(self._failed), dtype=np.int64)

    @property
    def pending(self) -> Rows:
        """Rows that have not ended and were not measured at the highest fidelity that any trial has reached."""
        rows = np.array(list(self._open), dtype=np.int64)
        loss, fidelity = self._numbers[rows, 0], self._numbers[rows, 1]
        top = self.top_fidelity
        return np.asarray(rows[np.isnan(loss) | (np.isfinite(fidelity) & (fidelity < top))])

    @property
    def top_fidelity(self) -> float:
        """The highest fidelity of a measurement; NaN if none has one."""
        fidelity = self._numbers[self.measured, 1]
        return float(np.nanmax(fidelity)) if np.isfinite(fidelity).any() else math.nan

    @property
    def noisy(self) -> bool:
        """Whether a standard error is known, or two trials at one point measured different losses."""
        rows = self.measured
        if (self.se(rows) > 0).any():
            return True
        seen: dict[bytes, float] = {}
        return any(
            seen.setdefault(self._points[row].tobytes(), self._numbers[row, 0]) != self._numbers[row, 0] for row in rows
        )

    def points(self, rows: Rows) -> Array:
        """`r x d`."""
        return np.asarray(self._points[rows])

    def used(self, rows: Rows) -> Mask:
        """`r x d`."""
        return self._used[rows]

    def loss(self, rows: Rows) -> Array:
        """`r`."""
        return np.asarray(self._numbers[rows, 0])

    def fidelity(self, rows: Rows) -> Array:
        """`r`, NaN where a trial has none."""
        return np.asarray(self._numbers[rows, 1])

    def se(self, rows: Rows) -> Array:
        """`r`, NaN where it is not known."""
        return np.asarray(self._numbers[rows, 2])
