"""Which of four ways to fine-tune a set of images calls for: many or few, like those that the weights know or not.

Joins data and models for `data_check`; knows no trial and no Ray. Imports torch.
"""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from hpo_ray.data import images, parts, similarity
from hpo_ray.data.decoding import CorruptFiles
from hpo_ray.data.folds import joined
from hpo_ray.data.listing import Listing
from hpo_ray.data.preprocess import Preprocess
from hpo_ray.data.similarity import Similarity
from hpo_ray.errors import InvalidInput
from hpo_ray.models import preprocessing, trunk, vision

# Images to train on per class, on average. On clothing photographs (MobileNetV2, 96 pixels, 800 to score, one seed) a
# linear probe and training all layers got right: at 12 a class 57 and 57 %, at 25 62 and 60 %, at 50 67 and 66 %, at
# 100 71 and 72 %, at 190 74 and 79 %.
LARGE = 150
_PIXELS = 16  # of the pictures that features are compared with
_SIZE = 128  # of those that features are computed from, unless the configuration says
_BATCH = 32
_MORE = 4  # times as many images are measured where a sample leaves it open

# What says how a set is divided and how much of it may be unreadable: the command must say the same.
DIVISION = ("valid_fraction", "test_fraction", "split_seed", "max_corrupt_fraction", "valid_is_test")

_PRESETS = {"mobilenet_v2": "finetune_mobilenet", "resnext50_32x4d": "finetune_resnext50", "vgg16": "finetune_vgg16"}
_HEAD = "{name: head on cached features, train: head, cached: true"
_USUAL: tuple[str, tuple[str, ...]] = ("train the head, then all layers, the lower ones more slowly", ())
_REGIMES = {
    ("small", "similar"): (
        "train the head alone, on cached features",
        (f"training.stages=[{_HEAD}}}]", "data.augment=none", "space.lr_ratio=1"),
    ),
    ("large", "similar"): _USUAL,
    ("small", "dissimilar"): (
        "train the head and the layers next to it: the last ones know other things",
        (f"training.stages=[{_HEAD}, epochs: 3}}, {{name: last layer groups, train: 2, lr_factor: 0.3}}]",),
    ),
    ("large", "dissimilar"): (
        "train all layers at high rates, and compare with training from scratch: experiment=images",
        (f"training.stages=[{_HEAD}, epochs: 2}}, {{name: all layers, train: all}}]", "space.lr_ratio=1"),
    ),
    ("small", "unclear"): _USUAL,
    ("large", "unclear"): _USUAL,
}


@dataclass(frozen=True)
class Advice:
    """One of the four regimes of CS231n's notes on transfer learning (cs231n.github.io/transfer-learning).

    The notes give no numbers. `LARGE` comes from clothing photographs, see there; similarity from `data.similarity`.

    Attributes:
        size: ``small`` or ``large``.
        images_per_class: Images to train on over classes that have some.
        similarity: What was measured; None without weights, or where it could not be.
        reason: Why there is no regime; empty if there is.
        text: What to do; where it is unclear whether the images are similar, what suits most.
        command: The command line that does it; empty where nothing was measured.
    """

    size: str
    images_per_class: float
    similarity: Similarity | None
    reason: str
    text: str = ""
    command: str = ""

    @property
    def regime(self) -> str:
        """Such as ``small, similar``; the size alone where nothing tells the similarity."""
        return self.size if self.similarity is None else f"{self.size}, {self.similarity.verdict}"


def advise(
    listing: Listing, counts: pd.DataFrame, data: Mapping[str, Any], model: Mapping[str, Any], most: int
) -> Advice:
    train = counts["train"]
    each = float(train[train > 0].mean())
    size = "large" if each >= LARGE else "small"
    if model.get("weights") is None:
        return Advice(size, each, None, "without model.weights there is nothing to be similar to")
    measured = _similarity(listing, data, model, most)
    if measured is None:
        return Advice(size, each, None, "fewer than two classes have the five images that it takes to measure")
    text, overrides = _REGIMES[size, measured.verdict]
    reason = _open(measured) if measured.similar is None else ""
    return Advice(size, each, measured, reason, text, _command(listing, data, model, overrides))


def _open(measured: Similarity) -> str:
    interval = f"{measured.low:.0%} to {measured.high:.0%} with {similarity.CONFIDENCE:.0%} confidence"
    return f"fewer errors by {interval} on {measured.images} images, and {similarity.LEAST_GAIN:.0%} tell the two apart"


def _command(listing: Listing, data: Mapping[str, Any], model: Mapping[str, Any], overrides: tuple[str, ...]) -> str:
    words = ["hpo-ray", "run", f"experiment={_PRESETS.get(model['arch'], 'finetune')}"]
    if model["arch"] not in (*_PRESETS, "resnet18"):
        words.append(f"model.arch={model['arch']}")
    if data["name"] != "folder":
        words.append(f"data.name={data['name']}")
    if listing.root is not None:
        words.append(f"data.root={listing.root}")
    usual = inspect.signature(images.load).parameters
    for key in DIVISION:
        if data.get(key, usual[key].default) != usual[key].default:
            words.append(f"data.{key}={json.dumps(data[key])}")
    if data.get("image_size") is not None:
        words.append(f"data.image_size={data['image_size']}")
    if model["weights"] != "default":
        words.append(f"model.weights={model['weights']}")
    return shlex.join([*words, *overrides])


def _similarity(listing: Listing, data: Mapping[str, Any], model: Mapping[str, Any], most: int) -> Similarity | None:
    own = preprocessing.preprocessing(model["arch"], "default")
    network, size = _network(model, data.get("image_size"), own.crop)
    resize = round(size * own.resize / own.crop) if own.resize and own.crop else None
    ready = Preprocess(size, resize, own.interpolation, own.mean, own.std)
    measured = _measured(_sampled(listing, ready, most), network, most)
    if measured is not None and measured.similar is None:  # more images where there are some
        more = _sampled(listing, ready, _MORE * most)
        if more is not None and len(more) > measured.images:
            return _measured(more, network, _MORE * most)
    return measured


def _measured(part: parts.Part | None, network: nn.Module, most: int) -> Similarity | None:
    if part is None:
        return None
    features, pixels, labels = [], [], []
    for batch, of in parts.batches(part, _BATCH):
        with torch.no_grad():
            features.append(trunk.trunk_features(network, batch).flatten(1))
        pixels.append(functional.interpolate(batch, size=(_PIXELS, _PIXELS), mode="area").flatten(1))
        labels.append(of)
    if not labels:
        return None
    rows = [torch.cat(columns).numpy() for columns in (features, pixels, labels)]
    kept = similarity.sample(rows[2], most)  # once more: unreadable files are gone
    return similarity.measure(*(column[kept] for column in rows)) if len(kept) else None


def _sampled(listing: Listing, ready: Preprocess, most: int) -> parts.Part | None:
    """Of the images that choices may look at: ``train`` and ``valid``."""
    if listing.memory:
        whole = joined(listing.memory["train"], listing.memory["valid"])
        assert isinstance(whole, parts.TensorImages)
        chosen = torch.from_numpy(similarity.sample(whole.labels.numpy(), most))
        return parts.TensorImages(whole.images[chosen], whole.labels[chosen], ready) if len(chosen) else None
    samples = (*listing.files["train"], *listing.files.get("valid", ()))
    indices = similarity.sample(torch.tensor([label for _, label in samples], dtype=torch.int64).numpy(), most)
    unreadable = CorruptFiles(len(indices), max_fraction=1.0)  # told already
    return parts.FolderImages([samples[i] for i in indices], ready, unreadable) if len(indices) else None


def _network(model: Mapping[str, Any], asked: int | None, crop: int | None) -> tuple[nn.Module, int]:
    """The model with its weights, ready to compute features, and the images' size."""
    sizes = [asked or min(_SIZE, crop or _SIZE), crop or _SIZE]
    for size in sizes:
        try:
            network = vision.build(model["arch"], classes=2, channels=3, image_size=size, weights=model["weights"])
            return network.eval(), size
        except InvalidInput:
            if size == sizes[-1]:  # transformers take the one size that they were trained with
                raise
    raise AssertionError


def lines(advice: Advice) -> list[tuple[str, str, str]]:
    each = f"{advice.images_per_class:.0f}"
    per_class = f"{each} {'image' if each == '1' else 'images'} to train on per class ({LARGE} and more count as large)"
    rows = [("size", f"{advice.size}: {per_class}", "")]
    found = advice.similarity
    if found is None:
        return [*rows, ("similarity", f"not measured: {advice.reason}", "")]
    text = f"a linear probe gets {found.features:.0%} right from the trunk's features, {found.pixels:.0%} from pixels"
    if found.similar is None:
        rows.append(("similarity", f"unclear: {text}, {advice.reason}", "yellow"))
    else:
        gain = f"{found.gain:.0%} fewer errors" if found.gain >= 0 else f"{-found.gain:.0%} more errors"
        rows.append(("similarity", f"{found.verdict} to what the weights were trained on: {text}, {gain}", ""))
    rows.append(("advice", f"{advice.regime}: {advice.text}", "green"))
    return [*rows, ("run", advice.command, "bold")]
