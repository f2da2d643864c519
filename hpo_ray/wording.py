"""pydantic's errors in our words: the value given, what was expected, the nearest valid choice.

Knows the experiment's models and nothing of where their values came from.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hpo_ray.errors import Problem, nearest
from hpo_ray.experiment import Experiment


def problems_of(error: ValidationError) -> list[Problem]:
    """Each mistake in an experiment with its dotted key, as the user writes it; one a key."""
    found: dict[str, Problem] = {}
    for details in error.errors():
        # pydantic names the branches of a union and its validators in the location too.
        key = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}"
            for part in details["loc"]
            if not str(part).startswith(("function-", "literal[", "tuple["))
        ).removeprefix(".")
        key = key.removesuffix(".constrained-int").removesuffix(".int")
        found.setdefault(key, Problem(key, _message(details)))
    return list(found.values())


def expectation(error: ValidationError) -> str:
    """What the first mistake of `error` should have been, e.g. ``expected a whole number``."""
    return _expectation(error.errors()[0])


def _message(details: Any) -> str:
    """A pydantic error in our words: the value given, what was expected, the nearest valid choice."""
    if details["type"] == "extra_forbidden":
        return f"unknown key; {nearest(details['loc'][-1], _valid_keys(details['loc'][:-1]))}"
    if details["type"] == "missing":
        return "is required"
    return f"{details['input']!r:.80}: {_expectation(details)}"


def _expectation(details: Any) -> str:
    if details["type"] in ("tuple_type", "list_type"):
        return "expected a list, e.g. [{train: head, epochs: 3}, {train: all}]"
    if details["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "expected a mapping, e.g. {train: head, epochs: 3}"
    if details["type"] == "literal_error":
        choices = [text.strip().strip("'") for text in details["ctx"]["expected"].replace(" or ", ",").split(",")]
        return nearest(details["input"], choices)
    kind = details["type"].partition("_")[0]
    if details["type"] in ("int_parsing", "int_type", "int_from_float", "float_parsing", "float_type"):
        return "expected a whole number" if kind == "int" else "expected a number"
    text = str(details["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return text if text.startswith("expected") else f"expected {text[0].lower()}{text[1:]}"


def _valid_keys(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Experiment
    for part in location:
        if isinstance(part, int):  # of a list, whose elements' model was found with it
            continue
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
