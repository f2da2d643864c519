"""Files that are copies of one another: found, and never divided."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpo_ray.data import copies, images
from hpo_ray.data.samples import FolderImages
from hpo_ray.errors import InvalidInput

_CONTENTS = st.lists(st.sampled_from([b"", b"a", b"b", b"ab", b"a" * 9000, b"b" + b"a" * 8999]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(_CONTENTS)
def test_same_files_are_those_with_the_same_bytes(contents: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        paths = [Path(folder, str(i)) for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        expected = [contents.index(content) if content else i for i, content in enumerate(contents)]
        assert copies.same_bytes(paths).tolist() == expected


def test_a_missing_file_is_no_copy(tmp_path: Path) -> None:
    assert copies.same_bytes([tmp_path / "a", tmp_path / "b"]).tolist() == [0, 1]


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 30 pictures, the files of one size; every third lies there three times."""
    root = tmp_path_factory.mktemp("shades")
    for name, green in (("a", 100), ("b", 200)):
        (root / name).mkdir()
        for i in range(30):
            for copy in range(3 if i % 3 == 0 else 1):
                Image.new("RGB", (10, 10), (i, green, 0)).save(root / name / f"{copy}-{i:02}.bmp")
    return root


def parts_of(data: images.ImageData) -> dict[bytes, set[str]]:
    """The parts that each image is in, by its file's bytes."""
    found = defaultdict(set)
    for name, part in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        assert isinstance(part, FolderImages)
        for path, _ in part.samples:
            found[path.read_bytes()].add(name)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_in_one_part_of_a_folder(shades: Path, seed: int) -> None:
    data = images.load("folder", str(shades), split_seed=seed)
    found = parts_of(data)
    assert len(found) == 60
    assert all(len(names) == 1 for names in found.values())
    assert sum(names == {"test"} for names in found.values()) == 12
    assert sum(names == {"valid"} for names in found.values()) == 9
    assert len(data.train) + len(data.valid) + len(data.test) == 100


@pytest.mark.parametrize("valid_is_test", [False, True])
def test_copies_are_in_one_part_of_a_table_that_lacks_a_part(shades: Path, tmp_path: Path, valid_is_test: bool) -> None:
    rows = [
        f"{path},{path.parent.name},{'val' if int(path.stem[2:]) > 23 else 'train'}" for path in shades.rglob("*.bmp")
    ]
    (tmp_path / "images.csv").write_text("\n".join(["path,label,split", *rows]))
    found = parts_of(images.load("csv", str(tmp_path / "images.csv"), valid_is_test=valid_is_test))
    assert all(len(names) == 1 for names in found.values())
    assert {next(iter(names)) for names in found.values()} == {"train", "valid", "test"}


def test_a_folder_without_copies_is_split_as_if_none_were_looked_for() -> None:
    labels = np.arange(90) % 3
    plain = images.split(labels, 0.2, 5, "data.test_fraction")
    looked = images.split(labels, 0.2, 5, "data.test_fraction", 7 * np.arange(90))
    assert [side.tolist() for side in plain] == [side.tolist() for side in looked]


def test_an_image_in_two_classes_is_in_one_part_and_leaves_no_class_out(shades: Path, tmp_path: Path) -> None:
    shutil.copytree(shades, tmp_path, dirs_exist_ok=True)
    shutil.copytree(shades / "a", tmp_path / "c")
    data = images.load("folder", str(tmp_path))
    assert all(len(names) == 1 for names in parts_of(data).values())
    for part in (data.train, data.valid, data.test):
        assert part.labels.unique().tolist() == [0, 1, 2]


def test_a_class_without_an_image_of_its_own_is_told(shades: Path, tmp_path: Path) -> None:
    shutil.copytree(shades, tmp_path, dirs_exist_ok=True)
    for name in ("c", "d"):
        (tmp_path / name).mkdir()
        shutil.copy(shades / "a" / "0-00.bmp", tmp_path / name)
    with pytest.raises(InvalidInput, match="60 different images of 4 classes, the smallest with 0, cannot be split"):
        images.load("folder", str(tmp_path))


def test_too_few_different_images_are_told_as_such(tmp_path: Path) -> None:
    for name, count in (("a", 10), ("b", 1)):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (9, 9), (i % count, 0, count)).save(tmp_path / name / f"{i}.bmp")
    with pytest.raises(InvalidInput, match="different images of 2 classes, the smallest with 1"):
        images.load("folder", str(tmp_path))
