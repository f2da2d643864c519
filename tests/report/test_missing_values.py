"""Values that are missing in a frame, and levels that are None or lists: no picture, table or command stumbles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo_ray import history
from hpo_ray.journal import Journal
from hpo_ray.report.page import page
from hpo_ray.report.story import story_of
from hpo_ray.report.subject import cell, level
from hpo_ray.results import parameter_plots, style
from hpo_ray.results.analysis import partial_dependence
from hpo_ray.results.frame import load_results
from hpo_ray.results.values import missing
from hpo_ray.space import SearchSpace
from tests.report.journals import sweep
from tests.report.test_report import check, run

SPACE = {
    "lr": "loguniform(1e-4, 0.3)",
    "optimizer": "choice(sgd, adam)",
    "warmup": "int(1, 9, when={optimizer: sgd})",
    "nesterov": "choice(true, false, when={optimizer: sgd})",
    "augment": "choice(null, side_on)",
    "sizes": "choice([8], [8, 16], [64, 64])",
    "lot": "choice(1, 2, null)",
    "flag": "choice(true, null)",
}
TRIALS = 20


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with folds whose every fifth trial fails, one of them at once, and whose last was never started."""
    folder = tmp_path_factory.mktemp("runs") / "r"
    space, rng = SearchSpace.parse(SPACE), np.random.default_rng(3)
    head: dict[str, Any] = {"name": "gaps", "trials": TRIALS, "seed": 0, "metric": "val_error", "mode": "min"}
    head |= {"fidelity": "epoch", "folds": 3, "repeats": 2, "space": SPACE}
    with Journal(folder) as log:
        log.append("run_started", experiment=head, environment={})
        for number in range(TRIALS):
            config, name = space.sample(rng), f"{number:04}"
            log.append("trial_suggested", trial_id=name, config_id=f"c{number}", config=config, state={})
            if number == TRIALS - 1:
                break
            log.append("trial_started", trial_id=name, attempt=0)
            fails = number % 5 == 3
            value = 0.1 + 0.02 * len(config["sizes"]) + 0.03 * (config["lot"] is None) + rng.normal(0, 0.001)
            for epoch in () if number == 3 else (1, 2):
                metrics = {"val_error": math.nan if fails else value / epoch, "val_error_se": 0.01}
                log.append("trial_reported", trial_id=name, attempt=0, fidelity=float(epoch), elapsed_s=1.0,
                           metrics=metrics)  # fmt: skip
            why = "val_error is NaN" if fails else ""
            log.append("trial_ended", trial_id=name, attempt=0, status="failed" if fails else "completed", reason=why)
        log.append("run_ended", status="completed", reason="")
    return folder


def test_the_report_and_the_commands(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = load_results(run_dir)
    assert [str(trials[f"config/{name}"].dtype) for name in ("warmup", "nesterov")] == ["Int64", "boolean"]
    read = check(page(story_of(history.load(run_dir))))
    assert "Importance cannot be computed" not in read.text("p")
    assert {each["data-picture"] for each in read.all("figure")} >= {"slice-5", "contour", "parallel"}
    assert {"[8, 16]", "None", "True", "–"} <= {data for name, data in read.texts if name == "td"}
    code, out, _ = run(capsys, "report", str(run_dir), "--markdown")
    assert (code, r"\[8, 16\]" in out) == (0, True)
    code, out, _ = run(capsys, "show", str(run_dir))
    assert (code, "best        trial" in out) == (0, True)
    for name in history.load(run_dir).trials:
        assert run(capsys, "show", str(run_dir), name)[0] == 0


@pytest.mark.parametrize("names", [("sizes", "lot"), ("flag", "sizes"), ("warmup", "augment"), ("nesterov", "lr")])
def test_a_contour_of_any_two_parameters(run_dir: Path, names: tuple[str, str]) -> None:
    trials, space = load_results(run_dir), SearchSpace.parse(SPACE)
    surface = partial_dependence(trials, space, "val_error", names)
    figure = parameter_plots.contour(surface, trials, names, space, "val_error")
    [mesh] = [each for each in figure.axes[0].collections if each.get_array() is not None]
    assert np.isfinite(np.ma.filled(mesh.get_array(), math.nan)).all()
    assert mesh.get_array().size == len(surface)


def test_what_is_missing_is_said_so_and_never_compared() -> None:
    for value in (None, math.nan, np.float64("nan"), pd.NA, pd.NaT):
        assert missing(value)
        assert cell(value) is None
        assert style.label(value) == "None"
    assert not any(missing(value) for value in (0, False, "", [], [None], "nan", np.int64(0)))
    assert [cell(value) for value in (True, np.bool_(False), np.int64(3), [8, 16])] == ["True", "False", 3, "[8, 16]"]
    assert [level({"a": None, "b": 2}, name) for name in "abc"] == ["None", 2, None]
    whole, lot = SearchSpace.parse(SPACE).domains["warmup"], SearchSpace.parse(SPACE).domains["lot"]
    assert np.isnan(parameter_plots._places([pd.NA], whole, None)).all()
    assert parameter_plots._places([pd.NA, 2.0], lot, [1, 2, None]) == [2.0, 1.0]


def test_two_parameters_that_are_never_used_together_have_no_contour(tmp_path: Path) -> None:
    space = {"optimizer": "choice(sgd, adam)"}
    space |= {"lr": "loguniform(1e-4, 0.3, when={optimizer: sgd})", "dropout": "uniform(0, 1, when={optimizer: adam})"}
    run_dir = sweep(tmp_path / "r", 30, space=space, fails=0.0, top=2)
    found = partial_dependence(load_results(run_dir), SearchSpace.parse(space), "val_error", ("lr", "dropout"))
    assert not len(found)
    read = check(page(story_of(history.load(run_dir))))
    assert "contour" in {each["data-picture"] for each in read.all("figure")}  # of one of them with the optimizer
