"""Reading pictures, and the batches they come in."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpo_ray.data import parts
from hpo_ray.errors import InvalidInput

RED, GREEN = (250, 5, 5), (5, 250, 5)


def picture(path: Path, color=RED, size=(20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def folder_part(tmp_path: Path, n=10, max_fraction=0.5) -> parts.FolderImages:
    """Pictures whose red channel is their number x 20."""
    samples = [(picture(tmp_path / f"{i}.png", (20 * i, 0, 0)), i) for i in range(n)]
    return parts.FolderImages(samples, 8, parts.CorruptFiles(n, max_fraction))


def labels(part, size=4, **options) -> list[int]:
    return [label for _, batch in parts.batches(part, size, **options) for label in batch.tolist()]


def test_a_picture_is_scaled_and_normalised_as_for_imagenet(tmp_path):
    part = parts.FolderImages([(picture(tmp_path / "a.png", (255, 0, 102)), 3)], 8, parts.CorruptFiles(1, 0))
    image, label = part[0]
    assert type(image) is torch.Tensor
    assert image.shape == (3, 8, 8)
    assert label == 3
    expected = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.4 - 0.406) / 0.225])
    torch.testing.assert_close(image.mean((1, 2)), expected, atol=1e-5, rtol=0)


def test_the_centre_is_cut_out(tmp_path):
    wide = np.zeros((10, 50, 3), np.uint8)
    wide[:, 20:30] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    image, _ = parts.FolderImages([(tmp_path / "wide.png", 0)], 10, parts.CorruptFiles(1, 0))[0]
    assert image.min() > 1.5


def test_exif_orientation_is_applied(tmp_path):
    half = np.zeros((20, 40, 3), np.uint8)
    half[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    Image.fromarray(half).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = np.asarray(parts.decode(tmp_path / "turned.jpg", 20))
    assert upright.shape == (40, 20, 3)
    assert upright[:18].min() > 240
    assert upright[22:].max() < 15


def test_sixteen_bits_keep_their_shades(tmp_path):
    shades = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(shades).save(tmp_path / "deep.png")
    read = np.asarray(parts.decode(tmp_path / "deep.png", 8))[:, :, 0]
    np.testing.assert_array_equal(read, shades >> 8)


def test_nothing_black_comes_out_from_under_transparency(tmp_path):
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[2:4, 2:4] = (0, 0, 0, 255)
    Image.fromarray(hidden).save(tmp_path / "logo.png")
    read = np.asarray(parts.decode(tmp_path / "logo.png", 8))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[2, 2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 8), (200, 200, 200)).convert(mode).save(path)
    image = parts.decode(path, 8)
    assert image.mode == "RGB"
    assert np.asarray(image).mean() > 100


def test_large_jpegs_are_decoded_smaller_but_not_too_small(tmp_path):
    picture(tmp_path / "large.jpg", RED, size=(1600, 1200))
    image = parts.decode(tmp_path / "large.jpg", 64)
    assert 128 <= min(image.size) < 400
    np.testing.assert_allclose(np.asarray(image).mean((0, 1)), RED, atol=4)


def damage(part: parts.FolderImages, *numbers: int) -> list[Path]:
    """A file without bytes, one cut short, one that is no picture."""
    paths = [part.samples[number][0] for number in numbers]
    for kind, path in enumerate(paths):
        whole = path.read_bytes()
        path.write_bytes([b"", whole[: len(whole) // 2], b"<html>404</html>"][kind % 3])
    return paths


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_are_skipped_listed_and_never_become_black_images(tmp_path, caplog, workers):
    part = folder_part(tmp_path, n=10, max_fraction=0.3)
    broken = damage(part, 2, 5, 9)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            batches = list(parts.batches(part, 4, workers=workers))
            assert [len(batch) for _, batch in batches] == [3, 3, 1]
            images, found = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
            assert found.tolist() == [0, 1, 3, 4, 6, 7, 8]
            red = images[:, 0].mean((1, 2)) * 0.229 + 0.485
            torch.testing.assert_close(red, found * 20 / 255, atol=1e-5, rtol=0)
    assert sorted(part.corrupt.paths) == sorted(broken)
    assert len(caplog.records) == 3, "each is told once"
    assert str(broken[0]) in caplog.text


def test_too_many_unreadable_files_end_it(tmp_path):
    part = folder_part(tmp_path, n=10, max_fraction=0.1)
    broken = damage(part, 2, 5)
    with pytest.raises(InvalidInput, match="2 of 10 images cannot be read") as caught:
        labels(part)
    assert caught.value.problems[0].key == "data.max_corrupt_fraction"
    assert str(broken[1]) in str(caught.value)


def test_a_batch_of_nothing_but_unreadable_files_is_left_out(tmp_path):
    part = folder_part(tmp_path, n=4)
    damage(part, 0, 1)
    assert [batch.tolist() for _, batch in parts.batches(part, 2)] == [[2, 3]]


def test_a_file_that_vanished_counts_as_unreadable(tmp_path):
    part = folder_part(tmp_path, n=4)
    part.samples[1][0].unlink()
    assert labels(part) == [0, 2, 3]
    assert len(part.corrupt.paths) == 1


@pytest.fixture(params=["memory", "folder"])
def part(request, tmp_path):
    if request.param == "folder":
        return folder_part(tmp_path)
    return parts.TensorImages(torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8), torch.arange(10))


def test_batches_go_over_everything_once_in_its_order(part):
    assert labels(part) == list(range(10))
    assert [len(batch) for _, batch in parts.batches(part, 4)] == [4, 4, 2]


def test_the_order_depends_on_seed_and_epoch_alone(part):
    def order(seed, epoch):
        return labels(part, order=parts.epoch_generator(seed, epoch))

    assert sorted(order(0, 1)) == list(range(10))
    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_images_and_labels_stay_together(part):
    for images, batch in parts.batches(part, 3, order=parts.epoch_generator(1, 1)):
        first = images[:, 0, 0, 0]
        number = first if isinstance(part, parts.TensorImages) else (first * 0.229 + 0.485) * 255 / 20
        torch.testing.assert_close(number, batch.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_leave_the_global_generator_alone(part, shuffled):
    before = torch.get_rng_state()
    labels(part, order=parts.epoch_generator(0, 1) if shuffled else None)
    assert torch.equal(torch.get_rng_state(), before)
