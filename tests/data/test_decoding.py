"""Reading pictures of every kind, and keeping account of those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpo_ray.data import decoding
from hpo_ray.errors import InvalidInput

RED = (250, 5, 5)


def test_exif_orientation_is_applied(tmp_path):
    half = np.zeros((20, 40, 3), np.uint8)
    half[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    Image.fromarray(half).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = np.asarray(decoding.decode(tmp_path / "turned.jpg", 20))
    assert upright.shape == (40, 20, 3)
    assert upright[:18].min() > 240
    assert upright[22:].max() < 15


def test_sixteen_bits_keep_their_shades(tmp_path):
    shades = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(shades).save(tmp_path / "deep.png")
    read = np.asarray(decoding.decode(tmp_path / "deep.png", 8))[:, :, 0]
    np.testing.assert_array_equal(read, shades >> 8)


def test_nothing_black_comes_out_from_under_transparency(tmp_path):
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[2:4, 2:4] = (0, 0, 0, 255)
    Image.fromarray(hidden).save(tmp_path / "logo.png")
    read = np.asarray(decoding.decode(tmp_path / "logo.png", 8))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[2, 2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 8), (200, 200, 200)).convert(mode).save(path)
    image = decoding.decode(path, 8)
    assert image.mode == "RGB"
    assert np.asarray(image).mean() > 100


def test_large_jpegs_are_decoded_smaller_but_not_too_small(tmp_path):
    Image.new("RGB", (1600, 1200), RED).save(tmp_path / "large.jpg")
    image = decoding.decode(tmp_path / "large.jpg", 64)
    assert 128 <= min(image.size) < 400
    np.testing.assert_allclose(np.asarray(image).mean((0, 1)), RED, atol=4)


def test_unreadable_files_are_counted_once_up_to_a_share():
    corrupt = decoding.CorruptFiles(10, 0.1)
    corrupt.add(Path("a.jpg"), "cut short")
    corrupt.add(Path("a.jpg"), "cut short")
    assert corrupt.reasons == {Path("a.jpg"): "cut short"}
    with pytest.raises(InvalidInput, match=r"2 of 10 images cannot be read, more than 0.1 of them: a.jpg, b.jpg"):
        corrupt.add(Path("b.jpg"), "no picture")
    assert corrupt.paths == [Path("a.jpg"), Path("b.jpg")]
