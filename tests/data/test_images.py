"""Data sets in three parts."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hpo_ray.data import images, parts
from hpo_ray.errors import InvalidInput


def pictures(root: Path, **counts: int) -> Path:
    """`counts` pictures for each class, each a shade of its own."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (10, 10), (i, 100, 200)).save(root / name / f"{i}.png")
    return root


def paths(part: images.Part) -> set[Path]:
    assert isinstance(part, parts.FolderImages)
    return {path for path, _ in part.samples}


def rows(part: images.Part) -> Counter:
    assert isinstance(part, parts.TensorImages)
    pixels = (part.images.flatten(1) * 16).round().int().tolist()
    return Counter((tuple(row), label) for row, label in zip(pixels, part.labels.tolist(), strict=True))


def test_digits_are_all_there_and_scaled():
    data = images.load("digits")
    assert [len(data.train), len(data.valid), len(data.test)] == [1167, 270, 360]
    assert (data.classes, data.channels, data.image_size) == (tuple("0123456789"), 1, 8)
    assert data.train.images.shape == (1167, 1, 8, 8)
    assert data.train.images.dtype == torch.float32
    assert (data.train.images.min(), data.train.images.max()) == (0, 1)
    bundled = load_digits()
    whole = parts.TensorImages(torch.tensor(bundled.images).unsqueeze(1) / 16, torch.tensor(bundled.target))
    assert rows(data.train) + rows(data.valid) + rows(data.test) == rows(whole)


def test_every_class_is_in_every_part_in_proportion():
    data = images.load("digits", split_seed=3)
    whole = torch.cat([data.train.labels, data.valid.labels, data.test.labels]).bincount()
    for part in (data.train, data.valid, data.test):
        expected = whole * len(part) / 1797
        assert (part.labels.bincount() - expected).abs().max() <= 2


def test_the_split_depends_on_its_seed_alone():
    images._digits.cache_clear()
    first = images.load("digits", split_seed=1)
    np.random.seed(5)
    torch.manual_seed(5)
    images._digits.cache_clear()
    assert torch.equal(images.load("digits", split_seed=1).test.images, first.test.images)
    assert not torch.equal(images.load("digits", split_seed=2).test.images, first.test.images)


def test_the_same_data_is_read_once_per_process(tmp_path):
    assert images.load("digits") is images.load("digits")
    root = str(pictures(tmp_path, a=10, b=10))
    assert images.load("folder", root) is images.load("folder", root)
    assert images.load("folder", root) is not images.load("folder", root, image_size=32)


def test_digits_can_be_enlarged():
    data = images.load("digits", image_size=32)
    assert data.image_size == 32
    assert data.test.images.shape == (360, 1, 32, 32)
    assert 0 <= data.test.images.min() <= data.test.images.max() <= 1


def test_a_folder_is_split_in_three_that_share_nothing(tmp_path):
    root = pictures(tmp_path, a=60, b=40)
    (root / "a" / "notes.txt").touch()
    data = images.load("folder", str(root))
    assert [len(data.train), len(data.valid), len(data.test)] == [65, 15, 20]
    assert paths(data.train) | paths(data.valid) | paths(data.test) == set(root.glob("*/*.png"))
    for part, of_a in ((data.train, 39), (data.valid, 9), (data.test, 12)):
        assert [label for _, label in part.samples].count(0) == of_a
    assert (data.classes, data.channels, data.image_size) == (("a", "b"), 3, 160)
    assert data.ignored == (root / "a" / "notes.txt",)


def test_a_folder_divided_in_three_stays_as_it_is(tmp_path):
    for part, count in (("train", 5), ("validation", 3), ("test", 2)):
        pictures(tmp_path / part, a=count, b=count)
    data = images.load("folder", str(tmp_path))
    assert [len(data.train), len(data.valid), len(data.test)] == [10, 6, 4]


def test_without_a_test_folder_the_test_part_comes_out_of_train(tmp_path):
    pictures(tmp_path / "train", a=20, b=20)
    pictures(tmp_path / "val", a=5, b=5)
    data = images.load("folder", str(tmp_path))
    assert paths(data.valid) == set((tmp_path / "val").glob("*/*"))
    assert len(data.test) == 8
    assert paths(data.test) | paths(data.train) == set((tmp_path / "train").glob("*/*"))
    assert len(data.train) == 32


def test_without_a_validation_folder_the_validation_part_comes_out_of_train(tmp_path):
    pictures(tmp_path / "train", a=20, b=20)
    pictures(tmp_path / "test", a=5, b=5)
    data = images.load("folder", str(tmp_path))
    assert [len(data.train), len(data.valid), len(data.test)] == [34, 6, 10]
    assert paths(data.test) == set((tmp_path / "test").glob("*/*"))


def test_a_train_folder_alone_is_split_in_three(tmp_path):
    data = images.load("folder", str(pictures(tmp_path / "train", a=50, b=50).parent))
    assert [len(data.train), len(data.valid), len(data.test)] == [65, 15, 20]


def test_too_few_images_to_split_are_told_with_their_number(tmp_path):
    with pytest.raises(InvalidInput, match="the smallest with 1") as caught:
        images.load("folder", str(pictures(tmp_path, a=20, b=1)))
    assert caught.value.problems[0].key == "data.test_fraction"


@pytest.mark.parametrize("fractions", [(0, 0.2), (0.2, 0), (0.5, 0.5), (-0.1, 0.2)])
def test_fractions_must_leave_something_everywhere(fractions):
    with pytest.raises(InvalidInput, match="must be above 0"):
        images.load("digits", valid_fraction=fractions[0], test_fraction=fractions[1])


def test_a_wrong_name_or_folder_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="did you mean 'digits'"):
        images.load("digitz")
    with pytest.raises(InvalidInput, match="reads no folder"):
        images.load("digits", "/photos")
    with pytest.raises(InvalidInput, match="does not exist"):
        images.load("folder", str(tmp_path / "nowhere"))


def test_unreadable_files_are_listed_whichever_part_they_are_in(tmp_path):
    root = pictures(tmp_path, a=10, b=10)
    data = images.load("folder", str(root), image_size=8, max_corrupt_fraction=0.1)
    broken = [next(iter(paths(data.test))), next(iter(paths(data.train)))]
    for path in broken:
        path.write_bytes(b"")
    assert data.corrupt == []
    for part in (data.train, data.valid, data.test):
        list(parts.batches(part, 8))
    assert data.corrupt == sorted(broken)


def test_real_photographs():
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    data = images.load("folder", f"{folder}/hymenoptera", image_size=64)
    assert data.classes == ("ants", "bees")
    assert [len(data.train), len(data.valid), len(data.test)] == [195, 153, 49]
    assert [path.name for path in data.ignored] == ["imageNotFound.gif"]
    assert sum(len(batch) for _, batch in parts.batches(data.test, 16)) == 49
    assert data.corrupt == []
