"""Reading pictures, and the batches they come in."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpo_ray.data import parts
from hpo_ray.data.augment import KINDS, Augmentation
from hpo_ray.data.decoding import CorruptFiles
from hpo_ray.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from hpo_ray.errors import InvalidInput

RED = (250, 5, 5)
READY = Preprocess(8, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def picture(path: Path, color=RED, size=(20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def folder_part(tmp_path: Path, n=10, max_fraction=0.5) -> parts.FolderImages:
    """Pictures whose red channel is their number x 20."""
    samples = [(picture(tmp_path / f"{i}.png", (20 * i, 0, 0)), i) for i in range(n)]
    return parts.FolderImages(samples, READY, CorruptFiles(n, max_fraction))


def labels(part, size=4, **options) -> list[int]:
    return [label for _, batch in parts.batches(part, size, **options) for label in batch.tolist()]


def test_a_picture_is_scaled_and_normalised_as_for_imagenet(tmp_path):
    part = parts.FolderImages([(picture(tmp_path / "a.png", (255, 0, 102)), 3)], READY, CorruptFiles(1, 0))
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
    image, _ = parts.FolderImages([(tmp_path / "wide.png", 0)], READY, CorruptFiles(1, 0))[0]
    assert image.min() > 1.5


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


def test_bytes_are_scaled_batch_by_batch_and_floats_left_as_they_are():
    pixels = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    [(images, _)] = parts.batches(parts.TensorImages(pixels, torch.arange(4)), 4)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.flatten(), torch.arange(256) / 255)
    [(images, _)] = parts.batches(parts.TensorImages(images, torch.arange(4)), 4)
    torch.testing.assert_close(images.flatten(), torch.arange(256) / 255, rtol=0, atol=0)


SIDE_ON = Augmentation("side_on", lighting=0.3)


def noise(folder: Path, n=12) -> parts.FolderImages:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 12, 16, 3), np.uint8)
    samples = []
    for i in range(n):
        Image.fromarray(pixels[i]).save(folder / f"{i}.png")
        samples.append((folder / f"{i}.png", i))
    return parts.FolderImages(samples, READY, CorruptFiles(n, 0.5))


def in_memory(n=12) -> parts.TensorImages:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 12, 12), np.uint8)
    return parts.TensorImages(torch.from_numpy(pixels), torch.arange(n), READY)


def epoch(part, seed=0, number=1, size=5, **options):
    batches = list(parts.batches(part, size, order=parts.epoch_generator(seed, number), **options))
    return tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_the_same_images_come_from_any_number_of_workers_and_after_a_resume(tmp_path, kind):
    part, augment = noise(tmp_path), Augmentation(kind)
    images, found = epoch(part, augment=augment)
    for options in ({"workers": 2}, {"workers": 1, "size": 3}):
        again, labels = epoch(part, augment=augment, **options)
        assert torch.equal(labels, found)
        assert torch.equal(again, images)
    later, labels = epoch(part, number=2, augment=augment)
    plain, _ = epoch(part, number=2)
    assert not torch.equal(labels, found)
    assert not torch.equal(later, plain)
    assert torch.equal(epoch(part, number=2, augment=augment)[0], later)


@pytest.mark.parametrize("make", [noise, lambda folder: in_memory()])
def test_augmented_images_keep_order_and_labels_and_no_augmentation_changes_nothing(tmp_path, make):
    part = make(tmp_path)
    plain, found = epoch(part)
    assert torch.equal(epoch(part, augment=Augmentation("none"))[0], plain)
    varied, labels = epoch(part, augment=SIDE_ON)
    assert torch.equal(labels, found)
    assert varied.shape == plain.shape
    assert not torch.equal(varied, plain)


@pytest.mark.parametrize("make", [noise, lambda folder: in_memory()])
def test_augmentation_leaves_the_global_generator_alone(tmp_path, make):
    part, before = make(tmp_path), torch.get_rng_state()
    for _ in parts.batches(part, 5, order=parts.epoch_generator(0, 1), augment=SIDE_ON):
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_in_memory_the_size_of_batches_does_not_matter_either():
    assert torch.equal(epoch(in_memory(), augment=SIDE_ON)[0], epoch(in_memory(), augment=SIDE_ON, size=3)[0])


def test_without_an_order_augmentation_follows_its_own_seed(tmp_path):
    part = noise(tmp_path)

    def images(**options):
        return torch.cat([batch for batch, _ in parts.batches(part, 5, augment=SIDE_ON, **options)])

    assert torch.equal(images(), images(augment_seed=0))
    assert torch.equal(images(augment_seed=3), images(augment_seed=3))
    assert not torch.equal(images(augment_seed=3), images(augment_seed=4))


def test_an_image_drawn_twice_is_varied_twice():
    part = parts.TensorImages(in_memory(1).images, torch.zeros(1, dtype=torch.int64))
    both = parts.TensorImages(part.images.expand(2, -1, -1, -1), torch.zeros(2, dtype=torch.int64))
    images, _ = epoch(both, augment=SIDE_ON)
    assert not torch.equal(images[0], images[1])


def test_rare_classes_weigh_more_and_one_on_average():
    part = parts.TensorImages(torch.zeros(9, 1, 1, 1), torch.tensor([0] * 6 + [1] * 2 + [3]))
    weights = parts.class_weights(part, 5)
    torch.testing.assert_close(weights[[0, 1, 3]] * torch.tensor([6, 2, 1]), weights[3].expand(3))
    assert weights[[2, 4]].tolist() == [0, 0]
    torch.testing.assert_close(weights[[0, 1, 3]].mean(), torch.tensor(1.0))
    assert len(parts.class_weights(part)) == 4


def test_a_balanced_epoch_draws_every_class_alike(tmp_path):
    part = parts.TensorImages(torch.zeros(6000, 1, 1, 1), torch.tensor([0] * 5000 + [1] * 900 + [2] * 100))
    drawn = torch.tensor(labels(part, 64, order=parts.epoch_generator(0, 1), balance=True))
    assert len(drawn) == 6000
    assert (drawn.bincount() - 2000).abs().max() < 150
    again = torch.tensor(labels(part, 64, order=parts.epoch_generator(0, 1), balance=True))
    assert torch.equal(again, drawn)
    assert not torch.equal(torch.tensor(labels(part, 64, order=parts.epoch_generator(0, 2), balance=True)), drawn)
    assert len(labels(noise(tmp_path), order=parts.epoch_generator(0, 1), balance=True)) == 12
    with pytest.raises(ValueError, match="needs `order`"):
        labels(part, balance=True)


def test_a_single_image_at_the_end_can_be_left_out(part):
    assert [len(batch) for _, batch in parts.batches(part, 3)] == [3, 3, 3, 1]
    assert [len(batch) for _, batch in parts.batches(part, 3, drop_short=True)] == [3, 3, 3]
    assert [len(batch) for _, batch in parts.batches(part, 4, drop_short=True)] == [4, 4, 2]


def test_a_digest_names_images_labels_and_preprocessing():
    part = in_memory()
    changed = part.images.clone()
    changed[3, 0, 0, 0] += 1
    others = [
        parts.TensorImages(changed, part.labels, READY),
        parts.TensorImages(part.images, part.labels.flip(0), READY),
        parts.TensorImages(part.images, part.labels),
        parts.TensorImages(part.images[:-1], part.labels[:-1], READY),
    ]
    assert in_memory().digest() == part.digest()
    assert len({part.digest(), *(other.digest() for other in others)}) == 5


def test_a_digest_of_files_follows_their_changes(tmp_path):
    part = noise(tmp_path)
    found = [part.digest(), part.digest()]
    assert found[0] == found[1]
    picture(tmp_path / "3.png", RED)
    found.append(part.digest())
    (tmp_path / "3.png").unlink()
    found.append(part.digest())
    found.append(parts.FolderImages(part.samples, Preprocess(8), part.corrupt).digest())
    found.append(parts.FolderImages(part.samples[::-1], READY, part.corrupt).digest())
    assert len(set(found)) == 5
