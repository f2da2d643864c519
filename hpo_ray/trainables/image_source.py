"""What a stage of an image training learns from and measures on: augmented images, or cached activations.

Joins data and model for the image recipe; knows no trial and no Ray. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from hpo_ray.data import augment, features, folds, images, parts
from hpo_ray.models import preprocessing, trunk, vision
from hpo_ray.trainables.image_children import ALONE, Child
from hpo_ray.training import parallel
from hpo_ray.training.stages import Stage

# Evaluation keeps no activations for a backward pass, so batches of this many times the training's fit as well.
_EVALUATION_BATCHES = 2
Batches = Iterable[tuple[Tensor, Tensor]]


class ImageSource:
    """A configuration's images, in batches.

    Attributes:
        data: The three parts of the data set.
        seed: The trial's, or that of one of its children.
    """

    def __init__(
        self, config: Mapping[str, Any], *, seed: int, device: str, pieces: int = 1, child: Child = ALONE
    ) -> None:
        """Args: a trial's configuration and seed, where its model is, in how many pieces it takes each batch, and
        which of the configuration's models this is."""
        self._section = dict(config["data"])
        self._model = dict(config["model"])
        self._training = dict(config["training"])
        self.seed = seed
        self._device = device
        self._pieces = pieces
        self._kept: dict[str, parts.Part] = {}
        self._digest: str | None = None
        self._base = images.load(**self._loading())
        self._rows = self._divided(child)
        self.data = self._base if self._rows is None else folds.divide(self._base, *self._rows)

    def _divided(self, child: Child) -> tuple[Tensor, Tensor] | None:
        """Which images of ``train`` followed by ``valid`` are for training and validation; None: as they are."""
        if self._section.get("train_on_valid"):
            return torch.arange(len(self._base.train) + len(self._base.valid)), torch.arange(0)
        if child.folds == 1:
            return None
        return folds.rows(self._base, child.folds, child.fold, int(self._section.get("split_seed", 0)) + child.repeat)

    def model(self, *, scratch: bool = False) -> nn.Module:
        """A new model for these images. `scratch`: without its pretrained weights, to be filled from a checkpoint."""
        section = {**self._model, "weights": None} if scratch else self._model
        data = self.data
        return vision.build(
            **section, classes=len(data.classes), channels=data.channels, image_size=data.image_size
        ).to(self._device)

    def about(self) -> dict[str, Any]:
        """Plain data on the images that a model of these expects, and its classes."""
        data = self.data
        ready = replace(data.train.preprocess, size=data.image_size)
        return {"classes": list(data.classes), "channels": data.channels, "preprocess": asdict(ready)}

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.data.train) // self._batch)

    @property
    def _batch(self) -> int:
        """Images of a step: each of the processes that train together takes a batch of the configuration's size."""
        return int(self._training["batch_size"]) * parallel.size()

    @cached_property
    def loss_weights(self) -> Tensor | None:
        """Of each class, where rare ones are to weigh more."""
        if self._section.get("balance", "none") != "weights":
            return None
        return parts.class_weights(self.data.train, len(self.data.classes)).to(self._device)

    @cached_property
    def mix(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """Mixup or cutmix, where asked for."""
        return augment.mixer(
            float(self._training.get("mixup", 0.0)), float(self._training.get("cutmix", 0.0)), len(self.data.classes)
        )

    def train(self, epoch: int, stage: Stage, model: nn.Module) -> Batches:
        """The training images of one epoch, or their activations."""
        order = parts.epoch_generator(self.seed, epoch)
        balance = self._section.get("balance", "none") == "sampler"
        drawn = partial(parts.batches, size=self._batch, order=order, balance=balance, share=_share())
        if stage.cached:
            return drawn(self._activations("train", model))
        varied = self._augmentation if stage.augment else None
        return drawn(self.data.train, workers=self.workers, augment=varied)

    def valid(self, stage: Stage, model: nn.Module) -> Batches | None:
        """The validation images, or their activations, in order; None where they are learnt from."""
        if self._section.get("train_on_valid"):
            return None
        shared = partial(parts.batches, size=self.evaluation_batch * parallel.size(), share=_share())
        if stage.cached:
            return shared(self._activations("valid", model))
        return shared(self.data.valid, workers=self.workers)

    def share_unreadable(self) -> None:
        """Tell the processes that train together which files each of them could not read."""
        if parallel.size() > 1 and isinstance(self.data.train, parts.FolderImages):
            corrupt = self.data.train.corrupt
            for found in parallel.gathered(corrupt.reasons):
                for path, reason in found.items():
                    corrupt.add(path, reason)

    def _activations(self, part: str, model: nn.Module) -> parts.Part:
        """What the trunk makes of a part: computed by the first trial of the node that asks, read by all others."""
        if part not in self._kept:
            if self._digest is None:
                head = vision.head_name(model)
                state = [(key, value) for key, value in model.state_dict().items() if not key.startswith(f"{head}.")]
                self._digest = features.weights_digest(state)
            compute = partial(
                features.cached,
                key={"arch": self._model["arch"], "norm": self._model.get("norm", "own"), "weights": self._digest},
                compute=lambda batch: _trunk(model, batch.to(self._device)),
                folder=features.default_folder(),
                max_bytes=int(float(self._section.get("cache_gb", 20.0)) * 2**30),
                batch_size=self.evaluation_batch,
                workers=self.workers,
            )
            if self._rows is None:
                self._kept[part] = compute(getattr(self.data, part))
            else:
                self._kept |= self._of_rows(compute, self._rows)
        return self._kept[part]

    def _of_rows(
        self, compute: Callable[[parts.Part], parts.Part], rows: tuple[Tensor, Tensor]
    ) -> dict[str, parts.Part]:
        """The activations of these parts, from those of the set as it was loaded: no image is seen twice."""
        whole = folds.joined(self._base.train, self._base.valid)
        found = folds.joined(compute(self._base.train), compute(self._base.valid))
        place = torch.full((len(whole),), -1)
        place[folds.readable(whole)] = torch.arange(len(found))
        return {
            part: folds.subset(found, place[chosen][place[chosen] >= 0])
            for part, chosen in zip(("train", "valid"), rows, strict=True)
        }

    @cached_property
    def _augmentation(self) -> augment.Augmentation | None:
        kind = self._section.get("augment", "none")
        if kind == "none":
            return None
        given = {key: float(self._section[key]) for key in ("zoom", "rotate", "lighting") if key in self._section}
        return augment.Augmentation(kind, **given)

    @property
    def workers(self) -> int:
        """Processes that decode."""
        return int(self._section.get("workers", 0))

    @property
    def evaluation_batch(self) -> int:
        """Images a batch where nothing is learnt."""
        return max(1, _EVALUATION_BATCHES * int(self._training["batch_size"]) // self._pieces)

    def _loading(self) -> dict[str, Any]:
        """The arguments of `images.load`; sizes and normalisation are those that the weights were trained with."""
        other = {"workers", "augment", "zoom", "rotate", "lighting", "balance", "cache_gb", "train_on_valid"}
        given = {key: value for key, value in self._section.items() if key not in other}
        if self._model.get("weights") is None:
            return given
        # Whichever file the weights come from: a winner is scored where that file may be gone.
        own = preprocessing.preprocessing(self._model["arch"], "default")
        size = given.get("image_size") or own.crop
        resize = own.resize
        if size != own.crop and size and own.crop and own.resize:
            resize = round(size * own.resize / own.crop)
        return given | {
            "image_size": size,
            "resize": resize,
            "interpolation": own.interpolation,
            "mean": own.mean,
            "std": own.std,
        }


def _share() -> tuple[int, int]:
    """This process's part of every batch."""
    return parallel.rank(), parallel.size()


def _trunk(model: nn.Module, batch: Tensor) -> Tensor:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        found = trunk.trunk_features(model, batch).float().cpu()
    for module, training in modes:
        module.training = training
    return found
