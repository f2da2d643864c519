"""Run directories from strangers: nothing in them is executed, nothing outside them read, nobody sees a traceback."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo_ray import cli, console, history, journal, lock, plain, snapshot
from hpo_ray.errors import InvalidInput
from hpo_ray.results import compact, load_results
from tests.results.test_frame import write_run

LEVELS = ("trials", "reports", "rungs", "failures", "cost")


def line(event: str, **fields: Any) -> bytes:
    return json.dumps({"v": 1, "time": 5.0, "event": event, **fields}).encode()


REPORT: dict[str, Any] = {"trial_id": "0000", "attempt": 0, "fidelity": 9, "metrics": {"loss": 0.0}, "elapsed_s": 1.0}
DEEP = b'{"v":1,"time":5,"event":"trial_suggested","trial_id":"0009","config_id":"c","config":{"x":%b1%b}}'
DAMAGED = {
    "bad UTF-8": b'{"v":1,"time":5,"event":"run_ended","status":"\xff\xfe"}',
    "too deep to parse": b'{"event":' * 100_000,
    "deep lists": b"[" * 1_000_000,
    "deep enough to break what prints it": DEEP % (b"[" * 500, b"]" * 500),
    "a huge integer": line("trial_reported", **REPORT).replace(b'"fidelity": 9', b'"fidelity": ' + b"9" * 10_000),
    "an integer beyond floats": line("trial_reported", **{**REPORT, "metrics": {"loss": 10**400}}),
    "an id that is a list": line("trial_reported", **{**REPORT, "trial_id": ["0000"]}),
    "an id that is a path": line("trial_started", trial_id="../../x", attempt=0),
    "metrics that are text": line("trial_reported", **{**REPORT, "metrics": "loss"}),
    "a metric that is text": line("trial_reported", **{**REPORT, "metrics": {"loss": "low"}}),
    "a fidelity that is NaN": line("trial_reported", **{**REPORT, "fidelity": "NaN"}),
    "a fidelity that is missing": line("trial_reported", trial_id="0000", attempt=0, metrics={}, elapsed_s=1),
    "an attempt that is a float": line("trial_reported", **{**REPORT, "attempt": 0.5}),
    "a time beyond calendars": line("run_ended", status="completed").replace(b"5.0", b"1e300"),
    "no time": b'{"event":"run_ended","status":"completed"}',
    "a status of its own": line("trial_ended", trial_id="0000", attempt=0, status=["completed"]),
    "an experiment that is a list": line("run_started", experiment=[1]),
    "a metric's name that is a list": line("run_started", experiment={"metric": ["loss"]}),
    "a checkpoint elsewhere": line("trial_checkpointed", trial_id="0000", attempt=0, fidelity=1, path="/etc/passwd"),
    "a checkpoint above": line("trial_checkpointed", trial_id="0000", attempt=0, fidelity=1, path="trials/../../x"),
    "a rung that is text": line("rung_decided", trial_id="0000", attempt=0, rung="1", value=1, cutoff=1, kept=True),
    "tests without number": line("run_ended", status="completed", test={"errors": 1, "n": 0}),
    "an event that is a list": b'{"event":["run_ended"]}',
    "not an object": b'"run_ended"',
    "null": b"null",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_line_that_no_driver_wrote_is_left_out_and_told(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = write_run(tmp_path / "r")
    sound = {level: load_results(run_dir, level) for level in LEVELS}  # type: ignore[arg-type]
    path = run_dir / journal.FILE_NAME
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"\n".join([first, damage, rest]))
    assert history.load(run_dir).damaged == 1
    snapshot.load(run_dir)
    for level, frame in sound.items():
        caplog.clear()
        assert load_results(run_dir, level).equals(frame)  # type: ignore[arg-type]
        assert "1 damaged line" in caplog.text
        assert str(run_dir) in caplog.text
    for command in ("report", "status"):
        assert console.guarded(lambda name=command: cli.app([name, str(run_dir)], standalone_mode=False)) == 0
        assert "Traceback" not in capfd.readouterr().err


def test_halves_of_characters_are_no_trouble_to_what_writes_them(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "r", ended=False)
    with (run_dir / journal.FILE_NAME).open("a") as file:
        file.write(
            r'{"v":1,"time":9,"event":"trial_ended","trial_id":"0003","status":"failed","reason":"\ud800\u00e9"}'
        )
    assert load_results(run_dir)["reason"].tolist()[-1] == "?é"
    compact(run_dir)
    assert load_results(run_dir)["reason"].tolist()[-1] == "?é"


def test_of_a_key_that_is_there_twice_the_last_counts(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "r")
    path = run_dir / journal.FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"loss":0.8', b'"loss":0.9,"loss":0.7'))
    assert load_results(run_dir)["loss"][1] == 0.7 == history.load(run_dir).trials["0001"].reports[0].metrics["loss"]


GIGABYTE = """
import logging, resource, sys
import numpy, pandas, pyarrow.json, pyarrow.compute
from hpo_ray import history, load_results
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
logging.basicConfig()
for level in ("trials", "reports"):
    print(len(load_results(sys.argv[1], level)))
print(history.load(Path(sys.argv[1])).damaged)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_line_of_a_gigabyte_is_left_out_in_little_memory(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "r")
    path = run_dir / journal.FILE_NAME
    lines = path.read_bytes().split(b"\n", 2)
    with path.open("wb") as file:
        file.write(lines[0] + b'\n{"event":"')
        file.truncate(1 << 30)  # zeros that take no room
        file.seek(0, os.SEEK_END)
        file.write(b'"}\n' + lines[1] + b"\n" + lines[2])
    done = subprocess.run(
        [sys.executable, "-c", GIGABYTE, str(run_dir)], capture_output=True, text=True, check=True, timeout=300
    )
    trials, reports, damaged, mebibytes = map(int, done.stdout.split())
    assert (trials, reports, damaged) == (4, 7, 1)
    assert mebibytes < 4 * plain.LINE_LIMIT >> 20
    assert "1 damaged line" in done.stderr


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_lines_are_the_files_whatever_is_read_at_once(tmp_path: Path, size: int) -> None:
    text = b"a\n\n" + b"b" * 20 + b"\nccc\n" + b"d" * 21 + b"\n" + b"e" * 90 + b"\nf"
    (tmp_path / "file").write_bytes(text)
    with plain.open_inside(tmp_path, "file") as file:
        blocks = list(plain.line_blocks(file, limit=20, size=size))
    assert [line for lines, _ in blocks for line in lines if line] == [b"a", b"b" * 20, b"ccc", b"f"]
    assert sum(long for _, long in blocks) == 2


class Trap:
    """What says that it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


BOMB = "a: &a [x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi"))  # noqa: B905


def test_pickles_and_yaml_lie_unread(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "r")
    bomb = pickle.dumps(Trap(tmp_path / "sprung"))
    for name in ("tuner.pkl", "params.pkl", "searcher-state.pkl", snapshot.FILE_NAME, lock.FILE_NAME, "x.yaml"):
        (run_dir / name).write_bytes(BOMB.encode() if name.endswith("yaml") else bomb)
    (run_dir / "frames").mkdir()
    for level in LEVELS:
        (run_dir / "frames" / f"{level}.parquet").write_bytes(bomb)
        assert len(load_results(run_dir, level)) == len(load_results(write_run(tmp_path / "s"), level))  # type: ignore[arg-type]
        (tmp_path / "s" / journal.FILE_NAME).unlink()
    snapshot.load(run_dir)
    assert lock.holder(run_dir) is None
    assert not (tmp_path / "sprung").exists()


def test_no_module_of_ours_that_loads_runs_reads_yaml_or_pickles() -> None:
    code = (
        "import sys; from hpo_ray.results import compaction, dtypes, frame, source, tune_folder, tune_rows\n"
        "import hpo_ray.history, hpo_ray.snapshot\n"
        "found = [name for name, module in sys.modules.items() if name.startswith('hpo_ray')"
        " and {'yaml', 'pickle', 'cloudpickle', 'omegaconf', 'torch', 'ray'} & set(vars(module))]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_journal_that_is_no_plain_file_is_one_clear_mistake(tmp_path: Path, kind: str) -> None:
    run_dir = tmp_path / "r"
    run_dir.mkdir()
    path = run_dir / journal.FILE_NAME
    if kind == "link":
        path.symlink_to(write_run(tmp_path / "other") / journal.FILE_NAME)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    for load in (load_results, history.load, compact):
        with pytest.raises(InvalidInput, match=str(path) if kind != "folder" else "run") as caught:
            load(run_dir)
        assert len(caught.value.problems) == 1


def test_one_run_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path / "runs/a")
    (tmp_path / "runs/b").mkdir()
    (tmp_path / "runs/b" / journal.FILE_NAME).symlink_to("/etc/passwd")
    assert load_results(tmp_path / "runs/*")["run"].unique().tolist() == ["a"]
    assert "it is a link" in caplog.text


def test_links_lead_nowhere(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "runs/a")
    other = write_run(tmp_path / "secret/b")
    compact(other)
    (run_dir / "frames").symlink_to(other / "frames")
    (run_dir / "more").symlink_to(tmp_path / "secret")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    assert load_results(tmp_path / "runs/**")["run"].unique().tolist() == ["a"]
    with pytest.raises(InvalidInput, match="is a link"):
        compact(run_dir)
    (run_dir / snapshot.FILE_NAME).symlink_to(other / journal.FILE_NAME)
    snapshot.load(run_dir)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": {}}, {"counts": None}, {"open": {"../x": {}}}, {"open": []}, {"best": {"value": "x"}}, {"best": 3},
        {"head": []}, {"head": {"metric": []}}, {"rungs": {"x": [1, 2]}}, {"rungs": {"1": [1]}}, {"gpu_s": "many"},
        {"ended": {"status": []}}, {"ended": 7}, {"last_seen": None}, {"unknown": 1}, {"since_best": 10.5},
        {"open": {"0007": {"status": "running", "attempt": 0, "config": {}, "improved": False}}},
    ],
    ids=str,
)  # fmt: skip
def test_totals_of_the_wrong_shape_are_not_believed(tmp_path: Path, change: dict[str, Any]) -> None:
    run_dir = write_run(tmp_path / "r")
    true = snapshot.load(run_dir)
    snapshot.Snapshots(run_dir).write(true, 10)
    path = run_dir / snapshot.FILE_NAME
    document = json.loads(path.read_text())
    document["tally"] |= change
    path.write_text(json.dumps(document))
    assert journal.encode(snapshot.load(run_dir).state()) == journal.encode(true.state())


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"host":"h","pid":1e999,"since":1}', '{"host":1,"pid":[],"since":{}}']
)
def test_a_lock_that_says_nothing_locks_nothing(tmp_path: Path, text: str) -> None:
    run_dir = write_run(tmp_path / "r", ended=False)
    (run_dir / lock.FILE_NAME).write_text(text)
    assert lock.holder(run_dir) is None
    assert load_results(run_dir)["status"].tolist()[-1] == "interrupted"
