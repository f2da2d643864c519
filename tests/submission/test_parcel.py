"""What leaves the user's machine: code and configuration; no secret, no result, nothing from outside the folder."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from hpo_ray.errors import InvalidInput
from hpo_ray.submission import parcel

TOKEN = "0123456789abcdef" * 4


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def packed(folder: Path) -> tuple[list[str], parcel.Parcel]:
    found = parcel.pack(folder, folder.parent / "x.zip", TOKEN)
    with zipfile.ZipFile(folder.parent / "x.zip") as archive:
        return sorted(archive.namelist()), found


@pytest.mark.parametrize("in_git", [False, True])
def test_code_and_configuration_travel_and_secrets_and_results_do_not(tmp_path: Path, in_git: bool) -> None:
    work = tmp_path / "work"
    good = ["conf/experiment/mine.yaml", "my.py", "package/model.py", "secrets.py"]
    secret = [".env", "deploy.key", "id_ed25519", "package/service-account.json"]
    hidden = [".aws/credentials", ".config/gcloud/x", "package/.secrets/x"]
    write(
        work,
        *good,
        *secret,
        *hidden,
        "runs/a/events.jsonl",
        "runs/a/trials/0/output.log",
        "package/__pycache__/model.pyc",
    )
    write(work, ".venv/lib/x.py", ".git/hooks/x" if not in_git else "tracked.py")
    (work / "note.txt").write_text(f"the token is {TOKEN}")
    write(tmp_path, "outside/data.bin")
    (work / "data").symlink_to(tmp_path / "outside")
    (work / "more.bin").symlink_to(tmp_path / "outside" / "data.bin")
    if in_git:
        subprocess.run(["git", "init", "--quiet", str(work)], check=True)
        (work / ".gitignore").write_text("large.bin\n")
        write(work, "large.bin")
        good = sorted([".gitignore", *good, "tracked.py"])
    names, found = packed(work)
    assert names == good
    assert found.left_out == {
        parcel.SECRET: tuple(sorted([*secret, "note.txt"])),
        parcel.HIDDEN: (".aws", ".config", "package/.secrets"),
        parcel.OUTSIDE: ("data", "more.bin"),
    }
    assert found.files == len(good)


def test_a_folder_that_is_too_large_is_refused_and_its_largest_files_named(tmp_path: Path) -> None:
    write(tmp_path / "work", "my.py")
    with (tmp_path / "work" / "images.tar").open("wb") as file:
        file.truncate(parcel.LIMIT + 1)
    with pytest.raises(InvalidInput, match=r"holds 100 MiB, at most 100 are sent; the largest: images.tar \(100 MiB\)"):
        packed(tmp_path / "work")


def test_a_folder_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere' is no folder"):
        packed(tmp_path / "nowhere")


def test_an_empty_folder_is_an_archive_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    assert packed(tmp_path / "work")[0] == [".empty"]


def test_what_is_no_file_or_has_no_name_in_utf_8_is_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path / "work", "my.py")
    os.mkfifo(tmp_path / "work" / "pipe")  # who opens it waits for a writer
    (tmp_path / "work" / "gone").symlink_to("nothing")
    (tmp_path / "work" / os.fsdecode(b"\xff.py")).write_text("x")
    names, found = packed(tmp_path / "work")
    assert names == ["my.py"]
    assert found.left_out == {parcel.ODD: ("gone", "pipe"), parcel.MISNAMED: ("\\xff.py",)}


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_the_home_directory_and_what_is_above_it_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    with pytest.raises(InvalidInput, match="is more than a project"):
        parcel.pack(Path(place).absolute(), tmp_path / "x.zip")


def git(folder: Path, *words: str) -> None:
    own = ["-c", "protocol.file.allow=always", "-c", "user.name=x", "-c", "user.email=x@example.com"]
    folder.mkdir(exist_ok=True)
    subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True)


def test_a_submodules_files_travel_too_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    git(tmp_path / "library", "init")
    write(tmp_path / "library", "model.py")
    git(tmp_path / "library", "add", ".")
    git(tmp_path / "library", "commit", "-m", "x")
    work = tmp_path / "work"
    git(work, "init")
    for name in ("here", "absent"):
        git(work, "submodule", "add", str(tmp_path / "library"), name)
    git(work, "submodule", "deinit", "--force", "absent")
    write(work / "here", "mine.py")
    names, found = packed(work)
    assert names == [".gitmodules", "here/mine.py", "here/model.py"]
    assert found.left_out == {parcel.ABSENT: ("absent",)}


def test_a_folder_that_git_ignores_is_a_mistake(tmp_path: Path) -> None:
    git(tmp_path / "work", "init")
    write(tmp_path / "work", "inner/my.py")
    (tmp_path / "work" / ".gitignore").write_text("inner\n")
    with pytest.raises(InvalidInput, match=r"git ignores '.*/inner', so nothing of it would be sent"):
        packed(tmp_path / "work" / "inner")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_someone_elses_is_a_mistake_with_the_way_out(tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(work, "init")
    write(work, "large.bin")
    (work / ".gitignore").write_text("large.bin\n")
    for place in (work, work / ".git"):
        os.chown(place, 65534, -1)
    with pytest.raises(InvalidInput, match=rf"git config --global --add safe.directory {work}"):
        packed(work)
