"""What leaves the user's machine: code and configuration; no secret, no result, nothing from outside the folder."""

from __future__ import annotations

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
    secret = [".aws/credentials", ".env", "deploy.key", "id_ed25519", "package/service-account.json"]
    write(work, *good, *secret, "runs/a/events.jsonl", "runs/a/trials/0/output.log", "package/__pycache__/model.pyc")
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
    assert sorted(found.secret) == sorted([*secret, "note.txt"])
    assert sorted(found.outside) == ["data", "more.bin"]
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
