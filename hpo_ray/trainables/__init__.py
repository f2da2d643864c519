"""Trainables by name: what each declares, so that mistakes are found before Ray starts. Imports no torch, no Ray.

To add one: a module here with ``train(config, trial)``, a line in `TRAINABLES`, a YAML in `conf/trainable/`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Declaration:
    """What a trainable tells before it runs.

    Attributes:
        module: Where its ``train`` is, with ``check`` and ``errors_on_test`` beside it. Empty: the user's own.
        metrics: The keys it reports; None: unknown until the first report.
        sections: The parts of an experiment that it reads.
    """

    module: str
    metrics: tuple[str, ...] | None
    sections: tuple[str, ...]


TRAINABLES: dict[str, Declaration] = {
    "function": Declaration(module="", metrics=None, sections=()),
    "image_classification": Declaration(
        module="hpo_ray.trainables.image_classification",
        metrics=("epoch", "train_loss", "val_loss", "val_error", "val_accuracy", "lr", "epoch_s"),
        sections=("data", "model", "training"),
    ),
}
