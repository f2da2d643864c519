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
    for green, (name, count) in enumerate(counts.items(), start=100):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (10, 10), (i, green, 200)).save(root / name / f"{i}.png")
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
    [(enlarged, _)] = parts.batches(data.test, 360)
    assert enlarged.shape == (360, 1, 32, 32)
    assert 0 <= enlarged.min() <= enlarged.max() <= 1


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


def test_a_validation_folder_can_be_kept_for_the_winner(tmp_path):
    pictures(tmp_path / "train", a=20, b=20)
    pictures(tmp_path / "val", a=5, b=5)
    data = images.load("folder", str(tmp_path), valid_is_test=True)
    assert paths(data.test) == set((tmp_path / "val").glob("*/*"))
    assert paths(data.valid) | paths(data.train) == set((tmp_path / "train").glob("*/*"))
    assert [len(data.train), len(data.valid)] == [34, 6]


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_set_without_a_validation_part_has_none_to_keep(name, tmp_path):
    with pytest.raises(InvalidInput, match=f"'{name}' has no validation part of its own"):
        images.load(name, None if name == "digits" else str(tmp_path), valid_is_test=True)


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


def test_a_table_of_images_is_split_and_its_unreadable_files_tolerated(tmp_path):
    root = pictures(tmp_path, a=30, b=30)
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.glob("*/*.png"))]
    (root / "images.csv").write_text("\n".join(["path,label", *rows]))
    data = images.load("csv", str(root / "images.csv"), image_size=8, max_corrupt_fraction=0.02)
    assert [len(data.train), len(data.valid), len(data.test)] == [39, 9, 12]
    assert data.classes == ("a", "b")
    broken = sorted(paths(data.train))[:2]
    broken[0].write_bytes(b"")
    assert sum(len(batch) for _, batch in parts.batches(data.train, 8)) == 38
    assert data.corrupt == broken[:1]
    broken[1].write_bytes(b"")
    with pytest.raises(InvalidInput, match="2 of 60 images cannot be read"):
        list(parts.batches(data.train, 8))


def test_a_divided_table_stays_as_it_is(tmp_path):
    root = pictures(tmp_path, a=20, b=20)
    rows = [
        f"{path.relative_to(root)},{path.parent.name},{'train' if int(path.stem) < 15 else 'val'}"
        for path in sorted(root.glob("*/*.png"))
    ]
    (root / "images.csv").write_text("\n".join(["path,label,split", *rows]))
    data = images.load("csv", str(root / "images.csv"))
    assert [len(data.train), len(data.valid), len(data.test)] == [24, 10, 6]
    assert all(int(path.stem) >= 15 for path in paths(data.valid))


def test_images_are_made_ready_as_the_weights_want_them(tmp_path):
    root = str(pictures(tmp_path, a=10, b=10))
    weights = {"resize": 12, "image_size": 10, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3}
    data = images.load("folder", root, **weights)
    image, _ = next(parts.batches(data.train, 1))
    assert image.shape == (1, 3, 10, 10)
    torch.testing.assert_close(image[0, 1].mean(), torch.tensor((100 / 255 - 0.5) / 0.25))
    assert data.image_size == 10
    assert data is images.load("folder", root, **weights)
    assert data.train.digest() != images.load("folder", root, image_size=10).train.digest()


def test_grey_images_are_shown_to_colour_weights_three_times():
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    data = images.load("digits", mean=mean, std=std)
    assert data.channels == 3
    seen, _ = next(parts.batches(data.test, 360))
    plain, _ = next(parts.batches(images.load("digits").test, 360))
    for channel in range(3):
        torch.testing.assert_close(seen[:, channel], (plain[:, 0] - mean[channel]) / std[channel])


def test_wrong_preprocessing_is_told_at_once():
    with pytest.raises(InvalidInput) as caught:
        images.load("digits", image_size=32, resize=16, interpolation="bilinaer", mean=(0.1, 0.2), std=(0.1, 0.0))
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["data.resize", "data.interpolation", "data.mean", "data.std", "data.std"]
    with pytest.raises(InvalidInput, match="give both or neither"):
        images.load("digits", mean=(0.1,))


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
