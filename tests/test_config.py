"""Composition: groups chosen, values set, the user's folder laid over the packaged one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_ray import config
from hpo_ray.config import GROUPS, choices_of, load, packaged_conf, parse_value
from hpo_ray.errors import InvalidInput
from hpo_ray.experiment import Experiment
from hpo_ray.preflight import check


def resolved(*overrides: str, config_dir: Path | None = None) -> Experiment:
    return check(load(overrides, config_dir))


def test_the_issue_of_it_all() -> None:
    experiment = resolved(
        "experiment=digits", "searcher=hyperopt", "scheduler.max_t=9", "space.lr=loguniform(1e-4, 1e-2)"
    )
    assert experiment.searcher.name == "hyperopt"
    assert (experiment.scheduler.max_t, experiment.scheduler.reduction_factor) == (9, 3)
    assert experiment.training is not None
    assert experiment.training.epochs == 9  # follows the scheduler
    assert experiment.space["lr"] == "loguniform(0.0001, 0.01)"
    assert experiment.space["optimizer"] == "choice(sgd, adam)"


@pytest.mark.parametrize("name", choices_of("experiment", [packaged_conf()]))
def test_every_packaged_experiment_is_good(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.py").write_text("def train(config, trial): ...\n")
    monkeypatch.chdir(tmp_path)
    for label in ("ants", "bees"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.jpg").touch()
    (tmp_path / "weights.pt").touch()
    for file in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{file}-ubyte").touch()
    own = ["trainable.target=my.py:train", "space.x=uniform(0, 1)"] if name == "function" else []
    own += ["data.root=photos"] if name == "images" or name.startswith("finetune") else []
    own += ["data.root=."] if name == "fashion_mnist" else []
    own += ["model.weights=weights.pt"] if name.startswith("finetune") else []
    assert resolved(f"experiment={name}", *own).name


def test_every_group_has_choices_and_every_folder_is_a_group() -> None:
    folders = {path.name for path in packaged_conf().iterdir() if path.is_dir()}
    assert folders == set(GROUPS)
    assert all(choices_of(group, [packaged_conf()]) for group in GROUPS)


def test_an_explicit_choice_wins_over_the_experiments() -> None:
    assert resolved("experiment=mlp", "searcher=random").searcher.name == "random"
    assert resolved("searcher=random", "experiment=mlp").searcher.name == "random"


def test_parameters_can_be_added_changed_and_dropped() -> None:
    experiment = resolved("experiment=digits", "space.units=logint(16, 256)", "~space.dropout", "+space.weight_decay=0")
    assert experiment.space["units"] == "logint(16, 256)"
    assert "dropout" not in experiment.space
    assert experiment.space["weight_decay"] == 0


@pytest.mark.parametrize("key", ["lr", "training.lr"])
def test_a_parameter_goes_by_its_shortest_name(key: str) -> None:
    experiment = resolved("experiment=digits", "~space.lr", f"space.{key}=loguniform(1e-3, 1e-1)")
    assert "lr" in experiment.space
    assert "training.lr" not in experiment.space
    assert experiment.trial_config({"lr": 0.05})["training"]["lr"] == 0.05


def test_the_users_folder_lies_over_the_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - digits\n  - override /searcher: grid\nname: mine\ntrials: null\nspace:\n"
        "  lr: loguniform(1e-3, 1e-1, grid=3)\n  momentum: 0.9\n  dropout: 0.1\n"
    )
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "asha.yaml").write_text("name: asha\nmax_t: 8\nreduction_factor: 2\n")
    experiment = resolved("experiment=mine", config_dir=tmp_path)
    assert (experiment.name, experiment.searcher.name, experiment.scheduler.max_t) == ("mine", "grid", 8)
    assert experiment.search_space.size is None
    assert experiment.trials is None


def test_what_a_document_says_of_its_sources(tmp_path: Path) -> None:
    document = load(["experiment=digits", "trials=3", "scheduler.max_t=9"])
    assert document.source("trials") == document.source("scheduler.max_t") == config.COMMAND_LINE
    assert document.source("space.lr").endswith("conf/experiment/digits.yaml")
    assert document.source("scheduler.reduction_factor").endswith("conf/scheduler/asha.yaml")
    assert document.source("slots").endswith("conf/config.yaml")
    assert document.source("no.such.key") == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E5", 1e5), ("3", 3), ("-2.5", -2.5), (".5", 0.5), ("true", True), ("no", "no"), ("on", "on"),
     ("null", None), ("~", None), ("", None), ("[1, 1e-3]", [1, 1e-3]), ("0x1f", "0x1f"), ("1_000", "1_000"),
     ("2026-11-21", "2026-11-21"), ("a=b", "a=b"), ("'3'", "3"), ("12:30", "12:30")],
)  # fmt: skip
def test_values_mean_what_users_mean(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_python_prints_is_read_back(number: float) -> None:
    assert parse_value(repr(number)) == number


def test_relative_paths_are_resolved_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    experiment = resolved("experiment=images", "data.root=photos", "model=cnn")
    assert experiment.data is not None
    assert experiment.data.root == str(tmp_path / "photos")
    monkeypatch.setenv("HPO_RAY_DATA", "photos")
    assert resolved("experiment=images", "model=cnn") == experiment


def test_an_experiment_is_frozen() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        resolved("experiment=digits").trials = 3  # type: ignore[misc]


def test_rungs_come_from_the_ends_of_the_rates_cycles() -> None:
    cycles = ["training.schedule=sgdr", "training.cycle_len=2", "scheduler.max_t=14"]
    assert resolved("experiment=digits", *cycles, "scheduler.rungs=cycle_ends").scheduler.rungs == (2, 6)
    assert resolved("experiment=digits", "scheduler.max_t=14").scheduler.rungs == "geometric"
    assert resolved("experiment=digits", "scheduler.max_t=14", "scheduler.rungs=[2, 5]").scheduler.rungs == (2, 5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["experiment=digits", "space.cycle_len=choice(1, 2)", "scheduler.rungs=cycle_ends"], "cycle_len"),
        (["experiment=digits", "scheduler.rungs=[5, 2]"], "rising fidelities from grace_period=1 to below max_t=27"),
        (["experiment=digits", "scheduler.rungs=[3, 99]"], "rising fidelities"),
        (["experiment=digits", "scheduler=none", "scheduler.rungs=[3]"], "takes no rungs"),
    ],
)
def test_rungs_that_make_no_sense_are_told(overrides: list[str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words.replace("[", r"\[")):
        resolved(*overrides)


@pytest.mark.parametrize("name", choices_of("space", [packaged_conf()]))
def test_a_space_that_is_named_replaces_the_experiments(name: str) -> None:
    if name == "none":
        return
    alone = load(["experiment=null", f"space={name}", "data=digits", "model=cnn"]).data["space"]
    assert load(["experiment=digits", f"space={name}"]).data["space"] == alone
    assert load(["experiment=digits", f"space={name}", "space.lr=0.1"]).data["space"] == alone | {"lr": "0.1"}


def test_a_scheduler_that_is_named_has_no_options_of_the_experiments(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = (packaged_conf() / "experiment" / "digits.yaml").read_text()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"{text}scheduler:\n  max_t: 5\ndata:\n  split_seed: 4\n")
    assert resolved("experiment=mine", config_dir=tmp_path).scheduler.max_t == 5
    assert resolved("experiment=mine", "scheduler=asha", config_dir=tmp_path).scheduler.max_t == 27
    none = resolved("experiment=mine", "scheduler=none", "data=digits", config_dir=tmp_path)
    assert none.scheduler.max_t is None
    assert none.data is not None
    assert none.data.split_seed == 4  # what the chosen data do not say stays


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("training.stages=[{trian: head}]", "training.stages[0].trian", "did you mean 'train'?"),
        ("training.stages=[{epochs: 1}, {epochs: many}]", "training.stages[1].epochs", "expected a whole number"),
        ("training.stages={train: head}", "training.stages", "expected a list"),
        ("training.stages=[head]", "training.stages[0]", "expected a mapping"),
        ("training.lr=0.1", "training.lr", "it has no effect: the space says 'lr'; space.lr=VALUE sets it"),
        ("model.dropout=0.1", "model.dropout", "it has no effect"),
    ],
)
def test_mistakes_in_stages_and_values_without_effect_are_told(override: str, key: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolved("experiment=digits", override)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert words in caught.value.problems[0].message
