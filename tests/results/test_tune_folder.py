"""Directories of plain Ray Tune: values as Ray's own loader has them, nothing unpickled."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hpo_ray.results import load_results
from hpo_ray.results.tables import COLUMNS
from tests.results.test_hostile import Trap


def objective(config: dict[str, Any]) -> None:
    from ray import tune

    for epoch in range(1, 6):
        extra = {"late": 1.5} if epoch > 3 else {}
        accuracy = math.nan if epoch == 2 else math.inf if epoch == 3 else config["x"]
        nested = {"a": epoch, "b": {"c": 2.5}}
        told = {
            "loss": config["x"] / epoch,
            "accuracy": accuracy,
            "good": epoch % 2 == 0,
            "note": "é",
            "nested": nested,
        }
        tune.report({**told, **extra})
        if epoch == 3 and config["net"]["layers"] == 2:
            raise ValueError("too deep")


@pytest.fixture(scope="module")
def made(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An experiment's directory and what Ray's own loader makes of it."""
    from ray import tune
    from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

    folder = tmp_path_factory.mktemp("tune")
    space = {
        "x": tune.grid_search([0.25, 0.5]),
        "net": {"layers": tune.grid_search([1, 2])},
        "name": tune.grid_search(["a", None]),
    }
    results = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(metric="loss", mode="min", reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder), name="plain", verbose=0, callbacks=[JsonLoggerCallback(), CSVLoggerCallback()]
        ),
    ).fit()
    return folder / "plain", results


def by_trial(frame: pd.DataFrame, trial_id: str) -> pd.DataFrame:
    return frame[frame["trial_id"] == trial_id].reset_index(drop=True)


METRICS = ["loss", "accuracy", "good", "note", "nested/a", "nested/b/c", "late", "training_iteration"]


def agree(run_dir: Path, results: Any) -> None:
    """Every report and every configuration is what Ray has."""
    trials, reports = load_results(run_dir), load_results(run_dir, "reports")
    assert len(trials) == len(results) == 8
    assert len(reports) == sum(len(result.metrics_dataframe) for result in results)
    for result in results:
        theirs = result.metrics_dataframe
        trial_id = theirs["trial_id"][0]
        ours = by_trial(reports, trial_id)
        for name in METRICS:
            expected = theirs[name].tolist() if name in theirs else [math.nan] * len(theirs)
            assert pd.Series(ours[name].tolist()).equals(
                pd.Series(expected).astype(pd.Series(ours[name].tolist()).dtype)
            )
        assert ours["fidelity"].tolist() == theirs["training_iteration"].tolist()
        assert ours["elapsed_s"].tolist() == theirs["time_total_s"].tolist()
        [trial] = by_trial(trials, trial_id).to_dict("records")
        assert trial["config/x"] == result.config["x"]
        assert trial["config/net/layers"] == result.config["net"]["layers"]
        assert trial["config/name"] == "a" if result.config["name"] else pd.isna(trial["config/name"])
        assert trial["status"] == ("failed" if result.error else "completed")
        assert ("too deep" in trial["reason"]) == bool(result.error)
        assert trial["loss"] == theirs["loss"].iloc[-1]
        assert trial["fidelity"] == len(theirs)


def test_values_are_those_that_ray_loads(made: tuple[Path, Any]) -> None:
    agree(*made)


def test_columns_are_those_of_our_runs_as_far_as_they_go(made: tuple[Path, Any]) -> None:
    run_dir, _ = made
    for level, columns in COLUMNS.items():
        frame = load_results(run_dir, level)  # type: ignore[arg-type]
        assert list(frame.columns)[: len(columns) + 1] == ["run", *columns]
    assert list(load_results(run_dir, "reports").columns)[5:] == [*METRICS[:-2], "training_iteration", "late"]
    assert load_results(run_dir)["run"].unique().tolist() == ["plain"]
    assert load_results(run_dir)["started_at"].dt.tz is not None
    assert load_results(run_dir)["config/net/layers"].dtype.kind == "i"


@pytest.fixture
def copy(made: tuple[Path, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "copy" / "plain"))


def test_the_csv_serves_where_the_json_is_gone(copy: Path, made: tuple[Path, Any]) -> None:
    before = load_results(copy, "reports").drop(columns="late")  # Ray's CSV has the first report's columns
    for path in copy.glob("*/result.json"):
        path.unlink()
    after = load_results(copy, "reports")
    pd.testing.assert_frame_equal(after[before.columns], before)


@pytest.mark.parametrize("prefix", ["60179", "1e500"])
def test_a_trial_of_the_csv_whose_id_reads_like_a_number(copy: Path, prefix: str) -> None:
    [old] = {name.split("_")[0] for name in load_results(copy)["trial_id"]}
    for path in list(copy.glob("*/progress.csv")):
        path.write_text(path.read_text().replace(f"{old}_", f"{prefix}_"))
        (path.parent / "result.json").unlink()
        path.parent.rename(copy / path.parent.name.replace(f"{old}_", f"{prefix}_"))
    for path in copy.glob("experiment_state-*.json"):
        path.write_text(path.read_text().replace(f"{old}_", f"{prefix}_"))
    for level in COLUMNS:
        found = load_results(copy, level)["trial_id"]  # type: ignore[arg-type]
        assert found.astype(str).str.fullmatch(prefix + "_0000[0-7]").all(), level


def test_no_pickle_is_opened(copy: Path, made: tuple[Path, Any], tmp_path: Path) -> None:
    bomb = pickle.dumps(Trap(tmp_path / "sprung"))
    for path in copy.rglob("*.pkl"):
        path.write_bytes(bomb)
    [state] = copy.glob("experiment_state-*.json")
    document = json.loads(state.read_text())
    for pair in document["trial_data"]:
        described = json.loads(pair[0])
        described["storage"] = described["results"] = {"_type": "CLOUDPICKLE_FALLBACK", "value": bomb.hex()}
        pair[0] = json.dumps(described)
    state.write_text(json.dumps(document))
    agree(copy, made[1])
    assert not (tmp_path / "sprung").exists()


def first(run_dir: Path) -> Path:
    return min(run_dir.glob("*/result.json"))


def elsewhere(path: Path) -> None:
    outside = path.parents[2] / "outside.json"
    path.rename(outside)
    path.symlink_to(outside)


DAMAGE: dict[str, tuple[Callable[[Path], object], int]] = {
    "a torn last line": (lambda path: os.truncate(path, path.stat().st_size - 20), 1),
    "a line of another kind": (lambda path: path.write_text(path.read_text() + "[1]\n"), 0),
    "bad UTF-8": (lambda path: path.write_bytes(b"\xff\xfe\n" + path.read_bytes()), 0),
    "too deep": (lambda path: path.write_bytes(b"[" * 100_000 + b"\n" + path.read_bytes()), 0),
    "deep under a key": (lambda path: path.write_bytes(b'{"a":' * 90_000 + b"\n" + path.read_bytes()), 0),
    "a link": (elsewhere, 3),
}


@pytest.mark.parametrize(("damage", "lost"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_left_out_and_told(
    copy: Path, damage: Callable[[Path], object], lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_results(copy, "reports")
    size = len(first(copy).read_text().splitlines())
    damage(first(copy))
    caplog.clear()
    after = load_results(copy, "reports")
    assert len(before) - len(after) == (size if lost == 3 else lost)
    assert "damaged" in caplog.text
    assert len(load_results(copy)) == 8


@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", '{"trial_data": 3}', '{"trial_data": [["{}", "{}"]]}', '{"trial_data": [[1, 2]]}', "[" * 100_000],
)
def test_a_state_that_cannot_be_read_leaves_the_trials_folders(copy: Path, text: str) -> None:
    before = load_results(copy)
    [state] = copy.glob("experiment_state-*.json")
    state.write_text(text)
    after = load_results(copy)
    assert sorted(after["config/x"]) == sorted(before["config/x"])
    assert sorted(after["loss"]) == sorted(before["loss"])


def test_a_folder_outside_is_no_trials(copy: Path) -> None:
    outside = copy.parent / "secret"
    outside.mkdir()
    (outside / "result.json").write_text('{"loss": 1.0}\n')
    [state] = copy.glob("experiment_state-*.json")
    document = json.loads(state.read_text())
    for number, path in enumerate(["../secret", str(outside), "linked", ".", ["x"]]):
        described = json.loads(document["trial_data"][number][0])
        document["trial_data"][number][0] = json.dumps({**described, "relative_logdir": path})
    state.write_text(json.dumps(document))
    (copy / "linked").symlink_to(outside)
    assert not (load_results(copy, "reports")["loss"] == 1.0).any()
    assert len(load_results(copy)) >= 8
