"""From text, as in ``lr=loguniform(1e-4, 1e-1)``, to a domain or a constant.

Must not know: how a text becomes a syntax tree (see ``syntax``), other parameters.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

import numpy as np

from hpo_ray.domains.bounds import LABELS
from hpo_ray.domains.construct import USAGE, Domain, choice, constant, make_levelled, make_number
from hpo_ray.domains.levels import UNSET, Scalar
from hpo_ray.domains.messages import collecting, hint, show, wrong
from hpo_ray.domains.numeric import SHAPES
from hpo_ray.domains.syntax import dotted, expression, plain_mapping, plain_value
from hpo_ray.errors import InvalidInput, Problem

_INCLUSIVE = "both bounds are inclusive"
# What other libraries call it, and how it is written here.
_FOREIGN = {
    "randint": f"int(low, high); {_INCLUSIVE}",
    "uniformint": f"int(low, high); {_INCLUSIVE}",
    "suggest_int": f"int(low, high); {_INCLUSIVE}",
    "lograndint": f"logint(low, high); {_INCLUSIVE}",
    "qrandint": f"int(low, high, q=…); {_INCLUSIVE}",
    "qlograndint": f"logint(low, high, q=…); {_INCLUSIVE}",
    "quniform": "uniform(low, high, q=…)",
    "qloguniform": "loguniform(low, high, q=…)",
    "hp.loguniform": "loguniform(low, high), with the values themselves, not their logarithms",
    "log_uniform": "loguniform(low, high), with the values themselves, not their logarithms",
    "randn": "normal(mean, sd)",
    "qrandn": "normal(mean, sd, q=…)",
    "qnormal": "normal(mean, sd, q=…)",
    "qlognormal": "lognormal(mean, sd, q=…)",
    "float": "uniform(low, high)",
    "suggest_float": "uniform(low, high)",
    "bool": "choice(true, false)",
    "boolean": "choice(true, false)",
    "categorical": "choice(a, b, …)",
    "suggest_categorical": "choice(a, b, …)",
    "pchoice": "choice(a, b, …)",
    "grid_search": "choice(a, b, …), and searcher=grid",
    "sample_from": "when={parent: value} for what depends on another parameter",
}


def parse_domain(text: str) -> Domain | Scalar:
    """What a piece of text says: a domain, or a constant.

    Args:
        text: ``loguniform(1e-4, 1e-1)``, ``choice(sgd, adam)``, …, or a scalar: a number, a bare or quoted word,
            true, false, null, none.

    Raises:
        InvalidInput: With every mistake found in it; the key is left empty.
    """
    node = expression(text)
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        raise wrong(list_hint([plain_value(item) for item in node.elts]))
    return constant(plain_value(node))


def parse_value(value: object) -> Domain | Scalar:
    """What one value of a space's mapping means: text, a domain object, or a constant."""
    if isinstance(value, Domain):
        return value
    if isinstance(value, str):
        return parse_domain(value)
    if isinstance(value, list | tuple | np.ndarray):
        raise wrong(list_hint(list(value)))
    return constant(value)


def list_hint(values: Sequence[object]) -> str:
    """What to say about a list where a domain should stand."""
    try:
        return f"a list does not say how to search it: write {choice(list(values)).text()}"
    except InvalidInput:
        return "a list does not say how to search it: write choice(a, b)"


def _call(node: ast.Call) -> Domain:
    """The domain that ``name(…)`` says."""
    name = dotted(node.func)
    name = "int" if name == "integer" else name
    if name not in USAGE:
        raise wrong(_unknown(name))
    labels = LABELS[SHAPES[name][1]] if name in SHAPES else ()
    allowed = (*labels, "q", "grid", "default", "when") if labels else ("default", "when")
    problems, given, arguments = list[Problem](), list[object](), dict[str, object]()
    for item in node.args:
        with collecting(problems):
            given.append(plain_value(item))
    readable = not problems
    for item_keyword in node.keywords:
        with collecting(problems):
            key = item_keyword.arg or "**"
            if key not in allowed:
                raise wrong(f"{name} has no keyword {show(key)}: {hint(key, allowed)}")
            if key in arguments or key in labels[: len(given)]:
                raise wrong(f"{key} is given twice")
            arguments[key] = plain_mapping(item_keyword.value) if key == "when" else plain_value(item_keyword.value)
    domain: Domain | None = None
    if readable:  # despite a wrong keyword, so that all other mistakes are found too
        with collecting(problems):
            domain = _made(name, given, arguments)
    if domain is None or problems:
        raise InvalidInput(*problems)
    return domain


def _made(name: str, given: Sequence[object], named: Mapping[str, object]) -> Domain:
    """The domain that the constructor ``name`` makes of these positional and keyword arguments."""
    default, when = named.get("default", UNSET), named.get("when")
    if name in SHAPES:
        labels = LABELS[SHAPES[name][1]]
        both = [*given, *(named[label] for label in labels[len(given) :] if label in named)]
        if len(both) != 2:
            raise wrong(f"{name} takes {' and '.join(labels)}, not {len(both)} values: {USAGE[name]}")
        return make_number(name, both[0], both[1], named.get("q"), named.get("grid"), default, when)
    return make_levelled("choice" if name == "choice" else "ordinal", given, default, when)


def _unknown(name: str) -> str:
    """What to write instead of a function that is not ours."""
    short = name.rpartition(".")[2]
    shown = show(name).strip("'") or "this"
    if name in _FOREIGN or short in _FOREIGN:
        return f"{shown}: use {_FOREIGN.get(name) or _FOREIGN[short]}"
    if short in USAGE:
        return f"{shown}: use {USAGE[short]}, without '{shown.removesuffix(short)}'"
    return f"{shown} is not a domain: {hint(short, USAGE)}"
