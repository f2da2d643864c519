"""What frames hold: columns that are there or not, values that are missing, which way is better.

Imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo_ray.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    import pandas as pd


def require(frame: pd.DataFrame, *columns: str) -> None:
    """InvalidInput with every column that `frame` lacks, and the nearest that it has."""
    names = [str(name) for name in frame.columns]
    problems = [
        Problem(name, f"the frame has no column '{name}'; {nearest(name, names)}")
        for name in columns
        if name not in frame.columns
    ]
    if problems:
        raise InvalidInput(*problems)


def require_confidence(confidence: float) -> None:
    """InvalidInput unless it is between 0 and 1, ends excluded."""
    if not 0 < confidence < 1:
        raise InvalidInput(
            Problem("confidence", f"{confidence!r} is out of range: expected between 0 and 1, e.g. 0.95")
        )


def missing(value: Any) -> bool:
    """Whether a frame has nothing there: None, NaN, NaT or NA, the last of which no comparison takes."""
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def sign_of(mode: str) -> float:
    """1 for ``min``, -1 for ``max``; InvalidInput for anything else."""
    if mode not in ("min", "max"):
        raise InvalidInput(Problem("mode", f"'{mode}' is no mode; {nearest(mode, ['min', 'max'])}"))
    return -1.0 if mode == "max" else 1.0


def coarseness(values: NDArray[np.float64]) -> float:
    """Half the smallest distance between two of some values: the least standard deviation to believe of them.

    Error rates on 360 images come in steps of 1/360, so that two of their differences are often the same by chance,
    which must not be taken for certainty. Of values that are hardly ever alike it is next to nothing.
    """
    distances = np.diff(np.sort(values, axis=None))
    apart = distances[distances > 1e-9 * np.abs(values).max(initial=0.0)]  # less is rounding
    return float(apart.min()) / 2 if len(apart) else 0.0


def losses(trials: pd.DataFrame, metric: str, mode: str) -> pd.Series[float]:
    """A metric as a loss: what is maximised has its sign turned, infinities are NaN.

    Raises:
        InvalidInput: There is no such column, or `mode` is neither ``min`` nor ``max``.
    """
    require(trials, metric)
    loss = trials[metric].astype("float64") * sign_of(mode)
    return loss.where(loss.abs() < float("inf"))
