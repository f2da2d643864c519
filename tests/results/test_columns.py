"""The README's table of columns is what frames of a real run have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpo_ray
from hpo_ray.events import STATUSES
from hpo_ray.results.tables import COLUMNS

README = (Path(__file__).parents[2] / "README.md").read_text()
KINDS = {
    "category": lambda dtype: isinstance(dtype, pd.CategoricalDtype),
    "text": pd.api.types.is_string_dtype,
    "integer": pd.api.types.is_integer_dtype,
    "number": lambda dtype: dtype == "float64",
    "truth": pd.api.types.is_bool_dtype,
    "time": lambda dtype: isinstance(dtype, pd.DatetimeTZDtype) and str(dtype.tz) == "UTC",
}


def documented(text: str) -> dict[str, dict[str, str]]:
    """Level -> column -> type, from the table."""
    section = text.split("## Results in pandas", 1)[1].split("\n## ", 1)[0]
    found: dict[str, dict[str, str]] = {level: {} for level in COLUMNS}
    for name, levels, kind in re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \| ([a-z ]+) \|", section, flags=re.MULTILINE):
        for level in COLUMNS if levels == "all" else levels.split(", "):
            found[level][name] = kind
    return found


def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
    for epoch in range(1, 4):
        trial.report(epoch=epoch, loss=config["x"] / epoch)
        if config["layers"] == 2 and epoch == 2:
            raise ValueError("too deep")


@pytest.fixture(scope="module")
def frames(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """Every level of a run in which trials are stopped, complete and fail."""
    run = hpo_ray.run(
        objective,
        {"x": "uniform(0, 1)", "layers": "choice(1, 2)"},
        searcher="random",
        scheduler={"name": "asha", "max_t": 3, "reduction_factor": 2, "grace_period": 1},
        fidelity="epoch",
        trials=8,
        out=tmp_path_factory.mktemp("runs") / "r",
        overrides=["retry.max_retries=0", "retry.max_failure_share=1"],
    )
    return {level: run.frame(level) for level in COLUMNS}  # type: ignore[arg-type]


def untrue(table: dict[str, dict[str, str]], frames: dict[str, pd.DataFrame]) -> list[str]:
    """What the table says that the frames don't, or leaves out."""
    wrong = []
    for level, frame in frames.items():
        names = {
            "<metric>_best": ["loss_best"],
            "<metric>": ["epoch", "loss"],
            "config/<key>": ["config/x", "config/layers"],
        }
        told = {real: kind for name, kind in table[level].items() for real in names.get(name, [name])}
        wrong += [f"{level}: {name}" for name in told.keys() ^ set(frame.columns)]
        for name in told.keys() & set(frame.columns):
            kind = KINDS.get(told[name])
            if kind is not None and not kind(frame[name].dtype):
                wrong.append(f"{level}: {name} is {frame[name].dtype}, not {told[name]}")
    return wrong


def test_the_table_is_true(frames: dict[str, pd.DataFrame]) -> None:
    assert all(len(frame) for frame in frames.values())
    assert untrue(documented(README), frames) == []


def test_a_table_that_is_not_true_is_seen(frames: dict[str, pd.DataFrame]) -> None:
    table = documented(
        README.replace("| `gpu_s` |", "| `gpu_h` |").replace("| `kept` | rungs | truth", "| `kept` | rungs | text")
    )
    assert sorted(untrue(table, frames)) == ["cost: gpu_h", "cost: gpu_s", "rungs: kept is bool, not text"]


def test_every_status_is_named() -> None:
    [row] = [line for line in README.splitlines() if line.startswith("| `status` |")]
    assert set(re.findall(r"`([a-z_]+)`", row)) == {"status", *STATUSES}


def test_levels_agree_about_a_run(frames: dict[str, pd.DataFrame]) -> None:
    trials, cost = frames["trials"], frames["cost"]
    assert set(frames["failures"]["trial_id"]) == set(trials.query("status == 'failed'")["trial_id"])
    assert (frames["failures"]["cause"] == "exception").all()
    assert frames["failures"]["traceback"].str.contains("too deep").all()
    assert cost["reports"].sum() == len(frames["reports"])
    assert cost["trained"].sum() == trials["fidelity"].sum()
    dropped = frames["rungs"].query("not kept")
    assert set(dropped["trial_id"]) == set(trials.query("status == 'stopped'")["trial_id"])
