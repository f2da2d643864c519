"""MLflow's client reads what we wrote for it: a run a trial, each point once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hpo_ray import history
from hpo_ray.errors import InvalidInput
from hpo_ray.loggers import tracking
from hpo_ray.loggers.exporting import export
from hpo_ray.loggers.follower import Follower
from tests.loggers.journals import BEGAN, lines_of, no_failure, sweep, write

for package in ("mlflow", "sqlalchemy", "alembic"):
    pytest.importorskip(package, reason="the extra 'mlflow' is not installed")


LINES = lines_of(sweep())


def client(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def runs_of(folder: Path, name: str = "a") -> dict[str, Any]:
    """Trial -> MLflow's run."""
    mlflow = client(folder)
    found = mlflow.search_runs([mlflow.get_experiment_by_name(name).experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found)
    return runs


def contents(folder: Path) -> dict[str, Any]:
    mlflow = client(folder)
    told = {}
    for name, run in runs_of(folder).items():
        points = {
            metric: [
                (point.step, "nan" if math.isnan(point.value) else point.value, point.timestamp)
                for point in sorted(mlflow.get_metric_history(run.info.run_id, metric), key=lambda point: point.step)
            ]
            for metric in run.data.metrics
        }
        about = (run.info.status, run.info.start_time, run.info.end_time, run.data.params, run.data.tags)
        told[name] = (*about, points)
    return told


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write(tmp_path_factory.mktemp("runs") / "a", LINES)
    export(run_dir, "mlflow")
    return run_dir


def test_each_trial_is_a_run_with_the_points_that_count(exported: Path) -> None:
    run, told = history.load(exported), contents(exported / "mlflow")
    assert told.keys() == run.trials.keys()
    for trial in run.trials.values():
        _, start, end, params, tags, points = told[trial.trial_id]
        wanted: dict[str, list[tuple[int, Any, int]]] = {}
        for row in trial.reports:
            for name, value in row.metrics.items():
                point = (int(row.fidelity), "nan" if math.isnan(value) else value, round(row.time * 1000))
                wanted.setdefault(name, []).append(point)
        wanted.pop("epoch", None)
        assert {name: found for name, found in points.items() if name != "loss_best"} == wanted
        assert (start, end) == (round(trial.started_at * 1000), round(trial.last_seen * 1000))
        assert tags["hpo_ray.status"] == trial.status
        assert tags["hpo_ray.config_id"] == trial.config_id
        assert tags.get("hpo_ray.reason", "") == trial.reason
        assert params.keys() == trial.config.keys()
    states = ["FINISHED", "FINISHED", "FINISHED", "FAILED", "FAILED", "FINISHED", "FAILED", "KILLED"]
    assert [told[trial_id][0] for trial_id in run.trials] == states
    assert told["0001"][3]["optimizer"] == "none"
    assert told["0000"][3]["layers"] == "[8, 16]"


def test_a_run_written_in_pieces_by_writers_that_died_is_the_same(exported: Path, tmp_path: Path) -> None:
    run_dir = write(tmp_path / "a", [])
    for cut in (5, 9, 22, 24, 36, len(LINES)):
        write(run_dir, LINES[:cut])
        sink = tracking.open_sink(str(run_dir / "mlflow"), patient=False)
        follower = Follower(run_dir, {"mlflow": sink}, no_failure)
        follower.step()  # and no more: it dies
        sink.close()
        if cut == 9:  # … half-way through a report
            mlflow, run = client(run_dir / "mlflow"), runs_of(run_dir / "mlflow")["0000"]
            mlflow.set_tag(run.info.run_id, "hpo_ray.written", "")
    assert contents(run_dir / "mlflow") == contents(exported / "mlflow")
    export(run_dir, "mlflow")
    assert contents(run_dir / "mlflow") == contents(exported / "mlflow")


def test_names_that_mlflow_refuses_are_made_fit(tmp_path: Path) -> None:
    events = sweep()[:3]
    odd = {"a<b": 1.0, "a>b": 2.0, "../up": 3.0, "x" * 300: 4.0, "": 5.0, "loss": 0.5}
    events[1]["config"] = {"a<b": 1, "long": "y" * 9000}
    events.append({"event": "trial_reported", "trial_id": "0000", "attempt": 0, "fidelity": 1, "elapsed_s": 0,
                   "metrics": odd})  # fmt: skip
    run_dir = write(tmp_path / "a", lines_of(events))
    export(run_dir, "mlflow", tmp_path / "there")
    [run] = runs_of(tmp_path / "there").values()
    assert sorted(run.data.metrics.values()) == [0.5, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert run.data.metrics["a_b"] == 1.0
    assert run.data.params["a_b"] == "1"


def test_another_runs_experiment_is_left_alone(exported: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "a", lines_of(sweep(), BEGAN + 1000))
    before = contents(exported / "mlflow")
    with pytest.raises(InvalidInput, match="experiment 'a' there is not of this run"):
        export(other, "mlflow", exported / "mlflow")
    assert contents(exported / "mlflow") == before
