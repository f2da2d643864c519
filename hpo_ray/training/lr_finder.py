"""The learning rate range test: train a copy with a rate that grows, and read good rates off the losses.

Suggests and never applies. Plain torch; must not touch the caller's model, and knows no data sets, reports or Ray.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.training import checkpoint, modes
from hpo_ray.training.lr_suggestions import Array, RangeTest

__all__ = ["RangeTest", "range_test"]

_MEMORY = 0.9  # of the running mean that says when to stop


def range_test(
    model: nn.Module,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]] | Iterable[tuple[Tensor, Tensor]],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    device: str | torch.device = "cpu",
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    stop_at: float = 4.0,
    train_mode: Callable[[nn.Module], object] | None = None,
    loss: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy,
    seed: int = 0,
) -> RangeTest:
    """Trains a copy of the model, one step a rate, from `lowest` to `highest` by a constant factor.

    After Smith 2017, "Cyclical Learning Rates", section 3.3, with the exponential growth and the end of fastai's
    ``lr_find``. The model, its optimizer, Python's, numpy's and torch's generators, and those of a ``DataLoader``
    that `batches` returns, are bit for bit as before afterwards, after an error too.

    Args:
        model: Is not changed.
        batches: `(images b x …, labels b)`, e.g. a ``DataLoader``, or what returns them; asked again when it ends.
            Batches of one are left out if the model has BatchNorm.
        make_optimizer: Makes the copy's optimizer; its groups keep the ratios of their rates (their ``lr_factor``,
            or else their rate as a share of the highest).
        device: Where to compute.
        lowest: First learning rate.
        highest: Last learning rate.
        steps: At least 10.
        stop_at: Ends the test where the running mean of the losses is so many times its lowest; also on NaN.
        train_mode: Puts the copy into training mode; None: `hpo_ray.training.modes.train_mode`, which leaves what is
            frozen as it is.
        loss: Of the model's output and the labels, the mean over the batch.
        seed: For dropout, and whatever else draws from the global generators meanwhile.

    Raises:
        InvalidInput: A number makes no sense, no batch can be trained on, or no parameter wants a gradient.
    """
    if found := _problems(lowest, highest, steps, stop_at):
        raise InvalidInput(*found)
    if torch.device(device).type == "cuda":
        torch.cuda.init()  # else its generator's state could be neither kept nor put back
    rates = lowest * (highest / lowest) ** (np.arange(steps) / (steps - 1))
    with _generators_kept() as keep, checkpoint.own_rng(seed), torch.enable_grad():
        trained = copy.deepcopy(checkpoint.unwrap(model)).to(device)
        trained.zero_grad()
        if not any(parameter.requires_grad for parameter in trained.parameters()):
            raise InvalidInput(Problem("training.lr_finder", "the model has no parameter that wants a gradient"))
        (train_mode or modes.train_mode)(trained)
        optimizer = make_optimizer(trained)
        own = set(map(id, trained.parameters()))
        if any(id(parameter) not in own for group in optimizer.param_groups for parameter in group["params"]):
            raise ValueError("make_optimizer must take the parameters of the model that it is given, which is a copy")
        losses, ended = _climb(
            trained,
            _endless(batches if callable(batches) else partial(iter, batches), trained, keep),
            optimizer,
            rates,
            stop_at,
            loss,
        )
    return RangeTest(rates[: len(losses)], np.array(losses), ended)


def _climb(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    rates: Array,
    stop_at: float,
    loss_of: Callable[[Any, Tensor], Tensor],
) -> tuple[list[float], str]:
    device = next(model.parameters()).device
    top = max(float(group["lr"]) for group in optimizer.param_groups)
    factors = [group.get("lr_factor", float(group["lr"]) / top if top else 1.0) for group in optimizer.param_groups]
    losses: list[float] = []
    running, best = 0.0, math.inf
    for rate, (images, labels) in zip(rates.tolist(), batches, strict=False):
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = rate * factor
        optimizer.zero_grad()
        loss = loss_of(model(images.to(device)), labels.to(device))
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return losses, f"the loss became {losses[-1]} at a rate of {rate:.1e}"
        running = _MEMORY * running + (1 - _MEMORY) * losses[-1]
        mean = running / (1 - _MEMORY ** len(losses))
        best = min(best, mean)
        if mean > stop_at * best:
            return losses, f"the loss was more than {stop_at:g} times its lowest at a rate of {rate:.1e}"
        loss.backward()
        optimizer.step()
    if not losses:
        message = "the range test found no batch that it could train on (BatchNorm needs two images)"
        raise InvalidInput(Problem("training.batch_size", message))
    return losses, "every rate was tried" if len(losses) == len(rates) else "the batches came to an end"


def _endless(
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], model: nn.Module, keep: Callable[[object], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every usable batch, again and again; ends when a whole pass has none."""
    fewest = 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1
    found = True
    while found:
        found = False
        loader = batches()
        keep(loader)
        for images, labels in loader:
            if len(labels) >= fewest:
                found = True
                yield images, labels


@contextmanager
def _generators_kept() -> Iterator[Callable[[object], None]]:
    """Gives a function that notes the states of a loader's own generators; they are put back at the end."""
    states: dict[int, tuple[torch.Generator, Tensor]] = {}

    def keep(loader: object) -> None:
        sampler = getattr(loader, "batch_sampler", None)
        for part in (loader, getattr(loader, "sampler", None), sampler, getattr(sampler, "sampler", None)):
            generator = getattr(part, "generator", None)
            if isinstance(generator, torch.Generator):
                states.setdefault(id(generator), (generator, generator.get_state()))

    try:
        yield keep
    finally:
        for generator, state in states.values():
            generator.set_state(state)


def _problems(lowest: float, highest: float, steps: int, stop_at: float) -> list[Problem]:
    found = []
    if not 0 < lowest < math.inf:
        found.append(Problem("training.lr_finder.lowest", f"it is {lowest}, but must be a number above 0"))
    if not lowest < highest < math.inf:
        found.append(Problem("training.lr_finder.highest", f"it is {highest}, but must be above lowest, {lowest}"))
    if steps < 10:
        found.append(Problem("training.lr_finder.steps", f"it is {steps}, but must be at least 10"))
    if not stop_at > 1:
        found.append(Problem("training.lr_finder.stop_at", f"it is {stop_at}, but must be above 1"))
    return found
