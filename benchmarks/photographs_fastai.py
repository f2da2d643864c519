"""fastai's `fine_tune` as its documentation has it, for photographs.py; runs where fastai is installed, not hpo_ray.

    python photographs_fastai.py ROOT WEIGHTS OUT.npz SIZE SEEDS

One epoch of the head, four of everything, fastai's own head, augmentation, rates and schedule.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from fastai.vision import learner as fastai_learner
from fastai.vision.all import (
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    imagenet_stats,
    set_seed,
    vision_learner,
)

EPOCHS = 5
root, weights, out = (Path(text) for text in sys.argv[1:4])
size, seeds = (int(text) for text in sys.argv[4:6])
state = torch.load(weights, weights_only=True)


def mobilenet(pretrained: bool = True) -> torch.nn.Module:
    model = torchvision.models.mobilenet_v2(weights=None)
    model.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in state.items()})
    return model


fastai_learner.model_meta[mobilenet] = {"cut": -1, "split": fastai_learner.default_split}
valid = next(name for name in ("val", "validation") if (root / name).is_dir())
right = []
for seed in range(seeds):
    set_seed(seed, reproducible=True)
    loaders = ImageDataLoaders.from_folder(
        root,
        train="train",
        valid=valid,
        item_tfms=Resize(size),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
        bs=64,
        num_workers=0,
    )
    learner = vision_learner(loaders, mobilenet, metrics=accuracy)
    with learner.no_bar():
        learner.fine_tune(EPOCHS - 1)
    probabilities, labels = learner.get_preds(dl=loaders.valid)
    right.append((probabilities.argmax(1) == labels).numpy())
    print(f"{root.name} seed {seed}: {right[-1].mean():.4f}", flush=True)
np.savez(out, right=np.stack(right), files=[str(path) for path in loaders.valid.items])
