"""Ray Tune's nested `param_space` under flat names, and flat configurations back in its shape.

Names are joined by a dot, as everywhere in hpo_ray; paths are remembered, so that a key may hold dots itself.
Must not know: searchers. Ray's objects are told by their modules; Ray itself is not imported.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Hashable, Mapping
from typing import Any, TypeAlias

from hpo_ray.domains import collecting, show
from hpo_ray.domains.construct import constant
from hpo_ray.domains.messages import name_text
from hpo_ray.errors import InvalidInput, Problem

Path: TypeAlias = tuple[Hashable, ...]


def flatten(mapping: Mapping[Any, Any], above: Path = ()) -> dict[Path, Any]:
    """What stands in nested dictionaries, by path; an empty one and a ``tune.grid_search`` count as values."""
    leaves: dict[Path, Any] = {}
    for key, value in mapping.items():
        path = (*above, key)
        if isinstance(value, Mapping) and value and not is_grid(value):
            leaves |= flatten(value, path)
        else:
            leaves[path] = value
    return leaves


def nest(leaves: Mapping[Path, Any]) -> dict[Any, Any]:
    """The nested dictionaries that ``flatten`` made these of."""
    nested: dict[Any, Any] = {}
    for path, value in leaves.items():
        folder = nested
        for key in path[:-1]:
            folder = folder.setdefault(key, {})
        folder[path[-1]] = value
    return nested


def is_grid(value: object) -> bool:
    """Whether it is what ``tune.grid_search`` returns: Ray has no class for it."""
    return isinstance(value, Mapping) and set(value) == {"grid_search"}


class Nesting:
    """One nested space: its entries under flat names, and the way there and back for configurations.

    Attributes:
        entries: Name -> what the space is to make of it.
        is_rays: Whether a domain or a grid of Ray's stands in it; else it is hpo_ray's own text and objects.
        grids: Name -> values of every ``tune.grid_search``, those in lists too.
    """

    def __init__(self, mapping: Mapping[Any, Any]) -> None:
        """Take a space apart.

        Args:
            mapping: Ray's ``param_space`` or our text form, nested or not.

        Raises:
            InvalidInput: Two parameters have one name.
        """
        leaves = flatten(mapping)
        self.is_rays = any(map(_is_rays, leaves.values()))
        self.entries: dict[str, Any] = {}
        self.grids: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        # In the user's order; a dictionary has no name, and stands here so that it comes back when nothing is in it.
        self._places: dict[Path, str | None] = {}
        problems: list[Problem] = []
        for path, value in leaves.items():
            self._places |= {path[:end]: None for end in range(1, len(path)) if path[:end] not in self._places}
            if isinstance(value, Mapping) and not value:
                self._places[path] = None
                continue
            name = self._places[path] = _name(path)
            if name in self.entries or name in self._kept:
                problems.append(Problem(f"space.{name}", "two parameters have this name: rename one"))
            if (grid := _grid_in(value)) is not None:
                self.grids[name] = grid
            where = self._kept if self.is_rays and _is_left_alone(value) else self.entries
            where[name] = value
        if problems:
            raise InvalidInput(*problems)

    def flat(self, config: Mapping[Any, Any]) -> dict[str, Any]:
        """A configuration under the names of the space; one that is flat already stays as it is.

        Args:
            config: As ``nested`` makes it; constants may be left out.

        Raises:
            InvalidInput: One of the constants that ``entries`` does not hold is another.
        """
        flat: dict[str, Any] = {}
        problems: list[Problem] = []
        for path, value in flatten(config).items():
            if path in self._places and self._places[path] is None and value == {}:
                continue
            name = self._places.get(path) or _name(path)
            if name not in self._kept:
                flat[name] = value
            elif _text(value) != _text(self._kept[name]):
                message = f"{show(value)} is given, but it is the constant {show(self._kept[name])}"
                problems.append(Problem(name, message))
        if problems:
            raise InvalidInput(*problems)
        return flat

    def nested(self, config: Mapping[str, Any]) -> dict[Any, Any]:
        """A configuration of flat names in the shape of the space, all of its constants included."""
        values = {**config, **copy.deepcopy(self._kept)}
        places = {path: name for path, name in self._places.items() if name is None or name in values}
        return nest({path: {} if name is None else values[name] for path, name in places.items()})


def _name(path: Path) -> Any:
    # A single key as it is: where it is not text, the space says so.
    return path[0] if len(path) == 1 else ".".join(map(name_text, path))


def _is_rays(value: object) -> bool:
    """Whether a domain or a grid of Ray's is this value or stands somewhere in it."""
    if isinstance(value, Mapping):
        return is_grid(value) or any(map(_is_rays, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_rays, value))
    return type(value).__module__.startswith("ray.")


def _grid_in(value: Any) -> Any:
    """The values of the grid that this is or holds; None if there is none."""
    if is_grid(value):
        return value["grid_search"]
    if isinstance(value, Mapping | list | tuple):
        inside = map(_grid_in, value.values() if isinstance(value, Mapping) else value)
        return next((grid for grid in inside if grid is not None), None)
    return None


def _is_left_alone(value: object) -> bool:
    """Whether it is plain data that no space can hold, such as a list or inf.

    Ray's searchers take these for constants; anything else, such as another library's domain, is left to the space to
    complain of.
    """
    if not isinstance(value, list | tuple | str | int | float) or _is_rays(value):
        return False
    refused: list[Problem] = []
    with collecting(refused):
        constant(value)
    return bool(refused)


def _text(value: object) -> str:
    """What tells constants apart: a list and a tuple are the same, and so are nan and nan."""
    return json.dumps(value, default=lambda other: type(other).__name__, skipkeys=True)
