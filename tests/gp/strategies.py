"""Columns and points at random, and one set of columns that has every kind."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hpo_ray.gp.columns import Array, Column, Columns, Mask

CHECKED = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))

SEEDS = st.integers(0, 2**32 - 1)

# A grandchild (4) stands before its parent (5), which hangs on 1; 2 is a number and 3 a categorical under levels.
MIXED = Columns(
    [
        Column(),
        Column((0.0, 1.0, 2.0), categorical=True),
        Column((0.1, 0.3, 0.5, 0.7, 0.9)),
        Column((0.0, 1.0), categorical=True, parent=2, when=frozenset({0, 1, 4})),
        Column(parent=5, when=frozenset({1, 2})),
        Column((0.0, 1.0, 2.0), categorical=True, parent=1, when=frozenset({0, 2})),
        Column(),
    ]
)


@st.composite
def mixed_columns(draw: st.DrawFn, *, finite: bool = False) -> Columns:
    """One to six columns of every kind, conditions among them as a forest in any order, mostly with a trend."""
    d = draw(st.integers(1, 6))
    kinds = ["levels", "choice"] if finite else ["number", "levels", "choice"]
    made: dict[int, Column] = {}
    for i in draw(st.permutations(range(d))):
        levels: tuple[float, ...] | None = None
        kind = draw(st.sampled_from(kinds))
        if kind == "levels":
            levels = tuple(k / 64 for k in sorted(draw(st.sets(st.integers(0, 64), min_size=1, max_size=5))))
        elif kind == "choice":
            levels = tuple(map(float, range(draw(st.integers(1, 4)))))
        parents = [None, *(p for p, column in made.items() if column.levels)]
        parent = draw(st.sampled_from(parents))
        when: frozenset[int] = frozenset()
        if parent is not None:
            places = range(len(made[parent].levels or ()))
            when = draw(st.frozensets(st.sampled_from(places), min_size=1))
        made[i] = Column(levels, kind == "choice", parent, when)
    return Columns([made[i] for i in range(d)], trend=draw(st.sampled_from([True, True, False])))


def raw_points(columns: Columns, n: int, seed: int) -> Array:
    """`n x d` numbers anywhere, some beyond the permitted ranges, many alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-2, 7, (n, columns.d)) / 4.0
    fine = rng.uniform(-0.2, 1.2, (n, columns.d)) * np.where(columns.categorical, columns.widths, 1)
    return np.where(rng.random((n, columns.d)) < 0.7, coarse, fine)


def settled_points(columns: Columns, n: int, seed: int) -> tuple[Array, Mask]:
    """`n` points drawn uniformly from the cube."""
    return columns.settle(columns.from_unit(np.random.default_rng(seed).random((n, columns.d))))


# τ²: next to none, plausible, and as large as it is searched.
TRENDS = (1e-4, 0.2, 1e2)


def hyperparameters(d: int, seed: int, noise: float = 1e-2, trend: float = 0.2) -> Array:
    """`d + 3` plausible ones: log length scales, log s², log σ², log τ²."""
    rng = np.random.default_rng(seed)
    length, scale = rng.uniform(np.log(0.2), np.log(2.0), d), rng.uniform(-0.7, 0.7)
    return np.concatenate([length, [scale, np.log(noise), np.log(trend)]])
