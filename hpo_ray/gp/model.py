"""The next point of a search: what is known in, the point with the largest expected improvement out.

Must not know: configurations, trials, Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo_ray.gp import outputs
from hpo_ray.gp.acquisition import LogEI
from hpo_ray.gp.columns import Array, Columns, Mask
from hpo_ray.gp.maximiser import best_of, maximise, neighbours, sobol
from hpo_ray.gp.recipe import Recipe
from hpo_ray.gp.surrogate import Posterior, robust_cholesky
from hpo_ray.gp.view import View

# Candidates: fixed Sobol points shifted at random, and variations of the best points.
SOBOL = 256
CENTRES, EACH = 5, 24
# Beyond so many observations a local selection of them is modelled; of more awaited points the newest.
FULL = 1000
# Noise above this share of the outputs' variance counts: the incumbent is then uncertain among so many contenders.
NOISY = 0.03
CONTENDERS = 20
# Joint draws of what is uncertain, in opposite pairs.
FANTASIES = 16


@dataclass(frozen=True)
class Known:
    """What is known of a search.

    Attributes:
        points: `n x d` settled points that were measured, oldest first.
        used: `n x d`, which entries are in use.
        loss: `n` losses.
        se: `n` standard errors of the losses; 0 where unknown.
        level: `n`, how far each was trained in [0, 1]; None if all alike.
        generation: Changes whenever a measurement is taken back; until then rows are only added at the end.
        pending: `q x d` points whose result is awaited.
        pending_used: `q x d`.
        failed: `f x d` points that failed.
        failed_used: `f x d`.
    """

    points: Array
    used: Mask
    loss: Array
    se: Array
    level: Array | None
    generation: int
    pending: Array
    pending_used: Mask
    failed: Array
    failed_used: Mask


class Model:
    """Suggestions, one at a time; its state between them is small JSON."""

    def __init__(self, columns: Columns, recipe: Recipe, seed: int) -> None:
        """A model of points shaped like `columns`; `seed` sets the Sobol points."""
        self.columns, self.recipe = columns, recipe
        self._grid = sobol(SOBOL, columns.d, [seed, 2**32])
        owner = columns.owner
        # The level of training, where it differs, is one more column.
        self._levelled = np.append(owner, columns.d)
        ways = [outputs.PLAIN, outputs.HALF_RANK][: 1 + recipe.half_rank]
        self._views = [View(way, owner, power=recipe.power) for way in ways]
        self._failures = View(outputs.PLAIN, owner, labels=True)

    def noisy(self) -> bool:
        """Whether the objective is noisy, as far as the models can tell."""
        noises = [np.exp(view.theta[-2]) for view in self._views if view.theta is not None]
        return bool(noises) and float(np.median(noises)) > NOISY

    def state(self, k: int) -> dict[str, Any]:
        """What suggestion `k` has changed."""
        turn = k % len(self._views)
        state = {"way": turn, "levelled": self._is_levelled(turn), **self._views[turn].state()}
        return state if self._failures.theta is None else {**state, "failures": self._failures.state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what a suggestion had changed."""
        view = self._views[state["way"]]
        view.owner = self._levelled if state["levelled"] else self.columns.owner
        view.set_state(state)
        if "failures" in state:
            self._failures.set_state(state["failures"])

    def propose(self, known: Known, k: int, rng: np.random.Generator, allowed: Callable[[Array], Mask]) -> Array | None:
        """Suggestion `k`: a settled, allowed point (`d`); None where no candidate is allowed.

        At least one loss must be known.
        """
        columns = self.columns
        view = self._views[k % len(self._views)]
        rows = self._selection(known)
        points, used, loss = known.points[rows], known.used[rows], known.loss[rows]
        features = columns.features(points, used)
        context = None
        if known.level is not None:
            context = np.ones(1)
            features = np.hstack([features, known.level[rows, None]])
        self._suit(view, known.level is not None)
        generation = known.generation if known.level is None and len(rows) == len(known.loss) else None
        posterior = view.look(features, loss, known.se[rows], generation=generation)
        # Means of the function at the data, at full training.
        if context is None:
            full, means = posterior.features, posterior.predict_at_data()[:, 0]
        else:
            full = np.hstack([features[:, :-1], np.ones((len(rows), 1))])
            means = posterior.predict(full)[0][:, 0]
        centres = points[np.argsort(means, kind="stable")[:CENTRES]]
        posterior, best = self._imagined(posterior, known, full, means, rng)
        acquisition = LogEI(posterior, best, columns, self._feasible(known), context)
        everything = columns.enumerate()
        if everything is not None:
            return best_of(acquisition, columns, everything, allowed)
        shifted = columns.from_unit((self._grid + rng.random(columns.d)) % 1.0)
        near = neighbours(columns, centres, EACH, rng) if self.recipe.local else centres
        length = np.exp(posterior.theta[: columns.d])
        starts = 4 if self.recipe.climb else 0
        return maximise(acquisition, columns, np.vstack([shifted, near]), length, allowed=allowed, starts=starts)

    def _imagined(
        self, posterior: Posterior, known: Known, full: Array, means: Array, rng: np.random.Generator
    ) -> tuple[Posterior, Array]:
        """The posterior with joint draws of what is uncertain put in as if observed, and each draw's incumbent.

        Uncertain are the values of pending points, and under noise those of the contenders for the incumbent (the
        lowest posterior means): EI over their draws is the noisy EI of Letham et al. 2019, eq. 8, and the fantasies of
        Snoek et al. 2012, section 3.2. Without noise and with nothing pending there is nothing to draw.
        """
        unsure = np.zeros((0, posterior.features.shape[1]))
        if self.recipe.noise_aware and posterior.noise > NOISY:
            unsure = full[np.argsort(means, kind="stable")[:CONTENDERS]]
        if len(known.pending):
            pending = self.columns.features(known.pending[-FULL:], known.pending_used[-FULL:])
            if known.level is not None:
                pending = np.hstack([pending, np.ones((len(pending), 1))])
            unsure = np.vstack([unsure, pending])
        best = means.min() if self.recipe.noise_aware else float(posterior.y.min())
        if not len(unsure):
            return posterior, np.array([best])
        mean, covariance = posterior.joint(unsure)
        draws = mean
        if self.recipe.fantasies:
            factor = robust_cholesky(covariance, posterior.scale)
            half = rng.standard_normal((len(unsure), FANTASIES // 2))
            draws = mean + factor @ np.hstack([half, -half])
        outputs_ = np.vstack([np.repeat(posterior.y, draws.shape[1], axis=1), draws])
        # Drawn are values of the function itself, which have no noise (but a little, to stay well-conditioned).
        quiet = np.full(len(unsure), min(1e-4, posterior.noise) - posterior.noise)
        grown = posterior.grown(unsure, outputs_, quiet)
        if self.recipe.noise_aware and posterior.noise > NOISY:
            return grown, draws.min(axis=0)
        return grown, np.minimum(draws.min(axis=0), best)

    def _feasible(self, known: Known) -> Posterior | None:
        """The model of +1 for what worked and -1 for what failed (least-squares classification, R&W 2006, 6.5)."""
        if not self.recipe.feasibility or not len(known.failed):
            return None
        columns, most = self.columns, FULL // 2
        failed = columns.features(known.failed[-most:], known.failed_used[-most:])
        worked = columns.features(known.points[-most:], known.used[-most:])
        labels = np.concatenate([np.ones(len(worked)), -np.ones(len(failed))])
        return self._failures.look(np.vstack([worked, failed]), labels, np.zeros(len(labels)), generation=None)

    def _selection(self, known: Known) -> np.ndarray:
        """All rows; of more than 1,000 the best ones, those around the incumbent, and some of the rest."""
        n = len(known.loss)
        if n <= FULL:
            return np.arange(n)
        order = np.argsort(known.loss, kind="stable")
        incumbent = known.points[order[0]]
        categorical = self.columns.categorical
        apart = np.where(categorical, known.points != incumbent, np.abs(known.points - incumbent))
        chosen = np.zeros(n, dtype=bool)
        chosen[order[: FULL * 2 // 5]] = True
        chosen[np.argsort((apart**2).sum(axis=1), kind="stable")[: FULL * 2 // 5]] = True
        rest = np.flatnonzero(~chosen)
        chosen[rest[np.linspace(0, len(rest) - 1, FULL - int(chosen.sum())).astype(int)]] = True
        return np.flatnonzero(chosen)

    def _is_levelled(self, turn: int) -> bool:
        return len(self._views[turn].owner) > len(self.columns.owner)

    def _suit(self, view: View, levelled: bool) -> None:
        """A view with or without the level's column; one that has changed starts anew."""
        owner = self._levelled if levelled else self.columns.owner
        if len(owner) != len(view.owner):
            view.owner, view.theta = owner, None
