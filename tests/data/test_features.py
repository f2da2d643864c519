"""The feature cache, asked by real processes at once, killed, damaged, overfull; and its equality with computing."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpo_ray.data import features, images, parts
from hpo_ray.data.augment import Augmentation
from hpo_ray.data.entry import Writer, told
from hpo_ray.errors import InvalidInput
from tests.data.cache_process import compute, find, memory_part, tell

ROOT = Path(__file__).parents[2]
# 64 rows of `compute` take 7 kB on disk, and 10 kB while they are written: the manifest is reckoned generously.
ONE_ENTRY, TWO_ENTRIES = 13_000, 20_000


class Asker:
    """A process that asks for features; forked, because a new one needs seconds to import torch."""

    def __init__(self, folder: Path, where: str = "", **options) -> None:
        self._out = Path(tempfile.mkdtemp(dir=folder.parent)) / "out"
        options |= {"out": str(self._out)}
        self._process = multiprocessing.get_context("fork").Process(target=tell, args=(folder, where), kwargs=options)
        self._process.start()

    def result(self) -> dict:
        """What it found, once it has ended."""
        self._process.join(60)
        assert self._process.exitcode == 0
        return self.answer()

    def answer(self) -> dict:
        """What it found, though it may live on."""
        wait_for(lambda: self._out.exists() and self._out.read_text())
        return json.loads(self._out.read_text())

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()
        self._process.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The cache's own folder."""
    return tmp_path / "cache"


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def passes(folder: Path) -> list[dict]:
    path = folder / "passes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "entries").iterdir())


def directly(rows: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [(compute(batch), labels) for batch, labels in parts.batches(memory_part(rows), 8)]
    found, labels = zip(*batches, strict=True)
    return torch.cat(found), torch.cat(labels)


def fingerprint(rows: int = 64) -> str:
    found, labels = directly(rows)
    return hashlib.sha256(found.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "partial").iterdir())


def test_features_equal_direct_computation_and_are_computed_once(folder):
    with warnings.catch_warnings(action="error"):
        first, second = find(folder, ""), find(folder, "")
    values, labels = directly()
    for found in (first, second):
        assert torch.equal(found.features, values)
        assert torch.equal(found.labels, labels)
        assert found.stored
    [line] = passes(folder)
    assert (line["images"], line["pid"], line["digest"]) == (64, os.getpid(), first.digest())
    assert leftovers(folder) == []


def test_they_are_batched_like_images(folder):
    found = find(folder, "")

    def of(part):
        return list(parts.batches(part, 10, order=parts.epoch_generator(0, 1), balance=True))

    plain = of(memory_part(64))
    for (rows, labels), (pixels, expected) in zip(of(found), plain, strict=True):
        assert torch.equal(labels, expected)
        torch.testing.assert_close(rows, compute(pixels), rtol=0, atol=1e-6)
    assert torch.equal(parts.class_weights(found), parts.class_weights(memory_part(64)))
    with pytest.raises(ValueError, match="cannot be augmented"):
        list(parts.batches(found, 10, augment=Augmentation("crop")))


def test_what_is_written_into_a_part_does_not_reach_the_others(folder):
    find(folder, "").features.zero_()
    assert torch.equal(find(folder, "").features, directly()[0])


def test_they_are_mapped_and_not_read(folder):
    part = parts.TensorImages(torch.zeros(2000, 1, 1, 1), torch.zeros(2000, dtype=torch.int64))

    def ask():
        return features.cached(
            part,
            key={},
            compute=lambda batch: torch.zeros(len(batch), 5000),
            folder=folder,
            max_bytes=10**8,
            batch_size=50,
        )

    ask()
    tracemalloc.start()
    found = ask()
    assert tracemalloc.get_traced_memory()[1] < 4e6, "40 MB were read into memory"
    tracemalloc.stop()
    maps = Path("/proc/self/maps").read_text()
    assert f"{folder}/entries/{found.digest()}/features.npy" in maps


def test_everything_that_features_depend_on_is_in_the_key(folder):
    digests = [find(folder, "").digest(), find(folder, "", salt="x").digest(), find(folder, "", rows=63).digest()]
    assert len(set(digests)) == 3
    assert len(passes(folder)) == 3


def test_four_processes_at_once_make_one_pass(folder):
    command = [sys.executable, "-m", "tests.data.cache_process", str(folder), "", json.dumps({"slow_s": 0.05})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(4)
    ]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert {each["values"] for each in found} == {fingerprint()}
    assert all(each["stored"] for each in found)
    assert len(passes(folder)) == 1
    assert find(folder, "").digest() == passes(folder)[0]["digest"], "this process reads it as well"
    assert len(passes(folder)) == 1


@pytest.mark.parametrize("written", [1, 5])
def test_a_killed_writer_leaves_nothing_that_is_believed(folder, written):
    process = Asker(folder, slow_s=0.2)

    def has_written():
        # The file has its full length from the start: what says how far it is are bytes other than zero.
        for path in folder.glob("partial/*/features.npy"):
            content = np.frombuffer(path.read_bytes()[128:], np.float32)
            return np.count_nonzero(content) > (written - 1) * 8 * 15
        return False

    wait_for(has_written)
    process.kill()
    assert entries(folder) == []
    assert len(leftovers(folder)) == 1
    assert Asker(folder).result()["values"] == fingerprint()
    assert leftovers(folder) == []
    assert len(passes(folder)) == 1


def test_who_waits_for_a_writer_that_is_killed_takes_over(folder):
    writer = Asker(folder, slow_s=0.5)
    wait_for(lambda: list(folder.glob("partial/*/features.npy")))
    waiting = [Asker(folder, ready=str(folder.parent / f"ready{i}")) for i in range(2)]
    wait_for(lambda: len(list(folder.parent.glob("ready*"))) == 2)
    assert len(passes(folder)) == 0
    writer.kill()
    assert {process.result()["values"] for process in waiting} == {fingerprint()}
    assert len(passes(folder)) == 1


def test_kills_at_many_moments_never_spoil_the_cache(folder):
    """Forked rather than started: at 60 moments around the writing and the renaming."""
    values, _ = directly()
    for i in range(60):
        pid = os.fork()
        if pid == 0:
            find(folder, "", salt=str(i))
            os._exit(0)
        time.sleep(0.0002 * (i % 30) + 0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert torch.equal(find(folder, "", salt=str(i)).features, values)
    assert leftovers(folder) == []


def test_the_leftovers_of_other_entries_are_removed_too(folder):
    process = Asker(folder, salt="never asked again", slow_s=0.5)
    wait_for(lambda: list(folder.glob("partial/*/features.npy")))
    find(folder, "", salt="meanwhile")
    assert len(leftovers(folder)) == 1, "its writer lives"
    process.kill()
    find(folder, "", salt="afterwards")
    assert leftovers(folder) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("features.npy", cut),
        ("features.npy", Path.unlink),
        ("labels.npy", cut),
        ("manifest.json", cut),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", lambda path: path.write_bytes(b"\xff")),
        ("features.npy", lambda path: path.write_bytes(b"\0" * path.stat().st_size)),
    ],
)
def test_a_damaged_entry_is_computed_anew(folder, caplog, file, damage):
    digest = find(folder, "").digest()
    damage(folder / "entries" / digest / file)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(find(folder, "").features, directly()[0])
    assert "damaged" in caplog.text
    assert len(passes(folder)) == 2
    find(folder, "")
    assert len(passes(folder)) == 2
    assert leftovers(folder) == []


def test_a_damaged_entry_can_be_replaced_while_somebody_has_it_open(folder):
    held = find(folder, "")
    (folder / "entries" / held.digest() / "manifest.json").unlink()
    again = find(folder, "")
    assert torch.equal(again.features, held.features)


def test_the_least_lately_used_entries_make_room(folder):
    cap = TWO_ENTRIES
    digests = {}
    for salt in ("a", "b", "a", "c"):
        digests[salt] = find(folder, "", salt=salt, max_bytes=cap).digest()
        time.sleep(0.02)
    assert entries(folder) == sorted([digests["a"], digests["c"]])
    used = sum(path.stat().st_size for path in folder.glob("entries/*/*"))
    assert used <= cap
    assert leftovers(folder) == []


def test_an_entry_in_use_is_never_thrown_away(folder, caplog):
    cap = ONE_ENTRY
    holder = Asker(folder, salt="held", hold_s=60, max_bytes=cap)
    held = holder.answer()
    assert held["stored"]
    with caplog.at_level(logging.WARNING):
        other = find(folder, "", salt="other", max_bytes=cap)
    assert not other.stored
    assert "not cached" in caplog.text
    assert "in use" in caplog.text
    assert torch.equal(other.features, directly()[0])
    holder.kill()
    assert find(folder, "", salt="other", max_bytes=cap).stored, "the dead use nothing"
    assert len(entries(folder)) == 1


def test_dropping_a_part_ends_its_use_and_a_forked_child_does_not(folder):
    cap = ONE_ENTRY
    held = find(folder, "", salt="held", max_bytes=cap)
    pid = os.fork()
    if pid == 0:
        del held
        os._exit(0)
    os.waitpid(pid, 0)
    assert not find(folder, "", salt="other", max_bytes=cap).stored
    del held
    assert find(folder, "", salt="other", max_bytes=cap).stored


def test_an_entry_above_the_cap_is_computed_in_memory_and_that_is_said(folder, caplog):
    with caplog.at_level(logging.WARNING):
        found = find(folder, "", max_bytes=1000)
    assert torch.equal(found.features, directly()[0])
    assert torch.equal(found.labels, directly()[1])
    assert not found.stored
    assert "more than the cap" in caplog.text
    assert entries(folder) == leftovers(folder) == []
    [line] = passes(folder)
    assert (line["images"], line["stored"]) == (64, False)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_full_disk_is_said_and_features_come_from_memory(folder, monkeypatch, caplog, after):
    rows_until = []

    def full(*arguments):
        raise OSError(28, "No space left on device")

    def append(writer, rows):
        rows_until.append(rows)
        with told(writer.folder):
            return full() if len(rows_until) > after else plain(writer, rows)

    plain = Writer.append
    if after:
        monkeypatch.setattr(Writer, "append", append)
    else:
        monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING):
        found = find(folder, "")
    assert torch.equal(found.features, directly()[0])
    assert torch.equal(found.labels, directly()[1])
    assert "No space left on device" in caplog.text
    assert entries(folder) == leftovers(folder) == []


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        found = find(tmp_path / "file" / "cache", "")
    assert torch.equal(found.features, directly()[0])
    assert "cannot be used" in caplog.text


def pictures(folder: Path, n: int = 30) -> Path:
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (8 * i, 100, 200)).save(path)
    return folder


def ask(part: parts.Part, folder: Path, **options) -> features.FeaturePart:
    return features.cached(
        part, key={}, compute=lambda batch: batch.mean((2, 3)), folder=folder, max_bytes=10**8, batch_size=4, **options
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_and_told_to_later_trials(tmp_path, folder, workers):
    root = pictures(tmp_path / "images")

    def fresh():
        images._files.cache_clear()  # as another process would see it
        return images.load("folder", str(root), image_size=8, max_corrupt_fraction=0.1).train

    broken = [path for path, _ in fresh().samples[3:5]]
    for path in broken:
        path.write_bytes(b"")
    part = fresh()
    first = ask(part, folder, workers=workers)
    assert part.corrupt.paths == broken
    assert len(first) == len(part) - 2
    kept = [label for path, label in part.samples if path not in broken]
    assert first.labels.tolist() == kept
    later = fresh()
    second = ask(later, folder)
    assert len(passes(folder)) == 1
    assert later.corrupt.paths == broken
    assert torch.equal(second.features, first.features)
    images._files.cache_clear()
    strict = images.load("folder", str(root), image_size=8, max_corrupt_fraction=0.03).train
    with pytest.raises(InvalidInput, match="of 30 images cannot be read"):
        ask(strict, folder)
    assert ask(fresh(), folder).stored, "what was refused was let go"


def test_too_many_unreadable_images_leave_nothing_behind(tmp_path, folder):
    root = pictures(tmp_path / "images")
    part = images.load("folder", str(root), image_size=8, max_corrupt_fraction=0.01).train
    part.samples[5][0].write_bytes(b"")
    with pytest.raises(InvalidInput):
        ask(part, folder)
    assert entries(folder) == leftovers(folder) == []


def test_a_changed_image_is_computed_anew(tmp_path, folder):
    part = images.load("folder", str(pictures(tmp_path / "images")), image_size=8).train
    first = ask(part, folder)
    Image.new("RGB", (20, 16), (255, 255, 255)).save(part.samples[0][0])
    second = ask(part, folder)
    assert len(passes(folder)) == 2
    assert torch.equal(first.features[1:], second.features[1:])
    assert not torch.equal(first.features[0], second.features[0])


def test_the_global_generator_and_gradients_are_left_alone(folder):
    layer = torch.nn.Linear(48, 5)
    before = torch.get_rng_state()
    found = features.cached(
        memory_part(64),
        key={},
        compute=lambda batch: layer(batch.flatten(1)),
        folder=folder,
        max_bytes=10**8,
        batch_size=8,
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not found.features.requires_grad


def test_where_features_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HPO_RAY_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert features.default_folder() == tmp_path / "own"
    monkeypatch.delenv("HPO_RAY_CACHE")
    assert features.default_folder() == tmp_path / "xdg" / "hpo_ray"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert features.default_folder() == tmp_path / ".cache" / "hpo_ray"


def test_a_weights_digest_is_of_every_bit_and_of_no_order():
    weights = {"a": torch.rand(3, 4), "b": torch.tensor(7), "c": torch.rand(5).bfloat16(), "d": torch.empty(0)}
    digest = features.weights_digest(weights.items())
    assert features.weights_digest(reversed(weights.items())) == digest
    others = [
        {**weights, "b": torch.tensor(8)},
        {**weights, "b": torch.tensor(7.0)},
        {**weights, "a": weights["a"].view(4, 3)},
        {**weights, "a": torch.nextafter(weights["a"], torch.tensor(2.0))},
        {("e" if name == "a" else name): value for name, value in weights.items()},
    ]
    assert len({digest, *(features.weights_digest(other.items()) for other in others)}) == 6


def test_real_photographs_in_another_process(folder):
    shared = os.environ.get("HPO_RAY_TEST_DATA")
    if not shared:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    root = f"{shared}/hymenoptera"
    processes = [Asker(folder, root, workers=workers) for workers in (0, 2)]
    found = [process.result() for process in processes]
    part = images.load("folder", root, image_size=16).train
    batches = [compute(batch) for batch, _ in parts.batches(part, 8)]
    values = hashlib.sha256(torch.cat(batches).numpy().tobytes() + part.labels.numpy().tobytes()).hexdigest()
    assert [each["values"] for each in found] == [values, values]
    assert [line["images"] for line in passes(folder)] == [195]
