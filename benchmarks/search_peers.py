"""Searchers behind one ask-and-tell face: ours, Optuna's two, and BoTorch as its documentation shows it.

A peer is made of a search space and a seed and has three methods. `suggest` gives a handle and a configuration, or None
when a finite space is exhausted; `observe` takes both back with the loss, None for a failure; `add` takes a result from
elsewhere.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from hpo_ray.domains import thaw
from hpo_ray.searchers import SEARCHERS, make
from hpo_ray.space import Numeric, SearchSpace

Config = dict[str, Any]


class Peer(Protocol):
    def suggest(self) -> tuple[Any, Config] | None: ...

    def observe(self, handle: Any, config: Config, loss: float | None) -> None: ...

    def add(self, config: Config, loss: float) -> None: ...


class Ours:
    """A searcher of this project; changes to the recipe make a variant of GP-EI."""

    def __init__(self, space: SearchSpace, seed: int, name: str, changes: dict[str, Any] | None = None) -> None:
        if changes:
            searcher_class = importlib.import_module("hpo_ray.searchers.gp_ei").GPEISearcher
            self.searcher = searcher_class(metric="loss", mode="min", seed=seed)
            # Before the space is known, for the searcher builds its model then.
            self.searcher.recipe = dataclasses.replace(self.searcher.recipe, **changes)
            self.searcher.set_search_properties("loss", "min", space)
        else:
            self.searcher = make(name, space, metric="loss", mode="min", seed=seed)
        self.count = 0

    def suggest(self) -> tuple[str, Config] | None:
        handle = f"{self.count:04d}"
        config = self.searcher.suggest(handle)
        self.count += 1
        return None if config == self.searcher.FINISHED else (handle, config)

    def observe(self, handle: str, config: Config, loss: float | None) -> None:
        status = "failed" if loss is None else "completed"
        self.searcher.observe(handle, config, loss, fidelity=None, status=status)

    def add(self, config: Config, loss: float) -> None:
        self.searcher.add_evaluated_point(config, loss)


class Optuna:
    """A study with one of Optuna's samplers, as it comes: defined by run, failures told as such."""

    def __init__(self, space: SearchSpace, seed: int, sampler: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna, self.space = optuna, space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "experimental"
            kind = getattr(optuna.samplers, sampler)
            # What it says of conditional parameters, again and again: that it draws them independently.
            options = {"warn_independent_sampling": False} if sampler == "GPSampler" else {}
            self.study = optuna.create_study(direction="minimize", sampler=kind(seed=seed, **options))

    def suggest(self) -> tuple[Any, Config]:
        trial = self.study.ask()
        chosen: Config = {}
        waiting = list(self.space.dims)
        while waiting:
            dim = waiting.pop(0)
            if dim.parent is not None and dim.parent in {other.name for other in waiting}:
                waiting.append(dim)  # its parent comes first
            elif dim.parent is None or chosen.get(dim.parent) in dim.when:
                chosen[dim.name] = self._ask(trial, dim.name)
        return trial, {name: chosen[name] for name in self.space.names if name in chosen}

    def observe(self, handle: Any, config: Config, loss: float | None) -> None:
        if loss is None:
            self.study.tell(handle, state=self.optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(handle, loss)

    def add(self, config: Config, loss: float) -> None:
        distributions = {name: self._distribution(name) for name in config}
        parameters = {name: self._parameter(name, value) for name, value in config.items()}
        trial = self.optuna.trial.create_trial(params=parameters, distributions=distributions, value=loss)
        self.study.add_trial(trial)

    def _distribution(self, name: str) -> Any:
        """Optuna's own kind where it has one; an ordinal is an integer there."""
        domain, kinds = self.space.domains[name], self.optuna.distributions
        if not isinstance(domain, Numeric):
            ordinal = domain.kind == "ordinal"
            return (
                kinds.IntDistribution(0, domain.levels - 1) if ordinal else kinds.CategoricalDistribution(domain.values)
            )
        if domain.scale not in ("uniform", "log"):
            raise ValueError(f"{name}: Optuna has no counterpart of {domain.text()}")
        log, step = domain.scale == "log", domain.q
        if domain.kind == "int":
            return kinds.IntDistribution(int(domain.low), int(domain.high), log=log, step=int(step or 1))
        return kinds.FloatDistribution(domain.low, domain.high, log=log, step=step)

    def _ask(self, trial: Any, name: str) -> Any:
        domain, kinds, distribution = self.space.domains[name], self.optuna.distributions, self._distribution(name)
        if isinstance(distribution, kinds.CategoricalDistribution):
            return thaw(trial.suggest_categorical(name, distribution.choices))
        kind = trial.suggest_int if isinstance(distribution, kinds.IntDistribution) else trial.suggest_float
        number = kind(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        return thaw(domain.values[number]) if domain.kind == "ordinal" else number

    def _parameter(self, name: str, value: Any) -> Any:
        domain = self.space.domains[name]
        return domain.index(value) if domain.kind == "ordinal" else value


class BoTorch:
    """Floats only: a SingleTaskGP and log expected improvement, as on the first page of BoTorch's documentation."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        import torch

        if any(dim.levels is not None or dim.parent is not None for dim in space.dims):
            raise SystemExit("the botorch peer searches floats only")
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self.torch, self.space, self.rng = torch, space, np.random.default_rng(seed)
        self.x: list[np.ndarray] = []
        self.loss: list[float] = []

    def suggest(self) -> tuple[None, Config]:
        if len(self.loss) < 2 * len(self.space):
            return None, self.space.sample(self.rng)
        from botorch.acquisition import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Normalize, Standardize
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import ExactMarginalLogLikelihood

        dims = len(self.space)
        x = self.torch.tensor(np.array(self.x), dtype=self.torch.double)
        y = -self.torch.tensor(self.loss, dtype=self.torch.double)[:, None]
        bounds = self.torch.stack([self.torch.zeros(dims), self.torch.ones(dims)]).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = SingleTaskGP(x, y, input_transform=Normalize(dims), outcome_transform=Standardize(1))
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            improvement = LogExpectedImprovement(model, best_f=y.max())
            candidate, _ = optimize_acqf(improvement, bounds=bounds, q=1, num_restarts=5, raw_samples=20)
        return None, self.space.decode(candidate.numpy())[0]

    def observe(self, handle: None, config: Config, loss: float | None) -> None:
        if loss is not None:
            self.add(config, loss)

    def add(self, config: Config, loss: float) -> None:
        self.x.append(self.space.encode([config])[0][0])
        self.loss.append(loss)


OURS = ("gp_ei", "hyperopt", "random")
# Name -> the packages that it needs, and how it is made.
PEERS: dict[str, tuple[tuple[str, ...], Callable[[SearchSpace, int], Peer]]] = {
    "optuna_tpe": (("optuna",), lambda space, seed: Optuna(space, seed, "TPESampler")),
    "optuna_gp": (("optuna", "torch"), lambda space, seed: Optuna(space, seed, "GPSampler")),
    "botorch": (("botorch",), BoTorch),
}


def variants(names: str) -> list[str]:
    """Peers that differ from gp_ei in one field of its recipe: a boolean's name flips it, `name=value` sets it.

    "all" is every boolean field.
    """
    recipe = importlib.import_module("hpo_ray.gp.recipe").Recipe()
    defaults = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    flags = [name for name, value in defaults.items() if isinstance(value, bool)]
    asked = flags if names == "all" else names.split(",")
    for name in asked:
        if "=" not in name and name not in flags:
            raise SystemExit(f"--ablate {name}: not a boolean field of the recipe; there are {', '.join(flags)}")
    return [f"gp_ei:{name}" if "=" in name else f"gp_ei:{name}={json.dumps(not defaults[name])}" for name in asked]


def resolve(names: list[str]) -> dict[str, Callable[[SearchSpace, int], Peer]]:
    """Name -> maker of every peer that can be had; one line printed for each that cannot.

    `gp_ei:field=value+field=value` is GP-EI with its recipe changed.

    Raises:
        SystemExit: A name means nothing.
    """
    makers: dict[str, Callable[[SearchSpace, int], Peer]] = {}
    for name in names:
        base, _, changed = name.partition(":")
        changes = dict(_change(item) for item in changed.split("+")) if changed else None
        if changes or base in SEARCHERS:
            makers[name] = lambda space, seed, base=base, changes=changes: Ours(space, seed, base, changes)
        elif name in OURS:
            print(f"{name} is left out: hpo_ray.searchers has no searcher of that name")
        elif name in PEERS:
            packages, maker = PEERS[name]
            missing = [package for package in packages if importlib.util.find_spec(package) is None]
            if missing:
                print(f"{name} is left out: not installed: {', '.join(missing)}")
            else:
                makers[name] = maker
        else:
            raise SystemExit(f"no such peer: {name}; there are {', '.join([*OURS, *PEERS])}, gp_ei:field=value")
    return makers


def _change(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
