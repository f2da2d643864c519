"""Does the space fit the experiment: names that mean one field, values that the field takes.

Knows the experiment's models; nothing of files, the machine or Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from hpo_ray.domains import Levelled, Numeric, thaw
from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.experiment import SECTIONS, locate, short_name
from hpo_ray.space import SearchSpace
from hpo_ray.wording import expectation


def check_space(data: dict[str, Any], problems: list[Problem]) -> SearchSpace | None:
    """Parse the space, its keys brought to their shortest names; None where it has mistakes."""
    given = data.get("space")
    if not isinstance(given, Mapping) or not given:
        message = f"{given!r:.60} holds no parameter: expected at least one, e.g. space.lr='loguniform(1e-4, 1e-1)'"
        problems.append(Problem("space", message))
        data["space"] = {}
        return None
    before = len(problems)
    free = _trainable(data) == "function"
    named = given if free else _with_short_names(given, problems)
    try:
        space = SearchSpace.parse(named)
    except InvalidInput as error:
        problems.extend(error.problems)
        data["space"] = {}
        return None
    if not free:
        _check_types(space, problems)
    data["space"] = space.text()
    return space if len(problems) == before else None


def _with_short_names(given: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The same space with each key as short as it can be; unknown and ambiguous keys are problems."""
    named: dict[str, Any] = {}
    valid = [short_name(section, field) for section, model in SECTIONS.items() for field in model.model_fields]
    for key, value in given.items():
        places = locate(str(key))
        if len(places) == 1:
            short = short_name(*places[0])
            if short in named:
                problems.append(Problem(f"space.{key}", f"'{short}' is in the space already"))
            named[short] = value
        elif places:
            options = ", ".join(f"{section}.{field}" for section, field in places)
            problems.append(Problem(f"space.{key}", f"'{key}' is ambiguous: write one of {options}"))
        else:
            problems.append(Problem(f"space.{key}", f"no such parameter; {nearest(key, valid)}"))
            named[str(key)] = value  # its domain is checked all the same
    return named


def _check_types(space: SearchSpace, problems: list[Problem]) -> None:
    """See that each parameter's values are ones that its field takes."""
    for name, values in sampled_values(space).items():
        places = locate(name)
        if len(places) != 1:
            continue
        section, field = places[0]
        info = SECTIONS[section].model_fields[field]
        wanted = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        adapter = TypeAdapter[Any](wanted)  # type: ignore[arg-type]  # built at run time
        for value in values:
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                message = f"{value!r} is no value for {section}.{field}: {expectation(error)}"
                problems.append(Problem(f"space.{name}", message))
                break


def sampled_values(space: SearchSpace) -> dict[str, list[Any]]:
    """For each parameter the values that show its type and reach: its bounds, or its levels."""
    values: dict[str, list[Any]] = {name: [value] for name, value in space.constants.items()}
    for name, domain in space.domains.items():
        if isinstance(domain, Numeric):
            values[name] = [domain.from_unit(0.0), domain.from_unit(1.0)]
        elif isinstance(domain, Levelled):
            values[name] = [thaw(level) for level in domain.values]
    return values


def _trainable(data: Mapping[str, Any]) -> Any:
    section = data.get("trainable")
    return section.get("name") if isinstance(section, Mapping) else None
