"""Optuna reads our studies: its trials are the journal's, its distributions the search space's."""

from __future__ import annotations

import math
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hpo_ray import history
from hpo_ray.errors import InvalidInput
from hpo_ray.loggers import study as writing
from hpo_ray.loggers.exporting import export
from hpo_ray.loggers.follower import Follower
from hpo_ray.space import SearchSpace
from tests.loggers.journals import BEGAN, NONE, SGD, lines_of, no_failure, sweep, write

optuna = pytest.importorskip("optuna", reason="the extra 'optuna' is not installed")


LINES = lines_of(sweep())


def loaded(file: Path, name: str = "a") -> Any:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{file}")


def plain(study: Any) -> list[tuple[Any, ...]]:
    """A study's trials; NaN as None, so that they can be compared."""

    def steps(trial: Any) -> dict[int, float | None]:
        return {step: None if math.isnan(v) else v for step, v in sorted(trial.intermediate_values.items())}

    return [
        (t.number, t.state.name, t.value, t.params, t.distributions, t.user_attrs, steps(t),
         t.datetime_start, t.datetime_complete)
        for t in study.trials
    ]  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write(tmp_path_factory.mktemp("runs") / "a", LINES)
    export(run_dir, "optuna")
    return run_dir


def test_its_trials_are_ours(exported: Path) -> None:
    run, study = history.load(exported), loaded(exported / "optuna.db")
    assert study.direction.name == "MINIMIZE"
    assert study.metric_names == ["loss"]
    assert study.user_attrs["searcher"] == "random"
    states = ["COMPLETE", "PRUNED", "COMPLETE", "FAIL", "FAIL", "COMPLETE", "FAIL", "FAIL"]
    assert [trial.state.name for trial in study.trials] == states
    assert [trial.user_attrs["trial_id"] for trial in study.trials] == list(run.trials)
    for trial, ours in zip(study.trials, run.trials.values(), strict=True):
        best = ours.best_report("loss", "min")
        if trial.state.name == "FAIL":
            assert trial.value is None
        else:
            assert best is not None
            assert trial.value == best.metrics["loss"]
        wanted = {int(row.fidelity): row.metrics["loss"] for row in ours.reports}
        assert trial.intermediate_values == pytest.approx(wanted, nan_ok=True)
        assert trial.user_attrs["status"] == ours.status
        assert trial.user_attrs["config_id"] == ours.config_id
        assert trial.user_attrs.get("reason", "") == ours.reason
        assert trial.datetime_start == datetime.fromtimestamp(ours.started_at)
        assert trial.datetime_complete == datetime.fromtimestamp(ours.last_seen)
    assert study.trials[2].user_attrs["restarts"] == "exception: boom"
    assert study.trials[0].user_attrs["acc"] == 0.5
    best = run.best()
    assert best is not None
    assert study.best_trial.user_attrs["trial_id"] == best[0].trial_id


def test_its_parameters_are_ours(exported: Path) -> None:
    trials = loaded(exported / "optuna.db").trials
    assert trials[0].params == {**SGD, "layers": "[8, 16]", "mixed": "1"}
    assert trials[1].params == {**NONE, "layers": "[8]", "mixed": "true"}
    assert "momentum" not in trials[1].params
    assert trials[2].params["mixed"] == "'1'"
    made = optuna.distributions
    assert trials[0].distributions == {
        "lr": made.FloatDistribution(1e-4, 1e-1, log=True),
        "width": made.IntDistribution(1, 9, step=2),
        "keep": made.FloatDistribution(0, 1, step=0.1),
        "optimizer": made.CategoricalDistribution(["sgd", "adam", None]),
        "momentum": made.FloatDistribution(0.5, 0.9),
        "layers": made.CategoricalDistribution(["[8]", "[8, 16]"]),
        "flag": made.CategoricalDistribution([True, False]),
        "mixed": made.CategoricalDistribution(["1", "true", "'1'", "1.5"]),
        "sizes": made.CategoricalDistribution([16, 32, 64]),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logint(16, 512)", ("IntDistribution", 16, 512, True, 1)),
        ("logint(16, 512, q=16)", ("IntDistribution", 16, 512, True, 1)),
        ("loguniform(0.1, 1, q=0.1)", ("FloatDistribution", 0.1, 1, True, None)),
        ("lognormal(0, 1)", ("FloatDistribution", math.exp(-6.1), math.exp(6.1), True, None)),
        ("normal(0, 1)", ("FloatDistribution", -6.1, 6.1, False, None)),
        ("normal(0, 1, q=0.3)", ("FloatDistribution", -6.0, 6.0, False, 0.3)),
    ],
)
def test_other_domains_keep_their_bounds(text: str, expected: tuple[Any, ...]) -> None:
    domain = SearchSpace.parse({"x": text}).domains["x"]
    made = writing._Parameter(optuna, domain).distribution
    told = (type(made).__name__, made.low, made.high, made.log, made.step)
    assert told == (expected[0], *(pytest.approx(x, rel=0.02) for x in expected[1:3]), *expected[3:])
    for unit in (0.0, 0.3, 0.99, 1.0):
        assert made._contains(made.to_internal_repr(domain.from_unit(unit)))


def test_exporting_again_changes_nothing(exported: Path) -> None:
    before = plain(loaded(exported / "optuna.db"))
    ids = [trial._trial_id for trial in loaded(exported / "optuna.db").trials]
    export(exported, "optuna")
    assert plain(loaded(exported / "optuna.db")) == before
    assert [trial._trial_id for trial in loaded(exported / "optuna.db").trials] == ids


@pytest.mark.parametrize("cut", [3, 23, 42])
def test_a_run_exported_half_way_and_again_at_its_end_is_the_same(exported: Path, tmp_path: Path, cut: int) -> None:
    run_dir = write(tmp_path / "a", LINES[:cut])
    export(run_dir, "optuna")
    assert all(trial.state.is_finished() for trial in loaded(run_dir / "optuna.db").trials)  # no driver lives
    write(run_dir, LINES)
    export(run_dir, "optuna")
    assert plain(loaded(run_dir / "optuna.db")) == plain(loaded(exported / "optuna.db"))


def test_following_a_journal_as_it_grows_gives_the_same_study(exported: Path, tmp_path: Path) -> None:
    run_dir = write(tmp_path / "a", [])
    sink = writing.open_sink(str(run_dir / "optuna.db"), patient=False)
    follower = Follower(run_dir, {"optuna": sink}, no_failure)
    states = set()
    with (run_dir / "events.jsonl").open("ab", buffering=0) as file:
        for count, line in enumerate(LINES):
            file.write(line)
            follower.step()
            if count in (5, 12, 25):
                states |= {trial.state.name for trial in loaded(run_dir / "optuna.db").trials}
    assert states == {"RUNNING", "COMPLETE", "PRUNED"}
    follower.step(to_end=True)
    follower.close()
    assert plain(loaded(run_dir / "optuna.db")) == plain(loaded(exported / "optuna.db"))


def test_many_runs_share_a_file_each_with_its_study(exported: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "runs" / name, lines_of(sweep()[:12], BEGAN + ord(name)))
    file = tmp_path / "all.db"
    export(f"{tmp_path}/runs/*", "optuna", file)
    assert {study.study_name for study in optuna.get_all_study_summaries(f"sqlite:///{file}")} == {"a", "b"}
    assert len(loaded(file, "b").trials) == 2
    with pytest.raises(InvalidInput, match="study 'a' there is not of this run"):
        export(exported, "optuna", file)
    write(tmp_path / "runs" / "deeper" / "a", LINES)
    with pytest.raises(InvalidInput, match="several of these runs are called 'a'"):
        export(f"{tmp_path}/runs/**", "optuna", file)


def test_a_strangers_run_is_written_as_far_as_it_makes_sense(tmp_path: Path) -> None:
    events = sweep()[:3]
    events[0]["experiment"] = {"name": None, "metric": "loss", "searcher": "odd", "space": ["lr"]}
    events[1]["config"] = {"lr": 10**300, "deep": [{"a": [None]}], "": "<script>"}
    events.append({"event": "trial_reported", "trial_id": "0000", "attempt": 0, "fidelity": 1e308, "elapsed_s": 0,
                   "metrics": {"loss": 10**300, "": 1}})  # fmt: skip
    events.append({"event": "trial_reported", "trial_id": "0000", "attempt": 0, "fidelity": -1.5e305, "elapsed_s": 0,
                   "metrics": {"loss": 1}})  # fmt: skip
    run_dir = write(tmp_path / "a", lines_of(events))
    for tool in ("optuna", "tensorboard") if find_spec("tensorboard") else ("optuna",):
        export(run_dir, tool)
    [trial] = loaded(run_dir / "optuna.db").trials
    assert trial.user_attrs[""] == "<script>"
    assert trial.intermediate_values == {-(2**53): 1.0, 2**53: 1e300}


def test_what_is_no_database_is_told(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database at all, but long enough to be read as the header of one" * 9)
    with pytest.raises(InvalidInput, match="cannot be opened"):
        export(exported, "optuna", tmp_path / "study.db")
    with pytest.raises(InvalidInput, match="cannot be opened"):
        export(exported, "optuna", "no-such-database://here/study")
