"""Parquet files beside a journal: the same frames, and never an answer that the journal would not give."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpo_ray import journal, lock
from hpo_ray.errors import InvalidInput
from hpo_ray.journal import Journal
from hpo_ray.results import compact, compaction, load_results, source
from hpo_ray.results.places import Place
from tests.results.test_frame import write_run

LEVELS = ("trials", "reports", "rungs", "failures", "cost")


def frames(run_dir: Path) -> dict[str, pd.DataFrame]:
    return {level: load_results(run_dir, level) for level in LEVELS}  # type: ignore[arg-type]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "r")
    with Journal(folder) as log:  # values that Parquet has no single type for
        config = {"lr": 3, "layers": "many", "nested": [1, {"a": None}], "big": 2**70, "none": None}
        log.append("trial_suggested", trial_id="0004", config=config, config_id="c4", state={})
        log.append("trial_started", trial_id="0004", attempt=0, gpus=0.5)
        log.append("trial_ended", trial_id="0004", status="failed", reason="é", cause="killed", traceback="…")
        log.append("run_ended", status="completed")
    return folder


def used(run_dir: Path, level: str = "trials") -> bool:
    return compaction.load(Place(str(run_dir)), level) is not None


def test_the_frames_are_the_same(run_dir: Path) -> None:
    before = frames(run_dir)
    files = compact(run_dir)
    assert sorted(file.relative_to(run_dir).as_posix() for file in files) == sorted(
        f"frames/{level}.parquet" for level in LEVELS
    )
    assert sorted(path.name for path in (run_dir / "frames").iterdir()) == sorted(file.name for file in files)
    for level, frame in before.items():
        assert used(run_dir, level)
        pd.testing.assert_frame_equal(load_results(run_dir, level), frame)  # type: ignore[arg-type]


def test_the_journal_is_not_read_then(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(run_dir)
    monkeypatch.setattr(source, "read", lambda place: pytest.fail("it read the journal"))
    assert len(load_results(run_dir)) == 5


def test_a_journal_that_has_grown_is_read_again(run_dir: Path) -> None:
    compact(run_dir)
    with Journal(run_dir) as log:
        log.append("trial_suggested", trial_id="0005", config={}, config_id="c5", state={})
    assert len(load_results(run_dir)) == 6
    compact(run_dir)
    assert used(run_dir)
    assert len(load_results(run_dir)) == 6


def test_a_journal_of_the_same_length_but_other_content_is_read_again(run_dir: Path) -> None:
    compact(run_dir)
    path = run_dir / journal.FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"loss":0.8', b'"loss":0.7'))
    os.utime(path, ns=(0, 1))
    assert load_results(run_dir)["loss"][1] == 0.7


def test_a_copied_run_keeps_its_files(run_dir: Path, tmp_path: Path) -> None:
    compact(run_dir)
    shutil.copytree(run_dir, tmp_path / "copy", copy_function=shutil.copyfile)
    assert used(tmp_path / "copy")
    assert load_results(tmp_path / "copy")["run"].unique().tolist() == ["copy"]


def forge(file: Path, columns: dict[str, Any] | None = None, **about: Any) -> None:
    """A file that says that it fits the journal and holds something else."""
    table = pq.read_table(file)
    known = json.loads(table.schema.metadata[b"hpo_ray"])
    for name, values in (columns or {}).items():
        table = table.drop_columns(name) if values is None else table.set_column(0, name, pa.array(values))
    pq.write_table(table.replace_schema_metadata({b"hpo_ray": json.dumps({**known, **about}).encode()}), file)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"PAR1" + os.urandom(2000) + b"PAR1"),
        lambda file: file.write_bytes(file.read_bytes()[:-40]),
        lambda file: file.write_bytes(file.read_bytes()[:200] + b"\xff" * 50 + file.read_bytes()[250:]),
        lambda file: pq.write_table(pa.table({"trial_id": ["0000"]}), file),
        lambda file: forge(file, v=99),
        lambda file: forge(file, bytes=1),
        lambda file: forge(file, metrics=3),
        lambda file: forge(file, metrics=["gone"]),
        lambda file: forge(file, {"status": None}),
        lambda file: forge(file, {"config": None}),
        lambda file: forge(file, {"fidelity": ["x"] * 5}),
        lambda file: forge(file, {"config": ["[" * 100_000] * 5}),
        lambda file: forge(file, {"config": ["[]"] * 5}),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: (file.unlink(), os.mkfifo(file)),
        lambda file: pq.write_table(pa.table({"trial_id": pa.array(["0"] * 3_000_000).dictionary_encode()}), file),
    ],
)
def test_a_damaged_file_is_as_if_it_were_not_there(run_dir: Path, spoil: Any) -> None:
    before = load_results(run_dir)
    compact(run_dir)
    spoil(run_dir / "frames" / "trials.parquet")
    pd.testing.assert_frame_equal(load_results(run_dir), before)


def test_a_running_run_is_left_alone(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "r", ended=False)
    with lock.Lock(run_dir), pytest.raises(InvalidInput, match="still running"):
        compact(run_dir)
    assert not (run_dir / "frames").exists()
    assert compact(run_dir)
    with lock.Lock(run_dir):  # resumed: who knows what it says next
        assert load_results(run_dir)["status"].tolist()[-1] == "running"


def test_nothing_to_compact_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no run found"):
        compact(tmp_path / "*")


def test_many_runs_are_compacted_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name)
    assert len(compact(tmp_path / "*")) == 2 * len(LEVELS)


def test_a_folder_that_cannot_be_written_to_is_one_mistake(run_dir: Path) -> None:
    (run_dir / "frames").write_text("taken")
    with pytest.raises(InvalidInput, match="cannot be compacted"):
        compact(run_dir)
