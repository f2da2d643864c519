"""One Gaussian process over the search so far, kept warm between suggestions: refitted seldom, grown in between.

Must not know: candidates, acquisition, configurations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo_ray.gp import kernel, outputs
from hpo_ray.gp.columns import Array, Integers
from hpo_ray.gp.surrogate import Posterior, Prior, fit

# Evidence is computed on at most so many observations, spread over good and bad: more change it little.
FIT_AT_MOST = 400
# Refitted when there are this many more observations, as a share of those at the last fit.
REFIT_SHARE = 0.1
WARM_STEPS = 12
# Up to so many observations the fit also starts from the prior's centre, for early evidence misleads.
FEW = 20

# A step between +1 and -1 looks like a function without any smoothness: labels are held to be smooth, and noisy.
LABELS = Prior(length_mean=-1.0, length_sd=0.5, noise_mean=np.log(0.05), noise_sd=0.5, scale_sd=0.5)


class View:
    """A way of looking at the losses, and the model of what it sees.

    Attributes:
        theta: Hyper-parameters; None before the first fit.
        power: Of the transform.
        fitted_at: How many observations there were at the last fit.
        base: How many rows the last full factorisation had; later ones were added one at a time.
    """

    def __init__(self, way: str, owner: Integers, *, power: bool = True, labels: bool = False) -> None:
        """Make a view.

        Args:
            way: How losses are looked at (`outputs`).
            owner: `p`, what each feature is (see `kernel.log_evidence`).
            power: Whether a power is chosen.
            labels: Whether outputs are ±1 labels, to be taken as they are.
        """
        self.way, self.owner, self.labels = way, owner, labels
        self.choose_power = power and not labels
        self.prior = LABELS if labels else Prior()
        self.theta: Array | None = None
        self.power = 1.0
        self.evidence = -np.inf
        self.fitted_at = 0
        self.base = 0
        self.generation: int | None = None
        self._posterior: Posterior | None = None

    def state(self) -> dict[str, Any]:
        """Small JSON from which `set_state` brings back the same model of the same data, to the last bit."""
        theta = None if self.theta is None else self.theta.tolist()
        numbers = {"power": self.power, "evidence": self.evidence, "fitted_at": self.fitted_at, "base": self.base}
        return {"theta": theta, **numbers, "generation": self.generation}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take a state from `state`."""
        self.theta = None if state["theta"] is None else np.array(state["theta"])
        self.power, self.evidence = float(state["power"]), float(state["evidence"])
        self.fitted_at, self.base = int(state["fitted_at"]), int(state["base"])
        self.generation = state["generation"]
        self._posterior = None

    def look(self, features: Array, y: Array, se: Array, *, generation: int | None) -> Posterior:
        """The posterior given `n` observations, refitted if that is due.

        Args:
            features: `n x p`.
            y: `n` losses or labels.
            se: `n` known standard errors of the losses; 0 for unknown.
            generation: While it stays the same, rows are only added at the end, so that the factor may grow; None:
                nothing is known of the rows.
        """
        n = len(y)
        prepared = outputs.Warped(y, np.ones(n)) if self.labels else outputs.prepare(y, self.way)
        due = (
            self.theta is None or n >= self.fitted_at + max(1, int(REFIT_SHARE * self.fitted_at)) or n < self.fitted_at
        )
        if due:
            self._fit(features, prepared, se)
        warped = outputs.with_power(prepared, self.power)
        extra = _noise(se, warped)
        assert self.theta is not None  # fitted at first
        if due or generation is None or generation != self.generation or se.any() or not 0 < self.base <= n:
            self.base, self.generation = n, generation
            self._posterior = Posterior(self.theta, self.owner, features, warped.z, extra=extra)
            return self._posterior
        if self._posterior is None:  # brought back: the same operations in the same order
            first = slice(None, self.base)
            self._posterior = Posterior(self.theta, self.owner, features[first], warped.z[first])
        while (rows := len(self._posterior.features)) < n:
            self._posterior = self._posterior.grown(features[rows : rows + 1], warped.z[: rows + 1])
        self._posterior.set_outputs(warped.z)
        return self._posterior

    def _fit(self, features: Array, prepared: outputs.Warped, se: Array) -> None:
        """The most probable hyper-parameters, and the power under which the losses are most likely."""
        n, width = len(prepared.z), int(self.owner.max()) + 1
        self.fitted_at = n
        if n > FIT_AT_MOST:
            some = np.argsort(prepared.z, kind="stable")[np.linspace(0, n - 1, FIT_AT_MOST).astype(int)]
            features, se, n = features[some], se[some], FIT_AT_MOST
            prepared = outputs.Warped(prepared.z[some], prepared.slope[some])
        if self.choose_power:
            self.power = self._likeliest_power(features, prepared, se)
        warped = outputs.with_power(prepared, self.power)
        extra = _noise(se, warped)
        warm, centre = self.theta, self.prior.mean(width)
        # A warm start needs few steps, and the next refit goes on from where this one ends.
        start, steps = (centre, 50) if warm is None or n <= FEW else (warm, WARM_STEPS)
        first = fit(features, self.owner, warped.z, start, prior=self.prior, extra=extra, iterations=steps)
        # A warm start can be left behind by the data: when they have become less likely, begin anew as well.
        if warm is not None and (n <= FEW or first[1] / n < self.evidence - 0.05):
            other = warm if n <= FEW else centre
            second = fit(features, self.owner, warped.z, other, prior=self.prior, extra=extra)
            first = max(first, second, key=lambda found: found[1])
        self.theta, self.evidence = first[0], first[1] / n
        self._posterior = None

    def _likeliest_power(self, features: Array, prepared: outputs.Warped, se: Array) -> float:
        """The power that makes the losses most likely, under the current kernel or else as independent draws.

        Snelson et al. 2004 (warped Gaussian processes), eq. 5: the evidence of the outputs times their Jacobian.
        """
        factor = None
        if self.theta is not None:
            extra = _noise(se, outputs.with_power(prepared, self.power))
            factor = Posterior(self.theta, self.owner, features, prepared.z, extra=extra).factor
        scores = []
        for power in outputs.POWERS:
            warped = outputs.with_power(prepared, power)
            if factor is None:
                fit_term = -0.5 * len(warped.z)
            else:
                mean, alpha = kernel.weights(factor, warped.z[:, None])
                fit_term = -0.5 * float((warped.z - mean[0]) @ alpha[:, 0])
            scores.append(fit_term + warped.log_jacobian)
        return outputs.POWERS[int(np.argmax(scores))]


def _noise(se: Array, warped: outputs.Warped) -> Array:
    """`n` noise variances of the transformed losses; a standard error of a thousand says nothing at all."""
    return np.minimum(se * warped.slope, 1e3) ** 2
