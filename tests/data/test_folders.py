"""What is found in image folders by their names, and what is said about mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpo_ray.data import checks, folders


def touch(root: Path, *names: str) -> Path:
    """Empty files: a check opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def messages(root: Path) -> str:
    problems = checks.check("folder", str(root))
    assert all(problem.key == "data.root" for problem in problems)
    return "\n".join(problem.message for problem in problems)


def test_a_class_per_folder(tmp_path):
    touch(tmp_path, "b/1.jpg", "a/2.PNG", "a/deeper/1.jpeg")
    found = folders.scan(tmp_path)
    assert found.classes == ("a", "b")
    assert found.parts == {
        "train": ((tmp_path / "a/2.PNG", 0), (tmp_path / "a/deeper/1.jpeg", 0), (tmp_path / "b/1.jpg", 1))
    }
    assert checks.check("folder", str(tmp_path)) == []


@pytest.mark.parametrize("valid", ["valid", "val", "validation", "Val"])
def test_a_divided_folder(tmp_path, valid):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{valid}/b/2.jpg", "test/a/3.jpg")
    found = folders.scan(tmp_path)
    assert found.parts["valid"] == ((tmp_path / valid / "b/2.jpg", 1),)
    assert found.parts["test"] == ((tmp_path / "test/a/3.jpg", 0),)


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/1.jpg", "bus/1.jpg")
    assert folders.scan(tmp_path).classes == ("bus", "train")


def test_a_part_without_class_folders_counts_as_absent_and_its_files_as_ignored(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg")
    found = folders.scan(tmp_path)
    assert set(found.parts) == {"train"}
    assert found.ignored == (tmp_path / "test/1.jpg",)


def test_other_files_are_ignored_but_named_and_hidden_ones_passed_over(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/notes.txt", "a/none.gif", "b/1.jpg", "loose.jpg")
    touch(tmp_path, ".ipynb_checkpoints/1.jpg", "a/._1.jpg", "b/.cache/2.jpg", ".DS_Store")
    found = folders.scan(tmp_path)
    assert found.classes == ("a", "b")
    assert len(found.parts["train"]) == 2
    assert set(found.ignored) == {tmp_path / "a/notes.txt", tmp_path / "a/none.gif", tmp_path / "loose.jpg"}


def test_linked_folders_are_followed(tmp_path):
    touch(tmp_path / "all", "x/1.jpg", "y/1.jpg")
    touch(tmp_path / "some", "y/2.jpg")
    (tmp_path / "some" / "x").symlink_to(tmp_path / "all" / "x")
    (tmp_path / "some" / "y" / "more").symlink_to(tmp_path / "all" / "y")
    found = folders.scan(tmp_path / "some")
    assert found.classes == ("x", "y")
    assert [path.name for path, _ in found.parts["train"]] == ["1.jpg", "2.jpg", "1.jpg"]


def test_a_missing_folder_a_file_and_an_empty_folder(tmp_path):
    assert "does not exist" in messages(tmp_path / "nowhere")
    assert "is not a folder" in messages(touch(tmp_path, "file") / "file")
    (tmp_path / "empty").mkdir()
    assert "no images" in messages(tmp_path / "empty")


def test_images_without_class_folders(tmp_path):
    assert "one folder per class" in messages(touch(tmp_path, "1.jpg", "2.jpg"))


def test_one_class_and_an_empty_class_are_told_together(tmp_path):
    assert "1 class folder, 'a'" in messages(touch(tmp_path / "one", "a/1.jpg"))
    touch(tmp_path / "two", "train/a/1.jpg", "train/b/notes.txt", "val/a/1.jpg", "val/c/1.jpg")
    said = messages(tmp_path / "two")
    assert "'train/b'" in said
    assert "train lacks: 'c'" in said


def test_two_validation_folders_or_no_train(tmp_path):
    touch(tmp_path / "two", "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")
    assert "'val' and 'valid'" in messages(tmp_path / "two")
    touch(tmp_path / "none", "val/a/1.jpg", "test/a/1.jpg")
    assert "no 'train' folder" in messages(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b").chmod(0)
    try:
        assert "cannot be read" in messages(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
