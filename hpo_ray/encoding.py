"""A search space as the Gaussian process has it: its columns, and how likely each level of a column is.

Must not know: searchers, results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo_ray.domains import level_key, thaw
from hpo_ray.gp.columns import MANY_LEVELS, Array, Column, Columns
from hpo_ray.space import Domain, Numeric, SearchSpace


def levels_of(domain: Domain) -> list[Any]:
    """The levels in order, as a user gives them."""
    if isinstance(domain, Numeric):
        return [domain.level(index) for index in range(domain.levels or 0)]
    return [thaw(level) for level in domain.values]


def columns_of(space: SearchSpace, *, trend: bool = True) -> Columns:
    """The space's encoding, column by column."""
    places = {name: place for place, name in enumerate(space.names)}
    parents = {dim.parent for dim in space.dims}
    columns = []
    for dim in space.dims:
        domain = space.domains[dim.name]
        levels: tuple[float, ...] | None = None
        if dim.kind == "choice":
            levels = tuple(float(index) for index in range(dim.levels or 0))
        elif dim.levels is not None and (dim.levels <= MANY_LEVELS or dim.name in parents):
            levels = tuple(domain.to_unit(value) for value in levels_of(domain))
        parent, when = None, frozenset[int]()
        if dim.parent is not None:
            parent, keys = places[dim.parent], {level_key(level) for level in dim.when}
            when = frozenset(i for i, v in enumerate(levels_of(space.domains[dim.parent])) if level_key(v) in keys)
        columns.append(Column(levels, dim.kind == "choice", parent, when))
    return Columns(columns, trend=trend)


def level_shares(domain: Domain) -> Array:
    """How likely `SearchSpace.sample` draws each level, in order; they sum to 1."""
    count = domain.levels or 0
    if isinstance(domain, Numeric) and domain.scale != "uniform":
        return np.diff([domain.edge(index) for index in range(count + 1)])
    return np.full(count, 1.0 / count)
