"""Folds: each image validated once, copies of an image never on both sides."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpo_ray.data import folds, images
from hpo_ray.data.decoding import CorruptFiles
from hpo_ray.data.preprocess import Preprocess
from hpo_ray.data.samples import FolderImages
from hpo_ray.errors import InvalidInput


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 pictures, five of which lie there twice under another name."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(root / name / f"{i:02}.png")
        for i in range(5):
            shutil.copy(root / name / f"{i:02}.png", root / name / f"copy{i}.png")
    return root


def test_each_image_is_validated_once_and_never_trained_on_then() -> None:
    data = images.load("digits")
    n = len(data.train) + len(data.valid)
    seen = []
    for index in range(5):
        train, valid = folds.rows(data, 5, index)
        assert sorted([*train.tolist(), *valid.tolist()]) == list(range(n))
        seen += valid.tolist()
        one = folds.fold(data, 5, index)
        assert (len(one.train), len(one.valid)) == (len(train), len(valid))
        assert one.test is data.test
        shares = one.valid.labels.bincount(minlength=10) / len(one.valid)
        whole = torch.cat([data.train.labels, data.valid.labels]).bincount() / n
        assert (shares - whole).abs().max() < 0.01
    assert sorted(seen) == list(range(n))


def test_no_image_is_on_both_sides_by_its_content(pictures: Path) -> None:
    data = images.load("folder", str(pictures), image_size=9)
    for index in range(4):
        one = folds.fold(data, 4, index)
        assert isinstance(one.train, FolderImages)
        train, valid = (set(folds.contents(part)) for part in (one.train, one.valid))
        assert train
        assert valid
        assert not train & valid


def test_the_same_pixels_in_files_that_differ_are_one_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names: dict[Path, tuple[str, int]] = {}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(12):
            picture = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
            for copy in range(2):
                path = tmp_path / name / f"{copy}-{i:02}.jpg"
                picture.save(path, comment=b"copy %d" % copy)
                names[path] = (name, i)
            assert path.read_bytes() != (tmp_path / name / f"0-{i:02}.jpg").read_bytes()
    data = images.load("folder", str(tmp_path), image_size=24)
    seen = []
    for index in range(3):
        one = folds.fold(data, 3, index)
        train, valid = ({names[path] for path, _ in part.samples} for part in (one.train, one.valid))
        assert train
        assert not train & valid
        seen += valid
    whole = {names[path] for part in (data.train, data.valid) for path, _ in part.samples}
    assert sorted(seen) == sorted(whole)


def test_the_folds_do_not_depend_on_the_size_of_the_images(pictures: Path) -> None:
    one, other = (images.load("folder", str(pictures), image_size=size) for size in (9, 18))
    assert torch.equal(folds.rows(one, 3, 0)[1], folds.rows(other, 3, 0)[1])


def test_an_unreadable_image_is_told_by_its_bytes_and_a_missing_one_by_its_name(tmp_path: Path) -> None:
    for name, content in (("a", b"broken"), ("b", b"broken"), ("c", b"other"), ("d", b""), ("e", b"")):
        (tmp_path / name).write_bytes(content)
    part = FolderImages([(tmp_path / name, 0) for name in "abcdef"], Preprocess(8), CorruptFiles(6, 1.0))
    a, b, c, d, e, f = folds.contents(part)
    assert a == b
    assert d == e
    assert len({a, c, d, f}) == 4


def test_another_seed_divides_differently_and_the_same_the_same() -> None:
    data = images.load("digits")
    first, again, other = (folds.rows(data, 3, 0, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_too_many_folds_for_the_smallest_class_are_told(pictures: Path) -> None:
    data = images.load("folder", str(pictures), image_size=9)
    with pytest.raises(InvalidInput, match="folds: 50 folds need as many different images of each class"):
        folds.fold(data, 50, 0)


def test_parts_can_be_joined_and_cut(pictures: Path) -> None:
    data = images.load("digits")
    whole = folds.joined(data.train, data.valid)
    assert torch.equal(folds.subset(whole, torch.tensor([3, 0])).images, data.train.images[[3, 0]])
    files = images.load("folder", str(pictures), image_size=9)
    with pytest.raises(TypeError):
        folds.joined(data.train, files.train)
