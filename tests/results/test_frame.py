"""Frames from journals alone: pinned columns, right types, many runs, whatever state a run is in."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hpo_ray import history
from hpo_ray.errors import InvalidInput
from hpo_ray.journal import Journal
from hpo_ray.lock import Lock
from hpo_ray.results import load_results


def write_run(folder: Path, *, metric: str = "loss", mode: str = "min", live: bool = False, ended: bool = True) -> Path:
    """A run of four trials: completed, stopped at a rung, failed after NaN, still running."""
    experiment = {"metric": metric, "mode": mode, "trials": 4, "fidelity": "epoch", "seed": 0, "name": folder.name}
    with Journal(folder) as log:
        log.append("run_started", experiment=experiment, environment={})
        for number, values in enumerate([[0.9, 0.2, 0.3], [0.8], [0.7, math.nan], [0.6]]):
            trial_id = f"{number:04d}"
            config = {"lr": 0.1 * (number + 1), **({"momentum": 0.9} if number == 0 else {}), "layers": number}
            log.append("trial_suggested", trial_id=trial_id, config=config, config_id=f"c{number}", state={})
            log.append("trial_started", trial_id=trial_id, attempt=0, ray_id="x")
            for epoch, value in enumerate(values, 1):
                log.append(
                    "trial_reported",
                    trial_id=trial_id,
                    attempt=0,
                    fidelity=epoch,
                    elapsed_s=0.5 * epoch,
                    metrics={"epoch": epoch, metric: value},
                )
        log.append("rung_decided", trial_id="0001", attempt=0, rung=1, value=0.8, cutoff=0.5, kept=False)
        log.append("trial_ended", trial_id="0000", attempt=0, status="completed", reason="")
        log.append("trial_ended", trial_id="0001", attempt=0, status="stopped", reason="rung 1")
        log.append("trial_ended", trial_id="0002", attempt=0, status="failed", reason="nan", traceback="…")
        if ended:
            log.append("run_ended", status="completed", reason="")
    if live:
        Lock(folder)
    return folder


def test_columns_values_and_types_are_as_pinned(tmp_path: Path) -> None:
    trials = load_results(write_run(tmp_path / "r"))
    assert list(trials.columns) == [
        "run", "trial_id", "config_id", "status", "reason", "fidelity", "attempt", "started_at", "duration_s",
        "config/lr", "config/momentum", "config/layers", "epoch", "loss", "loss_best",
    ]  # fmt: skip
    assert list(trials["status"]) == ["completed", "stopped", "failed", "interrupted"]
    assert isinstance(trials["status"].dtype, pd.CategoricalDtype)
    assert list(trials["fidelity"]) == [3, 1, 2, 1]
    assert trials["loss"].tolist()[:2] == [0.3, 0.8]
    assert math.isnan(trials["loss"][2])
    assert trials["loss_best"].tolist() == [0.2, 0.8, 0.7, 0.6]
    assert trials["config/layers"].dtype.kind == "i"
    assert trials["config/momentum"].notna().tolist() == [True, False, False, False]
    assert trials["started_at"].dt.tz is not None
    assert (trials["duration_s"] >= 0).all()


def test_reports_have_a_row_each(tmp_path: Path) -> None:
    reports = load_results(write_run(tmp_path / "r"), level="reports")
    assert list(reports.columns) == ["run", "trial_id", "attempt", "fidelity", "elapsed_s", "epoch", "loss"]
    assert len(reports) == 7
    kinds = {name: reports[name].dtype.kind for name in ("attempt", "fidelity", "elapsed_s", "epoch", "loss")}
    assert kinds == {"attempt": "i", "fidelity": "f", "elapsed_s": "f", "epoch": "f", "loss": "f"}
    assert reports.query("trial_id == '0002'")["loss"].isna().tolist() == [False, True]


def test_maximised_metrics_have_their_best_at_the_top(tmp_path: Path) -> None:
    trials = load_results(write_run(tmp_path / "r", metric="accuracy", mode="max"))
    assert trials["accuracy_best"].tolist() == [0.9, 0.8, 0.7, 0.6]


def test_many_runs_with_other_metrics_are_one_frame(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/b", metric="accuracy", mode="max")
    write_run(tmp_path / "runs/a")
    trials = load_results(tmp_path / "runs/*")
    assert trials["run"].unique().tolist() == ["a", "b"]
    assert {"loss_best", "accuracy_best"} <= set(trials.columns)
    assert trials.query("run == 'b'")["loss"].isna().all()
    assert len(load_results(str(tmp_path / "runs" / "*"), level="reports")) == 14


@pytest.mark.parametrize(
    ("live", "ended", "status"), [(True, False, "running"), (False, False, "interrupted"), (False, True, "interrupted")]
)
def test_an_unfinished_trial_runs_only_while_its_driver_lives(
    tmp_path: Path, live: bool, ended: bool, status: str
) -> None:
    trials = load_results(write_run(tmp_path / "r", live=live, ended=ended))
    assert trials["status"].tolist()[-1] == status


def test_an_empty_run_is_an_empty_frame(tmp_path: Path) -> None:
    Journal(tmp_path / "r").close()
    for level in ("trials", "reports"):
        frame = load_results(tmp_path / "r", level=level)  # type: ignore[arg-type]
        assert len(frame) == 0
        assert "trial_id" in frame.columns


def test_a_run_with_no_reports_yet_has_its_trials(tmp_path: Path) -> None:
    with Journal(tmp_path / "r") as log:
        log.append("run_started", experiment={"metric": "loss", "mode": "min"}, environment={})
        log.append("trial_suggested", trial_id="0000", config={"x": 1}, config_id="c", state={})
    with Lock(tmp_path / "r"):
        assert load_results(tmp_path / "r")["status"].tolist() == ["pending"]
    trials = load_results(tmp_path / "r")
    assert trials["status"].tolist() == ["interrupted"]
    assert trials["attempt"].isna().all()
    assert trials["started_at"].isna().all()


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'trials'"):
        load_results(write_run(tmp_path / "r"), level="trial")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no run found"):
        load_results(tmp_path / "nothing/*")


def test_a_list_of_paths_is_one_frame_and_anything_else_is_named(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    found = load_results([str(b), a, tmp_path / "*"])
    assert found["run"].tolist() == ["b"] * 4 + ["a"] * 4
    assert history.load(str(a)).run_dir == a
    for wrong in (None, [], 3, [a, None]):
        with pytest.raises(InvalidInput, match="is no path: expected a run directory, a glob or a URI"):
            load_results(wrong)  # type: ignore[arg-type]


def test_loading_needs_no_ray_and_no_torch(tmp_path: Path) -> None:
    write_run(tmp_path / "r")
    code = (
        f"import sys, hpo_ray; hpo_ray.load_results({str(tmp_path / 'r')!r});"
        "assert not {'ray', 'torch', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_an_attempt_measures_again_is_one_row_and_late_reports_are_left_out(tmp_path: Path) -> None:
    with Journal(tmp_path / "r") as log:
        log.append("run_started", experiment={"metric": "loss", "mode": "min"}, environment={})
        log.append("trial_suggested", trial_id="0000", config={}, config_id="c", state={})
        for attempt, epochs in ((0, (1, 2, 3)), (1, (3, 4))):
            log.append("trial_started", trial_id="0000", attempt=attempt, ray_id="x")
            for epoch in epochs:
                since = {"since": 2} if (attempt, epoch) == (1, 3) else {}
                metrics = {"loss": 1.0 + attempt}
                about = {"trial_id": "0000", "attempt": attempt, "fidelity": epoch}
                log.append("trial_reported", **about, elapsed_s=1.0, metrics=metrics, **since)
        log.append("trial_reported", trial_id="0000", attempt=0, fidelity=4, elapsed_s=9.0, metrics={"loss": 0.0})
        log.append("run_ended", status="completed", reason="")
    reports = load_results(tmp_path / "r", level="reports")
    assert reports["attempt"].tolist() == [0, 0, 1, 1]
    assert reports["fidelity"].tolist() == [1, 2, 3, 4]
    run = history.load(tmp_path / "r")
    assert run.tally.total_fidelity == 5  # epochs trained: 3, then 3 and 4 once more
    best = run.best()
    assert best is not None
    assert best[1].metrics["loss"] == 1.0
