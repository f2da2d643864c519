"""The image classification recipe: joins data, model and training, and reports once per epoch.

Knows the `Trial` it reports to and no Ray. Imports torch only when it runs: the driver asks it to check a
configuration.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray.errors import Problem

if TYPE_CHECKING:
    from torch import nn

    from hpo_ray.data.images import ImageData
    from hpo_ray.trainables.trial import Trial

# Evaluation keeps no activations for a backward pass, so batches of this many times the training's fit as well.
_EVALUATION_BATCHES = 2


def train(config: dict, trial: Trial) -> None:
    """Trains one configuration, reports after every epoch, and goes on from the trial's checkpoint if it has one.

    A resumed trial gives the same weights and reports as an unbroken one, on the same machine with the same versions
    and threads. Python's, numpy's and torch's global generators are as before afterwards.

    Args:
        config: The sections `data` (see `hpo_ray.data.images.load`, and `workers`), `model` (see
            `hpo_ray.models.vision.build`) and `training`: `optimizer`, `lr`, `momentum`, `weight_decay` (see
            `hpo_ray.training.optimizers.build`), `batch_size`, `epochs`.
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
    from hpo_ray.data import parts
    from hpo_ray.training import checkpoint, evaluate, loop, optimizers

    training = dict(config["training"])
    batch_size, epochs = int(training.pop("batch_size")), int(training.pop("epochs"))
    pieces = trial.micro_batches
    workers = int(config["data"].get("workers", 0))
    data = _data(config)
    model = _model(config["model"], data).to(trial.device)
    optimizer = optimizers.build(training.pop("optimizer"), model.parameters(), **training)
    saved = trial.load_checkpoint()
    done = checkpoint.load(saved, model=model, optimizer=optimizer) if saved else 0
    for epoch in range(done + 1, epochs + 1):
        start = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        order = parts.epoch_generator(trial.seed, epoch)
        batches = parts.batches(data.train, batch_size, order=order, workers=workers)
        train_loss = loop.train_epoch(model, batches, optimizer, trial.device, pieces)
        batches = parts.batches(data.valid, _evaluation_batch(batch_size, pieces), workers=workers)
        valid = evaluate.evaluate(model, batches, trial.device)
        trial.report(
            checkpoint=partial(checkpoint.save, model=model, optimizer=optimizer, epoch=epoch),
            epoch=epoch,
            train_loss=train_loss,
            val_loss=valid.loss,
            val_error=valid.error,
            val_accuracy=valid.accuracy,
            lr=lr,
            epoch_s=time.perf_counter() - start,
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
    from hpo_ray.data import parts
    from hpo_ray.training import checkpoint as checkpoints
    from hpo_ray.training import evaluate

    data = _data(config)
    with checkpoints.own_rng(0):  # the first weights are drawn only to be overwritten
        model = _model({**config["model"], "weights": None}, data).to(device)
    checkpoints.load_weights(checkpoint, model=model)
    size = _evaluation_batch(int(config["training"]["batch_size"]), micro_batches)
    batches = parts.batches(data.test, size, workers=int(config["data"].get("workers", 0)))
    found = evaluate.evaluate(model, batches, device)
    return found.errors, found.n


def check(data: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Mistakes that can be seen before anything starts, in a fraction of a second; no picture is opened.

    Torch is imported only if a torchvision architecture is named.

    Args:
        data: The configuration's section of that name.
        model: Likewise.

    Returns:
        Every problem, with the key it belongs to; empty if there are none.
    """
    from hpo_ray.data import checks
    from hpo_ray.models import names

    arch = names.check_arch(model["arch"])
    of_model = arch or names.check_weights(model["arch"], model.get("weights"))
    return [*checks.check(data["name"], data.get("root")), *([of_model] if of_model else [])]


def _evaluation_batch(batch_size: int, pieces: int) -> int:
    return max(1, _EVALUATION_BATCHES * batch_size // pieces)


def _data(config: dict) -> ImageData:
    from hpo_ray.data import images

    return images.load(**{key: value for key, value in config["data"].items() if key != "workers"})


def _model(section: Mapping[str, Any], data: ImageData) -> nn.Module:
    from hpo_ray.models import vision

    return vision.build(**section, classes=len(data.classes), channels=data.channels, image_size=data.image_size)
