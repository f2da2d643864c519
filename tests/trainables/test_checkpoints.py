"""Checkpoints: whole or not there at all, and known to be damaged when they are."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from hpo_ray.trainables import checkpoints
from hpo_ray.trainables.faults import DiskFull
from tests.trainables.conftest import fill


def two_files(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 10)
    (folder / "inner").mkdir()
    (folder / "inner" / "note.txt").write_text("epoch 3")


def test_what_was_saved_verifies_and_says_how_far_it_got(tmp_path: Path) -> None:
    saved = checkpoints.save(tmp_path / "new", 3.0, two_files)
    assert saved == tmp_path / "new" / "checkpoint-3"
    assert (checkpoints.verify(saved), checkpoints.fidelity_of(saved)) == ("", 3.0)
    assert (saved / "inner" / "note.txt").read_text() == "epoch 3"
    manifest = json.loads((saved / ".complete.json").read_text())
    assert manifest["fidelity"] == 3.0
    assert {name: size for name, (size, _) in manifest["files"].items()} == {"weights.bin": 2560, "inner/note.txt": 7}
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint-3"]


@pytest.mark.parametrize(
    ("fidelity", "name"), [(2.5, "checkpoint-2.5"), (1e-7, "checkpoint-1e-07"), (0.0, "checkpoint-0")]
)
def test_a_fidelity_of_any_kind_names_a_folder(tmp_path: Path, fidelity: float, name: str) -> None:
    saved = checkpoints.save(tmp_path, fidelity, two_files)
    assert (saved.name, checkpoints.verify(saved), checkpoints.fidelity_of(saved)) == (name, "", fidelity)


def test_one_that_holds_nothing_is_one_too(tmp_path: Path) -> None:
    assert checkpoints.verify(checkpoints.save(tmp_path, 1.0, lambda folder: None)) == ""


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (shutil.rmtree, "it is missing"),
        (lambda folder: (folder / ".complete.json").unlink(), "it was not saved to its end"),
        (lambda folder: rewrite(folder / ".complete.json", lambda old: old[:-20]), "cannot be read"),
        (lambda folder: rewrite(folder / ".complete.json", lambda old: b"[]"), "cannot be read"),
        (lambda folder: rewrite(folder / ".complete.json", lambda old: b"\xff" + old), "cannot be read"),
        (lambda folder: rewrite(folder / ".complete.json", lambda old: b'{"files": {}}'), "cannot be read"),
        (lambda folder: rewrite(folder / ".complete.json", lambda old: b'{"files": []}'), "cannot be read"),
        (lambda folder: rewrite(folder / ".complete.json", lambda old: b'{"files": {"a": 1}}'), "cannot be read"),
        (lambda folder: (folder / "inner" / "note.txt").unlink(), "its file 'inner/note.txt' is missing"),
        (lambda folder: rewrite(folder / "weights.bin", lambda old: old[:-1]), "has 2559 bytes, 2560 were saved"),
        (lambda folder: rewrite(folder / "weights.bin", lambda old: b""), "has 0 bytes, 2560 were saved"),
        (lambda folder: rewrite(folder / "weights.bin", lambda old: b"\x01" + old[1:]), "have changed"),
        (lambda folder: [shutil.rmtree(folder), folder.write_text("a file")], "it is missing"),
    ],
)
def test_every_damage_is_seen(tmp_path: Path, damage: Callable[[Path], object], told: str) -> None:
    saved = checkpoints.save(tmp_path, 3.0, two_files)
    damage(saved)
    assert told in checkpoints.verify(saved)


def test_any_flipped_bit_is_seen(tmp_path: Path) -> None:
    saved, random = checkpoints.save(tmp_path, 3.0, two_files), Random(0)
    good = (saved / "weights.bin").read_bytes()
    for _ in range(200):
        bad = bytearray(good)
        bad[random.randrange(len(bad))] ^= 1 << random.randrange(8)
        (saved / "weights.bin").write_bytes(bad)
        assert checkpoints.verify(saved) != ""


def test_saving_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / ".partial-3").mkdir()
    (tmp_path / ".partial-3" / "old").touch()  # of an attempt that was killed
    checkpoints.save(tmp_path, 3.0, lambda folder: (folder / "old").touch())
    saved = checkpoints.save(tmp_path, 3.0, two_files)
    assert sorted(path.name for path in saved.iterdir()) == [".complete.json", "inner", "weights.bin"]
    assert checkpoints.verify(saved) == ""


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("unexpected pos 64 vs 0"), KeyError("w")])
def test_a_failed_save_leaves_the_one_before_it_and_nothing_else(tmp_path: Path, error: Exception) -> None:
    before = checkpoints.save(tmp_path, 1.0, two_files)

    def broken(folder: Path) -> None:
        (folder / "weights.bin").write_text("half")
        raise error

    with pytest.raises(type(error)) as caught:  # as it was raised: there is room on this disk
        checkpoints.save(tmp_path, 2.0, broken)
    assert caught.value is error
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert checkpoints.verify(before) == ""


SAVE_FOREVER = """
import sys
from pathlib import Path
from hpo_ray.trainables import checkpoints

def write(folder):
    for number in range(20):
        (folder / str(number)).write_bytes(bytes(100_000))

fidelity = 0.0
while True:
    fidelity += 1
    checkpoints.save(Path(sys.argv[1]), fidelity, write)
"""


def test_a_kill_at_any_moment_leaves_whole_ones_only(tmp_path: Path) -> None:
    random, whole = Random(1), 0
    for number in range(8):
        folder = tmp_path / str(number)
        process = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, folder], cwd=Path(__file__).parents[2])
        while not (folder / "checkpoint-1").exists():
            time.sleep(0.005)
        time.sleep(random.random() * 0.1)
        process.kill()
        process.wait()
        found = list(folder.glob("checkpoint-*"))
        whole += len(found)
        assert [checkpoints.verify(path) for path in found] == [""] * len(found)
    assert whole >= 8


def write_pickle(folder: Path) -> None:
    with (folder / "x").open("wb") as file:
        pickle.dump(os.urandom(6_000_000), file)


def torch_into_file(folder: Path) -> None:
    with (folder / "x.pt").open("wb") as file:
        torch.save(torch.rand(1_500_000), file)


def swallowed(folder: Path) -> None:
    """What a library might make of a full disk."""
    try:
        write_pickle(folder)
    except OSError as error:
        raise ValueError("the model cannot be saved") from error


@pytest.mark.parametrize(
    "write",
    [
        write_pickle,
        torch_into_file,
        swallowed,
        lambda folder: torch.save(torch.rand(1_500_000), folder / "x.pt"),
        lambda folder: torch.save(torch.rand(1_500_000), folder / "x.pt", _use_new_zipfile_serialization=False),
        lambda folder: np.save(folder / "x.npy", np.zeros(1_500_000)),
        lambda folder: np.savez(folder / "x.npz", np.random.default_rng(0).random(1_500_000)),
        lambda folder: shutil.copyfile("/dev/zero", folder / "x"),
    ],
    ids=["pickle", "torch to a file", "swallowed", "torch", "torch's old format", "npy", "npz", "copy"],
)
def test_a_full_disk_is_told_from_other_failures_however_it_is_raised(
    small_disk: Path, write: Callable[[Path], object]
) -> None:
    before = checkpoints.save(small_disk, 1.0, two_files)
    with pytest.raises(DiskFull, match="no room to save checkpoint 2 in '"):
        checkpoints.save(small_disk, 2.0, write)
    assert [path.name for path in small_disk.iterdir()] == ["checkpoint-1"]
    assert checkpoints.verify(before) == ""


def test_a_disk_without_room_for_a_folder_or_the_manifest_is_full_too(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(DiskFull):
        checkpoints.save(small_disk, 2.0, two_files)
    (small_disk / "ballast").unlink()

    def all_but_nothing(folder: Path) -> None:
        fill(folder)
        with (folder / "ballast").open("rb+") as file:
            file.truncate(file.seek(0, os.SEEK_END) // 4096 * 4096)

    with pytest.raises(DiskFull):
        checkpoints.save(small_disk, 2.0, all_but_nothing)
    assert list(small_disk.iterdir()) == []
    assert checkpoints.verify(checkpoints.save(small_disk, 2.0, two_files)) == ""
