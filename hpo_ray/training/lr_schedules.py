"""Learning rate schedules by name, as pure functions of progress: nothing to save, so resuming is exact.

Imports no torch, so that the driver can check a schedule; knows nothing of models, data, reports or Ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.training.lr_curves import CLOSE, CURVES, Schedule, make

if TYPE_CHECKING:
    import torch

__all__ = ["NAMES", "Schedule", "apply", "build", "problems", "reads", "rungs_at_cycle_ends"]

NAMES = tuple(CURVES)

_MOST_CYCLES = 10_000
_COMMON = ("epochs", "warmup_epochs", "floor")
_CYCLE = ("half_cycle_epochs", "cycle_momentum", "momentum_range")
_READS: dict[str, tuple[str, ...]] = {
    "constant": (),
    "step": ("step_epochs", "gamma"),
    "exponential": ("gamma", "staircase"),
    "cosine": (),
    "triangular": _CYCLE,
    "triangular2": _CYCLE,
    "exp_range": ("gamma", *_CYCLE),
    "sgdr": ("cycle_len", "cycle_mult"),
    "one_cycle": ("peak_at", "div", "final_div", "cycle_momentum", "momentum_range"),
    "composed": ("parts",),
}


def _number(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)


def _above_0(value: Any) -> bool:
    return _number(value) and value > 0


def _at_least_1(value: Any) -> bool:
    return _number(value) and value >= 1


def _is_range(value: Any) -> bool:
    two = isinstance(value, Sequence) and len(value) == 2 and all(map(_number, value))
    return two and 0 <= value[0] <= value[1] < 1


def _is_parts(value: Any) -> bool:
    some = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    return some and all(isinstance(part, Mapping) for part in value)


# Option -> what a value must pass, and the words for it.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (_above_0, "a number above 0"),
    "warmup_epochs": (lambda value: _number(value) and value >= 0, "a number, 0 or more"),
    "floor": (lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "step_epochs": (_above_0, "a number above 0"),
    "gamma": (lambda value: _above_0(value) and value <= 1, "a number above 0, at most 1"),
    "staircase": (lambda value: value is True, "true or false"),
    "half_cycle_epochs": (_above_0, "a number above 0"),
    "cycle_len": (_above_0, "a number above 0"),
    "cycle_mult": (_at_least_1, "a number, 1 or more"),
    "peak_at": (lambda value: _above_0(value) and value < 1, "a number between 0 and 1"),
    "div": (_at_least_1, "a number, 1 or more"),
    "final_div": (_at_least_1, "a number, 1 or more"),
    "cycle_momentum": (lambda value: value is True, "true or false"),
    "momentum_range": (_is_range, "two numbers, the lower first, from 0 to below 1"),
    "parts": (_is_parts, "a list of mappings with a name each"),
}


def build(
    name: str,
    *,
    epochs: float,
    warmup_epochs: float = 0.0,
    floor: float = 0.0,
    step_epochs: float | None = None,
    gamma: float | None = None,
    staircase: bool | None = None,
    half_cycle_epochs: float | None = None,
    cycle_len: float | None = None,
    cycle_mult: float | None = None,
    peak_at: float | None = None,
    div: float | None = None,
    final_div: float | None = None,
    cycle_momentum: bool | None = None,
    momentum_range: Sequence[float] | None = None,
    parts: Sequence[Mapping[str, Any]] | None = None,
) -> Schedule:
    """Makes a schedule. At and after the end of training it stays at the value it came to there.

    Args:
        name: ``constant``, ``step``, ``exponential``, ``cosine``, ``triangular``, ``triangular2``, ``exp_range``,
            ``sgdr``, ``one_cycle`` or ``composed``; its source is at the function of that name
            in `hpo_ray.training.lr_curves`.
        epochs: How long training lasts.
        warmup_epochs: The rate first rises in a straight line for so long, from `floor` or a hundredth; the schedule
            has the epochs that remain.
        floor: The factor that the rate does not go below, 0..1.
        step_epochs: ``step``: epochs between steps; default a third of the epochs.
        gamma: Factor per step (``step``, default 0.1) or per epoch (``exponential``, default such that it ends at
            0.01; ``exp_range``, default such that it ends at 0.1).
        staircase: ``exponential``: only at whole epochs; default no.
        half_cycle_epochs: ``triangular``, ``triangular2``, ``exp_range``: epochs from the floor to the peak, Smith's
            step size; default an eighth of the epochs, which makes four cycles.
        cycle_len: ``sgdr``: epochs of the first cycle; default such that three cycles end with training.
        cycle_mult: ``sgdr``: how much longer each cycle is than the one before, 1 or more; default 2.
        peak_at: ``one_cycle``: share of the epochs after which the rate is highest; default 0.25.
        div: ``one_cycle``: starts at 1 / `div` of the peak; default 25.
        final_div: ``one_cycle``: ends at 1 / `final_div` of the peak; default 1e5. (torch's is a factor below the
            start, not below the peak.)
        cycle_momentum: Triangular ones and ``one_cycle``: the momentum falls while the rate rises, and the other way
            round; default no.
        momentum_range: Its lowest and highest value; default (0.85, 0.95).
        parts: ``composed``: schedules one after another, each a mapping of ``name``, ``epochs`` (the last one may
            leave it out), ``scale`` (a factor of its rates, default 1) and its own options.

    Raises:
        InvalidInput: With every mistake (see `problems`).
    """
    given = {key: value for key, value in locals().items() if key != "name"}
    if found := problems(name, **given):
        raise InvalidInput(*found)
    return make(name, **given)


def problems(name: str, **options: Any) -> list[Problem]:
    """Every mistake in what `build` would be given, keyed ``training.<option>``; imports no torch.

    An option that the schedule does not read is one, unless it is None or False.
    """
    return _problems(name, options, "training")


def reads(name: str) -> tuple[str, ...]:
    """The options that a schedule reads, beside `epochs`.

    Raises:
        KeyError: An unknown name.
    """
    return (*_COMMON[1:], *_READS[name])


def _problems(name: object, options: Mapping[str, Any], at: str) -> list[Problem]:
    if not isinstance(name, str) or name not in CURVES:
        key = "training.schedule" if at == "training" else f"{at}.name"
        return [Problem(key, f"no schedule is called '{name}'; {nearest(name, CURVES)}")]
    given = {key: value for key, value in options.items() if value is not None and value is not False}
    found = [] if "epochs" in given else [Problem(f"{at}.epochs", "the number of epochs is missing")]
    for key, value in given.items():
        if key not in _RULES:
            found.append(Problem(f"{at}.{key}", f"no schedule has such an option; {nearest(key, _RULES)}"))
        elif key not in _COMMON + _READS[name]:
            readers = ", ".join(f"'{other}'" for other, read in _READS.items() if key in read)
            found.append(Problem(f"{at}.{key}", f"{value!r} is given, but '{name}' does not read it; {readers} would"))
        elif not _RULES[key][0](value):
            found.append(Problem(f"{at}.{key}", f"it is {value!r}, but must be {_RULES[key][1]}"))
    if name == "composed" and "parts" not in given:
        found.append(Problem(f"{at}.parts", "'composed' needs them: a list of schedules"))
    return found or _clashes(name, given, at)


def _clashes(name: str, given: Mapping[str, Any], at: str) -> list[Problem]:
    """Mistakes in how options go together, each of which is right by itself."""
    epochs, warmup = given["epochs"], given.get("warmup_epochs", 0.0)
    if warmup >= epochs:
        return [Problem(f"{at}.warmup_epochs", f"it is {warmup}, but must be less than the {epochs} epochs in all")]
    for key in {"cycle_len", "half_cycle_epochs"} & given.keys():
        if (epochs - warmup) / given[key] > _MOST_CYCLES:
            return [Problem(f"{at}.{key}", f"it is {given[key]}, but must be at least {epochs / _MOST_CYCLES} epochs")]
    if name == "composed" and (found := _of_parts(given["parts"], epochs - warmup, at)):
        return found
    if warmup and make(name, **given).lr(warmup) == 0:
        message = "the schedule rises from 0 by itself; leave the warm-up out, or give a floor above 0"
        return [Problem(f"{at}.warmup_epochs", message)]
    return []


def _of_parts(parts: Sequence[Mapping[str, Any]], epochs: float, at: str) -> list[Problem]:
    found: list[Problem] = []
    given = [part["epochs"] for part in parts if _above_0(part.get("epochs"))]
    rest = epochs - sum(given)
    for index, part in enumerate(parts):
        place = f"{at}.parts[{index}]"
        options = {key: value for key, value in part.items() if key not in ("name", "scale")}
        if index == len(parts) - 1 and options.get("epochs") is None:
            options["epochs"] = rest if rest > 0 else epochs  # if nothing is left, that is told below
        found += _problems(part.get("name"), options, place)
        if not _above_0(part.get("scale", 1.0)):
            found.append(Problem(f"{place}.scale", f"it is {part['scale']!r}, but must be a number above 0"))
    full = abs(rest) <= CLOSE * max(1.0, epochs) if len(given) == len(parts) else rest > 0
    if not found and not full:
        last = "" if len(given) == len(parts) else " and leave some to the last"
        message = f"they have {' + '.join(map(str, given))} epochs, but must fill the {epochs} of training{last}"
        found.append(Problem(f"{at}.parts", message))
    return found


def apply(schedule: Schedule, optimizer: torch.optim.Optimizer, epoch: float) -> None:
    """Sets every parameter group's learning rate, and its momentum if the schedule and the optimizer have one.

    Args:
        schedule: From `build`.
        optimizer: Its groups' ``peak_lr`` (see `hpo_ray.training.optimizers.build`) are multiplied; a group without
            one gets its present rate as peak.
        epoch: Epochs done, with their fraction.
    """
    for group in optimizer.param_groups:
        group["lr"] = float(group.setdefault("peak_lr", group["lr"])) * schedule.lr(epoch)
        if schedule.momentum is None:
            continue
        if "momentum" in group:
            group["momentum"] = schedule.momentum(epoch)
        elif "betas" in group:
            group["betas"] = (schedule.momentum(epoch), *group["betas"][1:])


def rungs_at_cycle_ends(
    cycle_ends: Iterable[float], *, grace_period: int, max_t: int, reduction_factor: int
) -> list[int]:
    """ASHA's rungs, moved to where the rate is annealed: in mid-cycle, losses say more about the rate than the trial.

    Args:
        cycle_ends: In epochs; one within an epoch counts for the last whole epoch before it.
        grace_period: No rung is below.
        max_t: All are below.
        reduction_factor: The levels would be grace_period * reduction_factor^k.

    Returns:
        Each of these levels replaced by the nearest cycle end, the later of two; rising, none twice. The levels as
        they are, if no cycle ends between `grace_period` and `max_t`.
    """
    ends = [end for end in {math.floor(end + CLOSE) for end in cycle_ends} if grace_period <= end < max_t]
    levels, level = [], grace_period
    while level < max_t:
        levels.append(level)
        level *= reduction_factor
    return sorted({min(ends, key=lambda end: (abs(end - level), -end)) for level in levels}) if ends else levels
