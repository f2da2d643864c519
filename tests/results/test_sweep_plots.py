"""Pictures of sweeps say what was found, mark trials, and tell fates apart without colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hpo_ray.errors import InvalidInput
from hpo_ray.results import parameter_plots, style, sweep_plots
from hpo_ray.results.parallel_plot import parallel_coordinates
from hpo_ray.space import SearchSpace

SPACE = SearchSpace.parse({"lr": "loguniform(1e-4, 1e-1)", "opt": "choice(sgd, adam, null)", "x": "uniform(0, 1)"})


@pytest.fixture
def trials() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 30
    frame = pd.DataFrame({f"config/{key}": values for key, values in zip(
        SPACE.names, zip(*(SPACE.sample(rng).values() for _ in range(n)), strict=True), strict=True)})  # fmt: skip
    status = ["completed"] * 5 + ["stopped"] * 20 + ["failed"] * 3 + ["out_of_memory", "interrupted"]
    fidelity = [9.0] * 5 + [1.0] * 12 + [3.0] * 8 + [2.0] * 5
    loss = np.linspace(0.1, 1, n)
    return frame.assign(
        run="r", trial_id=[f"{i:04}" for i in range(n)], status=status, fidelity=fidelity, loss=loss, loss_best=loss
    )


@pytest.fixture
def reports(trials: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "run": "r",
            "trial_id": row.trial_id,
            "attempt": 0,
            "fidelity": f,
            "elapsed_s": f,
            "loss": row.loss * (2 - f / 9),
        }
        for row in trials.itertuples()
        for f in range(1, int(row.fidelity) + 1)
    ]
    return pd.DataFrame(rows)


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


def test_fates_differ_in_line_marker_and_colour() -> None:
    assert len({str(line) for _, line, _ in style.FATES.values()}) == len(style.FATES)
    assert len({marker for *_, marker in style.FATES.values()}) == len(style.FATES)
    assert len({colour for colour, *_ in style.FATES.values()}) == len(style.FATES)


def test_learning_curves_tell_what_became_of_trials(trials: pd.DataFrame, reports: pd.DataFrame) -> None:
    figure = sweep_plots.learning_curves(trials, reports, "loss", fidelity="epoch")
    assert title(figure) == "Of 30 trials 5 completed (epoch 9), 20 stopped early, 4 failed, 1 unfinished"
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    assert set(lines) == {f"trial-{i:04}" for i in range(30)}
    assert {lines[f"trial-{i:04}"].get_marker() for i in (0, 5, 20, 25, 29)} == {"o", "v", "^", "X", ">"}
    [legend] = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        "completed (5)", "stopped at epoch 1 (12)", "stopped at epoch 3 (8)", "failed (4)", "unfinished (1)",
    }  # fmt: skip
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epoch", "loss")


def test_one_that_diverged_does_not_flatten_the_others(trials: pd.DataFrame, reports: pd.DataFrame) -> None:
    flat = reports.assign(loss=-reports["loss"])  # no log scale below 0
    flat.loc[3, "loss"] = 1e6
    axes = sweep_plots.learning_curves(trials, flat, "loss").axes[0]
    assert axes.get_ylim()[1] < 1
    assert "1 values lie beyond" in axes.get_ylabel() or "lie beyond" in axes.get_ylabel()


def test_the_incumbent_says_who_and_when() -> None:
    curve = pd.DataFrame({"spent": [1.0, 4.0, 9.0], "value": [0.5, 0.25, 0.25], "trial_id": ["0000", "0003", "0003"]})
    figure = sweep_plots.incumbent(curve, "loss", "epochs")
    assert title(figure) == "Best loss 0.25, by trial 0003 after 4 of 9 epochs"
    assert figure.axes[0].get_xlabel() == "epochs spent"


@pytest.mark.parametrize("name", ["curves", "incumbent", "rungs", "correlation", "importance", "parallel"])
def test_without_anything_to_draw_a_picture_says_so(tmp_path: Path, trials: pd.DataFrame, name: str) -> None:
    none = pd.DataFrame
    reports = none(columns=["trial_id", "fidelity", "loss"])
    figure = {
        "curves": lambda: sweep_plots.learning_curves(trials.head(0), reports, "loss"),
        "incumbent": lambda: sweep_plots.incumbent(none(columns=["spent", "value", "trial_id"]), "loss", "epochs"),
        "rungs": lambda: sweep_plots.rung_survival(none(columns=["rung", "reached", "kept", "stopped", "other"])),
        "correlation": lambda: sweep_plots.fidelity_correlation(
            none(columns=["low_fidelity", "high_fidelity", "n", "rho", "low", "high"]), "loss"
        ),
        "importance": lambda: parameter_plots.importance(
            none(columns=["parameter", "with", "importance", "low", "high"]), "loss"
        ),
        "parallel": lambda: parallel_coordinates(trials.head(0), SPACE, "loss"),
    }[name]()
    assert title(figure)
    style.save(figure, tmp_path / "x.png")


def test_slices_have_log_axes_and_levels(tmp_path: Path, trials: pd.DataFrame) -> None:
    lrs = np.geomspace(1e-4, 1e-1, 7)
    curve = pd.DataFrame({"config/lr": lrs, "mean": np.log10(lrs) ** 2 / 10, "low": 0.0, "high": 1.0})
    figure = parameter_plots.slice_plot(curve, trials, "lr", SPACE.domains["lr"], "loss")
    assert figure.axes[0].get_xscale() == "log"
    assert title(figure) == "On average loss is lowest near lr = 0.1, 1.5 higher at 0.0001"
    levels = pd.DataFrame({"config/opt": ["sgd", "adam", None], "mean": [3.0, 2.0, 1.0], "low": 0.0, "high": 4.0})
    figure = parameter_plots.slice_plot(levels, trials, "opt", SPACE.domains["opt"], "loss", "max")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["sgd", "adam", "None"]
    assert title(figure) == "On average loss is highest near opt = sgd, 2 lower at None"
    marked = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith("trial-")]
    assert len(marked) == 30
    style.save(figure, tmp_path / "x.png")


def test_a_contour_has_both_axes_as_sampled(tmp_path: Path, trials: pd.DataFrame) -> None:
    surface = pd.DataFrame(
        [{"config/lr": lr, "config/opt": opt, "mean": lr + len(opt)} for lr in (1e-4, 1e-2) for opt in ("sgd", "adam")]
    )
    figure = parameter_plots.contour(surface, trials, ("lr", "opt"), SPACE, "loss")
    assert figure.axes[0].get_xscale() == "log"
    assert title(figure) == "Lowest loss on average near lr = 0.0001 and opt = sgd"
    style.save(figure, tmp_path / "x.png")


def test_names_that_would_be_formulas_or_pages_are_drawn_as_they_are(
    tmp_path: Path, trials: pd.DataFrame, reports: pd.DataFrame
) -> None:
    name = "$\\frac{$_^\n" + "long " * 40
    figure = sweep_plots.learning_curves(trials, reports.rename(columns={"loss": name}), name, fidelity="$_$")
    style.save(figure, tmp_path / "x.png")
    assert "\n" not in figure.axes[0].get_ylabel()
    assert len(figure.axes[0].get_ylabel()) <= 24


def test_a_missing_column_is_named(trials: pd.DataFrame) -> None:
    with pytest.raises(InvalidInput, match="no column 'loss'"):
        sweep_plots.learning_curves(trials, pd.DataFrame(columns=["trial_id", "fidelity"]), "loss")
