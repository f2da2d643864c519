"""How a space's parameters depend on each other: which are active when, in what order, how many combinations result.

Must not know: how an entry is read, arrays. Each parameter has one parent at most, so that they form a forest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from hpo_ray.domains.base import MAX_GRID, When
from hpo_ray.domains.construct import Domain
from hpo_ray.domains.levelled import Levelled
from hpo_ray.domains.levels import Level, LevelKey, Scalar, Unset, freeze, level_key
from hpo_ray.domains.messages import collecting, hint, name_text, show, wrong
from hpo_ray.errors import InvalidInput, Problem


class Conditions:
    """Which of some parameters are active, and how to go through them."""

    def __init__(self, domains: Mapping[str, Domain], links: Mapping[str, When]) -> None:
        """Of ``domains`` in the user's order, and what ``find_links`` makes of their conditions."""
        self._domains = domains
        self._links = {name: (parent, frozenset(map(level_key, when))) for name, (parent, when) in links.items()}
        self._order = _parents_first(domains, links)

    def at(self, units: Mapping[str, float]) -> dict[str, Level]:
        """The values of the active parameters at a point of the unit cube, parents first."""
        return self._chosen(lambda name, domain: _at(domain, units[name]))

    def defaults(self) -> dict[str, Level]:
        """Each active parameter's default, or else its centre (a choice's first value)."""

        def pick(_: str, domain: Domain) -> Level:
            centre = 0.0 if domain.kind == "choice" else 0.5
            return _at(domain, centre) if isinstance(domain.default, Unset) else domain.default

        return self._chosen(pick)

    def active(self, config: Mapping[str, object]) -> tuple[str, ...]:
        """The parameters in use, parents first, by the values that are given; one not given counts as None."""
        return tuple(self._chosen(lambda name, _: freeze(config.get(name))))

    def checked(self, config: Mapping[str, object], problems: list[Problem]) -> dict[str, Level]:
        """The values of the active parameters in their domains' own form; every mistake is added to ``problems``."""
        chosen: dict[str, Level] = {}
        unclear: set[str] = set()  # without a valid value, so that the children's activity is not known
        for name in self._order:
            domain = self._domains[name]
            if name in self._links and self._links[name][0] in unclear:
                unclear.add(name)
            elif self._is_active(name, chosen):
                unclear.add(name)
                with collecting(problems, name):
                    if name not in config:
                        raise wrong(f"no value is given: expected one of {domain.text()}")
                    chosen[name] = domain.canonical(config[name])
                    unclear.remove(name)
            elif name in config:
                because = f"only active with {domain.condition_text()}: leave it out"
                problems.append(Problem(name, f"{show(config[name])} is given, but {name} is {because}"))
        return chosen

    def grid(self) -> Iterator[Mapping[str, Level]]:
        """All combinations of the domains' grid values, lazily, the last parameter fastest; InvalidInput at once."""
        problems: list[Problem] = []
        values: dict[str, Sequence[Level]] = {}
        for name, domain in self._domains.items():
            with collecting(problems, f"space.{name}"):
                values[name] = domain.values if isinstance(domain, Levelled) else domain.grid_values()
        if problems:
            raise InvalidInput(*problems)
        some = {name: points for name, points in values.items() if len(points) != self._domains[name].levels}
        possible = {name: frozenset(map(level_key, points)) for name, points in some.items()}
        size = self.count({name: len(points) for name, points in values.items()}, possible)
        if size > MAX_GRID:
            advice = "give numbers fewer points with grid=n, or use another searcher"
            message = f"the grid has {show(size)} configurations, at most {MAX_GRID}: {advice}"
            raise InvalidInput(Problem("space", message))
        return self._combinations(values, {}, 0)

    def count(self, points: Mapping[str, int], possible: Mapping[str, frozenset[LevelKey]] | None = None) -> int:
        """The number of configurations, by whole-number arithmetic over the forest.

        Args:
            points: How many values each parameter takes.
            possible: The values of those parameters that take some of their levels only.
        """
        counts, possible = dict(points), possible or {}
        # Below a parent's value: the product of the children active under it; 1 for values no child asks for.
        below: dict[str, dict[LevelKey, int]] = {name: {} for name in points}
        for name in reversed(self._order):
            counts[name] += sum(below[name].values()) - len(below[name])
            if name in self._links:
                parent, keys = self._links[name]
                for key in keys & possible.get(parent, keys):
                    below[parent][key] = below[parent].get(key, 1) * counts[name]
        return math.prod(counts[name] for name in points if name not in self._links)

    def _chosen(self, pick: Callable[[str, Domain], Level]) -> dict[str, Level]:
        """The active parameters, parents first, each with the value that ``pick`` gives it."""
        values: dict[str, Level] = {}
        for name in self._order:
            if self._is_active(name, values):
                values[name] = pick(name, self._domains[name])
        return values

    def _combinations(
        self, values: Mapping[str, Sequence[Level]], chosen: Mapping[str, Level], depth: int
    ) -> Iterator[Mapping[str, Level]]:
        """All combinations of ``values`` that begin with ``chosen`` for the first ``depth`` parameters."""
        if depth == len(self._order):
            yield chosen
        elif not self._is_active(self._order[depth], chosen):
            yield from self._combinations(values, chosen, depth + 1)
        else:
            name = self._order[depth]
            for value in values[name]:
                yield from self._combinations(values, {**chosen, name: value}, depth + 1)

    def _is_active(self, name: str, chosen: Mapping[str, Level]) -> bool:
        """Whether ``name`` is active, given the values of its active ancestors."""
        if name not in self._links:
            return True
        parent, keys = self._links[name]
        return parent in chosen and level_key(chosen[parent]) in keys


def read_entries(
    mapping: Mapping[str, object], read: Callable[[object], Domain | Scalar], prefix: str
) -> dict[str, Domain | Scalar]:
    """What ``read`` makes of each value; InvalidInput with every mistake of every key, those in conditions too."""
    problems: list[Problem] = []
    entries: dict[str, Domain | Scalar] = {}
    for name, value in mapping.items():
        with collecting(problems, f"{prefix}.{name_text(name)}"):
            if not isinstance(name, str) or not name:
                raise wrong(f"a parameter's name must be text, not {show(name)}")
            entries[name] = read(value)
    if problems:
        find_links(entries, frozenset(map(name_text, mapping)) - entries.keys(), prefix, problems)
        raise InvalidInput(*problems)
    return entries


def find_links(
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
        if isinstance(entry, Domain) and entry.when is not None and entry.when[0] not in broken:
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
        others = [other for other, entry in entries.items() if other != name and isinstance(entry, Domain)]
        raise wrong(f"when names {show(parent)}, which is not in the space: {hint(parent, others)}")
    domain = entries[parent]
    if not isinstance(domain, Domain):
        raise wrong(f"when names {parent}, which is the constant {show(domain)}: remove the condition")
    if domain.levels is None:
        raise wrong(
            f"when names {parent}, which is continuous ({domain.text()}): the parent must have levels, "
            "as choice, ordinal, int, or a float with q="
        )
    problems: list[Problem] = []
    levels: dict[LevelKey, Level] = {}
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


def _at(domain: Domain, unit: float) -> Level:
    """The value at ``unit`` as it is stored (lists as tuples)."""
    return domain.values[domain.place(unit)] if isinstance(domain, Levelled) else domain.from_unit(unit)
