"""TensorBoard's own readers find in our files what the journal says, however often their writer died."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hpo_ray import history
from hpo_ray.errors import InvalidInput
from hpo_ray.loggers import event_files
from hpo_ray.loggers.exporting import export
from hpo_ray.loggers.follower import Follower
from tests.loggers.journals import BEGAN, EXPERIMENT, lines_of, no_failure, sweep, write

pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")


LINES = lines_of(sweep())


def accumulated(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("events.*")}


def hparams(folder: Path, tag: str) -> Any:
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = accumulated(folder).PluginTagToContent("hparams")[f"_hparams_/{tag}"]
    return plugin_data_pb2.HParamsPluginData.FromString(content)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write(tmp_path_factory.mktemp("runs") / "a", LINES)
    export(run_dir, "tensorboard")
    return run_dir


def test_each_trial_is_a_run_with_the_points_that_count(exported: Path) -> None:
    run = history.load(exported)
    folder = exported / "tensorboard"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(run.trials)
    for trial in run.trials.values():
        found = accumulated(folder / trial.trial_id)
        wanted: dict[str, list[tuple[int, float, float]]] = {}
        for row in trial.reports:
            for name, value in row.metrics.items():
                wanted.setdefault(name, []).append((int(row.fidelity), value, row.time))
        wanted.pop("epoch", None)  # it is the step
        assert set(found.Tags()["scalars"]) - {"loss_best"} == set(wanted)
        for name, points in wanted.items():
            told = [(point.step, point.value, point.wall_time) for point in found.Scalars(name)]
            assert told == [(step, pytest.approx(value, rel=1e-6, nan_ok=True), time) for step, value, time in points]
    best = [point.value for point in accumulated(folder / "0000").Scalars("loss_best")]
    assert best == pytest.approx([1, 1 / 2, 1 / 3, 1 / 3])


def test_hparams_has_the_space_and_each_trials_values(exported: Path) -> None:
    from tensorboard.plugins.hparams import api_pb2

    folder = exported / "tensorboard"
    made = hparams(folder, "experiment").experiment
    infos = {info.name: info for info in made.hparam_infos}
    assert list(infos) == list(EXPERIMENT["space"])
    assert (infos["lr"].domain_interval.min_value, infos["lr"].domain_interval.max_value) == (1e-4, 1e-1)
    assert list(infos["optimizer"].domain_discrete) == ["sgd", "adam", "none"]
    assert list(infos["layers"].domain_discrete) == ["[8]", "[8, 16]"]
    assert infos["flag"].type == api_pb2.DATA_TYPE_BOOL
    assert list(infos["sizes"].domain_discrete) == [16, 32, 64]
    assert list(infos["mixed"].domain_discrete) == ["1", "true", "1", "1.5"]  # text: they have no type in common
    assert [info.name.tag for info in made.metric_infos] == ["loss", "loss_best", "acc"]
    begun = hparams(folder / "0000", "session_start_info").session_start_info
    assert begun.group_name == "0000"
    again = hparams(folder / "0007", "session_start_info").session_start_info
    assert again.group_name == "0006"  # of the same configuration: one line of the tab
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in begun.hparams.items()}
    assert values == {"lr": 0.01, "width": 3, "keep": 0.3, "optimizer": "sgd", "momentum": 0.75, "layers": "[8, 16]",
                      "flag": True, "mixed": "1", "sizes": 32}  # fmt: skip
    values = hparams(folder / "0001", "session_start_info").session_start_info.hparams
    assert "momentum" not in values  # inactive there
    assert values["optimizer"].string_value == "none"
    statuses = {"0000": "SUCCESS", "0001": "SUCCESS", "0003": "FAILURE", "0004": "FAILURE"}
    for trial_id, status in statuses.items():
        ended = hparams(folder / trial_id, "session_end_info").session_end_info
        assert ended.status == getattr(api_pb2, f"STATUS_{status}")
    assert "_hparams_/session_end_info" not in accumulated(folder / "0007").PluginTagToContent("hparams")
    [said] = accumulated(folder / "0003").Tensors("trial")
    words = said.tensor_proto.string_val[0].decode()
    assert "- status: failed" in words
    assert "    RuntimeError: <b>no</b>" in words


def test_a_journal_cut_at_any_line_and_continued_gives_the_same_files(exported: Path, tmp_path: Path) -> None:
    wanted = contents(exported / "tensorboard")
    for cut in range(1, len(LINES)):
        run_dir = write(tmp_path / str(cut), LINES[:cut])
        export(run_dir, "tensorboard")
        # What its writer had begun when it died.
        for file in (run_dir / "tensorboard").rglob("events.*"):
            if cut % 3 == 0:
                file.write_bytes(file.read_bytes()[: -(cut % 40) or None])
        write(run_dir, LINES)
        export(run_dir, "tensorboard")
        assert contents(run_dir / "tensorboard") == wanted, cut


def test_following_a_journal_as_it_grows_gives_the_same_files(exported: Path, tmp_path: Path) -> None:
    run_dir = write(tmp_path / "a", [])
    sink = event_files.open_sink(str(run_dir / "tensorboard"), patient=False)
    follower = Follower(run_dir, {"tensorboard": sink}, no_failure)
    with (run_dir / "events.jsonl").open("ab", buffering=0) as file:
        for line in LINES:
            file.write(line[:9])
            follower.step()
            file.write(line[9:])
            follower.step()
    follower.step(to_end=True)
    follower.close()
    assert contents(run_dir / "tensorboard") == contents(exported / "tensorboard")


def test_fractions_of_an_epoch_are_told_apart(tmp_path: Path) -> None:
    events = sweep()[:4]
    for quarter in range(1, 6):
        metrics = {"epoch": quarter / 4, "loss": 1e300 / quarter}
        events.append({"event": "trial_reported", "trial_id": "0000", "attempt": 0, "fidelity": quarter / 4,
                       "elapsed_s": 0, "metrics": metrics})  # fmt: skip
    run_dir = write(tmp_path / "a", lines_of(events))
    export(run_dir, "tensorboard")
    points = accumulated(run_dir / "tensorboard" / "0000").Scalars("loss")
    assert [point.step for point in points] == [250, 500, 750, 1000, 1250]
    assert all(math.isinf(point.value) for point in points)  # more than a single holds


def test_a_place_is_one_runs_and_no_link(exported: Path, tmp_path: Path) -> None:
    target = tmp_path / "logs"
    assert export(exported, "tensorboard", target) == {str(exported): str(target / "a")}
    before = contents(target)
    assert before.keys() == {f"a/{name}" for name in contents(exported / "tensorboard")}
    other = write(tmp_path / "a", lines_of(sweep(), BEGAN + 1000))
    with pytest.raises(InvalidInput, match="holds another run"):
        export(other, "tensorboard", target)
    assert contents(target) == before
    (other / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(InvalidInput, match="is a link"):
        export(other, "tensorboard")
    (other / "tensorboard").unlink()
    (other / "tensorboard").mkdir()
    (tmp_path / "victim").write_text("mine")
    (other / "tensorboard" / "0000").mkdir()
    (other / "tensorboard" / "0000" / event_files.FILE_NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(InvalidInput, match="cannot be written"):
        export(other, "tensorboard")
    assert (tmp_path / "victim").read_text() == "mine"


def test_two_writers_do_not_write_at_a_time(exported: Path) -> None:
    sink = event_files.open_sink(str(exported / "tensorboard"), patient=False)
    with pytest.raises(InvalidInput, match="being written to by another process"):
        export(exported, "tensorboard")
    sink.close()
    export(exported, "tensorboard")


def test_a_journal_that_says_nothing_of_its_run_is_refused(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "a", LINES[1:4])
    with pytest.raises(InvalidInput, match="does not say what it is a run of"):
        export(run_dir, "tensorboard")
    with pytest.raises(InvalidInput, match="no run found"):
        export(tmp_path / "nothing", "tensorboard")
    assert json.loads(LINES[1])["event"] == "trial_suggested"
