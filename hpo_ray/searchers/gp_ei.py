"""GP-EI: Bayesian optimisation by log expected improvement under a Gaussian process.

The mathematics is in `hpo_ray.gp`, which knows arrays only; here a space becomes columns, and trials become rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from hpo_ray.encoding import columns_of
from hpo_ray.gp.columns import Array, Mask
from hpo_ray.gp.maximiser import sobol
from hpo_ray.gp.model import Known, Model
from hpo_ray.gp.recipe import Recipe
from hpo_ray.searchers.base import Config, SpaceSearcher
from hpo_ray.searchers.ledger import Ledger, Rows

# Losses that the model needs before it says anything.
FEWEST = 3
# The space-filling start has so many different points; should it last longer, random ones follow.
DESIGN_POINTS = 64
# A finite space of no more points is walked through for those that were not tried yet.
MANY_POINTS = 100_000

Allowed = Callable[[Array], Mask]


class GPEISearcher(SpaceSearcher):
    """Suggests where a Gaussian process expects the largest improvement; the first few suggestions fill the space.

    The start lasts for twice as many trials as there are parameters, from 6 to 12, those of earlier runs counted, and
    until three losses are known, so that more slots make it longer. Trials still running count as pending: a suggestion
    takes into account all that they might turn out to be. Trials stopped early count at the fidelity that they reached.
    Failures are learned as regions to avoid. No configuration is suggested twice before all were; when a finite space
    is exhausted `suggest` says so, or begins to repeat where the objective is known to be noisy, or seems so.

    Ray needs ``max_concurrent_trials`` to ask for more than one suggestion at a time; there is no limit of our own.

    Attributes:
        recipe: What the model is made of.
    """

    recipe = Recipe()

    def _space_set(self) -> None:
        assert self.space is not None  # called when it is set
        self._columns = columns_of(self.space, trend=self.recipe.trend)
        self._ledger = Ledger(self._columns.d)
        size = self.space.size or math.inf
        self._design, self._fewest = min(max(6, 2 * self._columns.d), 12, size), min(FEWEST, size)
        # Numbers with so many levels that the model takes them for continuous: rounded before points are compared.
        self._fine = [
            (i, self.space.domains[dim.name])
            for i, dim in enumerate(self.space.dims)
            if dim.levels is not None and self._columns.levels[i] is None
        ]
        self._tried: set[bytes] = set()
        self._state_now: dict[str, Any] = {}
        if self._columns.d:
            self._model = Model(self._columns, self.recipe, self.seed)
            self._start = self._columns.from_unit(sobol(DESIGN_POINTS, self._columns.d, [self.seed]))

    def _propose(self, k: int, rng: np.random.Generator) -> Config | None:
        assert self.space is not None  # `suggest` has checked it
        self._state_now = {}
        if not self._columns.d:
            return None if k else self.space.sample(rng)
        with _BLAS.limit(limits=1):  # these matrices are small: more threads only get in each other's way
            point = self._next(k, rng)
        if point is None:
            return None
        [config] = self.space.decode(point[None])
        return config

    def _next(self, k: int, rng: np.random.Generator) -> Array | None:
        """A settled point; None when all have been tried, and nothing speaks for noise."""
        measured = self._ledger.measured
        modelled = len(measured) >= self._fewest and len(self._ledger) >= self._design
        point = self._propose_point(measured, k, rng, self._untried) if modelled else None
        if point is None:
            point = self._fill(k, rng)
        if point is None and modelled and (self._ledger.noisy or self._model.noisy()):
            point = self._propose_point(measured, k, rng, self._settled_trials)
        return point

    def _propose_point(self, measured: Rows, k: int, rng: np.random.Generator, allowed: Allowed) -> Array | None:
        point = self._model.propose(self._known(measured), k, rng, allowed)
        self._state_now = self._model.state(k)
        return point

    def _fill(self, k: int, rng: np.random.Generator) -> Array | None:
        """An untried point of the space-filling start, or a random one; None if there is none."""
        some = np.vstack([self._start[k : k + 1], self._columns.from_unit(rng.random((64, self._columns.d)))])
        candidates = self._columns.settle(some)[0]
        if not self._untried(candidates).any():  # nearly or wholly exhausted
            everything = self._columns.enumerate(MANY_POINTS)
            if everything is None:
                everything = self._columns.settle(self._columns.from_unit(rng.random((4096, self._columns.d))))[0]
            candidates = everything
        free = np.flatnonzero(self._untried(candidates))
        return np.asarray(candidates[free[0]]) if free.size else None

    def _untried(self, points: Array) -> Mask:
        """Which settled points were never suggested."""
        return np.array([point.tobytes() not in self._tried for point in self._rounded(points)], dtype=bool)

    def _rounded(self, points: Array) -> Array:
        """Settled points with every number in use at one of its levels, however many it has."""
        if self._fine:
            points, used = points.copy(), self._columns.active(points)
            for i, domain in self._fine:
                rows = used[:, i]
                points[rows, i] = [domain.to_unit(domain.from_unit(unit)) for unit in points[rows, i].tolist()]
        return points

    def _settled_trials(self, points: Array) -> Mask:
        """Which settled points are neither awaited nor failed."""
        rows = np.concatenate([self._ledger.pending, self._ledger.failed])
        taken = {point.tobytes() for point in self._ledger.points(rows)}
        return np.array([point.tobytes() not in taken for point in self._rounded(points)], dtype=bool)

    def _known(self, measured: Rows) -> Known:
        ledger = self._ledger
        level, top = ledger.fidelity(measured), ledger.top_fidelity
        pending, failed = ledger.pending, ledger.failed
        # On a log scale, as rungs are; a trial without a fidelity counts as fully trained.
        levels = np.log1p(np.maximum(level, 0.0)) / np.log1p(max(top, 1e-12)) if math.isfinite(top) else level
        levels = np.where(np.isfinite(levels), levels, 1.0)
        return Known(
            points=ledger.points(measured),
            used=ledger.used(measured),
            loss=ledger.loss(measured),
            se=np.nan_to_num(np.maximum(ledger.se(measured), 0.0), nan=0.0, posinf=1e300),
            level=None if (levels == levels[0]).all() else levels,
            generation=ledger.generation,
            pending=ledger.points(pending),
            pending_used=ledger.used(pending),
            failed=ledger.points(failed),
            failed_used=ledger.used(failed),
        )

    def _tell(
        self, trial_id: str, config: Config, loss: float | None, fidelity: float | None, status: str, se: float | None
    ) -> None:
        assert self.space is not None  # nothing is told before it is set
        if trial_id not in self._ledger:
            x, used = self.space.encode([config])
            # Through the columns, so that a level's coordinate is the very number that proposals have.
            [point], [used_now] = self._columns.settle(np.where(used, x, self._columns.rest))
            self._ledger.add(trial_id, point, used_now)
            self._tried.add(point.tobytes())
        self._ledger.tell(trial_id, loss, fidelity, status, se)

    def _state(self) -> dict[str, Any]:
        return self._state_now

    def _replayed(self, k: int, state: Mapping[str, Any]) -> None:
        if state:
            self._model.set_state(dict(state))


_BLAS = ThreadpoolController().select(user_api="blas")
