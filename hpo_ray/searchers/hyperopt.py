"""The tree-structured Parzen estimator of the `hyperopt` library, over our search space.

Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import hyperopt
import numpy as np
from hyperopt import hp

from hpo_ray.domains import level_key
from hpo_ray.encoding import levels_of
from hpo_ray.searchers.base import Config, SpaceSearcher
from hpo_ray.searchers.ledger import FAILURES
from hpo_ray.space import Dim, SearchSpace

# hyperopt's own default is 20, most of a small sweep.
STARTUP_TRIALS = 10
# hyperopt goes through all that it is told for every suggestion. Of more trials it is told of the best and of an even
# sample of the others, so that in a long sweep a suggestion costs it no more than after so many.
MOST_TOLD = 2000
# hyperopt's own split of n trials: the best are γ √n of them, and at most so many.
_GAMMA, _MOST_BEST = 0.25, 25


class HyperoptSearcher(SpaceSearcher):
    """TPE. Numbers reach it in unit coordinates, so that log, normal and quantised scales are the space's business.

    Of the losses it uses nothing but their order. Trials are sorted by the fidelity that they reached, the highest
    first, and at one fidelity by the loss there, as Optuna's TPESampler sorts pruned trials: one that was stopped early
    stands behind all that went further, however low its loss was. A suggested trial that completed, and one without a
    fidelity, counts as trained as far as any. One that has no loss yet, or failed, counts as the worst.

    Other orders were no better (`benchmarks/README.md`), among them that of Falkner et al. 2018, "BOHB: Robust and
    Efficient Hyperparameter Optimization at Scale", section 3.2: only the highest fidelity with enough trials.

    TPE compares two densities: that of the best trials, 25 at most, and that of all others. Of more than `MOST_TOLD`
    trials the second is estimated from every n-th of the others, as they were suggested; none of the best is left out.
    """

    def _space_set(self) -> None:
        assert self.space is not None  # called when it is set
        logging.getLogger("hyperopt").setLevel(logging.WARNING)
        # Parameters that others depend on: hyperopt branches on an index, so they are told as one.
        self._indexed = {dim.parent for dim in self.space.dims if dim.parent is not None}
        self._domain = hyperopt.base.Domain(lambda _: None, _tree(self.space))
        self._empty = hyperopt.Trials()
        # What hyperopt is told of each trial, in the order in which they were first heard of.
        self._documents: dict[str, dict[str, Any]] = {}
        # Whether that is as far as the trial goes, the fidelity (none is below all others), and the loss there.
        self._reached: dict[str, tuple[bool, float, float]] = {}
        # What `_order` has found, the highest fidelity then, and who has changed since.
        self._keys: dict[str, tuple[float, ...]] = {}
        self._top = -math.inf
        self._changed: set[str] = set()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray reports an end, whoever ended the trial; only one that ends after its last report is sure to be complete.

        For Ray passes the report at which a scheduler stops a trial here, and not to `on_trial_result`.
        """
        result = result or {}
        told = trial_id in self._reached and self._reached[trial_id][1] == result.get("training_iteration")
        self._observe_result(trial_id, result, "failed" if error else "completed" if told else "stopped")

    def _propose(self, k: int, rng: np.random.Generator) -> Config | None:
        assert self.space is not None  # `suggest` has checked it
        if len(self._documents) < STARTUP_TRIALS:
            return self.space.sample(rng)
        trials, gamma = self._told()
        seed = int(rng.integers(2**31 - 1))
        [document] = hyperopt.tpe.suggest([k], self._domain, trials, seed, gamma=gamma, n_startup_jobs=0, verbose=False)
        vals = {name: values[0] for name, values in document["misc"]["vals"].items() if len(values)}
        x = np.zeros((1, len(self.space.dims)))
        for column, dim in enumerate(self.space.dims):
            x[0, column] = self._to_column(dim.name, vals[dim.name]) if dim.name in vals else 0.0
        [config] = self.space.decode(x)
        return config

    def _tell(
        self, trial_id: str, config: Config, loss: float | None, fidelity: float | None, status: str, se: float | None
    ) -> None:
        if trial_id not in self._documents:
            self._documents[trial_id] = self._document(len(self._documents), config)
        if status in FAILURES:
            self._reached.pop(trial_id, None)
            self._changed.add(trial_id)
            self._documents[trial_id]["result"] = {"status": hyperopt.STATUS_FAIL}
        elif loss is not None:
            # Not one of an earlier run, which may have completed with less training than is asked for now.
            over = fidelity is None or (status == "completed" and trial_id in self._configs)
            reached = over, -math.inf if fidelity is None else fidelity
            if trial_id not in self._reached or reached >= self._reached[trial_id][:2]:
                self._reached[trial_id] = *reached, loss
                self._changed.add(trial_id)

    def _order(self) -> dict[str, tuple[float, ...]]:
        """What the trials with a loss are sorted by, the best first."""
        top = max((fidelity for _, fidelity, _ in self._reached.values()), default=0.0)
        if top != self._top:
            self._top, self._changed = top, self._changed | self._reached.keys()
        for trial_id in self._changed:
            if trial_id in self._reached:
                over, fidelity, loss = self._reached[trial_id]
                self._keys[trial_id] = (-top if over else -fidelity, loss)
            else:
                self._keys.pop(trial_id, None)
        self._changed.clear()
        return self._keys

    def _told(self) -> tuple[hyperopt.Trials, float]:
        """The trials that hyperopt is told of, each with its place as its loss, and its parameter for their split."""
        order, names = self._order(), list(self._documents)
        count, gamma = len(names), _GAMMA
        if count > MOST_TOLD:
            best = min(math.ceil(_GAMMA * math.sqrt(count)), _MOST_BEST)
            gamma = (best - 0.5) / math.sqrt(MOST_TOLD)  # as many as of all of them
            worst = max(heapq.nsmallest(best, order.values()), default=())
            first = sorted((key, self._documents[name]["tid"]) for name, key in order.items() if key <= worst)[:best]
            chosen = np.zeros(count, dtype=bool)
            chosen[[tid for _, tid in first]] = True
            rest = np.flatnonzero(~chosen)
            chosen[rest[np.linspace(0, len(rest) - 1, MOST_TOLD - len(first)).astype(int)]] = True
            names = [names[row] for row in np.flatnonzero(chosen)]
        self._rank(order, names)
        return hyperopt.trials_from_docs([self._documents[name] for name in names], validate=False), gamma

    def _rank(self, order: Mapping[str, tuple[float, ...]], names: Sequence[str]) -> None:
        """Tell hyperopt the places of these trials as their losses: it uses nothing but their order."""
        places = {key: float(place) for place, key in enumerate(sorted({order[n] for n in names if n in order}))}
        for name in names:
            if name in order:
                self._documents[name]["result"] = {"status": hyperopt.STATUS_OK, "loss": places[order[name]]}

    def _document(self, tid: int, config: Config) -> dict[str, Any]:
        """A configuration as hyperopt keeps it: each active label with its value."""
        assert self.space is not None  # `suggest` has checked it
        x, active = self.space.encode([config])
        vals: dict[str, list[float]] = {}
        for column, dim in enumerate(self.space.dims):
            vals[dim.name] = [self._from_column(dim.name, x[0, column], config)] if active[0, column] else []
        misc = {"tid": tid, "cmd": self._domain.cmd, "idxs": {n: [tid] * len(v) for n, v in vals.items()}, "vals": vals}
        [document] = self._empty.new_trial_docs([tid], [None], [{"status": hyperopt.STATUS_NEW}], [misc])
        document["state"] = hyperopt.JOB_STATE_DONE
        return dict(document)

    def _to_column(self, name: str, value: float) -> float:
        """hyperopt's value of a label as the space's column: an index becomes the unit value of its level."""
        assert self.space is not None
        domain = self.space.domains[name]
        if name in self._indexed and domain.kind != "choice":
            return float(domain.to_unit(levels_of(domain)[int(value)]))
        return float(value)

    def _from_column(self, name: str, value: float, config: Config) -> float:
        assert self.space is not None
        domain = self.space.domains[name]
        if domain.kind == "choice":
            return int(value)
        if name in self._indexed:
            keys = [level_key(level) for level in levels_of(domain)]
            return keys.index(level_key(config[name]))
        return float(value)


def _tree(space: SearchSpace) -> dict[str, Any]:
    """The space as hyperopt nests it: a parent is a choice among branches, one a level, that hold its children.

    A child of several levels is one node that stands in several branches: hyperopt takes two for two parameters.
    """
    children: dict[str | None, list[Dim]] = {}
    for dim in space.dims:
        children.setdefault(dim.parent, []).append(dim)
    nodes: dict[str, Any] = {}

    def node(name: str) -> Any:
        if name not in nodes:
            domain = space.domains[name]
            if name in children:
                branches = [branch(name, index, level) for index, level in enumerate(levels_of(domain))]
                nodes[name] = hp.choice(name, branches)
            elif domain.kind == "choice":
                nodes[name] = hp.randint(name, domain.levels)
            else:
                nodes[name] = hp.uniform(name, 0.0, 1.0)
        return nodes[name]

    def branch(parent: str, index: int, level: Any) -> dict[str, Any]:
        active = [dim for dim in children[parent] if level_key(level) in set(map(level_key, dim.when))]
        return {"level": index, **{dim.name: node(dim.name) for dim in active}}

    return {dim.name: node(dim.name) for dim in children.get(None, [])}
