"""Where runs are found: paths, globs at any depth, URIs; and how runs of one name are told apart."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from hpo_ray import lock
from hpo_ray.errors import InvalidInput
from hpo_ray.results import compact, load_results, places
from hpo_ray.results.places import Place
from tests.results.test_frame import write_run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Runs at several depths; one within another, which is part of that."""
    for name in ("runs/b", "runs/a", "runs/.hidden", "runs/deep/er/c", "runs/a/trials/inner", "runs/odd[1]"):
        write_run(tmp_path / name)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("a/", ["a"]),
        ("*", ["a", "b", "odd[1]"]),
        ("[ab]", ["a", "b"]),
        ("?", ["a", "b"]),
        ("odd[1]", ["odd[1]"]),
        (".hid*", [".hidden"]),
        ("**", ["a", "b", "c", "odd[1]"]),
        ("**/c", ["c"]),
        ("**/er/*", ["c"]),
        ("deep/**", ["c"]),
    ],
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_patterns_name_runs(tree: Path, pattern: str, names: list[str], scheme: str) -> None:
    if scheme and ("?" in pattern or "odd" in pattern):
        pytest.skip("in a URI these mean something else")
    found = load_results(f"{scheme}{tree}/{pattern}", "reports")
    assert found["run"].unique().tolist() == names
    assert len(found) == 7 * len(names)


def test_the_folder_that_one_is_in_is_found(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "a")
    assert load_results(".")["run"].unique().tolist() == ["a"]
    monkeypatch.chdir(tree)
    assert load_results("*")["run"].unique().tolist() == ["a", "b", "odd[1]"]
    assert load_results("**/c")["run"].unique().tolist() == ["c"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("x/run", "y/run", "y/other"):
        write_run(tmp_path / name)
    trials = load_results(tmp_path / "**")
    assert trials["run"].unique().tolist() == ["x/run", "other", "y/run"]
    assert not trials.duplicated(["run", "trial_id"]).any()


def test_other_file_systems_hold_runs_too(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on S3: a file system that is not this machine's, here a folder under another root."""
    remote = pafs.SubTreeFileSystem(str(tree.parent), pafs.LocalFileSystem())
    monkeypatch.setattr(places.address, "opened", lambda uri: (remote, uri.split("://")[1]))
    here = load_results(tree / "a")
    assert load_results("s3://runs/a").equals(here)
    assert load_results("s3://runs/**")["run"].unique().tolist() == ["a", "b", "c", "odd[1]"]
    compact(tree / "a")
    assert load_results("s3://runs/a").equals(here)
    with pytest.raises(InvalidInput, match="no run found"):
        load_results("s3://elsewhere/*")
    with pytest.raises(InvalidInput, match="on this machine"):
        compact("s3://runs/a")
    run_dir = write_run(tree / "live", ended=False)
    with lock.Lock(run_dir):
        assert load_results("s3://runs/live")["status"].tolist()[-1] == "running"
    assert load_results("s3://runs/live")["status"].tolist()[-1] == "interrupted"


@pytest.mark.parametrize("uri", ["nonsense://bucket/*", "file://"])
def test_a_uri_that_names_nothing_is_one_mistake(uri: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be opened|no run found") as caught:
        load_results(uri)
    assert len(caught.value.problems) == 1


def test_what_cannot_be_listed_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Place(str(tmp_path / "file")).entries() == {}
    with pytest.raises(InvalidInput, match="no run found"):
        places.find(tmp_path / "file")
