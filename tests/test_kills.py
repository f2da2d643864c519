"""Sweeps on real digits, killed at random moments in every way that we know and resumed to the end: nothing is lost.

The environment variable HPO_RAY_KILLS says how many kills; the moments follow from a seed, and from the machine.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray import journal
from tests.objectives import digits
from tests.processes import Process, abandoned_memory, descendants, with_variable

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("HPO_RAY_KILLS", "50"))
KILLS_A_SWEEP = 6
TRIALS = 12
KEPT = 3
SWEEP = [
    "experiment=function",
    f"trainable.target={digits.__file__}:train",
    "space.lr=loguniform(1e-3, 1e-1)",
    "space.units=choice(32, 64, 128)",
    "space.optimizer=choice(sgd, adam)",
    "scheduler=asha",
    f"scheduler.max_t={digits.EPOCHS}",
    "scheduler.reduction_factor=2",
    "metric=val_error",
    "fidelity=epoch",
    f"trials={TRIALS}",
    "slots=2",
    f"storage.keep_checkpoints={KEPT}",
]
# Kind -> the driver's exit code; None: it lives on.
KINDS = {"driver": -9, "actor": None, "raylet": 1, "gcs": 1, "torn line": -9, "SIGINT": 130}
VICTIMS = {
    "actor": re.compile(r"^ray::(TrialActor|ResourceTrainable)"),
    "raylet": re.compile(r"/raylet/raylet "),
    "gcs": re.compile(r"/gcs_server "),
}
# Long, for machines with much else to do; a wait ends when what it waits for comes.
PATIENCE_S = 120.0

# (trial, epoch) -> error and loss
Rows = dict[tuple[str, float], tuple[float, float]]


@dataclass
class Kill:
    """One kill: what the journal held when it came, how long the driver took to end, what was missing in the end."""

    kind: str
    rows: Rows
    gone_s: float = 0.0
    lost: list[str] = field(default_factory=list)


class Place:
    """Where the test's drivers live: their temporary folder, which also marks them and all that they start."""

    def __init__(self) -> None:
        # Short, for Ray's sockets.
        self.tmp = Path(tempfile.mkdtemp(prefix="kills-", dir="/tmp"))
        self.seen: set[Process] = set()

    def start(self, sweep: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """A driver as the user starts it, with its output in a file."""
        variables = {"TMPDIR": str(self.tmp), digits.TRUTH: str(sweep / "truth.jsonl")}
        with (sweep / "output.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "hpo_ray.cli", *arguments],
                cwd=sweep,
                env={**os.environ, **variables},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def look(self, driver: subprocess.Popen[bytes]) -> list[Process]:
        """What the driver has started, to be seen gone later."""
        family = descendants(driver.pid)
        self.seen.update(family)
        return family

    def left(self) -> list[Process]:
        """What still runs of all that any driver started; a zombie counts too."""
        return [*filter(lambda process: process.state, self.seen), *with_variable("TMPDIR", str(self.tmp))]

    def close(self) -> None:
        for process in self.left():
            if process.state:
                os.kill(process.pid, signal.SIGKILL)
        shutil.rmtree(self.tmp, ignore_errors=True)


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


def test_nothing_is_lost_and_nothing_stays_behind_whatever_is_killed(tmp_path: Path, place: Place) -> None:
    rng = random.Random(20)
    memory = {path.name for path in Path("/dev/shm").iterdir()}
    kills: list[Kill] = []
    try:
        for number in range(KILLS):  # far too many: each sweep takes several kills
            if len(kills) < KILLS:
                sweep = tmp_path / f"sweep-{number}"
                sweep.mkdir()
                _sweep(place, sweep, kills, rng)
    finally:
        table = _table(kills)
        (tmp_path / "kills.txt").write_text(table)
        print(f"\n{table}")
    assert len(kills) == KILLS
    assert [lost for kill in kills for lost in kill.lost] == []
    assert abandoned_memory(memory) == []


def _sweep(place: Place, sweep: Path, kills: list[Kill], rng: random.Random) -> None:
    """One sweep, killed several times, or until it is complete; then resumed to its end and checked."""
    run_dir = sweep / "r"
    driver = place.start(sweep, "run", *SWEEP, f"seed={rng.randrange(1000)}", "--out", "r")
    mine: list[Kill] = []
    while len(mine) < KILLS_A_SWEEP and len(kills) < KILLS:
        kind = list(KINDS)[len(kills) % len(KINDS)]
        if not _moment(driver, run_dir, kind, rng):
            break
        kill = _kill(place, driver, run_dir, kind, rng)
        if kill is None:
            break
        mine.append(kill)
        kills.append(kill)
        if KINDS[kind] is not None:
            _see_gone(place, sweep)
            driver = place.start(sweep, "resume", "r")
    code = _wait(driver, sweep)
    assert code == 0, f"the driver ended with {code}: {_log(sweep)}"
    _see_gone(place, sweep)
    assert [path.name for path in place.tmp.iterdir() if not path.name.startswith("torchinductor_")] == []
    _check(run_dir, _truth(sweep), mine)


def _moment(driver: subprocess.Popen[bytes], run_dir: Path, kind: str, rng: random.Random) -> bool:
    """Wait until the journal has grown by some lines, and a little longer; False if the driver has ended by then."""
    path = run_dir / journal.FILE_NAME
    lines = lambda: path.read_bytes().count(b"\n") if path.exists() else 0  # noqa: E731
    if lines() and KINDS[kind] == -9 and rng.random() < 0.25:  # at its start as well, before it writes anything
        time.sleep(rng.uniform(0, 5))
        return driver.poll() is None
    wanted, deadline = lines() + rng.randint(1, 16), time.monotonic() + PATIENCE_S
    while driver.poll() is None and lines() < wanted:
        assert time.monotonic() < deadline, f"the run stands still: {_log(run_dir.parent)}"
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.5))
    return driver.poll() is None


def _kill(place: Place, driver: subprocess.Popen[bytes], run_dir: Path, kind: str, rng: random.Random) -> Kill | None:
    """Do it, and see the driver end as it should; None if the driver ended before."""
    family, deadline = place.look(driver), time.monotonic() + PATIENCE_S
    if kind in VICTIMS:
        while not (found := [process for process in family if VICTIMS[kind].search(process.command)]):
            assert time.monotonic() < deadline, f"there is no {kind}: {_log(run_dir.parent)}"
            if driver.poll() is not None:
                return None
            time.sleep(0.05)
            family = place.look(driver)
        os.kill(rng.choice(found).pid, signal.SIGKILL)
    elif kind == "SIGINT":
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    else:
        driver.kill()
    path, start = run_dir / journal.FILE_NAME, time.monotonic()
    kill = Kill(kind, _rows(path))
    if KINDS[kind] is None:
        return kill
    code = _wait(driver, run_dir.parent)
    kill.gone_s = time.monotonic() - start
    if code == 0:  # it had come to its end just then
        return None
    assert code == KINDS[kind], f"{kind}: the driver ended with {code}: {_log(run_dir.parent)}"
    if kind == "torn line":
        _tear(path, rng)
        kill.rows = _rows(path)
    return kill


def _tear(path: Path, rng: random.Random) -> None:
    """A last line that was not written to its end: half of one more, or the last one without its end, or newline."""
    data = path.read_bytes()
    last = data.splitlines()[-1]
    if rng.random() < 0.4 or data.count(b"\n") < 2:  # without its first line a journal is none
        path.write_bytes(data + last[: rng.randint(1, 40)])
    else:
        os.truncate(path, len(data) - rng.choice([1, rng.randint(2, len(last))]))


def _wait(driver: subprocess.Popen[bytes], sweep: Path) -> int:
    try:
        return driver.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the driver does not end: {_log(sweep)}") from None


def _see_gone(place: Place, sweep: Path) -> None:
    """The driver has ended: so does all that it started, and its folders but one, which the next driver clears away."""
    deadline = time.monotonic() + PATIENCE_S
    while left := place.left():
        assert time.monotonic() < deadline, f"{[(p, p.state, p.command) for p in left]} live on: {_log(sweep)}"
        time.sleep(0.05)
    place.seen.clear()
    assert len(list(place.tmp.glob("hpo_ray-*"))) <= 1


def _check(run_dir: Path, truth: dict[tuple[str, int, float], tuple[float, float]], kills: list[Kill]) -> None:
    """What the library loads, against the journal as it was at each kill, and against the trials' own record."""
    trials = hpo_ray.load_results(run_dir)
    assert list(trials["trial_id"]) == [f"{number:04d}" for number in range(TRIALS)]
    assert trials["config_id"].is_unique
    assert set(trials["status"]) <= {"completed", "stopped"}
    reports = hpo_ray.load_results(run_dir, level="reports")
    assert not reports.duplicated(["trial_id", "fidelity"]).any()
    loaded: Rows = {}
    for row in reports.itertuples():
        loaded[row.trial_id, row.fidelity] = (row.val_error, row.val_loss)
        assert truth[row.trial_id, row.attempt, row.fidelity] == (row.val_error, row.val_loss)
    for kill in kills:
        kill.lost = [
            f"{kind} of trial {trial}, epoch {epoch:g}: {loaded.get((trial, epoch))} instead of {values}"
            for kind, (trial, epoch), values in ((kill.kind, *row) for row in kill.rows.items())
            if loaded.get((trial, epoch)) != values
        ]
    # A trial that starts again from its checkpoint measures the same again.
    by_epoch: dict[tuple[str, float], set[tuple[float, float]]] = {}
    for (trial, _, epoch), values in truth.items():
        by_epoch.setdefault((trial, epoch), set()).add(values)
    assert {key: values for key, values in by_epoch.items() if len(values) > 1} == {}
    assert journal.read(run_dir).damaged == 0
    assert {path.name for path in run_dir.iterdir()} == {"events.jsonl", "snapshot.json", "trials"}
    assert len(list(run_dir.glob("trials/*/attempt-*/checkpoint-*"))) <= KEPT
    assert list(run_dir.glob("trials/*/attempt-*/.partial-*")) == []


def _rows(path: Path) -> Rows:
    """The reports in a journal's whole lines, read without the library."""
    rows: Rows = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "trial_reported":
            metrics = event["metrics"]
            rows[event["trial_id"], event["fidelity"]] = (metrics["val_error"], metrics["val_loss"])
    return rows


def _truth(sweep: Path) -> dict[tuple[str, int, float], tuple[float, float]]:
    lines = [json.loads(line) for line in (sweep / "truth.jsonl").read_text().splitlines()]
    truth = {(e["trial_id"], e["attempt"], float(e["epoch"])): (e["val_error"], e["val_loss"]) for e in lines}
    assert len(truth) == len(lines), "an attempt's number was given twice"
    return truth


def _log(sweep: Path) -> str:
    return (sweep / "output.log").read_text()[-3000:]


def _table(kills: list[Kill]) -> str:
    lines = [f"{'killed':<12}{'kills':>8}{'rows before':>14}{'lost':>8}{'gone after, s':>16}"]
    for kind in [*KINDS, "all"]:
        some = [kill for kill in kills if kind in (kill.kind, "all")]
        ends = [kill.gone_s for kill in some if kill.gone_s]
        gone = f"{min(ends):.1f}–{max(ends):.1f}" if ends else "lives on"
        rows, lost = sum(len(kill.rows) for kill in some), sum(len(kill.lost) for kill in some)
        lines.append(f"{kind:<12}{len(some):>8}{rows:>14}{lost:>8}{gone:>16}")
    return "\n".join(lines) + "\n"
