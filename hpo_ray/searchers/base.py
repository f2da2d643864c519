"""What all our searchers share: Ray's Searcher protocol on one side, `_propose` and `_tell` on the other.

A searcher's state is a function of its seed and of the calls made to it, in order; `save` keeps those calls, not a
pickle. Suggestion k draws only from ``numpy.random.default_rng([seed, k])``.
"""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.search import Searcher

from hpo_ray.domains import collecting, show
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.searchers.nested import Nesting
from hpo_ray.space import SearchSpace

Config = dict[str, Any]


class SpaceSearcher(Searcher, abc.ABC):
    """A searcher over a `SearchSpace`; usable as ``search_alg`` of any ``tune.Tuner``.

    Subclasses say how to propose a configuration, and what to make of an observation. They see flat configurations: in
    a nested space, ``{"model": {"layers": …}}``, that parameter is ``model.layers`` to them.
    """

    # Whether `tune.grid_search` is understood: only a grid tries all of its values.
    _takes_grids = False
    _metric: str | None
    _mode: str | None

    def __init__(
        self,
        space: SearchSpace | Mapping[str, Any] | None = None,
        *,
        metric: str | None = None,
        mode: str | None = None,
        seed: int = 0,
        points_to_evaluate: Sequence[Config] | None = None,
    ) -> None:
        """Make a searcher.

        Args:
            space: Where to search: ours, its text form, or Ray's domains, the last two also in nested dictionaries;
                None: the Tuner's ``param_space``.
            metric: The reported key to optimise; None: the Tuner's, which passes it on together with its
                ``param_space`` only: with `space` give both.
            mode: ``"min"`` or ``"max"``; None: likewise.
            seed: All randomness comes from it.
            points_to_evaluate: Configurations to suggest first, in order; of the space's shape or flat. None: the
                space's default configuration, if it has one (but for a grid) and nothing was observed before.

        Raises:
            InvalidInput: The space has mistakes or a ``tune.grid_search``, or a point lies outside it.
        """
        super().__init__(metric=metric, mode=mode)
        self.seed = seed
        self._points = list(points_to_evaluate or [])
        self._default_first = False  # whether `_points` is the space's default configuration, which nobody asked for
        self._calls: list[list[Any]] = []
        self._configs: dict[str, Config] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._count = 0
        self.space: SearchSpace | None = None
        self._nesting: Nesting | None = None
        self._restored: dict[str, Any] | None = None
        if space is not None:
            self._set_space(space)

    # Ray's protocol

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: object
    ) -> bool:
        """Take what the Tuner knows; False where both sides name the same thing (Ray then refuses).

        Raises:
            InvalidInput: As for the space in ``__init__``.
        """
        self._metric = metric or self._metric
        self._mode = mode or self._mode
        if config and self.space is not None:
            return False  # Ray goes on all the same where `config` holds only constants: it merges them with ours
        if config:
            self._set_space(config)
        return True

    def suggest(self, trial_id: str) -> Config | None:
        """The next configuration, in the shape of the given space; `Searcher.FINISHED` when there is none left.

        Raises:
            ValueError: No space was given, here or as the Tuner's ``param_space``.
        """
        if self.space is None:
            raise ValueError(f"{type(self).__name__} has no search space: pass space=…, or param_space=… to the Tuner")
        k = self._count
        rng = np.random.default_rng([self.seed, k])
        config = self._points[k] if k < len(self._points) else self._propose(k, rng)
        if config is None:
            return str(self.FINISHED)  # type: ignore[return-value]  # Ray's own type says dict
        self._suggested(trial_id, config, self._state() if k >= len(self._points) else {})
        if self._nesting is None:
            return dict(config)
        return self._nesting.nested({**self.space.constants, **config})  # a given point may leave constants out

    def replay(self, trial_id: str, config: Config, state: Mapping[str, Any]) -> None:
        """Take a suggestion made before, by this searcher or one like it, as made: nothing is computed anew.

        Args:
            trial_id: Whose it was.
            config: What was suggested, as it was or flat.
            state: What `state_of` said of it then.
        """
        [flat] = self._flat([config])
        if self._count >= len(self._points):
            self._replayed(self._count, state)
        self._suggested(trial_id, flat, dict(state))

    def skip_to(self, k: int) -> None:
        """Be ready for suggestion number `k`: those before it that were not made or replayed are lost."""
        self._count = max(self._count, k)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Ray reports progress: observed at Ray's ``training_iteration``."""
        self._observe_result(trial_id, result, "running")

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray reports an end. Ray cannot say whether a scheduler cut the trial short; `observe` can."""
        self._observe_result(trial_id, result or {}, "failed" if error else "completed")

    def add_evaluated_point(
        self,
        parameters: Config,
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Tell of a configuration evaluated elsewhere, its value in the metric's own sense."""
        status = "failed" if error else "stopped" if pruned else "completed"
        fidelity = float(len(intermediate_values)) if intermediate_values else None
        name = f"point-{len(self._calls)}"
        self.observe(name, parameters, None if error else self._sign() * value, fidelity=fidelity, status=status)

    def save(self, checkpoint_path: str) -> None:
        """Write the calls so far as JSON."""
        points = {"points": self._points, "default_first": self._default_first}
        document = {"seed": self.seed, **points, "calls": self._calls}
        Path(checkpoint_path).write_text(json.dumps(document))

    def restore(self, checkpoint_path: str) -> None:
        """Replay the calls that `save` wrote; the searcher must be fresh and over the same space.

        One that has no space yet replays them when the Tuner gives it one.
        """
        document = json.loads(Path(checkpoint_path).read_text())
        if self.space is None:
            self._restored = document
        else:
            self._replay_calls(document)

    def _replay_calls(self, document: dict[str, Any]) -> None:
        self.seed, self._points = document["seed"], self._flat(document["points"])
        self._default_first = document["default_first"]
        for name, *arguments in document["calls"]:
            if name == "suggest":
                self.replay(*arguments)
            else:
                trial_id, config, loss, fidelity, status, se = arguments
                value = float(loss) if loss is not None else None
                self.observe(trial_id, config, value, fidelity=fidelity, status=status, se=se)

    # The channel of truth

    def observe(
        self,
        trial_id: str,
        config: Config,
        loss: float | None,
        *,
        fidelity: float | None,
        status: str,
        se: float | None = None,
    ) -> None:
        """Learn how a trial stands; what was known before the first suggestion stands in for the default one.

        Args:
            trial_id: Whose observation it is; searchers that learn go by its loss at the highest fidelity, the
                latest one there.
            config: Its configuration, as suggested or flat.
            loss: Minimised; None where nothing was measured. A trial that ends in NaN or infinity has failed.
            fidelity: Where `loss` was measured; None: the trial has no fidelity.
            status: ``running``, or how the trial ended: ``completed``, ``stopped``, ``failed``, ….
            se: Standard error of `loss`, if known.
        """
        [config] = self._flat([config])
        # Plain numbers, which JSON can hold.
        config = {k: v.item() if isinstance(v, np.generic) else v for k, v in config.items()}
        loss, fidelity, se = (None if value is None else float(value) for value in (loss, fidelity, se))
        self._calls.append(["observe", trial_id, config, loss, fidelity, status, se])
        if self._default_first and not self._count:
            self._points, self._default_first = [], False
        usable = loss is not None and math.isfinite(loss)
        if loss is not None and not usable and status in ("completed", "stopped"):
            status = "failed"  # whatever was measured before, it ended in NaN or infinity
        self._tell(trial_id, config, loss if usable else None, fidelity, status, se)

    def state_of(self, trial_id: str) -> dict[str, Any]:
        """What the suggestion depended on beside the seed and the calls before it: small JSON for the journal."""
        return self._states.get(trial_id, {})

    # What a searcher is

    @abc.abstractmethod
    def _propose(self, k: int, rng: np.random.Generator) -> Config | None:
        """Configuration number k, from `rng` alone and what was observed; None: there is no more."""

    def _tell(
        self,
        trial_id: str,
        config: Config,
        loss: float | None,
        fidelity: float | None,
        status: str,
        se: float | None,
    ) -> None:
        """Take an observation in; `loss` is finite or None. Searchers that do not learn leave this as it is."""

    def _state(self) -> dict[str, Any]:
        """Small JSON that explains the last proposal; most searchers need none."""
        return {}

    def _replayed(self, k: int, state: Mapping[str, Any]) -> None:
        """Be as after proposing configuration number k, which left `state`; most searchers have nothing to do."""

    def _space_set(self) -> None:
        """Called once the space is known."""

    def _suggested(self, trial_id: str, config: Config, state: dict[str, Any]) -> None:
        """Note a suggestion."""
        self._count += 1
        self._calls.append(["suggest", trial_id, config, state])
        self._configs[trial_id] = config
        self._states[trial_id] = state
        self._tell(trial_id, config, None, None, "pending", None)

    def _set_space(self, space: SearchSpace | Mapping[str, Any]) -> None:
        if isinstance(space, SearchSpace):
            self.space = space
        else:
            self._nesting = Nesting(space)
            self.space = self._read(self._nesting)
        self._points = self._flat(self._points)
        default = self.space.default_config()
        if not self._points and default is not None and not self._takes_grids:
            self._points, self._default_first = [default], True
        if self._points:
            self.space.encode(self._points)
        self._space_set()
        if self._restored is not None:
            document, self._restored = self._restored, None
            self._replay_calls(document)

    def _read(self, nesting: Nesting) -> SearchSpace:
        """The space of these entries; InvalidInput with every mistake, a grid where there is none among them."""
        name = type(self).__name__
        problems = [
            Problem(
                f"space.{key}",
                f"tune.grid_search is given, but {name} samples: use tune.choice({show(values)}), "
                "or leave search_alg out so that Tune runs the grid",
            )
            for key, values in nesting.grids.items()
            if not self._takes_grids
        ]
        with collecting(problems):
            space = (SearchSpace.from_ray if nesting.is_rays else SearchSpace.parse)(nesting.entries)
            if not problems:
                return space
        raise InvalidInput(*problems)

    def _flat(self, configs: Sequence[Config]) -> list[Config]:
        """The same configurations under the space's own names."""
        return list(configs) if self._nesting is None else [self._nesting.flat(config) for config in configs]

    def _sign(self) -> float:
        return -1.0 if self._mode == "max" else 1.0

    def _observe_result(self, trial_id: str, result: dict[str, Any], status: str) -> None:
        config = self._configs.get(trial_id)
        if config is None:
            return
        if self._metric is None or self._mode is None:
            # Tune does not pass its own on where the space stands in the searcher.
            raise ValueError(f"{type(self).__name__} was not told what to optimise: pass metric=… and mode=… to it")
        value = result.get(self._metric)
        loss = None if value is None else self._sign() * float(value)
        self.observe(trial_id, config, loss, fidelity=result.get("training_iteration"), status=status)
