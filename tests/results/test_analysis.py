"""The analyses that count, rank and compare: small frames with answers by hand, simulation where there is chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo_ray.errors import InvalidInput
from hpo_ray.results import analysis
from hpo_ray.results.accounts import cause_of
from hpo_ray.schedulers.rungs import Rungs, rung_levels
from hpo_ray.space import SearchSpace

START = pd.Timestamp("2026-01-01", tz="UTC")


def trial(name: str, loss: float = math.nan, **rest: Any) -> dict[str, Any]:
    row = {"run": "r", "trial_id": name, "config_id": name, "status": "completed", "reason": "", "fidelity": 1.0}
    row |= {"attempt": 0, "started_at": START, "duration_s": 1.0, "loss": loss, "loss_best": loss}
    at = rest.pop("at", 0.0)
    return row | {"started_at": START + pd.Timedelta(seconds=at)} | rest


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def simulated(seed: int, n: int = 60, noise: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Trials under ASHA, their reports, and what all of them would have ended with."""
    rng = np.random.default_rng(seed)
    final, slow = rng.normal(0, 1, n), rng.uniform(0.5, 1.5, n)
    rungs = Rungs(rung_levels(grace_period=1, max_t=27, reduction_factor=3), 3)
    epochs = np.arange(1, 28)
    full = final[:, None] + 2 * slow[:, None] / np.sqrt(epochs) + noise * rng.standard_normal((n, 27))
    trials, reports = [], []
    for i in range(n):
        name, status = f"{i:04}", "completed"
        for epoch in epochs:
            value = float(full[i, epoch - 1])
            reports.append(
                {"run": "r", "trial_id": name, "attempt": 0, "fidelity": float(epoch), "elapsed_s": float(epoch)}
            )
            reports[-1]["loss"] = value
            decision = rungs.decide(name, float(epoch), value)
            if decision is not None and not decision.kept:
                status = "stopped"
                break
        trials.append(trial(name, value, status=status, fidelity=float(epoch), at=float(i), duration_s=float(epoch)))
    return frame(*trials), pd.DataFrame(reports), full[:, -1]


# Incumbent


def three() -> pd.DataFrame:
    """Two side by side from the start, a third after the first."""
    return frame(
        trial("0000", 3.0, duration_s=10.0, fidelity=5.0),
        trial("0001", 1.0, duration_s=30.0, fidelity=8.0),
        trial("0002", 2.0, at=10.0, duration_s=10.0, fidelity=2.0),
    )


@pytest.mark.parametrize(
    ("over", "spent"),
    [
        ("trials", [3, 3, 3]),
        ("fidelity", [5, 7, 15]),
        ("seconds", [10, 20, 30]),
        ("gpu_seconds", [0.5 * 20, 0.5 * 40, 0.5 * 50]),
    ],
)
def test_the_incumbent_changes_when_a_better_trial_ends(over: Any, spent: list[float]) -> None:
    found = analysis.incumbent(three(), "loss", over=over, gpus_per_trial=0.5)
    assert found["value"].tolist() == [3, 2, 1]
    assert found["trial_id"].tolist() == ["0000", "0002", "0001"]
    assert found["spent"].tolist() == spent


def test_with_reports_it_changes_when_they_come_in() -> None:
    reports = pd.DataFrame(
        {"run": "r", "trial_id": ["0000", "0000", "0001"], "attempt": 0, "fidelity": [1.0, 2.0, 1.0]}
        | {"elapsed_s": [4.0, 9.0, 6.0], "loss": [5.0, 3.0, 4.0]}
    )
    found = analysis.incumbent(three(), "loss", over="seconds", reports=reports)
    steps = [[4, 5, 1], [6, 4, 1], [9, 3, 2], [30, 3, 2]]
    assert found[["spent", "value", "fidelity"]].to_numpy().tolist() == steps
    epochs = analysis.incumbent(three(), "loss", over="fidelity", reports=reports)
    assert epochs["spent"].tolist() == [1, 2, 3, 15]


@pytest.mark.parametrize("over", ["trials", "fidelity", "seconds", "gpu_seconds"])
def test_with_and_without_reports_a_curve_ends_where_the_run_did(over: Any) -> None:
    rows = frame(
        trial("0000", 3.0, duration_s=9.0, fidelity=2.0),
        trial("0001", math.nan, at=3.0, duration_s=20.0, status="failed", fidelity=math.nan),  # never reported
    )
    reports = pd.DataFrame({"run": "r", "trial_id": "0000", "attempt": 0, "fidelity": [1.0, 2.0], "loss": [5.0, 3.0]})
    reports["elapsed_s"] = [4.0, 8.0]
    ends = [
        analysis.incumbent(rows, "loss", over=over, reports=given, gpus_per_trial=1)["spent"].iloc[-1]
        for given in (None, reports)
    ]
    assert ends == [{"trials": 2, "fidelity": 2, "seconds": 23, "gpu_seconds": 29}[over]] * 2


def test_an_incumbent_lasts_to_the_end_and_knows_its_mode_and_run() -> None:
    both = pd.concat([three(), three().assign(run="s", loss_best=[1.0, 2.0, math.nan])])
    found = analysis.incumbent(both, "loss", "max", over="seconds")
    assert found[found["run"] == "r"][["spent", "value"]].to_numpy().tolist() == [[10, 3], [30, 3]]
    assert found[found["run"] == "s"][["spent", "value"]].to_numpy().tolist() == [[10, 1], [30, 2]]
    assert not len(analysis.incumbent(frame(trial("0000")), "loss"))
    with pytest.raises(InvalidInput, match="did you mean 'seconds'"):
        analysis.incumbent(both, "loss", over="second")  # type: ignore[arg-type]


# Best


def test_the_best_by_posterior_is_less_often_a_lucky_one() -> None:
    space = SearchSpace.parse({"x": "uniform(0, 1)", "y": "uniform(0, 1)"})
    regrets, covered = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        x, y = rng.random((2, 40))
        true = (x - 0.3) ** 2 + 0.2 * y
        rows = frame(*(trial(f"{i:04}", v) for i, v in enumerate(true + 0.15 * rng.standard_normal(40))))
        found = analysis.best(rows.assign(**{"config/x": x, "config/y": y}), space, "loss").set_index("rule")
        regrets.append([true[int(found.loc[rule, "trial_id"])] for rule in ("posterior mean", "raw value")])
        row = found.loc["posterior mean"]
        covered.append(row["low"] <= true[int(row["trial_id"])] <= row["high"])
    posterior, raw = np.mean(regrets, axis=0)
    assert posterior < 0.8 * raw
    assert np.mean(covered) >= 0.8


def test_a_stopped_trial_is_evidence_but_no_winner() -> None:
    space = SearchSpace.parse({"x": "uniform(0, 1)"})
    x = np.linspace(0, 1, 12)
    rows = frame(*(trial(f"{i:04}", (v - 0.5) ** 2, fidelity=9.0) for i, v in enumerate(x)))
    rows = rows.assign(**{"config/x": x})
    rows.loc[[5, 6], ["status", "fidelity", "loss", "loss_best"]] = ["stopped", 3.0, -1.0, -1.0]
    found = analysis.best(rows, space, "loss").set_index("rule")
    assert found.loc["posterior mean", "trial_id"] in ("0004", "0007")
    assert found.loc["raw value", "trial_id"] in ("0005", "0006")
    assert found.loc["raw value", "value"] == -1


def test_maximising_picks_the_mirror_image_and_indices_do_not_matter() -> None:
    space = SearchSpace.parse({"n": "int(1, 9)"})
    rows = frame(*(trial(f"{i:04}", float((n - 4) ** 2)) for i, n in enumerate(range(1, 10))))
    rows = rows.assign(**{"config/n": [float(n) for n in range(1, 10)]})  # as a column with gaps would have them
    rows.index = pd.Index([0] * 9)
    low = analysis.best(rows, space, "loss")
    high = analysis.best(rows.assign(loss=-rows["loss"], loss_best=-rows["loss"]), space, "loss", "max")
    assert low["trial_id"].tolist() == high["trial_id"].tolist() == ["0003", "0003"]
    assert low["mean"].to_numpy() == pytest.approx(-high["mean"].to_numpy())
    assert low["low"].to_numpy() == pytest.approx(-high["high"].to_numpy())


def test_best_of_one_of_none_and_of_failed_trials() -> None:
    space = SearchSpace.parse({"x": "uniform(0, 1)"})
    rows = frame(trial("0000", 2.0), trial("0001", status="failed")).assign(**{"config/x": 0.5})
    one = analysis.best(rows, space, "loss")
    assert one["trial_id"].tolist() == ["0000", "0000"]
    assert one["mean"].isna().all()
    assert not len(analysis.best(rows.tail(1), space, "loss"))


def test_a_best_value_has_its_own_fidelity_or_none() -> None:
    rows = frame(trial("0000", 2.0, fidelity=50.0), trial("0001", 3.0, fidelity=50.0)).assign(**{"config/x": 0.5})
    same = analysis.best(rows, {"x": "uniform(0, 1)"}, "loss").set_index("rule")
    assert same["fidelity"].tolist() == [50, 50]
    earlier = rows.assign(loss_best=[1.0, 3.0])
    found = analysis.best(earlier, {"x": "uniform(0, 1)"}, "loss").set_index("rule")
    assert found.loc["raw value", "value"] == 1
    assert math.isnan(found.loc["raw value", "fidelity"])
    assert found.loc["posterior mean", "fidelity"] == 50


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.5, math.nan])
def test_a_confidence_out_of_range_is_named(confidence: float) -> None:
    rows, space = frame(trial("0000", 2.0)).assign(**{"config/x": 0.5}), {"x": "uniform(0, 1)"}
    reports = pd.DataFrame({"run": "r", "trial_id": ["0"], "fidelity": 1.0, "loss": 1.0})
    for call in (
        lambda: analysis.best(rows, space, "loss", confidence=confidence),
        lambda: analysis.importance(rows, space, "loss", confidence=confidence),
        lambda: analysis.partial_dependence(rows, space, "loss", "x", confidence=confidence),
        lambda: analysis.fidelity_correlation(reports, "loss", confidence=confidence),
    ):
        with pytest.raises(InvalidInput, match=r"confidence: .* expected between 0 and 1"):
            call()


def test_without_values_importance_is_unknown_and_with_equal_ones_none() -> None:
    space = {"x": "uniform(0, 1)"}
    none = frame(trial("0000", math.nan), trial("0001", math.nan)).assign(**{"config/x": [0.1, 0.9]})
    for rows in (none, none.head(0)):
        assert analysis.importance(rows, space, "loss")[["importance", "low", "high"]].isna().all(axis=None)
    assert analysis.importance(none.assign(loss=1.0), space, "loss")["importance"].tolist() == [0]
    with pytest.raises(InvalidInput, match=r"space: .* is no search space"):
        analysis.importance(none, None, "loss")  # type: ignore[arg-type]


# Rungs


def test_survival_counts_every_trial_that_reached_a_rung() -> None:
    rows = frame(
        *(trial(f"a{i}", 1.0, status="stopped", fidelity=1.0) for i in range(4)),
        trial("b", 1.0, status="stopped", fidelity=3.0),
        trial("c", math.nan, status="failed", fidelity=1.0),
        trial("d", 1.0, fidelity=9.0),
        trial("e", 1.0, status="stopped", fidelity=9.0),
    )
    found = analysis.rung_survival(rows)
    rungs = [[1, 8, 4, 3, 1, 3 / 7], [3, 3, 1, 2, 0, 2 / 3], [9, 2, 1, 1, 0, 1 / 2]]  # what completes is kept
    assert found.drop(columns="run").to_numpy().tolist() == rungs


def test_savings_are_what_the_stopped_would_have_trained() -> None:
    trials, reports, _ = simulated(0)
    [row] = analysis.savings(trials, reports, "loss").to_dict("records")
    assert row["spent"] == trials["fidelity"].sum()
    assert row["full"] == 27 * 60
    assert row["saved_share"] == pytest.approx(1 - row["spent"] / row["full"])
    nothing = trials.assign(status="completed", fidelity=27.0)
    [row] = analysis.savings(nothing, reports, "loss").to_dict("records")
    assert (row["saved"], row["chance"], row["regret"]) == (0, 0, 0)


def test_chances_of_stopped_trials_are_upper_bounds_and_in_the_right_order() -> None:
    said, true, any_said, any_true = [], [], [], []
    for seed in range(25):
        trials, reports, ends = simulated(seed, noise=0.4)
        best = trials.loc[trials["fidelity"] == 27, "loss"].min()
        found = analysis.stopped_chances(trials, reports, "loss")
        assert len(found) == (trials["status"] == "stopped").sum()
        said.append(found["chance"].to_numpy())
        true.append(ends[found["trial_id"].astype(int)] < best)
        any_said.append(analysis.savings(trials, reports, "loss")["chance"].iloc[0])
        any_true.append(true[-1].any())
    assert np.mean(any_true) < np.mean(any_said) < np.mean(any_true) + 0.4
    chances, came_true = np.concatenate(said), np.concatenate(true)
    assert came_true.mean() < chances.mean() < 0.05
    assert chances[came_true].mean() > 4 * chances[~came_true].mean()


def test_what_was_stopped_at_a_hopeless_value_has_no_chance_whichever_way_is_better() -> None:
    trials, reports, _ = simulated(1)
    low = analysis.stopped_chances(trials, reports, "loss")
    high = analysis.stopped_chances(trials, reports.assign(loss=-reports["loss"]), "loss", "max")
    assert low["chance"].min() < 0.01
    assert high["chance"].to_numpy() == pytest.approx(low["chance"].to_numpy())
    assert high["expected"].to_numpy() == pytest.approx(-low["expected"].to_numpy())


def test_correlation_is_spearmans_of_those_that_reached_both() -> None:
    from scipy.stats import spearmanr

    _, reports, _ = simulated(2)
    found = analysis.fidelity_correlation(reports, "loss").set_index(["low_fidelity", "high_fidelity"])
    table = reports.pivot(index="trial_id", columns="fidelity", values="loss")
    both = table[[1.0, 3.0]].dropna()
    row = found.loc[(1.0, 3.0)]
    assert row["n"] == len(both) < 60
    assert row["reached"] == len(both) / 60
    assert row["rho"] == pytest.approx(spearmanr(both).statistic)
    assert row["low"] < row["rho"] < row["high"]
    few = analysis.fidelity_correlation(reports[reports["trial_id"] < "0003"], "loss", fidelities=[1, 27])
    assert few["low"].isna().all()


def test_correlations_interval_covers() -> None:
    rng, covered = np.random.default_rng(0), []
    for _ in range(120):
        x = rng.standard_normal(30)
        y = 0.8 * x + 0.6 * rng.standard_normal(30)
        reports = pd.DataFrame({"run": "r", "trial_id": [*range(30), *range(30)], "loss": [*x, *y]})
        reports["fidelity"] = [1.0] * 30 + [2.0] * 30
        [row] = analysis.fidelity_correlation(reports, "loss").to_dict("records")
        covered.append(row["low"] <= 6 / math.pi * math.asin(0.8 / 2) <= row["high"])
    assert 0.89 <= np.mean(covered) <= 0.99


# Comparison


def runs(gap: float, seeds: int = 12) -> pd.DataFrame:
    """Two searchers of 10 trials on the same seeds, b worse by `gap`."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        luck = rng.standard_normal()
        for name, worse in (("a", 0.0), ("b", gap)):
            values = luck + worse + 3 * np.exp(-np.arange(10.0)) + 0.1 * rng.standard_normal(10)
            run = {"run": f"{name}{seed}", "searcher": name, "seed": seed}
            rows += [trial(f"{i:04}", float(v)) | run for i, v in enumerate(values)]
    return frame(*rows)


def test_a_difference_on_the_same_seeds_is_found_and_none_is_not() -> None:
    [apart] = analysis.compare(runs(0.3), "loss").to_dict("records")
    assert (apart["a"], apart["b"], apart["better"], apart["pairs"], apart["trials"]) == ("a", "b", "a", 12, 10)
    assert apart["low"] < -0.3 < apart["high"] < 0
    assert apart["a_better"] == 1
    [same] = analysis.compare(runs(0.0), "loss").to_dict("records")
    assert same["low"] < 0 < same["high"]
    assert pd.isna(same["better"])
    turned = runs(0.3).assign(loss_best=lambda f: -f["loss_best"])
    [most] = analysis.compare(turned, "loss", "max").to_dict("records")
    assert most["better"] == "a"
    assert most["low"] > 0


@pytest.mark.parametrize("pairs", [2, 3, 6])
@pytest.mark.parametrize("images", [None, 100])
def test_few_pairs_that_do_not_differ_are_seldom_said_to(pairs: int, images: int | None) -> None:
    rng = np.random.default_rng(pairs)
    found = []
    for _ in range(200):
        values = rng.standard_normal((pairs, 2)) if images is None else rng.binomial(images, 0.03, (pairs, 2)) / images
        rows = [
            trial("0000", float(values[seed, i])) | {"run": f"{name}{seed}", "searcher": name, "seed": seed}
            for seed in range(pairs)
            for i, name in enumerate("ab")
        ]
        [row] = analysis.compare(frame(*rows), "loss").to_dict("records")
        found.append(not pd.isna(row["better"]))
    assert np.mean(found) <= 0.09


def test_curves_fall_and_regret_is_the_distance_from_the_optimum() -> None:
    found = analysis.curves(runs(0.3), "loss")
    for _, curve in found.groupby("searcher"):
        assert curve["mean"].is_monotonic_decreasing
        assert curve["mean"].between(curve["low"], curve["high"]).all()
        assert (curve["runs"] == 12).all()
    regret = analysis.curves(runs(0.3), "loss", optimum=-5.0)
    assert regret["mean"].to_numpy() == pytest.approx(found["mean"].to_numpy() + 5)


def test_ranks_are_over_whole_pairs() -> None:
    found = analysis.ranks(runs(0.3), "loss", at=[1, 10])
    last = found[found["trials"] == 10].set_index("searcher")
    assert last["rank"].to_dict() == {"a": 1, "b": 2}
    short = runs(0.3)
    missing = analysis.ranks(short[short["run"] != "b3"], "loss")
    assert (missing["pairs"] == 11).all()


def test_a_pair_that_is_there_twice_is_named() -> None:
    doubled = runs(0.3).assign(seed=lambda f: f["seed"].replace(1, 0))
    with pytest.raises(InvalidInput, match="a has two runs with seed 0"):
        analysis.compare(doubled, "loss")
    with pytest.raises(InvalidInput, match="no column 'searchr'; did you mean 'searcher'"):
        analysis.curves(doubled, "loss", by="searchr")


# Cost and failures


def test_cost_adds_up_by_status() -> None:
    rows = frame(trial("0", duration_s=30.0), trial("1", duration_s=10.0, status="failed"), trial("2", duration_s=20.0))
    found = analysis.cost(rows, gpus_per_trial=2).set_index("status")
    assert found.loc["completed", ["trials", "fidelity", "seconds", "gpu_seconds"]].tolist() == [2, 2, 50, 100]
    assert found["share"].sum() == 1
    assert analysis.cost(rows)["gpu_seconds"].sum() == 0  # none is made up
    assert analysis.incumbent(rows.assign(loss=1.0), "loss", over="gpu_seconds")["spent"].sum() == 0


def test_failures_of_one_cause_are_one_row() -> None:
    reasons = ["ValueError: bad lr 0.12", "ValueError: bad lr 3e-05", "killed in '/tmp/a b'", ""]
    rows = frame(*(trial(f"{i}", status="failed", reason=text, duration_s=2.0) for i, text in enumerate(reasons)))
    found = analysis.failures(pd.concat([rows, frame(trial("9", 1.0))]))
    assert found["cause"].tolist() == ["ValueError: bad lr …", "killed in …", "not told"]
    assert found["trials"].tolist() == [2, 1, 1]
    assert found["share"].tolist() == [0.4, 0.2, 0.2]
    assert found.loc[0, ["example", "seconds"]].tolist() == ["0", 4.0]
    assert not len(analysis.failures(frame(trial("0", 1.0))))


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("out of memory: 512 MiB at 0x7f1a\nmore", "out of memory: … MiB at …"),
        ("no file /data/a/b.jpg, C:\\x\\y", "no file …, …"),
        ("  ", "not told"),
    ],
)
def test_what_varies_is_left_out_of_a_cause(reason: str, cause: str) -> None:
    assert cause_of(reason) == cause


def test_every_name_is_there_and_no_other() -> None:
    assert dir(analysis) == sorted(analysis.__all__)
    assert all(callable(getattr(analysis, name)) for name in analysis.__all__)
    with pytest.raises(AttributeError, match="no attribute 'importanse'"):
        analysis.importanse  # noqa: B018
