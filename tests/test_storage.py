"""A run kept at a URI: mirrored, read from there, taken up again from there on another machine; outages delay it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpo_ray
from hpo_ray import journal, lock, runner
from hpo_ray.errors import InvalidInput
from hpo_ray.history import History
from hpo_ray.journal import Event, Journal
from hpo_ray.keeper import Keeper
from hpo_ray.results.frame import load_results
from hpo_ray.storage import address, carrying, holding, mirror
from hpo_ray.storage.failures import Unreachable
from hpo_ray.storage.mirror import Copier
from hpo_ray.storage.store import Store
from hpo_ray.trainables import checkpoints
from tests.sweeps import Command, Listener, events_of, experiment, resume, told, wait_for, written

EPOCHS = 8
OBJECTIVE = f"""
import time
def train(config, trial):
    def save(folder):
        (folder / 'epoch').write_text(str(epoch))
    saved = trial.load_checkpoint()
    for epoch in range(1 + (int((saved / 'epoch').read_text()) if saved else 0), {EPOCHS} + 1):
        time.sleep(0.15)
        trial.report(epoch=epoch, loss=config['x'] / epoch, checkpoint=save)
"""
MINE = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)", "fidelity=epoch", "slots=2"]


def saving(epochs: int = 4, pause_s: float = 0.0) -> Callable[[dict[str, Any], hpo_ray.Trial], None]:
    """Epochs with a checkpoint each. Travels by value, as from a notebook."""

    def train(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        def save(folder: Path) -> None:
            (folder / "epoch").write_text(str(epoch))

        saved = trial.load_checkpoint()
        for epoch in range(1 + (int((saved / "epoch").read_text()) if saved else 0), epochs + 1):
            time.sleep(pause_s)
            trial.report(epoch=epoch, loss=config["x"] / epoch, checkpoint=save)

    return train


def same_frames(one: str | Path, other: str | Path) -> None:
    for level in ("trials", "reports", "cost"):
        pd.testing.assert_frame_equal(load_results(one, level=level), load_results(other, level=level))


# The words


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/folder?endpoint_override=127.0.0.1:9000&scheme=http", ""),
        ("gs://anonymous@bucket/folder", ""),
        ("file:///nfs/runs", ""),
        ("/nfs/runs", "file:///nfs/runs"),
        ("s4://bucket", "there is no 's4'"),
        ("s3:///folder", "names no bucket"),
        ("file://nfs/runs", "three slashes"),
        ("s3://AKIA:hidden@bucket/folder", "from the environment"),
        ("abfs://box:hidden@account.dfs.core.windows.net/x", "from the environment"),
        ("s3://bucket/folder?secret_key=hidden", "from the environment"),
    ],
)
def test_a_uri_is_checked_and_no_password_is_told(uri: str, expected: str) -> None:
    wrong = address.problem_of(uri)
    assert expected in wrong
    assert bool(expected) == bool(wrong)
    assert "hidden" not in wrong


def test_names_go_before_the_options() -> None:
    uri = address.join("s3://bucket/folder/?region=x", "run")
    assert uri == "s3://bucket/folder/run?region=x"
    assert address.split(uri) == ("s3://bucket/folder?region=x", "run")
    assert address.shown("s3://me:hidden@bucket/folder?region=x") == "s3://bucket/folder"


def test_what_cannot_be_written_to_is_refused_before_anything_starts(
    in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "my.py").write_text(OBJECTIVE)
    (in_tmp / "file").write_text("")
    code, _, err = told(capfd, "run", *MINE, f"storage.uri=file://{in_tmp}/file/x")
    assert code == 2
    assert "storage.uri" in err
    assert "cannot be reached" in " ".join(err.split())
    code, _, err = told(capfd, "run", *MINE, "storage.uri=s3://AKIA:hidden@bucket/x")
    assert code == 2
    assert "environment" in err
    assert "hidden" not in err
    assert not list(in_tmp.glob("runs/*"))


# Its parts


def test_a_checkpoint_travels_whole_or_not_at_all(tmp_path: Path) -> None:
    store, name = Store(f"file://{tmp_path}/store"), "trials/0000/attempt-0/checkpoint-1"

    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "w").write_bytes(bytes(range(256)))

    made = checkpoints.save(tmp_path / "here/trials/0000/attempt-0", 1.0, write)
    carrying.push(store, name, made)
    assert holding.checkpoints(store) == [name]
    there = tmp_path / "there" / name
    assert carrying.pull(store, name, there)
    assert checkpoints.verify(there) == ""
    (there / "inner" / "w").write_bytes(b"")
    assert carrying.pull(store, name, there)
    assert checkpoints.verify(there) == ""
    (there / "inner" / "w").write_bytes(bytes(256))  # as long as it was
    assert carrying.pull(store, name, there)
    assert checkpoints.verify(there) == ""
    (tmp_path / "store" / name / "inner" / "w").unlink()
    assert not carrying.pull(store, name, tmp_path / "third/checkpoint-1")
    (tmp_path / "store" / name / ".complete.json").write_text('{"fidelity": 1, "files": {"../../w": [0, 0]}}')
    assert not carrying.pull(store, name, tmp_path / "third/checkpoint-1")
    assert not list((tmp_path / "third").glob("*"))
    store.delete(name, first=carrying.MANIFEST)
    store.delete(name, first=carrying.MANIFEST)
    assert store.files("trials") == []


FETCH = """
import sys, time
from pathlib import Path
from hpo_ray.storage import carrying
from hpo_ray.storage.store import Store

uri, name, here, rounds = *sys.argv[1:4], int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    folder = Path(here) / str(number) / "checkpoint-1"
    assert carrying.pull(Store(uri), name, folder), number
    assert [len((folder / f"{k}").read_bytes()) for k in range(6)] == [200_000] * 6
    time.sleep(0.005)
"""


def test_processes_that_fetch_the_same_checkpoint_leave_it_to_each_other(tmp_path: Path) -> None:
    name = "trials/0000/attempt-0/checkpoint-1"

    def write(folder: Path) -> None:
        for number in range(6):
            (folder / str(number)).write_bytes(bytes(200_000))

    made = checkpoints.save(tmp_path / "made", 1.0, write)
    carrying.push(Store(f"file://{tmp_path}/store"), name, made)
    command = [sys.executable, "-c", FETCH, f"file://{tmp_path}/store", name, str(tmp_path / "here"), "40"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    fetching = [subprocess.Popen(command, env=environment, **pipe) for _ in range(3)]
    for process in fetching:
        process.stdout.readline()
    for process in fetching:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in fetching] == [""] * 3


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Copier, Path, Path, list[str]]:
    """A copier of a small journal, its run's folder, its store's folder and what it says."""
    run_dir, said = tmp_path / "r", list[str]()
    run_dir.mkdir()
    (run_dir / journal.FILE_NAME).write_text("one\n")
    (run_dir / lock.FILE_NAME).write_text(json.dumps(asdict(lock.myself())))
    return Copier(run_dir, Store(f"file://{tmp_path}/store/r"), said.append), run_dir, tmp_path / "store" / "r", said


def test_only_whole_lines_are_copied_and_a_checkpoint_goes_after_the_reason(
    copied: tuple[Copier, Path, Path, list[str]],
) -> None:
    copier, run_dir, there, said = copied
    doomed = there / "trials/0000/attempt-0/checkpoint-1"
    doomed.mkdir(parents=True)
    copier.step()
    assert (there / journal.FILE_NAME).read_text() == "one\n"
    copier.condemn("trials/0000/attempt-0/checkpoint-1")
    copier.step()
    assert doomed.exists()  # the next copy is not due yet
    with (run_dir / journal.FILE_NAME).open("a") as file:
        file.write("two\nthr")
    copier.step(now=True)
    assert (there / journal.FILE_NAME).read_text() == "one\ntwo\n"
    assert not doomed.exists()
    assert copier.complete  # a killed driver's torn line is never ended
    assert said == []


def test_an_outage_and_its_end_are_told_once(copied: tuple[Copier, Path, Path, list[str]]) -> None:
    copier, run_dir, there, said = copied
    copier.step()
    shutil.rmtree(there)
    there.write_text("in the way")
    with (run_dir / journal.FILE_NAME).open("a") as file:
        file.write("two\n")
    for _ in range(3):
        copier.step(now=True)
    there.unlink()
    copier.step(now=True)
    assert [next(word for word in ("cannot be reached", "is back") if word in line) for line in said] == [
        "cannot be reached",
        "is back",
    ]
    assert "nothing is lost" in said[0]
    assert (there / journal.FILE_NAME).read_text() == "one\ntwo\n"


def test_a_driver_whose_run_was_taken_over_writes_no_more_and_ends(
    copied: tuple[Copier, Path, Path, list[str]],
) -> None:
    copier, run_dir, there, said = copied
    copier.step()
    (there / lock.FILE_NAME).write_text(json.dumps(asdict(replace(lock.myself(), host="elsewhere", pid=1))))
    (run_dir / journal.FILE_NAME).write_text("one\ntwo\n")
    copier.step(now=True)
    copier.release()
    assert copier.superseded
    assert "elsewhere" in said[0]
    assert lock.take_stop_request(run_dir)
    assert (there / journal.FILE_NAME).read_text() == "one\n"
    assert (there / lock.FILE_NAME).exists()


@pytest.mark.parametrize("longer", ["one\nelse\nwhere\n", "one\nelse", "other\n"])
def test_a_woken_driver_leaves_a_run_alone_that_was_ended_elsewhere(
    copied: tuple[Copier, Path, Path, list[str]], longer: str
) -> None:
    copier, run_dir, there, said = copied
    copier.step()
    doomed = there / "trials/0000/attempt-0/checkpoint-1"
    doomed.mkdir(parents=True)
    # While it slept another driver took the run over, ended it, and gave its lock up.
    (there / lock.FILE_NAME).unlink()
    (there / journal.FILE_NAME).write_text(longer)
    (run_dir / journal.FILE_NAME).write_text("one\ntwo\n")
    copier.condemn("trials/0000/attempt-0/checkpoint-1")
    copier.step(now=True)
    copier.release()
    assert copier.superseded
    assert (there / journal.FILE_NAME).read_text() == longer
    assert doomed.exists()
    assert not (there / lock.FILE_NAME).exists()
    assert len(said) == 1
    assert "went on elsewhere" in said[0]
    assert lock.take_stop_request(run_dir)
    # The one that has the lock replaces nothing either that it did not write.
    with pytest.raises(InvalidInput, match="went on elsewhere"):
        holding.claim(f"file://{there}", run_dir)
    with pytest.raises(InvalidInput, match="went on elsewhere"):
        holding.catch_up(f"file://{there}", run_dir, [])
    assert (there / journal.FILE_NAME).read_text() == longer


def test_a_lock_that_is_lost_is_written_again_while_nobody_has_gone_on(
    copied: tuple[Copier, Path, Path, list[str]],
) -> None:
    copier, run_dir, there, said = copied
    copier.step()
    (there / lock.FILE_NAME).unlink()
    (run_dir / journal.FILE_NAME).write_text("one\ntwo\n")
    copier.step(now=True)
    assert (there / lock.FILE_NAME).read_bytes() == (run_dir / lock.FILE_NAME).read_bytes()
    assert (there / journal.FILE_NAME).read_text() == "one\ntwo\n"
    assert not copier.superseded
    assert said == []


def test_what_is_brought_is_added_and_replaces_nothing(tmp_path: Path) -> None:
    uri, there, mine = f"file://{tmp_path}/store/r", tmp_path / "store" / "r", tmp_path / "mine"
    there.mkdir(parents=True)
    (there / journal.FILE_NAME).write_text("one\ntwo\n")
    mine.mkdir()
    (mine / journal.FILE_NAME).write_text("one\n")
    with Journal(mine), pytest.raises(InvalidInput, match="is still running"):
        holding.bring(uri, mine)
    holding.bring(uri, mine)
    assert (mine / journal.FILE_NAME).read_text() == "one\ntwo\n"
    (mine / journal.FILE_NAME).write_text("one\ntwo\nthree\n")
    holding.bring(uri, mine)
    assert (mine / journal.FILE_NAME).read_text() == "one\ntwo\nthree\n"
    (mine / journal.FILE_NAME).write_text("three\n")
    with pytest.raises(InvalidInput, match="holds another run"):
        holding.bring(uri, mine)
    assert (mine / journal.FILE_NAME).read_text() == "three\n"


@pytest.mark.parametrize("again", [(0.5,), ()])
def test_a_mirror_that_is_killed_is_started_again_at_the_latest_when_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: tuple[float, ...]
) -> None:
    monkeypatch.setattr(mirror, "AGAIN_S", again)
    there = tmp_path / "store" / "r"
    forgotten = [f"trials/0000/attempt-0/checkpoint-{number}" for number in range(mirror.MANY + 5)]

    def kill() -> int:
        process = kept._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        return process.pid

    def has(text: str) -> bool:
        return (there / journal.FILE_NAME).exists() and (there / journal.FILE_NAME).read_text() == text

    with Journal(tmp_path / "r") as log, lock.Lock(tmp_path / "r"):
        log.path.write_text("one\n")
        kept = mirror.Mirror(tmp_path / "r", f"file://{there}")
        wait_for(lambda: has("one\n"))
        killed = kill()
        for path in forgotten:
            (there / path).mkdir(parents=True)
            (there / path / "w").write_text("")
            kept.forget(path)
        log.path.write_text("one\ntwo\n")
        said = kept.messages.get(timeout=30)
        assert "was killed by signal 9" in said
        assert ("is started again" in said) == bool(again)
        if again:
            wait_for(lambda: has("one\ntwo\n"))
            assert kill() != killed
            assert "tried again when the run ends" in kept.messages.get(timeout=30)
        log.path.write_text("one\ntwo\nthree\n")
        kept.close(lambda: None)
    assert has("one\ntwo\nthree\n")
    assert kept.messages.empty()
    assert Store(f"file://{there}").files("trials") == []
    assert not (there / lock.FILE_NAME).exists()


def test_a_run_whose_driver_lives_elsewhere_is_not_taken_up(tmp_path: Path) -> None:
    uri, there = f"file://{tmp_path}/store/r", tmp_path / "store" / "r"
    there.mkdir(parents=True)
    (there / journal.FILE_NAME).write_text("")
    living = there / lock.FILE_NAME
    living.write_text(json.dumps(asdict(replace(lock.myself(), host="elsewhere", pid=1))))
    os.utime(living, (time.time() - 40,) * 2)
    with pytest.raises(InvalidInput, match=r"is still running .*elsewhere.* its lock runs out in (1\d|20) s"):
        holding.bring(uri, tmp_path / "mine")
    # So it is with another container of this machine's name, whose numbers are its own.
    living.write_text(json.dumps(asdict(replace(lock.myself(), machine="elsewhere", pid=1))))
    with pytest.raises(InvalidInput, match=r"is still running .* its lock runs out in \d+ s"):
        holding.bring(uri, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    long_ago = time.time() - lock.SILENCE_S - 1
    os.utime(living, (long_ago, long_ago))
    assert holding.bring(uri, tmp_path / "mine") == tmp_path / "mine"


def _tried(log: Journal, trial: str, loss: float) -> None:
    log.append("trial_suggested", trial_id=trial, config={"x": loss / 4}, config_id=trial)
    log.append("trial_started", trial_id=trial, attempt=0)
    log.append(
        "trial_reported", trial_id=trial, attempt=0, fidelity=1.0, elapsed_s=1.0, metrics={"epoch": 1.0, "loss": loss}
    )
    log.append("trial_ended", trial_id=trial, attempt=0, status="completed")


def test_a_run_from_a_uri_does_not_join_what_its_journal_names(tmp_path: Path) -> None:
    uri, there, mine = f"file://{tmp_path}/store/r", tmp_path / "store" / "r", tmp_path / "mine"
    with socket.create_server(("127.0.0.1", 0)) as strange, Journal(there) as log:
        named = f"127.0.0.1:{strange.getsockname()[1]}"
        strange.setblocking(False)
        plan = experiment({"x": "uniform(0, 1)"}, "trials=2").model_dump()
        plan["ray"]["address"], plan["slots"] = named, 10_000
        log.append("run_started", experiment=plan, environment={})
        # Neither at once, nor when it lies here and has not gone on.
        for run in (uri, mine):
            with pytest.raises(
                InvalidInput, match=rf"slots: (?s:.*)ray\.address: '{named}' .* ray\.address={named} joins it"
            ):
                runner.resume(run, objective=saving(), out=mine if run == uri else None)
        with pytest.raises(BlockingIOError):
            strange.accept()
        assert holding.is_brought(mine)
        with pytest.raises(InvalidInput, match=r"nothing answers at '127\.0\.0\.1:1'") as caught:
            runner.resume(uri, objective=saving(), out=mine, overrides=["ray.address=127.0.0.1:1"])
        assert len(caught.value.problems) == 1
        with Journal(mine) as ours:  # enough for a race
            _tried(ours, "0000", 1.0)
            _tried(ours, "0001", 2.0)
        (mine / ".brought").write_text(str((mine / journal.FILE_NAME).stat().st_size))
        with pytest.raises(InvalidInput, match=rf"ray\.address: '{named}' .*null takes this machine"):
            hpo_ray.confirm(mine, saving(), top=2)
        with Journal(mine) as ours:
            ours.append("run_started", experiment=plan, environment={})
        assert not holding.is_brought(mine)


# Whole sweeps


@pytest.mark.usefixtures("ray_here")
def test_a_run_is_kept_at_a_uri_and_goes_on_from_there_in_another_folder(tmp_path: Path) -> None:
    base = f"file://{tmp_path}/store"
    rules = ["trials=3", "storage.keep_checkpoints=2", f"storage.uri={base}"]
    plan = experiment({"x": "uniform(0, 1)"}, *rules)
    run = runner.start(plan, objective=saving(), out=tmp_path / "a" / "r")
    there = Store(f"{base}/r")
    assert (tmp_path / "store/r" / journal.FILE_NAME).read_bytes() == (run.run_dir / journal.FILE_NAME).read_bytes()
    assert set(holding.checkpoints(there)) == run.checkpoints != set()
    assert not (tmp_path / "store/r" / lock.FILE_NAME).exists()
    same_frames(f"{base}/r", run.run_dir)
    with pytest.raises(InvalidInput, match="already holds a run called 'r'"):
        runner.start(plan, objective=saving(), out=tmp_path / "other" / "r")
    # It is not over: its first trial was interrupted after two epochs, and the machine is gone.
    lines = (run.run_dir / journal.FILE_NAME).read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if '"trial_checkpointed"' in line and '"fidelity":2' in line)
    lines[0] = lines[0].replace('"address":null', '"address":"127.0.0.1:1"')  # … nor is the cluster that it was on
    (tmp_path / "store/r" / journal.FILE_NAME).write_text("".join(lines[: cut + 1]))
    shutil.rmtree(run.run_dir)
    path = json.loads(lines[cut])["path"]
    made = checkpoints.save(tmp_path / "x" / Path(path).parent, 2.0, lambda folder: _two(folder))
    carrying.push(there, path, made)
    with pytest.warns(UserWarning, match=r"ray\.address=127\.0\.0\.1:1 joins it; the run goes on on this machine"):
        again = hpo_ray.resume(f"{base}/r", saving(), out=tmp_path / "b" / "r")
    assert again.path == tmp_path / "b" / "r"
    assert again.frame()["status"].tolist() == ["completed"] * 3
    since = [
        event.get("since") for event in events_of(again.path, "trial_reported", json.loads(lines[cut])["trial_id"])
    ]
    assert 2.0 in since  # the checkpoint came from the store
    same_frames(f"{base}/r", again.path)
    with pytest.raises(InvalidInput, match="leave it out"):
        resume(again.path, saving(), out=tmp_path / "c")
    # A place that it gets later has all of it.
    moved = resume(again.path, saving(), f"storage.uri=file://{tmp_path}/later", add_trials=1)
    same_frames(f"file://{tmp_path}/later/r", again.path)
    assert set(holding.checkpoints(Store(f"file://{tmp_path}/later/r"))) == moved.checkpoints


def _two(folder: Path) -> None:
    (folder / "epoch").write_text("2")


@pytest.mark.usefixtures("ray_here")
def test_an_outage_delays_a_sweep_and_loses_nothing(tmp_path: Path) -> None:
    place, aside = tmp_path / "store", tmp_path / "aside"

    def away() -> None:
        time.sleep(6)
        place.unlink()
        aside.rename(place)

    def go_away(event: Event, history: History) -> None:
        if event["event"] == "trial_reported" and event["fidelity"] == 2 and not aside.exists() and not gone:
            place.rename(aside)
            place.write_text("in the way")
            gone.append(threading.Thread(target=away))
            gone[0].start()

    gone: list[threading.Thread] = []
    listener = Listener(go_away)
    plan = experiment({"x": "uniform(0, 1)"}, "trials=2", f"storage.uri=file://{place}")
    run = runner.start(plan, objective=saving(4, 0.05), out=tmp_path / "r", listener=listener)
    assert run.count("completed") == 2
    assert all(trial.attempt == 0 for trial in run.trials.values())
    waits = [note for note in listener.notes if " waits: storage " in note]
    assert waits
    assert all(note.endswith("once it can be it goes on") for note in waits)
    same_frames(f"file://{place}/r", run.run_dir)
    assert set(holding.checkpoints(Store(f"file://{place}/r"))) == run.checkpoints


# S3


class Proxy:
    """A TCP proxy that can be closed, which ends what goes through it, and opened again at the same port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._pipes: list[socket.socket] = []
        self._server: socket.socket | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def close(self) -> None:
        server, self._server = self._server, None
        for one in [*([server] if server else []), *self._pipes]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._pipes.clear()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pipes += [near, far]
                if self._server is not server:
                    self.close()
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := one.recv(1 << 16):
                other.sendall(block)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Proxy]]:
    """A URI with an empty bucket behind a proxy, and the proxy; credentials are in the environment."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask_cors") is None:
        pytest.skip("there is no S3 server here: pip install 'moto[server]'")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "not-to-be-told",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        proxy = Proxy(port)
        options = f"endpoint_override=127.0.0.1:{proxy.port}&scheme=http"
        from pyarrow.fs import FileSystem

        system, _ = FileSystem.from_uri(f"s3://runs?{options}&allow_bucket_creation=true")
        system.create_dir("runs")
        yield f"s3://runs/mine?{options}", proxy
        proxy.close()
    finally:
        server.kill()
        server.wait()


def under_way(command: Command) -> bool:
    assert command.process.poll() is None, command.err
    return True


@pytest.mark.slow
@pytest.mark.parametrize("outage_s", [5, 30])
def test_s3_a_killed_sweep_goes_on_on_another_machine_through_an_outage(
    in_tmp: Path, s3: tuple[str, Proxy], outage_s: int
) -> None:
    uri, proxy = s3
    place = address.join(uri, "r")
    store = Store(place)
    (in_tmp / "my.py").write_text(OBJECTIVE)
    first, second = in_tmp / "a" / "r", in_tmp / "b" / "r"
    options = ["trials=5", "searcher=random", f"storage.uri={uri}", "--out", str(first), "--quiet"]
    with Command("run", *MINE, *options) as command:
        wait_for(lambda: under_way(command) and written(first, "trial_checkpointed") >= EPOCHS + 4)
        with pytest.raises(InvalidInput, match="is still running"):
            holding.bring(place, second)
        command.process.kill()
        command.process.wait()
        before = written(first, "trial_reported")
        wait_for(lambda: store.changed(lock.FILE_NAME) is None)  # what was left is copied, and the lock given up
    shutil.rmtree(first)
    assert len(load_results(place, level="reports")) == before  # not one report is lost with the machine
    with Command("resume", place, "--out", str(second)) as command:
        wait_for(lambda: under_way(command) and written(second, "trial_checkpointed") >= before + 3)
        proxy.close()
        with pytest.raises(Unreachable):
            store.read(journal.FILE_NAME)
        time.sleep(outage_s)
        assert command.process.poll() is None
        at_rest = written(second, "trial_reported")
        proxy.open()
        assert command.end() == 0, command.err
        told = " ".join((command.out + command.err).split())
    assert "not-to-be-told" not in told + (second / journal.FILE_NAME).read_text()
    assert "waits: storage" in told
    if outage_s > 20:
        assert told.count("it is tried again, nothing is lost") == 1
        assert told.count("is back after") == 1
        assert at_rest < 5 * EPOCHS
    same_frames(place, second)
    trials = load_results(place)
    assert trials["status"].tolist() == ["completed"] * 5
    reports = load_results(place, level="reports")
    assert reports.groupby("trial_id", observed=True)["fidelity"].apply(list).tolist() == [[*range(1, EPOCHS + 1)]] * 5
    again = [event for event in events_of(second, "trial_reported") if "since" in event]
    assert again  # what had begun went on from checkpoints that only the bucket had
    assert all(event["attempt"] > 0 for event in again)
    assert not any(trial.attempt > 1 for trial in _history(second).trials.values())
    run = _history(second)
    Keeper(run, 5).clear()
    assert set(holding.checkpoints(store)) == run.checkpoints != set()
    assert store.changed(lock.FILE_NAME) is None


def _history(run_dir: Path) -> History:
    from hpo_ray import history

    return history.load(run_dir)
