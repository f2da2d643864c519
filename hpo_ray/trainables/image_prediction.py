"""What the models of a configuration make of images: of a part of their own data set, or of any files.

Folds and repeats are one opinion, the mean of their probabilities. Knows no trial and no Ray; imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpo_ray.data import parts
from hpo_ray.data.augment import Augmentation
from hpo_ray.data.decoding import CorruptFiles
from hpo_ray.data.preprocess import Preprocess
from hpo_ray.errors import InvalidInput, Problem, RunFailed
from hpo_ray.models import vision
from hpo_ray.trainables import image_children
from hpo_ray.trainables.image_source import ImageSource
from hpo_ray.trainables.image_training import ABOUT
from hpo_ray.training import checkpoint as checkpoints
from hpo_ray.training import tta
from hpo_ray.training.predictions import Predictions, predict

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PartOpinions:
    """What each model makes of a part of a data set, in the part's order; unreadable images are left out.

    Attributes:
        plain: Of the images as they are, one for each fold and repeat.
        merged: Of all views together; the plain ones where there are no others.
    """

    plain: tuple[Predictions, ...]
    merged: tuple[Predictions, ...]


@dataclass(frozen=True)
class Opinion:
    """What the models make of some files.

    Attributes:
        paths: The files that could be read, in the order given.
        classes: Class names.
        probabilities: `n x classes`, of `paths`.
        plain: Likewise, without augmented views.
        unreadable: The others, with the reason.
    """

    paths: list[Path]
    classes: list[str]
    probabilities: Tensor
    plain: Tensor
    unreadable: dict[Path, str]


def on_part(
    config: Mapping[str, Any],
    checkpoint: Path,
    part: str,
    *,
    device: str = "cpu",
    pieces: int = 1,
    views: int = 0,
    how: str = "mean",
    weight: str = "mean",
) -> PartOpinions:
    """Predictions on a part of the configuration's data set.

    Args:
        config: The configuration that the checkpoint was trained with.
        checkpoint: The folder that the recipe's `train` saved into.
        part: ``test``, or ``train`` or ``valid`` as they were loaded.
        device: Where to compute.
        pieces: How much smaller than usual the batches must be to fit into memory.
        views: Augmented views besides the plain one; 0: none.
        how: See `hpo_ray.training.tta.merge`.
        weight: The plain view's share, likewise.

    Raises:
        RunFailed: The checkpoint cannot be read, or belongs to another configuration.
    """
    source = ImageSource(config, seed=0, device=device, pieces=pieces)
    images = getattr(source.data, part)
    read = partial(parts.batches, images, source.evaluation_batch, workers=source.workers)
    with checkpoints.own_rng(0):  # the first weights are drawn only to be overwritten
        model = source.model(scratch=True)
    return _asked(config, checkpoint, model, read, device, views, how=how, weight=weight)


def mean(opinions: Sequence[Predictions]) -> Predictions:
    """One opinion from several on the same images: their mean probabilities."""
    if len(opinions) == 1:
        return opinions[0]
    together = torch.stack([opinion.log_probabilities for opinion in opinions])
    return Predictions(together.logsumexp(0).log_softmax(1), opinions[0].labels)


def images_of(config: Mapping[str, Any], part: str) -> tuple[Sequence[Any], list[str]]:
    """The readable images of a part, as paths or arrays, in the order of `on_part`'s predictions; the class names."""
    source = ImageSource(config, seed=0, device="cpu")
    found = getattr(source.data, part)
    if isinstance(found, parts.TensorImages):
        return list(found.images.numpy()), list(source.data.classes)
    corrupt = set(found.corrupt.paths)
    return [path for path, _ in found.samples if path not in corrupt], list(source.data.classes)


def on_files(
    config: Mapping[str, Any],
    checkpoint: Path,
    paths: Sequence[Path],
    *,
    device: str = "cpu",
    views: int = 0,
    weight: str = "mean",
) -> Opinion:
    """Predictions on any image files; the data that the models learnt from need not be at hand.

    Args:
        config: As for `on_part`, likewise the rest.
        checkpoint: See there.
        paths: The files.
        device: See there.
        views: See there.
        weight: See there.

    Raises:
        InvalidInput: None of the files can be read.
        RunFailed: As for `on_part`; the checkpoint is of a version that does not say what its images were.
    """
    about = _about(image_children.of(config)[0].folder(checkpoint))
    given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in about["preprocess"].items()}
    ready = Preprocess(**given)
    corrupt = CorruptFiles(len(paths), 1.0)
    # Numbered instead of labelled: a view of another image than the plain one is then seen.
    part = parts.FolderImages(list(zip(paths, range(len(paths)), strict=True)), ready, corrupt)
    size = int(config["training"]["batch_size"])
    read = partial(parts.batches, part, 2 * size, workers=int(config["data"].get("workers", 0)))
    section = {**config["model"], "weights": None}
    with checkpoints.own_rng(0):
        model = vision.build(
            **section, classes=len(about["classes"]), channels=about["channels"], image_size=ready.size or 1
        ).to(device)
    grey = about["channels"] == 1
    try:
        found = _asked(config, checkpoint, model, read, device, views, _grey if grey else None, weight=weight)
    except RunFailed:
        if len(corrupt.paths) < len(paths):
            raise
        first, reason = next(iter(corrupt.reasons.items()), ("", "there is none"))
        raise InvalidInput(Problem("images", f"none of {len(paths)} can be read, e.g. '{first}': {reason}")) from None
    plain, merged = mean(found.plain), mean(found.merged)
    read_paths = [paths[i] for i in plain.labels.tolist()]
    return Opinion(read_paths, about["classes"], merged.probabilities, plain.probabilities, dict(corrupt.reasons))


def _asked(
    config: Mapping[str, Any],
    checkpoint: Path,
    model: nn.Module,
    read: Callable[..., Batches],
    device: str,
    views: int,
    prepare: Callable[[Tensor], Tensor] | None = None,
    how: str = "mean",
    weight: str = "mean",
) -> PartOpinions:
    forward = None if prepare is None else lambda images: model(prepare(images))
    varied = lambda seed: read(augment=_views_of(config), augment_seed=seed)  # noqa: E731
    plain, merged = [], []
    for child in image_children.of(config):
        checkpoints.load_weights(child.folder(checkpoint), model=model)
        found = predict(model, read(), device, forward=forward)
        plain.append(found)
        if views:
            others = tta.predict_views(model, varied, views, device, forward=forward)
            found = tta.merge(found, others, how=how, weight=weight).predictions
        merged.append(found)
    return PartOpinions(tuple(plain), tuple(merged))


def _views_of(config: Mapping[str, Any]) -> Augmentation:
    """As in training; photographs that were not augmented there are flipped and zoomed a little."""
    data = config["data"]
    kind = data.get("augment", "none")
    given = {key: float(data[key]) for key in ("zoom", "rotate", "lighting") if key in data}
    return Augmentation("side_on" if kind == "none" else kind, **given)


def _grey(images: Tensor) -> Tensor:
    return images.mean(1, keepdim=True)


def _about(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise RunFailed(f"the checkpoint '{folder}' does not say what images its model expects: {error}") from error
    return found
