"""Earlier runs in a new experiment: what is carried over into which space, what is left out, what is refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo_ray.errors import InvalidInput
from hpo_ray.experiment import Experiment
from hpo_ray.journal import FILE_NAME, Journal
from hpo_ray.lock import Lock
from hpo_ray.prior import Prior, carry, load
from hpo_ray.searchers import GPEISearcher, make
from hpo_ray.space import SearchSpace

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import search_prior

OLD = {
    "lr": "loguniform(1e-4, 1e-1)",
    "batch_size": "choice(32, 64, 128)",
    "optimizer": "choice(sgd, adam)",
    "momentum": "uniform(0, 0.99, when={optimizer: sgd})",
}
CONFIGS = [
    {"lr": 0.001, "batch_size": 32, "optimizer": "adam"},
    {"lr": 0.01, "batch_size": 64, "optimizer": "sgd", "momentum": 0.5},
    {"lr": 0.05, "batch_size": 128, "optimizer": "adam"},
]
# (configuration, status, fidelity -> loss)
Trial = tuple[dict[str, Any], str, dict[float, float]]
TRIALS: list[Trial] = [(config, "completed", {1: 0.9, 2: 0.1 * i}) for i, config in enumerate(CONFIGS, start=1)]


def experiment(space: Mapping[str, Any] = OLD, runs: object = None, **changes: Any) -> Experiment:
    """One on digits; `changes` replace its sections."""
    document = {
        "name": "digits",
        "metric": "val_error",
        "mode": "min",
        "fidelity": "epoch",
        "space": dict(space),
        "searcher": {"name": "gp_ei"},
        "scheduler": {"name": "none"},
        "trainable": {"name": "image_classification"},
        "data": {},
        "model": {},
        "training": {},
        "prior": {"runs": None if runs is None else str(runs)},
    }
    return Experiment.model_validate({**document, **changes})


def function(space: Mapping[str, Any], runs: object = None, target: str = "my.py:train", **changes: Any) -> Experiment:
    """One with the user's own objective, which has no sections."""
    trainable = {"name": "function", "target": target}
    return experiment(space, runs, trainable=trainable, data=None, model=None, training=None, **changes)


def write(
    folder: Path, made: Experiment, trials: Sequence[Trial] = TRIALS, ended: bool = True, se: float = 0.01
) -> Path:
    """A run's folder, as its driver leaves it; a trial of status "" has not ended."""
    with Journal(folder) as log:
        log.append("run_started", experiment=made.model_dump(), environment={})
        for number, (config, status, losses) in enumerate(trials):
            key = {"trial_id": f"{number:04d}", "attempt": 0}
            log.append("trial_suggested", trial_id=key["trial_id"], config=config, config_id=f"c{number}")
            log.append("trial_started", **key)
            for fidelity, loss in losses.items():
                metrics = {made.metric: loss, f"{made.metric}_se": se}
                log.append("trial_reported", **key, fidelity=fidelity, metrics=metrics, elapsed_s=0.1)
            if status:
                log.append("trial_ended", **key, status=status, reason="")
        if ended:
            log.append("run_ended", status="completed", reason="")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "digits-1", experiment(training={"momentum": 0.9}))


def configs(prior: Prior) -> list[dict[str, Any]]:
    return [known["config"] for known in prior.observations]


def problems(made: Experiment) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        load(made)
    assert {problem.key for problem in caught.value.problems} == {"prior.runs"}
    return [problem.message for problem in caught.value.problems]


def test_the_same_space_takes_every_trial_at_its_last_report(run: Path) -> None:
    prior = load(experiment(runs=run))
    assert configs(prior) == CONFIGS
    expected = {"trial_id": "digits-1/0001", "loss": 0.2, "fidelity": 2, "status": "completed", "se": 0.01}
    assert prior.observations[1] == {**expected, "config": CONFIGS[1]}
    assert prior.notes == ["prior.runs: 3 of 3 trials of digits-1 inform the searcher"]
    assert json.loads(json.dumps(prior.observations, allow_nan=False)) == prior.observations


def test_without_earlier_runs_nothing_is_known() -> None:
    assert load(experiment()) == Prior([], [])


@pytest.mark.parametrize(
    ("change", "kept", "why"),
    [
        ({"lr": "loguniform(5e-3, 1e-1)"}, [1, 2], "1 outside the new space (lr)"),
        ({"lr": "loguniform(1e-6, 10)"}, [0, 1, 2], ""),
        ({"lr": "uniform(0, 1)"}, [0, 1, 2], ""),
        ({"lr": "uniform(0, 1, q=0.01)"}, [1, 2], "1 outside the new space (lr)"),
        ({"lr": "choice(0.01, 0.05)"}, [1, 2], "1 outside the new space (lr)"),
        ({"batch_size": "choice(64, 128, 256)"}, [1, 2], "1 outside the new space (batch_size)"),
        ({"batch_size": "ordinal(128, 64)"}, [1, 2], "1 outside the new space (batch_size)"),
        ({"batch_size": "int(32, 64)"}, [0, 1], "1 outside the new space (batch_size)"),
        ({"batch_size": "int(2, 128, q=6)"}, [0, 2], "1 outside the new space (batch_size)"),
        ({"batch_size": "logint(1, 512)"}, [0, 1, 2], ""),
        (
            {"lr": "loguniform(2e-3, 1e-1)", "batch_size": "choice(64)"},
            [1],
            "1 outside the new space (lr, batch_size); 1 outside the new space (batch_size)",
        ),
        ({"momentum": "uniform(0.6, 0.99, when={optimizer: sgd})"}, [0, 2], "1 outside the new space (momentum)"),
        ({"optimizer": "choice(adam, rmsprop)", "momentum": "uniform(0, 1, when={optimizer: rmsprop})"}, [0, 2], ""),
    ],
)
def test_a_value_outside_its_new_domain_leaves_its_trial_out(
    run: Path, change: dict[str, str], kept: list[int], why: str
) -> None:
    space = {**OLD, **change}
    prior = load(experiment(space, run))
    assert configs(prior) == [CONFIGS[i] for i in kept]
    assert [known["trial_id"] for known in prior.observations] == [f"digits-1/{i:04d}" for i in kept]
    assert why in prior.notes[0]
    assert f"{len(kept)} of 3 trials" in prior.notes[0]


def test_dust_of_binary_arithmetic_is_no_step_off_the_lattice(tmp_path: Path) -> None:
    write(tmp_path / "run", function({"x": "uniform(0, 1)"}), [({"x": 3 * 0.1}, "completed", {1: 0.5})])
    prior = load(function({"x": "uniform(0, 1, q=0.1)"}, tmp_path / "run"))
    assert configs(prior) == [{"x": 0.3}]


def test_a_parameter_that_was_fixed_then_has_its_value_of_then(tmp_path: Path) -> None:
    run = write(tmp_path / "run", experiment(model={"dropout": 0.25}))
    added = {**OLD, "dropout": "uniform(0, 0.5, default=0.1)"}
    prior = load(experiment(added, run))
    assert configs(prior) == [{**config, "dropout": 0.25} for config in CONFIGS]
    assert len(prior.notes) == 1


def test_a_constant_of_the_old_space_is_its_value_of_then(tmp_path: Path) -> None:
    run = write(tmp_path / "run", experiment({**OLD, "dropout": 0.25}, model={"dropout": 0.4}))
    prior = load(experiment({**OLD, "dropout": "uniform(0, 0.5, default=0.1)"}, run))
    assert {config["dropout"] for config in configs(prior)} == {0.25}


def test_outside_the_new_domain_the_default_stands_in_for_what_was_fixed(tmp_path: Path) -> None:
    """Weight decay is 0 unless said otherwise, which no log scale holds."""
    run = write(tmp_path / "run", experiment())
    prior = load(experiment({**OLD, "weight_decay": "loguniform(1e-6, 1e-2, default=1e-6)"}, run))
    assert {config["weight_decay"] for config in configs(prior)} == {1e-6}
    note = "weight_decay was 0 in run, outside its domain: its default 1e-06 stands in"
    assert prior.notes[1:] == [f"prior.runs: {note}"]
    [message] = problems(experiment({**OLD, "weight_decay": "loguniform(1e-6, 1e-2)"}, run))
    said = "say what stands in, space.weight_decay='loguniform(1e-06, 0.01, default=…)'"
    assert message == f"weight_decay was 0 in run, outside its domain: {said}"


def test_the_users_own_parameter_has_its_default_or_is_asked_for(tmp_path: Path) -> None:
    run = write(tmp_path / "run", function({"x": "uniform(0, 1)"}), [({"x": 0.5}, "completed", {1: 0.5})])
    new = {"x": "uniform(0, 1)", "y": "int(1, 9, default=3)", "z": "choice([1, 2], [3], default=[3])"}
    prior = load(function(new, run))
    assert configs(prior) == [{"x": 0.5, "y": 3, "z": [3]}]
    assert "prior.runs: trials of run have no y: its default 3 stands in" in prior.notes
    bare = {"x": "uniform(0, 1)", "y": "int(1, 9)", "z": "choice(a, b)", "u": "int(1, 2, default=1)"}
    expected = [("y", "int(1, 9, default=…)"), ("z", "choice(a, b, default=…)")]
    assert problems(function(bare, run)) == [
        f"trials of run have no {key}: say what stands in, space.{key}='{text}'" for key, text in expected
    ]


def test_a_parameter_that_no_trial_needs_may_lack_a_default(tmp_path: Path) -> None:
    run = write(tmp_path / "run", function({"net": "choice(mlp, cnn)"}), [({"net": "mlp"}, "completed", {1: 0.5})])
    new = {"kernel": "int(1, 5, when={net: cnn})", "net": "choice(mlp, cnn)"}
    assert configs(load(function(new, run))) == [{"net": "mlp"}]


def test_a_parameter_no_longer_searched_is_ignored(run: Path) -> None:
    new = {key: text for key, text in OLD.items() if key != "batch_size"}
    prior = load(experiment(new, run, training={"batch_size": 32}))
    assert configs(prior) == [{k: v for k, v in config.items() if k != "batch_size"} for config in CONFIGS]
    assert prior.notes[1:] == ["prior.runs: batch_size is no longer searched: its values in digits-1 are ignored"]
    # A constant of the space is not searched either.
    assert load(experiment({**new, "batch_size": 32}, run)).observations == prior.observations


def test_what_was_not_in_use_has_the_value_that_its_section_gave_it(run: Path) -> None:
    """The old runs searched momentum for SGD alone; the new space has it for all."""
    new = {**OLD, "momentum": "uniform(0, 0.99)"}
    prior = load(experiment(new, run))
    assert [config["momentum"] for config in configs(prior)] == [0.9, 0.5, 0.9]


def test_what_is_no_longer_in_use_is_left_away(run: Path) -> None:
    new = {**OLD, "momentum": "uniform(0, 0.99, when={optimizer: adam})"}
    prior = load(experiment(new, run))
    assert [config.get("momentum") for config in configs(prior)] == [0.9, None, 0.9]
    assert all(SearchSpace.parse(new).contains(config) for config in configs(prior))


def test_a_new_parent_decides_by_its_value_of_then(tmp_path: Path) -> None:
    old = {"lr": "loguniform(1e-4, 1e-1)", "momentum": "uniform(0, 0.99)"}
    trials: list[Trial] = [({"lr": 0.01, "momentum": 0.5}, "completed", {1: 0.5})]
    new = {**OLD, "batch_size": 64}
    adam = write(tmp_path / "adam", experiment(old), trials)
    sgd = write(tmp_path / "sgd", experiment(old, training={"optimizer": "sgd"}), trials)
    assert configs(load(experiment(new, adam))) == [{"lr": 0.01, "optimizer": "adam"}]
    assert configs(load(experiment(new, sgd))) == [{"lr": 0.01, "optimizer": "sgd", "momentum": 0.5}]


def test_long_and_short_names_mean_the_same_but_for_the_users_own(tmp_path: Path) -> None:
    trials: list[Trial] = [({"training.lr": 0.01}, "completed", {1: 0.5})]
    run = write(tmp_path / "run", experiment({"training.lr": "loguniform(1e-4, 1e-1)"}), trials)
    assert configs(load(experiment({"lr": "loguniform(1e-4, 1e-1)"}, run))) == [{"lr": 0.01}]
    again = write(tmp_path / "again", experiment({"lr": "loguniform(1e-4, 1e-1)"}), [({"lr": 0.01}, "completed", {})])
    assert load(experiment({"training.lr": "loguniform(1e-4, 1e-1)"}, f"{run}, {again}")).observations[0] == {
        "trial_id": "run/0000",
        "config": {"training.lr": 0.01},
        **{"loss": 0.5, "fidelity": 1, "status": "completed", "se": 0.01},
    }
    own = write(tmp_path / "own", function({"training.lr": "loguniform(1e-4, 1e-1)"}), trials)
    assert len(problems(function({"lr": "loguniform(1e-4, 1e-1)"}, own))) == 1


def test_a_run_that_measured_something_else_is_refused_with_every_difference(tmp_path: Path) -> None:
    other = experiment(metric="val_loss", mode="max", fidelity=None, data={"name": "folder", "root": "/x"})
    mine = function({"x": "uniform(0, 1)"}, metric="val_error", fidelity="epoch")
    write(tmp_path / "other", other)
    write(tmp_path / "mine", mine)
    write(tmp_path / "same", experiment())
    assert sorted(problems(experiment(runs=tmp_path / "*"))) == [
        "mine has data=None: expected 'digits'",
        "mine has trainable='function train': expected 'image_classification'",
        "other has data='folder': expected 'digits'",
        "other has fidelity=None: expected 'epoch'",
        "other has metric='val_loss': expected 'val_error'",
        "other has mode='max': expected 'min'",
    ]


@pytest.mark.parametrize(
    ("then", "good"),
    [
        ("/elsewhere/mine.py:train", True),
        ("package.module:train", True),
        ("package.module:made.<locals>.train", True),
        ("my.py:other", False),
        ("my.py:retrain", False),
    ],
)
def test_an_objective_may_have_moved_but_not_be_another(tmp_path: Path, then: str, good: bool) -> None:
    space = {"x": "uniform(0, 1)"}
    write(tmp_path / "run", function(space, target=then), [({"x": 0.5}, "completed", {1: 0.5})])
    made = function(space, tmp_path / "run")
    if good:
        assert configs(load(made)) == [{"x": 0.5}]
    else:
        assert problems(made) == [f"run has trainable='function {then[6:]}': expected 'function train'"]


def test_losses_are_minimised_inside(tmp_path: Path) -> None:
    run = write(tmp_path / "run", experiment(metric="val_accuracy", mode="max"))
    prior = load(experiment(runs=run, metric="val_accuracy", mode="max"))
    assert [known["loss"] for known in prior.observations] == pytest.approx([-0.1, -0.2, -0.3])


def test_how_trials_ended_is_told_and_nothing_waits_for_ever(tmp_path: Path) -> None:
    nan, inf = math.nan, math.inf
    cases: list[tuple[str, dict[float, float], tuple[Any, ...] | None]] = [
        ("completed", {1: 0.4, 3: 0.2}, (0.2, 3, "completed")),
        ("stopped", {1: 0.5}, (0.5, 1, "stopped")),
        ("interrupted", {1: 0.6}, (0.6, 1, "stopped")),
        ("interrupted", {}, None),
        ("", {1: 0.7}, (0.7, 1, "stopped")),
        ("", {}, None),
        ("failed", {}, (None, None, "failed")),
        ("failed", {1: 0.3}, (None, 1, "failed")),
        ("out_of_memory", {}, (None, None, "out_of_memory")),
        ("failed", {1: 0.3, 2: nan}, (None, 2, "failed")),
        ("completed", {1: inf}, (None, 1, "failed")),
        ("", {1: 0.3, 2: -inf}, (None, 2, "failed")),
    ]
    trials = [({**CONFIGS[0], "lr": 0.001 * (i + 1)}, status, losses) for i, (status, losses, _) in enumerate(cases)]
    expected = [told for *_, told in cases if told is not None]
    for ended in (True, False):
        run = write(tmp_path / f"run-{ended}", experiment(), trials, ended)
        prior = load(experiment(runs=run))
        assert [(k["loss"], k["fidelity"], k["status"]) for k in prior.observations] == expected
        assert [k["se"] for k in prior.observations] == [None if told[0] is None else 0.01 for told in expected]
        assert "10 of 12" in prior.notes[0]
        assert "; 2 without a result" in prior.notes[0]
        assert json.loads(json.dumps(prior.observations, allow_nan=False)) == prior.observations
    searcher = make("gp_ei", SearchSpace.parse(OLD), metric="val_error", mode="min", seed=0)
    for known in prior.observations:
        searcher.observe(**known)
    assert len(searcher._ledger.pending) == 0
    assert len(searcher._ledger.measured) == 4
    assert len(searcher._ledger.failed) == 6


@pytest.mark.parametrize("se", [0.0, math.nan, math.inf])
def test_a_standard_error_is_a_number_or_none(tmp_path: Path, se: float) -> None:
    prior = load(experiment(runs=write(tmp_path / "run", experiment(), se=se)))
    assert [known["se"] for known in prior.observations] == [0.0 if se == 0.0 else None] * 3


def test_a_live_run_informs_with_what_it_has_measured(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", experiment(), [(CONFIGS[0], "", {1: 0.7}), (CONFIGS[1], "", {})], ended=False)
    with Lock(folder):
        prior = load(experiment(runs=folder))
    assert [(k["loss"], k["status"]) for k in prior.observations] == [(0.7, "stopped")]


def test_a_torn_last_line_costs_nothing_and_a_lost_configuration_its_trial(run: Path) -> None:
    path = run / FILE_NAME
    with path.open("ab") as file:
        file.write(b'{"v":1,"event":"trial_sug')
    assert len(load(experiment(runs=run)).observations) == 3
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if b"trial_suggested" in line)
    path.write_bytes(b"".join([*lines[:first], b"\x00\x00\n", *lines[first + 1 :]]))
    prior = load(experiment(runs=run))
    assert configs(prior) == CONFIGS[1:]
    assert "1 without a result" in prior.notes[0]


def test_a_run_that_never_started_is_passed_over(run: Path) -> None:
    empty = run.parent / "digits-0"
    empty.mkdir()
    (empty / FILE_NAME).touch()
    prior = load(experiment(runs=run.parent / "*"))
    assert configs(prior) == CONFIGS
    assert "digits-0 has not started" in prior.notes[0]


def test_paths_globs_and_commas_name_each_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runs/a-1", "runs/a-2", "runs/b-1", "old/b-1"):
        write(tmp_path / name, experiment(), TRIALS[:1])
    monkeypatch.chdir(tmp_path)
    found = load(experiment(runs="runs/a-*, runs/a-1,runs/../runs/b-1")).observations
    assert [known["trial_id"] for known in found] == ["a-1/0000", "a-2/0000", "b-1/0000"]
    same = load(experiment(runs="runs/b-1,old/b-1")).observations
    assert [known["trial_id"] for known in same] == [f"{tmp_path}/{name}/b-1/0000" for name in ("runs", "old")]
    assert problems(experiment(runs="runs/c-*,runs/a-1,nowhere")) == [
        f"no run found at '{text}': expected folders that hold events.jsonl" for text in ("runs/c-*", "nowhere")
    ]
    assert problems(experiment(runs=",")) == ["no run found at ',': expected folders that hold events.jsonl"]


@pytest.mark.parametrize("name", ["random", "grid"])
def test_who_does_not_learn_is_told_nothing(run: Path, name: str) -> None:
    prior = load(experiment(runs=run, searcher={"name": name}))
    assert prior == Prior([], [f"searcher '{name}' does not learn: prior.runs changes nothing"])
    assert problems(experiment(runs=run, searcher={"name": name}, metric="val_loss"))


def test_other_fixed_settings_are_named(tmp_path: Path) -> None:
    """They do not forbid the comparison, but the user may have forgotten them."""
    run = write(tmp_path / "run", experiment(model={"arch": "mlp"}, data={"workers": 2}, training={"epochs": 9}))
    prior = load(experiment(runs=run))
    assert prior.notes[1:] == ["prior.runs: run ran with arch='mlp', not 'cnn'"]


# Any two spaces


DOMAINS = st.sampled_from(
    [
        "uniform(0, 1)",
        "uniform(0.2, 0.8, q=0.2)",
        "uniform(-1, 2, default=0.4)",
        "loguniform(0.01, 10)",
        "loguniform(0.1, 1, default=0.2)",
        "normal(0, 1)",
        "lognormal(0, 1, q=0.2)",
        "int(0, 3)",
        "int(1, 9, q=2, default=3)",
        "logint(1, 100)",
        "choice(1, 2, a)",
        "choice(a, b, [1, 2], default=b)",
        "ordinal(1, 2, 4)",
        "ordinal(true, false, none, default=none)",
        "choice(1, true)",
    ]
)
PARENTS = {"choice(1, 2, a)": [1, "a"], "choice(1, true)": [True], "int(0, 3)": [0, 3], "ordinal(1, 2, 4)": [2, 4]}


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, str]:
    """Up to four parameters, in any order, the last two under the condition of another one's values."""
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    space: dict[str, str] = {}
    for name in names:
        parents = [other for other, text in space.items() if text in PARENTS]
        text = draw(DOMAINS)
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            values = draw(st.lists(st.sampled_from(PARENTS[space[parent]]), min_size=1, unique=True))
            text = f"{text[:-1]}, when={{{parent}: {json.dumps(values)}}})"
        space[name] = text
    return {name: space[name] for name in draw(st.permutations(names))}


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(old=spaces(), new=spaces(), seed=st.integers(0, 2**32 - 1), fixed=st.booleans())
def test_what_is_carried_over_is_a_configuration_of_the_new_space(
    old: dict[str, str], new: dict[str, str], seed: int, fixed: bool
) -> None:
    rng, space = np.random.default_rng(seed), SearchSpace.parse(new)
    sampled = json.loads(json.dumps(SearchSpace.parse(old).sample(rng)))
    known = SearchSpace.parse(new).sample(rng) if fixed else {}
    config, said = carry(sampled, known, space)
    if {"outside", "missing"} & set(said.values()):
        assert not space.contains(config)
        return
    x, active = space.encode([config])
    [back] = space.decode(x)
    assert back.keys() == config.keys()
    for name, value in config.items():
        near = pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
        assert back[name] == near
        if name in sampled:
            assert sampled[name] == near
        elif name in known and said.get(name) != "default":
            assert value == known[name]
    assert list(config) == [name for name, used in zip(space.names, active[0], strict=True) if used]


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(text=spaces(), seed=st.integers(0, 2**32 - 1))
def test_in_the_same_space_everything_stays_as_it_is(text: dict[str, str], seed: int) -> None:
    space = SearchSpace.parse(text)
    sampled = space.sample(np.random.default_rng(seed))
    assert carry(json.loads(json.dumps(sampled)), {}, space) == (sampled, {})


# What searchers make of it


def tell(name: str, prior: Prior, space: Mapping[str, Any], **options: Any) -> Any:
    searcher = make(name, SearchSpace.parse(space), metric="val_error", mode="min", seed=options.get("seed", 0))
    for known in json.loads(json.dumps(prior.observations)):
        searcher.observe(**known)
    return searcher


PLANE = {"x": "uniform(0, 1)", "y": "uniform(0, 1, default=0.9)"}


def bowl(config: Mapping[str, Any]) -> float:
    return float((config["x"] - 0.3) ** 2 + (config["y"] - 0.6) ** 2)


def sampled_trials(count: int, fidelities: Sequence[float] = (1,)) -> list[Trial]:
    """Trials of the plane that stop at one fidelity after another; what is not trained to the end looks 5 worse."""
    space, rng = SearchSpace.parse(PLANE), np.random.default_rng(5)
    trials: list[Trial] = []
    for i in range(count):
        config, last = space.sample(rng), fidelities[i % len(fidelities)]
        losses = {f: bowl(config) + 5 * (f < max(fidelities)) for f in fidelities if f <= last}
        trials.append((config, "completed" if last == max(fidelities) else "stopped", losses))
    return trials


@pytest.fixture
def plane(tmp_path: Path) -> Prior:
    made = function(PLANE, fidelity="epoch")
    return load(function(PLANE, write(tmp_path / "run", made, sampled_trials(20)), fidelity="epoch"))


def test_gp_ei_begins_with_its_model_and_repeats_nothing(plane: Prior) -> None:
    searcher = tell("gp_ei", plane, PLANE)
    suggested = [searcher.suggest(f"{k:04d}") for k in range(6)]
    assert searcher.state_of("0000")  # of its model: the start has none
    assert not any(config in configs(plane) for config in suggested)
    assert min(map(bowl, suggested)) < min(known["loss"] for known in plane.observations)


def test_a_finite_space_is_not_searched_twice(tmp_path: Path) -> None:
    space = {"a": "choice(a, b)", "b": "int(1, 3)"}
    grid = list(SearchSpace.parse(space).grid())
    run = write(tmp_path / "run", function(space), [(config, "completed", {1: config["b"]}) for config in grid[:4]])
    searcher = tell("gp_ei", load(function(space, run)), space)
    found = []
    for k in range(2):
        found.append(searcher.suggest(str(k)))
        searcher.observe(str(k), found[-1], 1.0, fidelity=1.0, status="completed")
    assert sorted(map(str, found)) == sorted(map(str, grid[4:]))


@pytest.mark.parametrize("name", ["gp_ei", "hyperopt"])
def test_a_default_is_tried_first_only_where_nothing_is_known(name: str, plane: Prior) -> None:
    first = make(name, SearchSpace.parse(PLANE), metric="val_error", mode="min", seed=0).suggest("0000")
    assert first == {"x": 0.5, "y": 0.9}
    assert tell(name, plane, PLANE).suggest("0000") != first
    searcher_class = type(tell(name, Prior(), PLANE))
    searcher = searcher_class(SearchSpace.parse(PLANE), points_to_evaluate=[{"x": 0.1, "y": 0.2}])
    for known in plane.observations:
        searcher.observe(**known)
    assert searcher.suggest("0000") == {"x": 0.1, "y": 0.2}


@pytest.mark.parametrize("name", ["gp_ei", "hyperopt"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(name: str, plane: Prior) -> None:
    """The driver tells what was known beforehand, and then replays."""
    whole, again = (tell(name, plane, PLANE, seed=3) for _ in range(2))

    def go(numbers: range) -> list[dict[str, Any]]:
        found = []
        for k in numbers:
            found.append(whole.suggest(f"{k:04d}"))
            whole.observe(f"{k:04d}", found[-1], bowl(found[-1]), fidelity=1.0, status="completed")
        return found

    first = go(range(5))
    for k, config in enumerate(first):
        again.replay(f"{k:04d}", config, json.loads(json.dumps(whole.state_of(f"{k:04d}"))))
        again.observe(f"{k:04d}", config, bowl(config), fidelity=1.0, status="completed")
    expected, whole = go(range(5, 9)), again
    assert go(range(5, 9)) == expected


@pytest.mark.parametrize("known", [True, False])
def test_a_saved_searcher_remembers_whether_its_default_comes_first(known: bool, plane: Prior, tmp_path: Path) -> None:
    searcher = tell("gp_ei", plane if known else Prior(), PLANE)
    searcher.save(str(tmp_path / "state"))
    again = tell("gp_ei", Prior(), PLANE)
    again.restore(str(tmp_path / "state"))
    assert again.suggest("0000") == searcher.suggest("0000")
    assert again.suggest("0001") == searcher.suggest("0001")


def test_a_saved_searcher_keeps_the_points_that_were_asked_for(plane: Prior, tmp_path: Path) -> None:
    searcher, again = (
        GPEISearcher(SearchSpace.parse(PLANE), points_to_evaluate=points) for points in ([{"x": 0.1, "y": 0.2}], None)
    )
    for known in plane.observations:
        searcher.observe(**known)
    searcher.save(str(tmp_path / "state"))
    again.restore(str(tmp_path / "state"))
    assert again.suggest("0000") == {"x": 0.1, "y": 0.2}


def test_a_run_with_early_stopping_informs_at_every_fidelity(tmp_path: Path) -> None:
    """Losses at epochs 1, 3 and 9 are 5 above those at 27: the model tells level from place."""
    made = function(PLANE, fidelity="epoch")
    run = write(tmp_path / "run", made, sampled_trials(24, (1, 3, 9, 27)))
    prior = load(function(PLANE, run, fidelity="epoch"))
    assert [known["fidelity"] for known in prior.observations] == [1, 3, 9, 27] * 6
    searcher = tell("gp_ei", prior, PLANE)
    assert len(searcher._ledger.pending) == 0
    best = min(known["loss"] for known in prior.observations)
    found = []
    for k in range(5):
        config = searcher.suggest(f"{k:04d}")
        found.append(bowl(config))
        for fidelity in (1.0, 3.0, 9.0, 27.0):
            loss = found[-1] + 5 * (fidelity < 27)
            searcher.observe(f"{k:04d}", config, loss, fidelity=fidelity, status="running")
        searcher.observe(f"{k:04d}", config, found[-1], fidelity=27.0, status="completed")
    assert min(found) < min(best, 0.01)


# The benchmark


@pytest.mark.parametrize("task", search_prior.CHOSEN.values(), ids=lambda task: task.name)
def test_a_task_s_new_space_holds_half_of_a_range_about_the_best_and_the_held_value(task: search_prior.Task) -> None:
    held, rng = search_prior.HELD[task.name], np.random.default_rng(0)
    before, after = search_prior.spaces(task)
    for _ in range(20):
        best = before.sample(rng)
        space = after(best)
        config, said = carry(best, {held.name: held.value}, space)
        assert (config, said) == ({**best, held.name: held.value}, {})
        assert space.domains[held.name].default == held.value
        old, new = before.domains[held.narrowed], space.domains[held.narrowed]
        assert old.to_unit(new.high) - old.to_unit(new.low) == pytest.approx(0.5)


def test_the_benchmark_counts_trials_until_the_best_is_reached_again() -> None:
    rows = search_prior.compare("hyperopt", search_prior.CHOSEN["hartmann6"], seed=0, first=6, cap=40)
    assert [(row["way"], row["known"]) for row in rows[:2]] == [("extended", 6), ("told", 6)]
    assert rows[0]["cold"] == rows[1]["cold"]
    assert all(1 <= row[peer] <= 41 for row in rows for peer in ("warm", "cold"))
    searcher = search_prior.searcher_of("random", SearchSpace.parse({"x": "uniform(0, 1)"}), seed=0)
    found = search_prior.search(searcher, lambda config: config["x"], range(100), target=0.1)
    assert [loss <= 0.1 for _, loss in found] == [False] * (len(found) - 1) + [True]
