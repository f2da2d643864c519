"""The image classification recipe: joins data, model and training, and reports once per epoch.

Knows the `Trial` it reports to and no Ray. Imports torch only when it runs: the driver asks it to check a
configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray.trainables import image_plan
from hpo_ray.trainables.image_plan import check, rungs

__all__ = ["check", "errors_on_test", "range_test", "rungs", "train"]

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hpo_ray.trainables.image_source import ImageSource
    from hpo_ray.trainables.trial import Trial
    from hpo_ray.training.lr_finder import RangeTest
    from hpo_ray.training.trainer import Fit


def train(config: dict, trial: Trial) -> None:
    """Trains one configuration, reports after every epoch, and goes on from the trial's checkpoint if it has one.

    A resumed trial gives the same weights and reports as an unbroken one, on the same machine with the same versions
    and threads. Python's, numpy's and torch's global generators are as before afterwards.

    Args:
        config: The sections `data`, `model` and `training`, with the fields of `hpo_ray.sections`; what is missing
            has its default.
        trial: Reports what `hpo_ray.trainables.TRAINABLES` declares: `epoch` counts finished epochs from 1,
            `val_error` is a fraction, `epoch_s` is seconds of training and validation. A diverged trial reports NaN
            and goes on.

    Raises:
        InvalidInput: The configuration names something that does not exist or does not fit.
        RunFailed: The trial's checkpoint cannot be read.
    """
    import torch

    from hpo_ray.training import checkpoint

    torch.set_num_threads(max(1, trial.cpus))
    with checkpoint.own_rng(trial.seed):
        _train(config, trial)


def _train(config: dict, trial: Trial) -> None:
    from hpo_ray.models import freezing, groups, trunk
    from hpo_ray.trainables.image_source import ImageSource
    from hpo_ray.training import stages

    training = config["training"]
    epochs = int(training["epochs"])
    plan = stages.plan(training.get("stages"), epochs)
    pieces = trial.micro_batches * int(training.get("accumulate", 1))
    source = ImageSource(config, seed=trial.seed, device=trial.device, pieces=pieces)
    model = source.model()
    fit = _fit(model, training, source, trial.device, pieces)
    saved = trial.load_checkpoint()
    if saved:
        fit.load(saved)
    entered = None
    while fit.done < epochs and not fit.out_of_patience:
        stage = stages.stage_at(plan, fit.done)
        if stage is not entered:
            entered, schedule = stage, image_plan.schedule_of(training, stage)
            freezing.freeze(model, stage.train, groups.layer_groups(model, int(training.get("groups", 3))))
        row = fit.epoch(
            source.train(fit.done + 1, stage, model),
            source.valid(stage, model),
            steps=source.steps,
            schedule=schedule,
            since=stage.since,
            part=trunk.head_part if stage.cached else None,
            train_mode=_train_mode(training),
            mix=None if stage.cached else source.mix,
        )
        trial.report(checkpoint=fit.save, **row)


def _fit(model: nn.Module, training: Mapping[str, Any], source: ImageSource, device: str, pieces: int) -> Fit:
    import torch

    from hpo_ray.training.trainer import Fit, Options

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
    return Fit(model, _optimizer(model, training), device, options)


def _optimizer(model: nn.Module, training: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Over all layer groups from the start, frozen ones too: their rates are set, and a group cannot be added later."""
    from hpo_ray.models import groups

    decay = training.get("layer_decay")
    if decay is not None:
        parted, ratio = groups.layer_groups(model, None), 1 / float(decay)
    else:
        parted, ratio = groups.layer_groups(model, int(training.get("groups", 3))), float(training.get("lr_ratio", 1.0))
    factors = groups.lr_factors(parted, ratio)
    return _built(
        [
            {"name": group.name, "params": group.parameters, "lr_factor": factor}
            for group, factor in zip(parted, factors, strict=True)
        ],
        training,
    )


def _head_optimizer(head: nn.Module, training: Mapping[str, Any]) -> torch.optim.Optimizer:
    return _built(head.parameters(), training)


def _built(parameters: Any, training: Mapping[str, Any]) -> torch.optim.Optimizer:
    from hpo_ray.training import optimizers

    momentum = training.get("momentum")
    return optimizers.build(
        training["optimizer"],
        parameters,
        lr=float(training["lr"]),
        momentum=None if momentum is None else float(momentum),
        weight_decay=float(training.get("weight_decay", 0.0)),
        decay_norms=bool(training.get("decay_norms", True)),
    )


def _train_mode(training: Mapping[str, Any]) -> Callable[[nn.Module], None]:
    from hpo_ray.models import freezing

    return partial(freezing.train_mode, freeze_norms=bool(training.get("freeze_norms", False)))


def range_test(config: dict, *, seed: int = 0, device: str = "cpu", cpus: int = 1, steps: int = 100) -> RangeTest:
    """Learning rates from tiny to huge on the configuration's first stage; see `hpo_ray.training.lr_finder`.

    Args:
        config: As for `train`.
        seed: Of the weights and the order of the images.
        device: Where to compute.
        cpus: Threads.
        steps: Batches to take at most.

    Raises:
        InvalidInput: As for `train`.
    """
    import torch

    from hpo_ray.models import freezing, groups, trunk
    from hpo_ray.trainables.image_source import ImageSource
    from hpo_ray.training import checkpoint, lr_finder, stages

    torch.set_num_threads(max(1, cpus))
    training = config["training"]
    [stage, *_] = stages.plan(training.get("stages"), int(training["epochs"]))
    with checkpoint.own_rng(seed):
        source = ImageSource(config, seed=seed, device=device, pieces=int(training.get("accumulate", 1)))
        model = source.model()
        freezing.freeze(model, stage.train, groups.layer_groups(model, int(training.get("groups", 3))))
        tested, make = model, partial(_optimizer, training=training)
        if stage.cached:  # the batches hold activations, and the head is all that takes them
            tested, make = trunk.head_part(model), partial(_head_optimizer, training=training)
        return lr_finder.range_test(
            tested,
            lambda: source.train(1, stage, model),
            make,
            device=device,
            steps=steps,
            train_mode=None if stage.cached else _train_mode(training),
        )


def errors_on_test(config: dict, checkpoint: Path, device: str = "cpu", micro_batches: int = 1) -> tuple[int, int]:
    """Scores a checkpoint on the test part, which no choice has looked at.

    Args:
        config: The configuration that the checkpoint was trained with.
        checkpoint: The folder that `train` saved into.
        device: Where to compute.
        micro_batches: What the trial had, so that what fitted into memory then fits now.

    Returns:
        Errors, and how many images were tried.

    Raises:
        RunFailed: The checkpoint cannot be read or belongs to another configuration.
    """
    from hpo_ray.trainables.image_source import ImageSource
    from hpo_ray.training import checkpoint as checkpoints
    from hpo_ray.training import evaluate

    source = ImageSource(config, seed=0, device=device, pieces=micro_batches)
    with checkpoints.own_rng(0):  # the first weights are drawn only to be overwritten
        model = source.model(scratch=True)
    checkpoints.load_weights(checkpoint, model=model)
    found = evaluate.evaluate(model, source.test(), device)
    return found.errors, found.n
