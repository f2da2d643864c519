"""The best trial of a run as a model: where its weights lie, what it makes of images. Starts no Ray.

Knows the built-in image trainable; prints nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import history
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import Experiment
from hpo_ray.storage import carrying
from hpo_ray.storage.store import Store
from hpo_ray.trainables import TRAINABLES

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np

    from hpo_ray.trainables.image_prediction import Opinion
    from hpo_ray.training.evaluate import Evaluation


@dataclass(frozen=True)
class BestModel:
    """A run's best trial.

    Attributes:
        trial_id: Which.
        config: What it was trained with, in sections.
        checkpoint: The folder of its best epoch.
        module: The trainable's module.
        run_dir: The run's folder.
    """

    trial_id: str
    config: Mapping[str, Any]
    checkpoint: Path
    module: ModuleType
    run_dir: Path


def load(run_dir: Path, trial_id: str | None = None) -> BestModel:
    """A trial's model.

    Args:
        run_dir: A run directory, of a finished run or not.
        trial_id: Which trial; None: the best one.

    Raises:
        InvalidInput: It is no run, none of its trials has a value, or the checkpoint is not kept.
    """
    run = history.load(run_dir)
    experiment = Experiment.model_validate(run.experiment)
    name = TRAINABLES[experiment.trainable.name].module
    if not name:
        message = f"'{run_dir}' trained your own objective: its checkpoints are yours to read"
        raise InvalidInput(Problem("run", message))
    trial, row = run.pick(trial_id)
    path = trial.checkpoints.get((row.attempt, row.fidelity))
    folder = run_dir / path if path is not None else None
    if folder is not None and path is not None and run.stored and not folder.is_dir():
        _bring(run.stored, path, folder)
    if folder is None or not folder.is_dir():
        kept = f"the checkpoints of the best {experiment.storage.keep_checkpoints} reports are kept"
        raise InvalidInput(Problem("trial", f"the checkpoint of trial '{trial.trial_id}' is not there: {kept}"))
    config = experiment.trial_config(trial.config)
    return BestModel(trial.trial_id, config, folder, importlib.import_module(name), run_dir)


def _bring(stored: str, path: str, folder: Path) -> None:
    """Fetch a checkpoint that another machine saved, from where the run is kept besides.

    Raises:
        InvalidInput: That cannot be reached.
    """
    try:
        carrying.pull(Store(stored), path, folder)
    except OSError as error:
        raise InvalidInput(Problem("trial", str(error))) from None


@dataclass(frozen=True)
class PartOpinion:
    """What a model makes of a part of its data set.

    Attributes:
        plain: Probabilities `n x classes` of the images as they are; with folds or repeats the models' mean.
        merged: Those of all views together; the plain ones if there are no others.
        each: As `merged`, of each model alone.
        labels: `n`.
        classes: Class names.
        images: For pictures: what `hpo_ray.results.image_plots.top_losses` takes, `n`.
    """

    plain: np.ndarray
    merged: np.ndarray
    each: tuple[np.ndarray, ...]
    labels: np.ndarray
    classes: list[str]
    images: Sequence[Any]


def check_device(device: str) -> None:
    """Raises: InvalidInput: torch has no such device, or this machine has not."""
    import torch

    if device not in ("cpu", "cuda"):
        raise InvalidInput(Problem("--device", f"'{device}': expected cpu or cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(Problem("--device", "torch finds no GPU on this machine: expected cpu"))


def on_files(model: BestModel, paths: Sequence[Path], *, device: str, views: int = 0, weight: str = "mean") -> Opinion:
    """See `hpo_ray.trainables.image_prediction.on_files`."""
    from hpo_ray.trainables import image_prediction

    check_device(device)
    return image_prediction.on_files(model.config, model.checkpoint, paths, device=device, views=views, weight=weight)


def views_help(
    model: BestModel, *, device: str, views: int, weight: str = "mean"
) -> tuple[Evaluation, Evaluation, bool]:
    """The validation images without and with augmented views, and whether the views help there.

    Raises:
        InvalidInput: The model has learnt from its validation images, so that they cannot tell.
    """
    from hpo_ray.trainables import image_prediction
    from hpo_ray.training import tta

    check_device(device)
    learnt = _learnt(model)
    if learnt:
        message = f"{learnt}, so that they cannot tell: ask the run that chose it, or leave it out to use the views"
        raise InvalidInput(Problem("--if-it-helps", message))
    found = image_prediction.on_part(model.config, model.checkpoint, "valid", device=device, views=views, weight=weight)
    plain, merged = (image_prediction.mean(of).evaluation() for of in (found.plain, found.merged))
    return plain, merged, tta.helps(plain, merged)


def _learnt(model: BestModel) -> str:
    """Why validation images are not new to a model; empty if they are."""
    if model.config.get("folds", 1) > 1:
        return "with folds each image but the test part's was learnt by some model"
    return "the refitted model has learnt from the validation images" if model.config["data"]["train_on_valid"] else ""


def on_part(model: BestModel, part: str, *, device: str, views: int, weight: str = "mean") -> PartOpinion:
    """What the model makes of the part ``valid`` or ``test``, with and without augmented views.

    Raises:
        InvalidInput: The validation images of a cross-validated model: it has learnt from them.
    """
    from hpo_ray.trainables import image_prediction

    check_device(device)
    if part == "valid" and _learnt(model):
        raise InvalidInput(Problem("--part", _learnt(model)))
    found = image_prediction.on_part(model.config, model.checkpoint, part, device=device, views=views, weight=weight)
    images, classes = image_prediction.images_of(model.config, part)
    plain, merged = (image_prediction.mean(of).probabilities.numpy() for of in (found.plain, found.merged))
    each = tuple(alone.probabilities.numpy() for alone in found.merged)
    return PartOpinion(plain, merged, each, found.plain[0].labels.numpy(), classes, images)


def export(model: BestModel, file: Path) -> list[Path]:
    """Writes the weights as a plain state dict; with folds or repeats one file each, ``FILE-f0-r0.pt``, ….

    Raises:
        InvalidInput: It cannot be written.
    """
    import torch

    from hpo_ray.trainables import image_children
    from hpo_ray.training import checkpoint

    written = []
    for child in image_children.of(model.config):
        name = file if child.alone else file.with_stem(f"{file.stem}-f{child.fold}-r{child.repeat}")
        partial_file = name.with_name(f".{name.name}.partial")
        try:
            torch.save(checkpoint.weights(child.folder(model.checkpoint)), partial_file)
            partial_file.replace(name)
        except (OSError, RuntimeError) as error:
            raise InvalidInput(Problem("file", f"'{name}' cannot be written: {error}")) from None
        written.append(name)
    return written
