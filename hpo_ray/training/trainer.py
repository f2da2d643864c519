"""A training in progress: one epoch after another, validated, stopped early, saved and resumed exactly.

Plain torch, usable in a notebook; knows nothing of architectures, data sets, trials or Ray.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.training import checkpoint, lr_schedules, optimizers, parallel
from hpo_ray.training.evaluate import evaluate
from hpo_ray.training.loop import Step, train_epoch
from hpo_ray.training.lr_schedules import Schedule
from hpo_ray.training.precision import NAMES, Precision

Batches = Iterable[tuple[Tensor, Tensor]]
Part = Callable[[nn.Module], Callable[[Tensor], Tensor]]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Options:
    """What holds for a whole training.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        clip_norm: See `hpo_ray.training.loop.Step`, likewise the next three.
        label_smoothing: Share of each label spread over all classes.
        loss_weights: Per class.
        micro_batches: Pieces of each batch.
        ema_decay: The weights validated and saved are an exponential average of those after each step, which counts
            the past this much; None: no averaging. BatchNorm's statistics are averaged too.
        patience: So many epochs without a lower validation loss end the training; see `Fit.restore_best`. None: train
            to the end and keep the last weights.
        compile: The model's forward pass through `torch.compile`.
    """

    precision: str = "fp32"
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    loss_weights: Tensor | None = None
    micro_batches: int = 1
    ema_decay: float | None = None
    patience: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        """Raises: InvalidInput: with every value that makes no sense."""
        rules = {
            "precision": (self.precision in NAMES, nearest(self.precision, NAMES)),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "it must be above 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "it must be from 0 to below 1"),
            "micro_batches": (self.micro_batches >= 1, "it must be at least 1"),
            "ema_decay": (self.ema_decay is None or 0 < self.ema_decay < 1, "it must be between 0 and 1"),
            "patience": (self.patience is None or self.patience >= 1, "it must be at least 1"),
        }
        found = [
            Problem(f"training.{name}", f"'{getattr(self, name)}': {words}")
            for name, (good, words) in rules.items()
            if not good
        ]
        if found:
            raise InvalidInput(*found)


class Fit:
    """The state of a training: model, optimizer, averages, what was best, and how many epochs are done."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: str | torch.device, options: Options
    ) -> None:
        """Args: the model, already on `device`, and an optimizer over all its parameters, frozen ones included."""
        self.model = model
        self.optimizer = optimizer
        self.done = 0
        self._device = device
        self._options = options
        self._precision = Precision(options.precision, device)
        self._compiled = torch.compile(model) if options.compile else None
        self._average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay), use_buffers=True)
            if options.ema_decay is not None
            else None
        )
        self._best: dict[str, Any] | None = None  # epoch, loss and weights of the best epoch, where patience needs it

    @property
    def evaluated(self) -> nn.Module:
        """The model to use: the averaged one if there is one."""
        return self._average.module if self._average is not None else self.model

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the lowest validation loss so far; None before the first, or where nobody waits for one."""
        return self._best["epoch"] if self._best else None

    @property
    def out_of_patience(self) -> bool:
        """Whether validation has not improved for as many epochs as `Options.patience`."""
        patience = self._options.patience
        return patience is not None and self._best is not None and self.done - self._best["epoch"] >= patience

    def epoch(
        self,
        train: Batches,
        valid: Batches | None,
        *,
        steps: int,
        schedule: Schedule | None = None,
        since: int = 0,
        part: Part | None = None,
        train_mode: Callable[[nn.Module], object] | None = None,
        mix: Mix | None = None,
    ) -> dict[str, float]:
        """Trains for one epoch and validates.

        Args:
            train: What to learn from.
            valid: What to measure on; None: nothing is, and there are no ``val_`` values.
            steps: How many batches `train` has, so that the learning rate knows how far it is.
            schedule: Of the learning rate; None: as the optimizer has it.
            since: The epoch at which the schedule began.
            part: The part of a model that takes the batches, e.g. its head where they hold activations; None: all.
            train_mode: See `hpo_ray.training.loop.Step`, likewise the next.
            mix: Images and labels to mixed ones.

        Returns:
            ``epoch`` (finished, from 1), ``train_loss``, ``val_loss``, ``val_error``, ``val_accuracy``, ``lr`` (the
            highest of all groups, at the last step) and ``epoch_s``.
        """
        start = time.perf_counter()
        before = None
        if schedule is not None:
            before = partial(self._set_rate, schedule, self.done - since, steps)
        step = Step(
            forward=self._forward(self.model, part),
            train_mode=train_mode,
            before=before,
            mix=mix,
            loss_weights=self._options.loss_weights,
            label_smoothing=self._options.label_smoothing,
            clip_norm=self._options.clip_norm,
            micro_batches=self._options.micro_batches,
            precision=self._precision,
            average=self._average,
        )
        train_loss = train_epoch(self.model, train, self.optimizer, self._device, step)
        parallel.average_buffers(self.model, self.evaluated)
        measured = {} if valid is None else self._validate(valid, part)
        self.done += 1
        if measured and self._options.patience is not None and self._improved(measured["val_loss"]):
            weights = copy.deepcopy(self.evaluated.state_dict())
            loss = math.inf if math.isnan(measured["val_loss"]) else measured["val_loss"]
            self._best = {"epoch": self.done, "loss": loss, "model": weights}
        return {
            "epoch": self.done,
            "train_loss": train_loss,
            **measured,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "epoch_s": time.perf_counter() - start,
        }

    def _validate(self, valid: Batches, part: Part | None) -> dict[str, float]:
        forward = self._forward(self.evaluated, part)
        found = evaluate(self.evaluated, valid, self._device, forward, precision=self._precision)
        return {"val_loss": found.loss, "val_error": found.error, "val_accuracy": found.accuracy}

    def restore_best(self) -> None:
        """Puts the weights of the best epoch back into `evaluated`; kept only with `Options.patience`."""
        if self._best is not None:
            self.evaluated.load_state_dict(self._best["model"])

    def save(self, folder: Path) -> None:
        """Everything that going on exactly needs, into ``folder/state.pt``; see `hpo_ray.training.checkpoint`."""
        extra: dict[str, Any] = {"precision": self._precision.state_dict(), "best": self._best}
        if self._average is not None:
            extra["raw"] = checkpoint.unwrap(self.model).state_dict()
            extra["n_averaged"] = self._average.n_averaged
        checkpoint.save(folder, model=self.evaluated, optimizer=self.optimizer, epoch=self.done, extra=extra)

    def load(self, folder: Path) -> None:
        """Puts back what `save` wrote.

        Raises:
            RunFailed: The file is missing, damaged, or of another model or optimizer.
        """
        self.done, extra = checkpoint.load(folder, model=self.evaluated, optimizer=self.optimizer)
        self._precision.load_state_dict(extra.get("precision") or {})
        self._best = extra.get("best")
        if self._average is not None and "raw" in extra:
            self.model.load_state_dict(extra["raw"])
            self._average.n_averaged.copy_(extra["n_averaged"])

    def _improved(self, loss: float) -> bool:
        return self._best is None or loss < self._best["loss"]

    def _forward(self, model: nn.Module, part: Part | None) -> Callable[[Tensor], Tensor]:
        if part is not None:
            return part(model)
        return self._compiled if self._compiled is not None and model is self.model else model

    def _set_rate(self, schedule: Schedule, epochs: int, steps: int, taken: int) -> None:
        lr_schedules.apply(schedule, self.optimizer, epochs + taken / max(steps, 1))


def fit(
    model: nn.Module,
    train: Batches,
    valid: Batches,
    *,
    epochs: int,
    lr: float = 0.003,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    schedule: str = "one_cycle",
    schedule_options: Mapping[str, Any] | None = None,
    options: Options = Options(),
    device: str | torch.device = "cpu",
) -> Iterator[dict[str, float]]:
    """Trains a model, for a notebook: ``for row in fit(model, loader, valid_loader, epochs=5): print(row)``.

    Args:
        model: Images to logits; trained in place. Frozen parameters (``requires_grad=False``) stay as they are.
        train: `(images, labels)` batches, iterated once per epoch, e.g. a shuffling DataLoader.
        valid: Likewise, for measuring.
        epochs: Passes over `train`.
        lr: The schedule's highest learning rate.
        optimizer: A name from `hpo_ray.training.optimizers`.
        weight_decay: As each optimizer defines it.
        schedule: A name from `hpo_ray.training.lr_schedules`.
        schedule_options: Its options.
        options: Everything else. With `patience` the model has the best epoch's weights at the end.
        device: Where to compute.

    Yields:
        One row per epoch; see `Fit.epoch`.

    Raises:
        InvalidInput: An unknown name or option; `train` has no length.
    """
    model = model.to(device)
    state = Fit(
        model, optimizers.build(optimizer, model.parameters(), lr=lr, weight_decay=weight_decay), device, options
    )
    wrong = lr_schedules.problems(schedule, epochs=epochs, **(schedule_options or {}))
    if wrong:
        raise InvalidInput(*wrong)
    curve = lr_schedules.build(schedule, epochs=epochs, **(schedule_options or {}))
    if not isinstance(train, Sized):
        raise InvalidInput(Problem("train", f"{type(train).__name__} has no length, which the schedule goes by"))
    while state.done < epochs and not state.out_of_patience:
        yield state.epoch(train, valid, steps=len(train), schedule=curve)
    state.restore_best()
