"""One domain from Ray Tune's object and to it.

Must not know: other parameters. Ray's objects are told by their class names; only ``to_ray`` imports Ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hpo_ray.domains.construct import Domain, choice, constant, integer, logint, loguniform, normal, uniform
from hpo_ray.domains.levelled import Levelled
from hpo_ray.domains.levels import Scalar, exact, thaw
from hpo_ray.domains.messages import show, wrong


def from_ray(value: Any) -> Domain | Scalar:
    """What one value of a Ray ``param_space`` means, by class names and attributes alone."""
    if isinstance(value, Domain):
        return value
    if isinstance(value, Mapping) and set(value) == {"grid_search"}:
        return choice(list(value["grid_search"]))
    if isinstance(value, list | tuple):
        return choice([value])
    kind = type(value).__name__ if type(value).__module__.startswith("ray.tune.") else ""
    if not kind:
        return constant(value)
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
        return constant(low)
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


def to_ray(domain: Domain) -> Any:
    """Ray's domain for ours; InvalidInput if there is none."""
    from ray import tune  # the one place that needs Ray, and importing it takes seconds

    if domain.when is not None:
        raise wrong(f"Ray cannot say that it is only active with {domain.condition_text()}: remove when")
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
