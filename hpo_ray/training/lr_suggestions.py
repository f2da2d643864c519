"""What a learning rate range test found, and which rates it suggests.

Arrays in, numbers out; knows no torch, models, data, reports or Ray.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

_DECADES = 0.2  # standard deviation of the smoothing, in powers of ten: the same at any number of steps
_SURE = 5.0  # a fall of so many standard deviations is taken for one: the lowest of many losses is some deviations low
_SLIDE_DECADES = 1.2  # fastai's interval: 15 of 100 steps over 8 decades


@dataclass(frozen=True, eq=False)
class RangeTest:
    """The curve that a range test found, and what to read off it.

    Attributes:
        lrs: `n`, rising by a constant factor.
        losses: `n`, each a batch's mean before the step at its rate; the last one may be NaN or infinite.
        ended: Why the test ended, in words.
    """

    lrs: Array
    losses: Array
    ended: str = ""

    @cached_property
    def smoothed(self) -> Array:
        """`n`: the losses' Gaussian mean, by a fifth of a decade or a step to either side; NaN where one is not finite.

        To either side, as a running mean would move every suggestion to higher rates. Losses above all those before
        the lowest count as the highest of these: one loss of a diverged model would else outweigh its neighbours.
        """
        smoothed = np.full(len(self.losses), np.nan)
        finite = np.isfinite(self.losses)
        if finite.any():
            y = self.losses[finite]
            smoothed[finite] = self._weights @ np.minimum(y, y[: y.argmin() + 1].max())
        return smoothed

    @cached_property
    def _weights(self) -> Array:
        """`m x m` over the finite losses; each row sums to 1."""
        x = np.log10(self.lrs[np.isfinite(self.losses)])
        width = max(_DECADES, (x[-1] - x[0]) / max(1, len(x) - 1))
        weights = np.exp(-0.5 * ((x[:, None] - x) / width) ** 2)
        return np.asarray(weights / weights.sum(1, keepdims=True))

    @cached_property
    def suggestions(self) -> dict[str, float | None]:
        """Four rates by name, which on a noisy curve can differ tenfold; all None if the loss does not fall.

        Read off the smoothed curve where it falls: from where a tenth of the fall is done to the lowest loss. Slopes
        are d loss / d log lr; those by lr itself grow without bound to the left, and find noise there. After fastai's
        functions of these names (``callback/schedule.py``), but for the stretch and the signs said here.

        - ``valley``: two thirds into the longest run of losses, not all adjoining, each below the one before. (What
          fastai's documentation says of it; its code takes the middle.)
        - ``steepest``: where the slope is steepest.
        - ``slide``: the left edge of an interval of 1.2 decades that slides left from the lowest loss until the slope
          at its right edge is no longer above that at its left by 3 % of the fall per decade. None if that is nowhere.
        - ``minimum``: a tenth of the rate at the lowest loss.
        """
        stretch = self._falling
        if stretch is None:
            return dict.fromkeys(("steepest", "valley", "minimum", "slide"))
        begin, low = stretch
        falls = np.isfinite(self.smoothed)
        lrs, smoothed = self.lrs[falls], self.smoothed[falls]
        slopes = np.gradient(smoothed, np.log10(lrs))
        return {
            "steepest": float(lrs[begin + slopes[begin : low + 1].argmin()]),
            "valley": float(lrs[begin + _valley(smoothed[begin : low + 1])]),
            "minimum": float(lrs[low] / 10),
            "slide": _slide(lrs[: low + 1], slopes[: low + 1], 0.03 * (_top(smoothed) - smoothed[low])),
        }

    @property
    def suggestion(self) -> float | None:
        """The most robust of them: the valley's."""
        return self.suggestions["valley"]

    def bounds(self) -> tuple[float, float] | None:
        """A range to search in, lowest and highest rate, or None without suggestions; `reason` says why this one.

        From a third of the lowest suggestion to three times the highest, as far as the loss falls there; at least a
        decade, widened downwards, as a rate too low only costs time.
        """
        if self._falling is None:
            return None
        begin, low = (float(rate) for rate in self.lrs[np.isfinite(self.smoothed)][list(self._falling)])
        rates = [rate for rate in self.suggestions.values() if rate is not None]
        highest = min(max(rates) * 3, low)
        return min(max(min(rates) / 3, begin), highest / 10), highest

    @property
    def reason(self) -> str:
        """One line on what `bounds` says, for a record."""
        found = self.bounds()
        if found is None or self._falling is None:
            return f"the loss does not fall by more than its noise in a range test of {len(self.lrs)} steps"
        begin, low = self.lrs[np.isfinite(self.smoothed)][list(self._falling)]
        named = ", ".join(f"{name} {rate:.1e}" for name, rate in self.suggestions.items() if rate is not None)
        return f"{found[0]:.1e} to {found[1]:.1e}: the loss falls from {begin:.1e} to {low:.1e}; suggestions: {named}"

    def frame(self) -> pd.DataFrame:
        """The curve: `lr`, `loss`, `smoothed`."""
        import pandas as pd

        return pd.DataFrame({"lr": self.lrs, "loss": self.losses, "smoothed": self.smoothed})

    @cached_property
    def _falling(self) -> tuple[int, int] | None:
        """Where the finite losses begin to fall and where they are lowest; None if that is not more than noise."""
        falls = np.isfinite(self.smoothed)
        smoothed = self.smoothed[falls]
        if len(smoothed) < 5:
            return None
        low = int(smoothed.argmin())
        top = _top(smoothed)
        # Of neighbours' differences few are the fall's: their median is the noise's, for a normal one 0.95 deviations.
        noise = 1.05 * float(np.median(np.abs(np.diff(self.losses[falls][: max(low, 10) + 1]))))
        left = noise * float(np.sqrt((self._weights[low] ** 2).sum()))  # what smoothing leaves of it at the lowest loss
        if top - smoothed[low] <= max(_SURE * left, 0.01 * abs(top)):
            return None
        above = np.flatnonzero(smoothed[:low] >= top - 0.1 * (top - smoothed[low]))
        return (int(above[-1]) if len(above) else 0), low


def _top(smoothed: Array) -> float:
    """The level from which a curve falls: that of its first tenth."""
    return float(np.median(smoothed[: max(3, len(smoothed) // 10)]))


def _valley(losses: Array) -> int:
    """Two thirds into the longest falling subsequence, the stretch before its last loss counted by its length."""
    ends: list[float] = []  # the lowest negated loss that a falling run of each length can end in
    lengths = []
    for negated in (-losses).tolist():
        place = bisect_left(ends, negated)
        ends[place : place + 1] = [negated]
        lengths.append(place + 1)
    last = int(np.argmax(lengths))
    return last - round((lengths[last] - 1) / 3)


def _slide(lrs: Array, slopes: Array, threshold: float) -> float | None:
    x = np.log10(lrs)
    for right in range(len(x) - 1, -1, -1):
        left = int(np.searchsorted(x, x[right] - _SLIDE_DECADES * (1 - 1e-9), side="right")) - 1
        if left < 0:
            return None
        if slopes[right] - slopes[left] <= threshold:
            return float(lrs[left])
    return None
