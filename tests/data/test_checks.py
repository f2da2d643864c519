"""What a choice of data is told before anything is read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpo_ray.data import checks, folders, published
from hpo_ray.errors import InvalidInput


def test_digits_need_nothing_and_take_no_folder():
    assert checks.check("digits") == []
    [problem] = checks.check("digits", "/photos")
    assert problem.key == "data.root"
    assert "/photos" in problem.message


def test_an_unknown_name_is_answered_with_the_nearest():
    [problem] = checks.check("digit")
    assert problem.key == "data.name"
    assert "did you mean 'digits'?" in problem.message


def test_every_set_says_what_it_needs(monkeypatch):
    monkeypatch.delenv(checks.ROOT_VARIABLE, raising=False)
    for name, what in (("folder", "FOLDER"), ("csv", "FILE.csv"), *((name, "its files") for name in published.SETS)):
        [problem] = checks.check(name)
        assert problem.key == "data.root"
        assert f"'{name}' needs data.root=" in problem.message
        assert what in problem.message


def test_what_is_to_be_downloaded_may_be_missing(tmp_path):
    assert [problem.key for problem in checks.check("cifar10", str(tmp_path))] == ["data.root"]
    assert checks.check("cifar10", str(tmp_path), download=True) == []
    assert [problem.key for problem in checks.check("digits", download=True)] == ["data.download"]


def test_only_a_set_with_a_validation_part_and_no_test_part_can_keep_it_for_the_winner(tmp_path):
    def told(name, root=None):
        return [str(problem) for problem in checks.check(name, root, valid_is_test=True)]

    assert told("digits") == [
        "data.valid_is_test: 'digits' has no validation part of its own: only for data.name=folder and csv"
    ]
    for part in ("train/a", "train/b"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "x.jpg").touch()
    assert told("folder", str(tmp_path)) == [f"data.valid_is_test: '{tmp_path}' has no validation part: leave it out"]
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    assert told("folder", str(tmp_path)) == []
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    assert told("folder", str(tmp_path)) == [f"data.valid_is_test: '{tmp_path}' has a test part already: leave it out"]


def test_more_folds_than_a_class_has_images_are_told(tmp_path):
    for name, count in (("a", 5), ("b", 3)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "train" / name / f"{number}.jpg").touch()
    assert checks.check_folds("folder", str(tmp_path), 3) == []
    [problem] = checks.check_folds("folder", str(tmp_path), 4)
    assert str(problem) == "folds: 4 folds need as many images of each class, but the smallest class has 3"
    assert checks.check_folds("digits", None, 174) == []
    assert checks.check_folds("digits", None, 175)


def test_mistakes_in_a_table_are_found(tmp_path):
    table = tmp_path / "images.csv"
    table.write_text("path,label\nnone.jpg,a\n")
    assert "row 2: " in "\n".join(problem.message for problem in checks.check("csv", str(table)))


def test_a_check_imports_neither_torch_nor_pillow(tmp_path):
    code = (
        "import sys\n"
        "from hpo_ray.data import checks\n"
        f"for name in checks.NAMES: checks.check(name, {str(tmp_path)!r})\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'scipy', 'pandas', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_the_environment_names_the_folder_if_the_configuration_does_not(tmp_path, monkeypatch):
    monkeypatch.delenv(checks.ROOT_VARIABLE, raising=False)
    [problem] = checks.check("folder")
    assert checks.ROOT_VARIABLE in problem.message
    monkeypatch.setenv(checks.ROOT_VARIABLE, str(tmp_path))
    assert checks.resolve(None) == tmp_path
    assert checks.resolve("/elsewhere") == Path("/elsewhere")
    with pytest.raises(InvalidInput, match="no images"):
        folders.scan(checks.resolve(None))
