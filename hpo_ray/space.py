"""The search space: named domains and constants, samples, arrays, grids.

Must not know: searchers, the journal, configuration files, nor what is inside a domain or a condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hpo_ray.domains.conditions import Conditions, find_links, read_entries
from hpo_ray.domains.construct import Domain, choice, integer, logint, lognormal, loguniform, normal, ordinal, uniform
from hpo_ray.domains.levelled import Levelled
from hpo_ray.domains.levels import UNSET, Level, Scalar, freeze, level_key, level_text, thaw
from hpo_ray.domains.messages import collecting, hint, name_text, show, wrong
from hpo_ray.domains.numeric import Numeric
from hpo_ray.domains.ray import from_ray, to_ray
from hpo_ray.domains.text import parse_domain, parse_value
from hpo_ray.errors import InvalidInput, Problem

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
        links = find_links(entries, frozenset(), prefix, problems)
        if problems:
            raise InvalidInput(*problems)
        self.domains: Mapping[str, Domain] = {name: item for name, item in entries.items() if isinstance(item, Domain)}
        self.constants: Mapping[str, Scalar] = {
            name: item for name, item in entries.items() if not isinstance(item, Domain)
        }
        self.dims = tuple(
            Dim(name, domain.kind, domain.levels, *links.get(name, (None, ()))) for name, domain in self.domains.items()
        )
        self._names = tuple(entries)  # constants too
        self._conditions = Conditions(self.domains, links)

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
        return cls(read_entries(mapping, parse_value, prefix), prefix=prefix)

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
        return cls(read_entries(mapping, from_ray, "space"))

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
        counts = {name: domain.levels for name, domain in self.domains.items() if domain.levels is not None}
        return self._conditions.count(counts) if len(counts) == len(self.domains) else None

    def text(self) -> dict[str, str | int | float | bool | None]:
        """JSON values only; ``parse`` makes an equal space of it."""
        texts: dict[str, Scalar] = {k: level_text(v) if isinstance(v, str) else v for k, v in self.constants.items()}
        texts |= {name: domain.text() for name, domain in self.domains.items()}
        return {name: texts[name] for name in self._names}

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """One independent draw: constants and active parameters, in the user's order.

        Takes one uniform number per dimension from ``rng``, whether it is active or not.
        """
        return self._configuration(rng.random(len(self.dims)).tolist())

    def default_config(self) -> dict[str, Any] | None:
        """Each parameter's default, or else its centre (a choice's first value); None if no parameter has a default."""
        if all(domain.default is UNSET for domain in self.domains.values()):
            return None
        return self.central_config()

    def central_config(self) -> dict[str, Any]:
        """Each parameter's default, or else its centre (a choice's first value)."""
        return self._arranged(self._conditions.defaults())

    def active(self, config: Mapping[str, object]) -> tuple[str, ...]:
        """The sampled parameters in use, parents first, by the values that are given; one not given counts as None."""
        return self._conditions.active(config)

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
        columns = {name: column for column, name in enumerate(self.domains)}
        for row, config in enumerate(configs):
            with collecting(problems, after=f" (configuration {row})" if len(configs) > 1 else ""):
                for name, value in self._checked(config).items():
                    domain = self.domains[name]
                    active[row, columns[name]] = True
                    x[row, columns[name]] = domain.index(value) if domain.kind == "choice" else domain.to_unit(value)
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
        array = np.array(x, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self.dims):
            raise ValueError(f"x has shape {array.shape}, but must be n x {len(self.dims)}")
        if np.isnan(array).any():
            raise ValueError("x holds NaN")
        for column, domain in enumerate(self.domains.values()):
            if domain.kind == "choice":  # to the centre of the level's bin, from where all kinds are decoded alike
                array[:, column] = (np.clip(np.rint(array[:, column]), 0, domain.levels - 1) + 0.5) / domain.levels
        return [self._configuration(row) for row in array.tolist()]

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the domains' grid values, once, the last parameter fastest; lazily.

        A condition is honoured: what is inactive is left out and not counted. Parents come before children.

        Raises:
            InvalidInput: At once. A continuous float without ``grid=``; or more than a million configurations.
        """
        return map(self._arranged, self._conditions.grid())

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
                converted[name] = self.constants[name] if domain is None else to_ray(domain)
        if problems:
            raise InvalidInput(*problems)
        return converted

    def _configuration(self, units: Sequence[float]) -> dict[str, Any]:
        """The configuration at a point of the unit cube."""
        return self._arranged(self._conditions.at(dict(zip(self.domains, units, strict=True))))

    def _arranged(self, chosen: Mapping[str, Level]) -> dict[str, Any]:
        """Constants and chosen values in the user's order, lists as lists."""
        found = {**self.constants, **chosen}
        return {name: thaw(found[name]) for name in self._names if name in found}

    def _checked(self, config: Mapping[str, object]) -> dict[str, Level]:
        """The values of the active parameters, in their domains' own form; InvalidInput with every mistake."""
        problems: list[Problem] = []
        for name in config:
            if name not in self.domains and name not in self.constants:
                key = name_text(name)
                message = f"{show(config[name])} is given for an unknown parameter: {hint(key, self._names)}"
                problems.append(Problem(key, message))
        for name, constant in self.constants.items():
            with collecting(problems, name):
                if name in config and level_key(freeze(config[name])) != level_key(constant):
                    raise wrong(f"{show(config[name])} is given, but it is the constant {show(constant)}")
        chosen = self._conditions.checked(config, problems)
        if problems:
            raise InvalidInput(*problems)
        return chosen
