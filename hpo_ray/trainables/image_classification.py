"""The image classification recipe: joins data, model and training, and reports once per epoch.

Knows the `Trial` it reports to and no Ray. Imports torch only when it runs: the driver asks it to check a
configuration.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpo_ray.trainables.image_plan import check, rungs

__all__ = ["check", "errors_on_test", "range_test", "rungs", "train"]

if TYPE_CHECKING:
    from hpo_ray.trainables.trial import Trial
    from hpo_ray.training.lr_finder import RangeTest


def train(config: dict, trial: Trial) -> None:
    """Trains one configuration, reports after every epoch, and goes on from the trial's checkpoint if it has one.

    Several worker processes of one trial (`trial.workers`) train one model on parts of each batch, which holds
    `training.batch_size` images for each of them; the first one's row is the trial's.

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

    from hpo_ray.training import checkpoint, parallel

    torch.set_num_threads(max(1, trial.cpus))
    with parallel.group(trial.device), checkpoint.own_rng(trial.seed):
        _train(config, trial)


def _train(config: dict, trial: Trial) -> None:
    from hpo_ray.trainables import image_children
    from hpo_ray.trainables.image_source import ImageSource
    from hpo_ray.trainables.image_training import ImageTraining

    training = config["training"]
    pieces = trial.micro_batches * int(training.get("accumulate", 1))
    children = {}
    for child in image_children.of(config):
        source = ImageSource(config, seed=child.seed(trial.seed), device=trial.device, pieces=pieces, child=child)
        children[child] = ImageTraining(source, training, device=trial.device, pieces=pieces)
    saved = trial.load_checkpoint()
    for child, own in children.items():
        if saved:
            own.load(child.folder(saved))
    while not all(own.over for own in children.values()):
        # One that has run out of patience stands by what it measured last, and costs nothing more.
        rows = {child: {**own.row, "epoch_s": 0.0} if own.over else own.epoch() for child, own in children.items()}
        trial.report(checkpoint=partial(image_children.save, children), **image_children.merged(rows))


def range_test(config: dict, *, seed: int = 0, device: str = "cpu", cpus: int = 1, steps: int = 100) -> RangeTest:
    """Learning rates from tiny to huge on the configuration's first stage; see `hpo_ray.training.lr_finder`.

    In full precision, without mixing images or clipping gradients.

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
    from hpo_ray.trainables import image_training
    from hpo_ray.trainables.image_source import ImageSource
    from hpo_ray.training import checkpoint, lr_finder, stages

    torch.set_num_threads(max(1, cpus))
    training = config["training"]
    [stage, *_] = stages.plan(training.get("stages"), int(training["epochs"]))
    with checkpoint.own_rng(seed):
        source = ImageSource(config, seed=seed, device=device, pieces=int(training.get("accumulate", 1)))
        model = source.model()
        freezing.freeze(model, stage.train, groups.layer_groups(model, int(training.get("groups", 3))))
        tested, make = model, partial(image_training.optimizer_of, training=training)
        if stage.cached:  # the batches hold activations, and the head is all that takes them
            tested, make = trunk.head_part(model), partial(image_training.head_optimizer_of, training=training)
        loss = torch.nn.CrossEntropyLoss(
            source.loss_weights, label_smoothing=float(training.get("label_smoothing", 0.0))
        )
        found = lr_finder.range_test(
            tested,
            lambda: source.train(1, stage, model),
            make,
            device=device,
            steps=steps,
            train_mode=None if stage.cached else image_training.train_mode_of(training),
            loss=loss,
        )
    return replace(found, lrs=found.lrs / stage.lr_factor)  # in terms of `training.lr`


def errors_on_test(
    config: dict, checkpoint: Path, device: str = "cpu", micro_batches: int = 1
) -> dict[str, int | list[int]]:
    """Scores a checkpoint on the test part, which no choice has looked at.

    Args:
        config: The configuration that the checkpoint was trained with.
        checkpoint: The folder that `train` saved into.
        device: Where to compute.
        micro_batches: What the trial had, so that what fitted into memory then fits now.

    Returns:
        ``errors`` among the ``n`` images that could be read; with folds or repeats those of the models' mean opinion,
        and beside it of ``each`` model alone.

    Raises:
        RunFailed: The checkpoint cannot be read or belongs to another configuration.
    """
    from hpo_ray.trainables import image_prediction

    pieces = micro_batches * int(config["training"].get("accumulate", 1))
    found = image_prediction.on_part(config, checkpoint, "test", device=device, pieces=pieces)
    together = image_prediction.mean(found.plain).evaluation()
    result: dict[str, int | list[int]] = {"errors": together.errors, "n": together.n}
    if len(found.plain) > 1:
        result["each"] = [alone.evaluation().errors for alone in found.plain]
    return result
