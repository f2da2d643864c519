"""Where an acquisition function is largest, over continuous and discrete columns together.

Must not know: what the function is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.stats import qmc

from hpo_ray.gp.columns import Array, Columns, Integers, Mask

# Of a discrete column with more levels than this, single moves try its neighbours and some others only.
FEW_LEVELS = 12
# Gradient steps end when no start gains or loses more than so much.
SETTLED = 1e-3


class Acquisition(Protocol):
    """What is maximised: values of `m x d` settled points, and with gradients."""

    def __call__(self, x: Array, used: Mask) -> Array: ...

    def with_gradient(self, x: Array, used: Mask) -> tuple[Array, Array]: ...


def sobol(n: int, d: int, seed: list[int]) -> Array:
    """`n x d` scrambled Sobol points (Owen 1998); `n` a power of two."""
    return np.asarray(qmc.Sobol(d, rng=np.random.default_rng(seed)).random(n))


def neighbours(columns: Columns, centres: Array, each: int, rng: np.random.Generator) -> Array:
    """`each` variations of every row of `c x d` centres: some columns moved, by steps of many sizes.

    A number moves by a normal step whose size is log-uniform between 0.003 and 0.3; a categorical is drawn anew.
    """
    x = np.repeat(centres, each, axis=0)
    n, d = x.shape
    step = 10 ** rng.uniform(-2.5, -0.5, (n, 1))
    share = rng.choice([1.0 / d, min(1.0, 2.0 / d), 0.5, 1.0], (n, 1))
    moved = rng.random((n, d)) < share
    moved[np.arange(n), rng.integers(d, size=n)] = True
    numbers = _reflect(x + step * rng.standard_normal((n, d)))
    anew = columns.from_unit(rng.random((n, d)))
    for i in columns.discrete:
        levels = columns.levels[i]
        assert levels is not None
        if not columns.categorical[i]:
            # Where the step is too small to reach another level, the next one on either side is taken.
            place = columns.places(x[:, i], i)
            near = place + rng.choice([-1, 1], n)
            near = levels[np.where((near < 0) | (near >= len(levels)), 2 * place - near, near)]
            numbers[:, i] = np.where(columns.places(numbers[:, i], i) == place, near, numbers[:, i])
    return np.where(moved, np.where(columns.categorical, anew, numbers), x)


def maximise(
    acquisition: Acquisition,
    columns: Columns,
    candidates: Array,
    length: Array,
    *,
    allowed: Callable[[Array], Mask],
    starts: int = 4,
    rounds: int = 2,
    steps: int = 8,
) -> Array | None:
    """The best point found.

    Args:
        acquisition: To be maximised.
        columns: The shape of a point.
        candidates: `m x d` points; the best and diverse ones are improved further.
        length: `d`, the distance over which the function changes, which sets the first gradient steps.
        allowed: `m x d` settled points -> which of them may be proposed.
        starts: How many candidates are improved; 0: the best one is taken as it is.
        rounds: How often gradient steps and discrete moves take turns.
        steps: Gradient steps a round.

    Returns:
        `d`: a settled, allowed point; None where no candidate is allowed.
    """
    settled, used = columns.settle(candidates)
    values = acquisition(settled, used)
    values = np.where(allowed(settled) & np.isfinite(values), values, -np.inf)
    if not np.isfinite(values).any():
        return None
    if not starts:
        return np.asarray(settled[int(values.argmax())])
    chosen = _diverse(settled / np.where(columns.categorical, 1.0, length), values, starts)
    # What is not in use keeps its value here, so that a parent's move brings in a considered child.
    x, value = candidates[chosen], values[chosen]
    for _ in range(rounds):
        if columns.continuous.any():
            x, value = _climb(acquisition, columns, x, value, length, allowed, steps)
        if columns.discrete:
            x, value, moved = _hop(acquisition, columns, x, value, allowed)
            if not moved:
                break
        else:
            break
    best = columns.settle(x[[int(value.argmax())]])[0]
    return np.asarray(best[0])


def best_of(
    acquisition: Acquisition, columns: Columns, candidates: Array, allowed: Callable[[Array], Mask]
) -> Array | None:
    """The best allowed one of `m x d` candidates, settled; None if none is allowed."""
    settled, used = columns.settle(candidates)
    ok = allowed(settled)
    if not ok.any():
        return None
    settled, used = settled[ok], used[ok]
    values = acquisition(settled, used)
    return np.asarray(settled[int(np.where(np.isfinite(values), values, -np.inf).argmax())])


def _diverse(scaled: Array, values: Array, count: int) -> Integers:
    """The best rows, each new one not close to those taken: nearer than half a length scale counts as close."""
    order = np.argsort(-values, kind="stable")[: 16 * count]
    order = order[np.isfinite(values[order])]
    taken = [order[0]]
    for row in order[1:]:
        if len(taken) == count:
            break
        if (((scaled[row] - scaled[taken]) ** 2).sum(axis=1) > 0.25).all():
            taken.append(row)
    return np.array(taken)


def _climb(
    acquisition: Acquisition,
    columns: Columns,
    x: Array,
    value: Array,
    length: Array,
    allowed: Callable[[Array], Mask],
    steps: int,
) -> tuple[Array, Array]:
    """Projected gradient ascent from every row at once, each with its own Barzilai-Borwein step (1988, eq. 5)."""
    best_x, best_value = x.copy(), value.copy()
    metric = np.where(columns.continuous, np.minimum(length, 1.0) ** 2, 0.0)
    rate = np.full((len(x), 1), 0.0)
    last_x = last_g = best_g = np.zeros_like(x)
    for step in range(steps):
        settled, used = columns.settle(x)
        new, g = acquisition.with_gradient(settled, used)
        if step and (np.abs(new - best_value) < SETTLED).all():
            break
        better = (new > best_value) & (allowed(settled) if step else True)
        best_x[better], best_value[better] = x[better], new[better]
        best_g = np.where(better[:, None] | (step == 0), g, best_g)
        if step == 0:
            # A first step of about a tenth of a length scale, whatever the slope.
            rate[:, 0] = 0.1 / np.maximum(np.sqrt((g * g * metric).sum(axis=1)), 1e-12)
        else:
            dx, dg = x - last_x, g - last_g
            curvature = -(dx * dg).sum(axis=1)
            squared = (dx * dx / np.where(metric > 0, metric, 1.0)).sum(axis=1)
            bb = np.where(curvature > 1e-12 * squared, squared / np.maximum(curvature, 1e-300), 3.0 * rate[:, 0])
            rate[:, 0] = np.clip(bb, 1e-3 * rate[:, 0], 10.0 * rate[:, 0])
            # A row that fell far below its best starts again there.
            lost = (new < best_value - 1.0)[:, None]
            x, g = np.where(lost, best_x, x), np.where(lost, best_g, g)
        move = np.clip(rate * g * metric, -0.5 * np.sqrt(metric), 0.5 * np.sqrt(metric))
        last_x, last_g = x, g
        x = np.clip(x + move, 0.0, np.where(columns.categorical, np.inf, 1.0))
    return best_x, best_value


def _hop(
    acquisition: Acquisition, columns: Columns, x: Array, value: Array, allowed: Callable[[Array], Mask]
) -> tuple[Array, Array, bool]:
    """The best single change of a discrete column, for every row at once, until none helps (three times at most)."""
    x, value, moved = x.copy(), value.copy(), False
    for _ in range(3):
        rows, trials = [], []
        for i in columns.discrete:
            levels = columns.levels[i]
            assert levels is not None
            place = columns.places(x[:, i], i)
            if len(levels) <= FEW_LEVELS or columns.categorical[i]:
                options = np.broadcast_to(np.arange(len(levels)), (len(x), len(levels)))
            else:
                reach = np.unique(np.rint(np.geomspace(1, len(levels) - 1, 5)).astype(int))
                options = place[:, None] + np.concatenate([-reach, reach])
            row, column = np.nonzero((options != place[:, None]) & (options >= 0) & (options < len(levels)))
            trial = x[row].copy()
            trial[:, i] = levels[options[row, column]]
            rows.append(row)
            trials.append(trial)
        row, trial = np.concatenate(rows), np.vstack(trials)
        if not len(row):
            break
        settled, used = columns.settle(trial)
        new = np.where(allowed(settled), acquisition(settled, used), -np.inf)
        improved = False
        for r in range(len(x)):
            mine = np.flatnonzero(row == r)
            if len(mine) and new[mine].max() > value[r] + 1e-9:
                best = mine[new[mine].argmax()]
                x[r], value[r] = trial[best], new[best]
                improved = moved = True
        if not improved:
            break
    return x, value, moved


def _reflect(x: Array) -> Array:
    """Numbers beyond [0, 1] mirrored back into it."""
    x = np.abs(x) % 2.0
    return np.where(x > 1.0, 2.0 - x, x)
