"""Resize, crop, scale and normalise, against torchvision's own presets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms._presets import ImageClassification

from hpo_ray.data import decoding, samples
from hpo_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(90, 120), (200, 64), (40, 40)])
def test_files_come_out_as_from_torchvisions_own_preset(tmp_path, mode, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    ready = Preprocess(48, 56, mode, IMAGENET_MEAN, IMAGENET_STD)
    part = samples.FolderImages([(tmp_path / "a.png", 0)], ready, decoding.CorruptFiles(1, 0))
    preset = ImageClassification(crop_size=48, resize_size=56, interpolation=InterpolationMode(mode))
    torch.testing.assert_close(part[0][0], preset(Image.fromarray(pixels)), rtol=0, atol=1e-6)


def test_tensors_are_resized_and_cropped_alike():
    images = torch.rand(5, 1, 28, 28)
    ready = Preprocess(24, 32)
    found = ready.finished(ready.resized(images))
    torch.testing.assert_close(
        found, v2.functional.center_crop(v2.functional.resize(images, [32], antialias=True), [24])
    )
    assert Preprocess().finished(Preprocess().resized(images)) is images


def test_nothing_that_is_held_in_memory_is_changed():
    images = torch.rand(2, 3, 4, 4)
    before = images.clone()
    Preprocess(mean=(0.5,), std=(2.0,)).finished(images)
    assert torch.equal(images, before)


def test_files_need_a_size():
    with pytest.raises(ValueError, match="size"):
        samples.FolderImages([], Preprocess(), decoding.CorruptFiles(0, 0))
