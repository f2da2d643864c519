"""The search space: named domains and constants, which are active when, samples, arrays, grids.

Must not know: searchers, the journal, configuration files. Ray is met in ``from_ray``, which looks at Ray's objects
without importing it, and in ``to_ray``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hpo_ray.domains import (
    MAX_GRID,
    MAX_TEXT,
    UNSET,
    Domain,
    Level,
    Levelled,
    Numeric,
    Scalar,
    When,
    choice,
    collecting,
    exact,
    freeze,
    integer,
    level_key,
    level_text,
    list_hint,
    logint,
    lognormal,
    loguniform,
    normal,
    ordinal,
    parse_domain,
    show,
    thaw,
    uniform,
    wrong,
)
from hpo_ray.errors import InvalidInput, Problem, nearest

__all__ = [
    "UNSET",
    "Dim",
    "Domain",
    "Levelled",
    "Numeric",
    "SearchSpace",
    "choice",
    "integer",
    "logint",
    "lognormal",
    "loguniform",
    "normal",
    "ordinal",
    "parse_domain",
    "uniform",
]

_Key: TypeAlias = tuple[str, object]


@dataclass(frozen=True)
class Dim:
    """One column of the encoded space.

    Attributes:
        name: The parameter's name.
        kind: "float", "int", "choice" or "ordinal".
        levels: How many values it has; None for a continuous float.
        parent: The parameter that decides whether this one is active; None: it always is.
        when: The parent's values under which it is active (lists as tuples); empty without a parent.
    """

    name: str
    kind: Literal["float", "int", "choice", "ordinal"]
    levels: int | None
    parent: str | None = None
    when: tuple[Level, ...] = ()


class SearchSpace:
    """Named domains and constants. Immutable; equal if all names, domains and constants are, in the same order.

    Attributes:
        domains: Name -> domain of every sampled parameter, in the user's order.
        constants: Name -> value of what is the same in every configuration.
        dims: One `Dim` per domain, in the same order: the columns of ``encode``.
    """

    def __init__(self, entries: Mapping[str, Domain | Scalar], *, prefix: str = "space") -> None:
        """Make a space of domain objects and constants; a string is a constant here (``parse`` reads text).

        Args:
            entries: Name -> domain or constant.
            prefix: What stands before the names in error messages.

        Raises:
            InvalidInput: With every mistake in the conditions.
        """
        problems: list[Problem] = []
        links = _links(entries, frozenset(), prefix, problems)
        if problems:
            raise InvalidInput(*problems)
        domains = {name: entry for name, entry in entries.items() if isinstance(entry, Numeric | Levelled)}
        self.domains: Mapping[str, Domain] = domains
        self.constants: Mapping[str, Scalar] = {
            name: entry for name, entry in entries.items() if not isinstance(entry, Numeric | Levelled)
        }
        self.dims = tuple(
            Dim(name, domain.kind, domain.levels, *links.get(name, (None, ()))) for name, domain in domains.items()
        )
        self._names = tuple(entries)  # constants too
        self._links = {name: (parent, frozenset(map(level_key, when))) for name, (parent, when) in links.items()}
        self._order = _parents_first(domains, links)

    @classmethod
    def parse(cls, mapping: Mapping[str, object], *, prefix: str = "space") -> SearchSpace:
        """Read a space.

        Args:
            mapping: Name -> text (``loguniform(1e-4, 1e-1)``, ``choice(sgd, adam)``, ``sgd``), a domain object, or a
                constant number, boolean or None.
            prefix: What stands before the names in error messages.

        Raises:
            InvalidInput: With every mistake of every key.
        """
        return cls._read(mapping, _entry, prefix)

    @classmethod
    def from_ray(cls, mapping: Mapping[str, object]) -> SearchSpace:
        """The space that Ray Tune's ``param_space`` means; Ray itself is not imported.

        Ray's integer bounds exclude the upper one, ours include it. ``grid_search`` becomes a choice. Plain values,
        strings too, are constants; a plain list is kept as the only value of a choice. A normal is clipped at its
        central 1 - 1e-9 mass. The first and last multiple of a quantised float get a full share, which Ray halves.

        Args:
            mapping: Name -> Ray's domain, our domain, or a constant.

        Raises:
            InvalidInput: With every key that has no counterpart: ``sample_from``, nested dictionaries.
        """
        return cls._read(mapping, _entry_from_ray, "space")

    @classmethod
    def _read(
        cls, mapping: Mapping[str, object], read: Callable[[object], Domain | Scalar], prefix: str
    ) -> SearchSpace:
        problems: list[Problem] = []
        entries: dict[str, Domain | Scalar] = {}
        for name, value in mapping.items():
            with collecting(problems, f"{prefix}.{name if isinstance(name, str) else show(name)}"):
                if not isinstance(name, str) or not name:
                    raise wrong(f"a parameter's name must be text, not {show(name)}")
                entries[name] = read(value)
        if problems:
            _links(entries, frozenset(map(str, mapping)) - entries.keys(), prefix, problems)
            raise InvalidInput(*problems)
        return cls(entries, prefix=prefix)

    def __len__(self) -> int:
        return len(self.dims)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"SearchSpace({self.text()})"

    def _identity(self) -> tuple[object, ...]:
        # The types as well: 1, 1.0 and True are different constants.
        return tuple((name, self.domains.get(name) or level_key(self.constants[name])) for name in self._names)

    @property
    def names(self) -> tuple[str, ...]:
        """The sampled parameters: the columns of ``encode``."""
        return tuple(self.domains)

    @property
    def size(self) -> int | None:
        """How many different configurations there are, inactive parameters not counted; None if infinitely many."""
        levels = {name: domain.levels for name, domain in self.domains.items()}
        counts = {name: count for name, count in levels.items() if count is not None}
        return self._count(counts, {}) if len(counts) == len(levels) else None

    def text(self) -> dict[str, str | int | float | bool | None]:
        """JSON values only; ``parse`` makes an equal space of it."""
        entries: dict[str, str | int | float | bool | None] = {}
        for name in self._names:
            if name in self.domains:
                entries[name] = self.domains[name].text()
            else:
                value = self.constants[name]
                entries[name] = level_text(value) if isinstance(value, str) else value
        return entries

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """One independent draw: constants and active parameters, in the user's order.

        Takes one uniform number per dimension from ``rng``, whether it is active or not.
        """
        return self._configuration(dict(zip(self.domains, rng.random(len(self.dims)).tolist(), strict=True)))

    def default_config(self) -> dict[str, Any] | None:
        """Each parameter's default, or else its centre (a choice's first value); None if no parameter has a default."""
        if all(domain.default is UNSET for domain in self.domains.values()):
            return None
        chosen: dict[str, Level] = {}
        for name in self._order:
            domain = self.domains[name]
            if not self._is_active(name, chosen):
                continue
            if domain.default is not UNSET:
                chosen[name] = domain.default
            else:
                chosen[name] = _at(domain, 0.0 if domain.kind == "choice" else 0.5)
        return self._arranged(chosen)

    def contains(self, config: Mapping[str, object]) -> bool:
        """Whether ``config`` has exactly the active parameters, each with a value of its domain.

        Constants may be left out, but not differ.
        """
        try:
            self._checked(config)
        except InvalidInput:
            return False
        return True

    def encode(self, configs: Sequence[Mapping[str, object]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Configurations as an array.

        Args:
            configs: `n` configurations as ``sample`` makes them; constants may be left out.

        Returns:
            x: `n x d`; numbers and ordinals in the unit interval, a choice as its level's index. Where inactive: 0.5,
                or 0 for a choice.
            active: `n x d`, which entries are in use.

        Raises:
            InvalidInput: With every unknown, missing, inactive or wrong value, keyed by parameter.
        """
        x = np.tile([0.0 if dim.kind == "choice" else 0.5 for dim in self.dims], (len(configs), 1))
        active = np.zeros(x.shape, dtype=bool)
        problems: list[Problem] = []
        for row, config in enumerate(configs):
            try:
                chosen = self._checked(config)
            except InvalidInput as error:
                where = f" (configuration {row})" if len(configs) > 1 else ""
                problems.extend(Problem(problem.key, problem.message + where) for problem in error.problems)
                continue
            for column, (name, domain) in enumerate(self.domains.items()):
                if name in chosen:
                    active[row, column] = True
                    value = chosen[name]
                    if isinstance(domain, Levelled) and domain.kind == "choice":
                        x[row, column] = domain.index(value)
                    else:
                        x[row, column] = domain.to_unit(value)
        if problems:
            raise InvalidInput(*problems)
        return x, active

    def decode(self, x: npt.ArrayLike) -> list[dict[str, Any]]:
        """Configurations of an array.

        Args:
            x: `n x d` as from ``encode``; clipped to the unit interval, a choice's index rounded and clipped.

        Returns:
            `n` configurations: constants and active parameters.

        Raises:
            ValueError: The shape is another, or an entry is NaN.
        """
        array = np.asarray(x, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self.dims):
            raise ValueError(f"x has shape {array.shape}, but must be n x {len(self.dims)}")
        if np.isnan(array).any():
            raise ValueError("x holds NaN")
        for column, dim in enumerate(self.dims):
            if dim.kind == "choice" and dim.levels is not None:
                # To the centre of the level's bin, from where all kinds are decoded alike.
                index = np.clip(np.rint(array[:, column]), 0, dim.levels - 1)
                array = np.column_stack([array[:, :column], (index + 0.5) / dim.levels, array[:, column + 1 :]])
        return [self._configuration(dict(zip(self.domains, row, strict=True))) for row in array.tolist()]

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the domains' grid values, once, the last parameter fastest; lazily.

        A condition is honoured: what is inactive is left out and not counted. Parents come before children.

        Raises:
            InvalidInput: At once. A continuous float without ``grid=``; or more than a million configurations.
        """
        problems: list[Problem] = []
        values: dict[str, Sequence[Level]] = {}
        for name, domain in self.domains.items():
            with collecting(problems, f"space.{name}"):
                values[name] = domain.values if isinstance(domain, Levelled) else domain.grid_values()
        if problems:
            raise InvalidInput(*problems)
        possible = {
            name: frozenset(map(level_key, values[name]))
            for name, domain in self.domains.items()
            if isinstance(domain, Numeric) and domain.grid is not None
        }
        size = self._count({name: len(points) for name, points in values.items()}, possible)
        if size > MAX_GRID:
            advice = "give numbers fewer points with grid=n, or use another searcher"
            raise InvalidInput(
                Problem("space", f"the grid has {show(size)} configurations, at most {MAX_GRID}: {advice}")
            )
        return self._combinations(values, {})

    def to_ray(self) -> dict[str, Any]:
        """The same space for Ray Tune's ``param_space``.

        Ray knows no clipped normal, no order of an ordinal (it becomes a choice), no ``default`` and no ``grid``.

        Raises:
            InvalidInput: With every parameter that Ray cannot express: with ``when``, a lognormal, a lattice that is
                not the multiples of q.
        """
        problems: list[Problem] = []
        converted: dict[str, Any] = {}
        for name in self._names:
            with collecting(problems, f"space.{name}"):
                domain = self.domains.get(name)
                converted[name] = self.constants[name] if domain is None else _to_ray(domain)
        if problems:
            raise InvalidInput(*problems)
        return converted

    def _is_active(self, name: str, chosen: Mapping[str, Level]) -> bool:
        """Whether ``name`` is active, given the values of its active ancestors."""
        if name not in self._links:
            return True
        parent, keys = self._links[name]
        return parent in chosen and level_key(chosen[parent]) in keys

    def _configuration(self, units: Mapping[str, float]) -> dict[str, Any]:
        """The configuration at a point of the unit cube."""
        chosen: dict[str, Level] = {}
        for name in self._order:
            if self._is_active(name, chosen):
                chosen[name] = _at(self.domains[name], units[name])
        return self._arranged(chosen)

    def _arranged(self, chosen: Mapping[str, Level]) -> dict[str, Any]:
        """Constants and chosen values in the user's order, lists as lists."""
        found = {**self.constants, **chosen}
        return {name: thaw(found[name]) for name in self._names if name in found}

    def _checked(self, config: Mapping[str, object]) -> dict[str, Level]:
        """The values of the active parameters, in their domains' own form; InvalidInput with every mistake."""
        problems: list[Problem] = []
        for name in config:
            if name not in self.domains and name not in self.constants:
                message = (
                    f"{show(config[name])} is given for an unknown parameter: {nearest(str(name)[:60], self._names)}"
                )
                problems.append(Problem(str(name), message))
        for name, constant in self.constants.items():
            with collecting(problems, name):
                if name in config and level_key(freeze(config[name])) != level_key(constant):
                    raise wrong(f"{show(config[name])} is given, but it is the constant {show(constant)}")
        chosen: dict[str, Level] = {}
        unclear: set[str] = set()  # without a valid value, so that the children's activity is not known
        for name in self._order:
            if name in self._links and self._links[name][0] in unclear:
                unclear.add(name)
            elif self._is_active(name, chosen):
                unclear.add(name)
                with collecting(problems, name):
                    if name not in config:
                        raise wrong(f"no value is given: expected one of {self.domains[name].text()}")
                    chosen[name] = self.domains[name].canonical(config[name])
                    unclear.remove(name)
            elif name in config:
                because = f"only active with {_condition_text(self.domains[name])}: leave it out"
                problems.append(Problem(name, f"{show(config[name])} is given, but {name} is {because}"))
        if problems:
            raise InvalidInput(*problems)
        return chosen

    def _count(self, points: Mapping[str, int], possible: Mapping[str, frozenset[_Key]]) -> int:
        """The number of configurations, by whole-number arithmetic over the forest of conditions.

        Args:
            points: How many values each parameter takes.
            possible: The values of those parameters that take some of their levels only.
        """
        counts = dict(points)
        # Below a parent's value: the product of the children active under it; 1 for values no child asks for.
        below: dict[str, dict[_Key, int]] = {name: {} for name in points}
        for name in reversed(self._order):
            counts[name] += sum(below[name].values()) - len(below[name])
            if name in self._links:
                parent, keys = self._links[name]
                for key in keys & possible.get(parent, keys):
                    below[parent][key] = below[parent].get(key, 1) * counts[name]
        return math.prod(counts[name] for name in points if name not in self._links)

    def _combinations(
        self, values: Mapping[str, Sequence[Level]], chosen: Mapping[str, Level], depth: int = 0
    ) -> Iterator[dict[str, Any]]:
        """All combinations of ``values`` that begin with ``chosen`` for the first ``depth`` parameters."""
        if depth == len(self._order):
            yield self._arranged(chosen)
        elif not self._is_active(self._order[depth], chosen):
            yield from self._combinations(values, chosen, depth + 1)
        else:
            name = self._order[depth]
            for value in values[name]:
                yield from self._combinations(values, {**chosen, name: value}, depth + 1)


def _entry(value: object) -> Domain | Scalar:
    """What one value of ``parse``'s mapping means."""
    if isinstance(value, Numeric | Levelled):
        return value
    if isinstance(value, str):
        return parse_domain(value)
    if isinstance(value, list | tuple | np.ndarray):
        raise wrong(list_hint(list(value)))
    return _constant(value)


def _constant(value: object) -> Scalar:
    if isinstance(value, Mapping):
        raise wrong("a mapping cannot be a parameter: give each of its keys a line of its own, such as model.depth")
    level = freeze(value)
    if isinstance(level, tuple) or len(level_text(level)) > MAX_TEXT:
        raise wrong(f"{show(value)} cannot be a constant: use a number or a shorter text")
    return level


def _at(domain: Domain, unit: float) -> Level:
    """The value at ``unit`` as it is stored (lists as tuples)."""
    return domain.values[domain.place(unit)] if isinstance(domain, Levelled) else domain.from_unit(unit)


def _condition_text(domain: Domain) -> str:
    parent, values = domain.when or ("", ())
    return f"{parent} = {' or '.join(map(level_text, values))}"


def _links(
    entries: Mapping[str, Domain | Scalar], broken: frozenset[str], prefix: str, problems: list[Problem]
) -> dict[str, When]:
    """Each conditional parameter's parent and the parent's levels; mistakes are added to ``problems``.

    Args:
        entries: The domains and constants that could be read.
        broken: Names whose entry could not be read: nothing is said about conditions on them.
        prefix: What stands before the names in ``problems``.
        problems: Receives every mistake.
    """
    links: dict[str, When] = {}
    for name, entry in entries.items():
        if isinstance(entry, Numeric | Levelled) and entry.when is not None and entry.when[0] not in broken:
            with collecting(problems, f"{prefix}.{name}"):
                links[name] = _link(name, entry.when, entries)
    seen: set[str] = set()
    for start in links:
        path: list[str] = []
        name = start
        while name in links and name not in seen:
            seen.add(name)
            path.append(name)
            name = links[name][0]
        if name in path:
            circle = [*path[path.index(name) :], name]
            problems.append(Problem(f"{prefix}.{name}", f"when goes in a circle: {' needs '.join(circle)}; remove one"))
    return links


def _link(name: str, when: When, entries: Mapping[str, Domain | Scalar]) -> When:
    """The condition with the parent's own levels; InvalidInput if the parent cannot be one or lacks a value."""
    parent, values = when
    if parent == name:
        raise wrong(f"when names {name} itself: name another parameter, or remove it")
    if parent not in entries:
        others = [other for other, entry in entries.items() if other != name and isinstance(entry, Numeric | Levelled)]
        raise wrong(f"when names {show(parent)}, which is not in the space: {nearest(parent[:60], others)}")
    domain = entries[parent]
    if not isinstance(domain, Numeric | Levelled):
        raise wrong(f"when names {parent}, which is the constant {show(domain)}: remove the condition")
    if domain.levels is None:
        raise wrong(
            f"when names {parent}, which is continuous ({domain.text()}): the parent must have levels, "
            "as choice, ordinal, int, or a float with q="
        )
    problems: list[Problem] = []
    levels: dict[_Key, Level] = {}
    for value in values:
        with collecting(problems):
            level = domain.canonical(value)
            levels[level_key(level)] = level
    if problems:
        raise wrong(*(f"when {parent}: {problem.message}" for problem in problems))
    return parent, tuple(levels.values())


def _parents_first(names: Mapping[str, object], links: Mapping[str, When]) -> tuple[str, ...]:
    """The names in their order, save that a parent that comes late is moved before its first child."""
    order: dict[str, None] = {}
    for name in names:
        line = [name]
        while line[-1] in links and links[line[-1]][0] not in order:
            line.append(links[line[-1]][0])
        order.update(dict.fromkeys(reversed(line)))
    return tuple(order)


def _entry_from_ray(value: Any) -> Domain | Scalar:
    """What one value of a Ray ``param_space`` means, by class names and attributes alone."""
    if isinstance(value, Numeric | Levelled):
        return value
    if isinstance(value, Mapping) and set(value) == {"grid_search"}:
        return choice(list(value["grid_search"]))
    if isinstance(value, list | tuple):
        return choice([value])
    kind = type(value).__name__ if type(value).__module__.startswith("ray.tune.") else ""
    if not kind:
        return _constant(value)
    if kind == "Categorical":
        return choice(list(value.categories))
    if kind not in ("Float", "Integer"):
        raise wrong(
            f"Ray's {kind} (sample_from) has no counterpart: use choice(a, b), or when={{parent: value}} "
            "for what depends on another parameter"
        )
    return _number_from_ray(value)


def _number_from_ray(value: Any) -> Domain | Scalar:
    """What Ray's Float or Integer means."""
    sampler, q = value.sampler, None
    if type(sampler).__name__ == "Quantized":
        sampler, q = sampler.sampler, sampler.q
    # Ray names its samplers _Uniform, _LogUniform, _Normal; a domain without one is uniform.
    scale = "Uniform" if sampler is None else type(sampler).__name__.lstrip("_")
    if scale == "Normal":
        return normal(sampler.mean, sampler.sd, q=q)
    if scale not in ("Uniform", "LogUniform"):
        raise wrong(f"Ray's sampler {scale} has no counterpart: use uniform, loguniform, normal, int or logint")
    low, high = value.lower, value.upper
    whole = type(value).__name__ == "Integer"
    if whole and q in (None, 1):
        low, high, q = low, high - 1, None  # Ray excludes the upper bound
    elif q is not None and q > 0 and math.isfinite(high - low):  # else left to our constructors to complain of
        low, high = _multiple(low, q, math.ceil), _multiple(high, q, math.floor)
        if low > high:
            raise wrong(f"no multiple of q {show(q)} lies between {show(value.lower)} and {show(value.upper)}")
    if low == high:
        return _constant(low)
    logarithmic = scale == "LogUniform"
    if whole:
        return logint(low, high, q=q) if logarithmic else integer(low, high, q=q)
    return loguniform(low, high, q=q) if logarithmic else uniform(low, high, q=q)


def _multiple(bound: float, q: float, inwards: Callable[[Any], int]) -> float:
    """The multiple of ``q`` at ``bound`` or next to it on the inner side, as Ray takes it."""
    ratio = exact(bound) / exact(q)
    index = round(ratio) if math.isclose(ratio, round(ratio)) else inwards(ratio)
    value = index * exact(q)
    return int(value) if isinstance(q, int) else float(value)


def _to_ray(domain: Domain) -> Any:
    """Ray's domain for ours; InvalidInput if there is none."""
    from ray import tune  # the one place that needs Ray, and importing it takes seconds

    if domain.when is not None:
        raise wrong(f"Ray cannot say that it is only active with {_condition_text(domain)}: remove when")
    if isinstance(domain, Levelled):
        return tune.choice([thaw(level) for level in domain.values])
    low, high, q = domain.low, domain.high, domain.q
    if domain.scale == "lognormal":
        raise wrong(f"Ray has no lognormal: use loguniform instead of {domain.text()}")
    if domain.scale == "normal":
        return tune.randn(domain.mean, domain.sd) if q is None else tune.qrandn(domain.mean, domain.sd, q)
    logarithmic = domain.scale == "log"
    if q is not None:
        if (exact(low) / exact(q)).denominator != 1:
            raise wrong(f"Ray's levels are the multiples of q, which those of {domain.text()} are not: move low")
        if domain.kind == "int":
            return tune.qlograndint(low, high, q) if logarithmic else tune.qrandint(low, high, q)
        return tune.qloguniform(low, high, q) if logarithmic else tune.quniform(low, high, q)
    if domain.kind == "int":  # Ray excludes the upper bound
        return tune.lograndint(low, high + 1) if logarithmic else tune.randint(low, high + 1)
    return tune.loguniform(low, high) if logarithmic else tune.uniform(low, high)
