"""The curves that learning rates follow: pure functions of the epoch, one per named schedule.

Take what `hpo_ray.training.lr_schedules` has checked; know no torch, models, data, reports or Ray.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Curve = Callable[[float], float]

# Epochs come as sums and fractions of whole batches: a boundary missed by a rounding error counts as reached.
CLOSE = 1e-9
WARMUP_FROM = 0.01  # of the peak; from 0, the first step would teach nothing


@dataclass(frozen=True)
class Schedule:
    """What to set at which time. Time is `epoch`: epochs done so far with their fraction, clipped to 0..epochs.

    Attributes:
        lr: The factor of each parameter group's peak learning rate.
        momentum: The momentum itself, or the Adam family's first beta; None: left alone.
        cycle_ends: Epochs at which the rate is annealed and a cycle ends, rising; the end alone where there are no
            cycles. A cycle that the end of training cuts short is not among them.
    """

    lr: Curve
    momentum: Curve | None
    cycle_ends: tuple[float, ...]


def make(name: str, *, epochs: float, warmup_epochs: float = 0.0, floor: float = 0.0, **options: Any) -> Schedule:
    """A schedule with its warm-up, which stays at its last value after `epochs`.

    Args:
        name: Of `CURVES`.
        epochs: All of them, the warm-up's included.
        warmup_epochs: The rate rises in a straight line to where the curve begins; the curve has the rest.
        floor: The lowest factor.
        options: The curve's own; None and False stand for its defaults.
    """
    given = {key: value for key, value in options.items() if value is not None and value is not False}
    curve = CURVES[name](epochs - warmup_epochs, floor, **given)
    first = curve.lr(0.0)
    start = min(max(floor, WARMUP_FROM), first)

    def lr(epoch: float) -> float:
        epoch = min(max(epoch, 0.0), epochs)
        if epoch < warmup_epochs:
            return start + (first - start) * epoch / warmup_epochs
        return curve.lr(epoch - warmup_epochs)

    def momentum(epoch: float) -> float:
        assert curve.momentum is not None
        return curve.momentum(min(max(epoch, warmup_epochs), epochs) - warmup_epochs)

    # Added to the warm-up, the end of the curve can be off the end of training by a rounding error.
    ends = tuple(min(epochs, warmup_epochs + end) for end in curve.cycle_ends)
    return Schedule(lr, momentum if curve.momentum else None, ends)


def constant(epochs: float, floor: float) -> Schedule:
    """1."""
    return Schedule(lambda epoch: 1.0, None, (epochs,))


def step(epochs: float, floor: float, *, step_epochs: float | None = None, gamma: float = 0.1) -> Schedule:
    """gamma^floor(epoch / step_epochs)."""
    length = epochs / 3 if step_epochs is None else step_epochs
    return Schedule(lambda epoch: max(floor, gamma ** _place(epoch, length, epochs)[0]), None, (epochs,))


def exponential(epochs: float, floor: float, *, gamma: float | None = None, staircase: bool = False) -> Schedule:
    """gamma^epoch; as a staircase gamma^floor(epoch)."""
    factor = 0.01 ** (1 / epochs) if gamma is None else gamma
    if staircase:
        return step(epochs, floor, step_epochs=1.0, gamma=factor)
    return Schedule(lambda epoch: max(floor, factor**epoch), None, (epochs,))


def cosine(epochs: float, floor: float) -> Schedule:
    """floor + (1 - floor) (1 + cos(pi epoch / epochs)) / 2: Loshchilov & Hutter 2017 (SGDR), equation 5, one cycle."""
    return Schedule(lambda epoch: _cosine(1.0, floor, epoch / epochs), None, (epochs,))


def sgdr(epochs: float, floor: float, *, cycle_len: float | None = None, cycle_mult: float = 2.0) -> Schedule:
    """The cosine restarted at 1, each cycle `cycle_mult` times as long: Loshchilov & Hutter 2017, section 3."""
    length = epochs / (1 + cycle_mult + cycle_mult**2) if cycle_len is None else cycle_len
    ends = [length]
    while ends[-1] < epochs - CLOSE:
        length *= cycle_mult
        ends.append(ends[-1] + length)
    ends = [epochs if abs(end - epochs) <= CLOSE else end for end in ends]

    def lr(epoch: float) -> float:
        cycle = min(bisect_right(ends, epoch + CLOSE), len(ends) - 1)
        start = ends[cycle - 1] if cycle else 0.0
        return _cosine(1.0, floor, max(0.0, (epoch - start) / (ends[cycle] - start)))

    return Schedule(lr, None, tuple(end for end in ends if end <= epochs))


def triangular(
    epochs: float,
    floor: float,
    *,
    half_cycle_epochs: float | None = None,
    cycle_momentum: bool = False,
    momentum_range: Sequence[float] = (0.85, 0.95),
    _height: Callable[[int, float], float] = lambda cycle, epoch: 1.0,
) -> Schedule:
    """Straight up from the floor to 1 and down again: Smith 2017, "Cyclical Learning Rates", section 3.1."""
    half = epochs / 8 if half_cycle_epochs is None else half_cycle_epochs
    low, high = momentum_range

    def wave(epoch: float) -> float:
        cycle, position = _place(epoch, 2 * half, epochs)
        return (1 - abs(2 * position - 1)) * _height(cycle, epoch)

    count = math.floor((epochs + CLOSE) / (2 * half))
    return Schedule(
        lambda epoch: floor + (1 - floor) * wave(epoch),
        (lambda epoch: high - (high - low) * wave(epoch)) if cycle_momentum else None,
        tuple(min(epochs, 2 * half * cycle) for cycle in range(1, count + 1)),
    )


def triangular2(epochs: float, floor: float, **options: Any) -> Schedule:
    """As `triangular`, each cycle half as high as the one before: Smith 2017, section 3.1."""
    return triangular(epochs, floor, **options, _height=lambda cycle, epoch: 0.5**cycle)


def exp_range(epochs: float, floor: float, *, gamma: float | None = None, **options: Any) -> Schedule:
    """As `triangular`, its height above the floor falling as gamma^epoch: Smith 2017, section 3.1.

    Smith states gamma per iteration (0.99994): ours is his to the power of the iterations per epoch, so that it means
    the same at any batch size. As everywhere in code, though not in his text, the floor stays where it is.
    """
    factor = 0.1 ** (1 / epochs) if gamma is None else gamma
    return triangular(epochs, floor, **options, _height=lambda cycle, epoch: factor**epoch)


def one_cycle(
    epochs: float,
    floor: float,
    *,
    peak_at: float = 0.25,
    div: float = 25.0,
    final_div: float = 1e5,
    cycle_momentum: bool = False,
    momentum_range: Sequence[float] = (0.85, 0.95),
) -> Schedule:
    """Half a cosine up from 1 / div to 1, another down to 1 / final_div.

    Smith & Topin 2018, "Super-Convergence", with the cosines and defaults of fastai's ``fit_one_cycle``.
    """
    peak = peak_at * epochs
    low, high = momentum_range

    def along(first: float, middle: float, last: float) -> Curve:
        return lambda epoch: (
            _cosine(first, middle, epoch / peak)
            if epoch < peak
            else _cosine(middle, last, min(1.0, (epoch - peak) / (epochs - peak)))
        )

    momentum = along(high, low, high) if cycle_momentum else None
    return Schedule(along(max(floor, 1 / div), 1.0, max(floor, 1 / final_div)), momentum, (epochs,))


def composed(epochs: float, floor: float, *, parts: Sequence[Mapping[str, Any]]) -> Schedule:
    """One after another. A part that leaves the momentum alone keeps what the part before it, or else after, had."""
    lengths = [float(part["epochs"]) for part in parts if part.get("epochs") is not None]
    if len(lengths) < len(parts):
        lengths.append(epochs - sum(lengths))
    starts = [0.0, *accumulate(lengths)][:-1]
    built = [
        make(**{key: value for key, value in part.items() if key != "scale"} | {"epochs": length})
        for part, length in zip(parts, lengths, strict=True)
    ]
    scales = [float(part.get("scale", 1.0)) for part in parts]
    cycling = [index for index, one in enumerate(built) if one.momentum]

    def place(epoch: float) -> int:
        return max(0, bisect_right(starts, epoch + CLOSE) - 1)

    def lr(epoch: float) -> float:
        index = place(epoch)
        return max(floor, scales[index] * built[index].lr(epoch - starts[index]))

    def momentum(epoch: float) -> float:
        index = max((other for other in cycling if other <= place(epoch)), default=cycling[0])
        curve = built[index].momentum
        assert curve is not None
        return curve(epoch - starts[index])

    ends = (start + end for start, one in zip(starts, built, strict=True) for end in one.cycle_ends)
    return Schedule(lr, momentum if cycling else None, tuple(ends))


def _cosine(first: float, last: float, position: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * position)) / 2


def _place(epoch: float, length: float, epochs: float) -> tuple[int, float]:
    """Which stretch of `length` the epoch falls into, from 0, and where in it, 0..1.

    The end of training belongs to the last stretch, not to one that would begin there.
    """
    last = max(0, math.ceil((epochs - CLOSE) / length) - 1)
    index = min(math.floor((epoch + CLOSE) / length), last)
    return index, min(max(epoch / length - index, 0.0), 1.0)


CURVES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "triangular": triangular,
    "triangular2": triangular2,
    "exp_range": exp_range,
    "sgdr": sgdr,
    "one_cycle": one_cycle,
    "composed": composed,
}
