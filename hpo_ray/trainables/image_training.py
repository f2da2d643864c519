"""One image model being trained, epoch by epoch and stage by stage; a trial has one, or one for each fold and repeat.

Joins data, model and training; knows no trial and no Ray. Imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpo_ray.models import freezing, groups, trunk
from hpo_ray.trainables import image_plan
from hpo_ray.trainables.image_source import ImageSource
from hpo_ray.training import modes, optimizers, parallel, stages
from hpo_ray.training.trainer import Fit, Options

ABOUT = "about.json"
ROW = "row.json"


class ImageTraining:
    """A model, its images, and how far it is.

    Attributes:
        row: What the last epoch measured; empty before the first.
    """

    def __init__(self, source: ImageSource, training: Mapping[str, Any], *, device: str, pieces: int) -> None:
        """Args: the images; the section `training`; where to compute; in how many pieces to take each batch."""
        self._source = source
        self._training = training
        self._epochs = int(training["epochs"])
        self._plan = stages.plan(training.get("stages"), self._epochs)
        self._stage: stages.Stage | None = None
        self.row: dict[str, float] = {}
        self._model = source.model()
        parallel.share_weights(self._model)
        self._fit = _fit(self._model, training, source, device, pieces)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self._fit.done >= self._epochs or self._fit.out_of_patience

    def epoch(self) -> dict[str, float]:
        """Trains for one epoch; see `hpo_ray.training.trainer.Fit.epoch`."""
        fit, source, model = self._fit, self._source, self._model
        stage = stages.stage_at(self._plan, fit.done)
        if stage is not self._stage:
            self._stage, self._schedule = stage, image_plan.schedule_of(self._training, stage)
            parted = groups.layer_groups(model, int(self._training.get("groups", 3)))
            freezing.freeze(model, stage.train, parted)
        parallel.own_draws(source.seed, fit.done)
        row = fit.epoch(
            source.train(fit.done + 1, stage, model),
            source.valid(stage, model),
            steps=source.steps,
            schedule=self._schedule,
            since=stage.since,
            part=trunk.head_part if stage.cached else None,
            train_mode=train_mode_of(self._training),
            mix=None if stage.cached else source.mix,
        )
        source.share_unreadable()
        unreadable = len(source.data.corrupt)
        self.row = row | ({"unreadable": float(unreadable)} if unreadable else {})
        return self.row

    def save(self, folder: Path) -> None:
        """Everything that going on exactly needs, and what images the model expects, for later predictions."""
        self._fit.save(folder)
        (folder / ABOUT).write_text(json.dumps(self._source.about()))
        (folder / ROW).write_text(json.dumps(self.row))

    def load(self, folder: Path) -> None:
        """Puts back what `save` wrote, the global generators among it.

        Raises:
            RunFailed: It cannot be read, or belongs to another configuration.
        """
        self._fit.load(folder)
        if (folder / ROW).is_file():  # checkpoints of earlier versions have none
            self.row = json.loads((folder / ROW).read_text())


def _fit(model: nn.Module, training: Mapping[str, Any], source: ImageSource, device: str, pieces: int) -> Fit:
    if training.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    options = Options(
        precision=training.get("precision", "fp32"),
        clip_norm=training.get("clip_norm"),
        label_smoothing=float(training.get("label_smoothing", 0.0)),
        loss_weights=source.loss_weights,
        micro_batches=pieces,
        ema_decay=training.get("ema_decay"),
        patience=training.get("patience"),
        compile=bool(training.get("compile", False)),
    )
    return Fit(model, optimizer_of(model, training), device, options)


def optimizer_of(model: nn.Module, training: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Over all layer groups from the start, frozen ones too: their rates are set, and a group cannot be added later."""
    decay = training.get("layer_decay")
    if decay is not None:
        parted, ratio = groups.layer_groups(model, None), 1 / float(decay)
    else:
        parted, ratio = groups.layer_groups(model, int(training.get("groups", 3))), float(training.get("lr_ratio", 1.0))
    return _built(groups.optimizer_groups(parted, ratio), training)


def head_optimizer_of(head: nn.Module, training: Mapping[str, Any]) -> torch.optim.Optimizer:
    return _built(head.parameters(), training)


def _built(parameters: Any, training: Mapping[str, Any]) -> torch.optim.Optimizer:
    momentum = training.get("momentum")
    return optimizers.build(
        training["optimizer"],
        parameters,
        lr=float(training["lr"]),
        momentum=None if momentum is None else float(momentum),
        weight_decay=float(training.get("weight_decay", 0.0)),
        decay_norms=bool(training.get("decay_norms", True)),
    )


def train_mode_of(training: Mapping[str, Any]) -> Callable[[nn.Module], None]:
    return partial(modes.train_mode, freeze_norms=bool(training.get("freeze_norms", False)))
