"""A user's mistakes: exit code 2, a message that names the key, no traceback, nothing started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo_ray import cli, console

Command = Callable[..., tuple[int, str, str]]
DIGITS = "experiment=digits"
MINE = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)"]


@pytest.fixture
def hpo_ray_command(in_tmp: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in this process: exit code, stdout, stderr. The folder holds a good objective, `my.py`."""
    (in_tmp / "my.py").write_text("def train(config, trial):\n    trial.report(loss=config['x'])\n")
    monkeypatch.delenv("HPO_RAY_DATA", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = console.guarded(lambda: cli.app(list(arguments), standalone_mode=False))
        out, err = capfd.readouterr()
        return code, out, err

    return call


# (what the user writes after `validate`, what the message must hold: the key first)
MISTAKES: list[tuple[list[str], list[str]]] = [
    # unknown names, with the nearest valid one
    ([DIGITS, "scheduler.mx_t=9"], ["scheduler.mx_t", "unknown key", "'max_t'", "command line"]),
    ([DIGITS, "trails=9"], ["trails", "unknown key", "'trials'"]),
    ([DIGITS, "training.learning_rate=1"], ["training.learning_rate", "unknown key"]),
    ([DIGITS, "ray.adress=auto"], ["ray.adress", "'address'"]),
    ([DIGITS, "searcher=hyperop"], ["searcher", "there is no 'hyperop'", "'hyperopt'"]),
    ([DIGITS, "scheduler=ahsa"], ["scheduler", "'asha'"]),
    (["experiment=digit"], ["experiment", "'digits'"]),
    ([DIGITS, "model=cnnn"], ["model", "'cnn'"]),
    ([DIGITS, "searcher.name=hyperop"], ["searcher.name", "'hyperopt'"]),
    ([DIGITS, "scheduler.name=ash"], ["scheduler.name", "'asha'"]),
    ([DIGITS, "trainable.name=image_clasification"], ["trainable.name", "'image_classification'"]),
    ([DIGITS, "training.optimizer=adm"], ["training.optimizer", "'adam'"]),
    ([DIGITS, "model.activation=relux"], ["model.activation", "'relu'"]),
    ([DIGITS, "model.arch=resnet_18"], ["model.arch", "'resnet18'"]),
    ([DIGITS, "data.name=digts"], ["data.name", "'digits'"]),
    ([DIGITS, "mode=minimum"], ["mode", "'minimum'"]),
    ([DIGITS, "metric=val_eror"], ["metric", "does not report 'val_eror'", "'val_error'"]),
    ([DIGITS, "fidelity=epochs"], ["fidelity", "'epoch'"]),
    ([DIGITS, "space.lrr=uniform(0, 1)"], ["space.lrr", "'lr'"]),
    ([DIGITS, "space.training.lrr=uniform(0, 1)"], ["space.training.lrr"]),
    ([DIGITS, "~space.lrr"], ["~space.lrr", "'lr'"]),
    # ambiguous and doubled names
    ([DIGITS, "space.name=choice(digits)"], ["space.name", "ambiguous", "data.name"]),
    ([DIGITS, "space.training.lr=uniform(1e-3, 1)"], ["space.training.lr", "'lr' is in the space already"]),
    # wrong types and ranges
    ([DIGITS, "trials=many"], ["trials", "'many'"]),
    ([DIGITS, "trials=0"], ["trials", "0", "greater than or equal to 1"]),
    ([DIGITS, "trials=-3"], ["trials", "-3"]),
    ([DIGITS, "trials=2.5"], ["trials", "2.5", "whole number"]),
    ([DIGITS, "trials=true"], ["trials", "True", "whole number"]),
    ([DIGITS, "slots=none"], ["slots", "'none'"]),
    ([DIGITS, "seed=-1"], ["seed", "-1"]),
    ([DIGITS, "seed=[1, 2]"], ["seed", "[1, 2]"]),
    ([DIGITS, "training.lr=fast"], ["training.lr", "'fast'", "number"]),
    ([DIGITS, "training.lr=0"], ["training.lr", "greater than 0"]),
    ([DIGITS, "training.lr=.nan"], ["training.lr", "finite"]),
    ([DIGITS, "training.batch_size=0"], ["training.batch_size"]),
    ([DIGITS, "model.dropout=1.5"], ["model.dropout", "less than 1"]),
    ([DIGITS, "data.valid_fraction=0"], ["data.valid_fraction"]),
    ([DIGITS, "data.valid_fraction=0.6", "data.test_fraction=0.5"], ["data.valid_fraction", "data.test_fraction"]),
    ([DIGITS, "scheduler.max_t=soon"], ["scheduler.max_t", "'soon'"]),
    ([DIGITS, "scheduler.reduction_factor=1"], ["scheduler.reduction_factor", "2"]),
    ([DIGITS, "scheduler.grace_period=28"], ["scheduler.grace_period", "above scheduler.max_t=27"]),
    ([DIGITS, "name=../../etc"], ["name", "'../../etc'"]),
    ([DIGITS, "name="], ["name"]),
    ([DIGITS, "metric="], ["metric"]),
    # things that don't fit each other
    ([DIGITS, "scheduler=none", "scheduler.max_t=9"], ["scheduler.max_t", "takes no max_t"]),
    ([DIGITS, "fidelity=null"], ["fidelity", "asha"]),
    ([DIGITS, "training.epochs=5"], ["training.epochs", "below scheduler.max_t=27"]),
    ([DIGITS, "searcher=grid"], ["space.lr", "grid=n"]),
    ([DIGITS, "trials=null"], ["trials", "grid"]),
    ([*MINE, "searcher=grid", "space.x=uniform(0, 1, grid=30)"], ["trials", "24 would cut the grid short"]),
    ([DIGITS, "trainable.target=my.py:train"], ["trainable.target", "function"]),
    ([*MINE, "training.lr=0.1"], ["training", "has no `training`"]),
    ([*MINE, "metric=done"], ["metric", "'done'"]),
    # the search space
    ([DIGITS, "space.lr=uniform(1, 0.1)"], ["space.lr", "above", "0.1"]),
    ([DIGITS, "space.lr=loguniform(0, 1)"], ["space.lr", "0"]),
    ([DIGITS, "space.lr=loguniform(-1, 1)"], ["space.lr", "-1"]),
    ([DIGITS, "space.lr=uniform(1)"], ["space.lr", "uniform(low, high)"]),
    ([DIGITS, "space.lr=unifrom(0, 1)"], ["space.lr", "'uniform'"]),
    ([DIGITS, "space.lr=loguniform(1e-4, 1e-1"], ["space.lr"]),
    ([DIGITS, "space.lr=loguniform(1e-4, 1e-1, defalt=1)"], ["space.lr", "default"]),
    ([DIGITS, "space.lr=loguniform(1e-4, 1e-1, default=1)"], ["space.lr", "default"]),
    ([DIGITS, "space.lr=uniform(0.1, 0.9, q=-1)"], ["space.lr", "q"]),
    ([DIGITS, "space.lr="], ["space.lr"]),
    ([DIGITS, "space.lr=choice(a, b)"], ["space.lr", "'a' is no value for training.lr"]),
    ([DIGITS, "space.lr=uniform(-1, 1)"], ["space.lr", "training.lr", "greater than 0"]),
    ([DIGITS, "space.batch_size=choice()"], ["space.batch_size"]),
    ([DIGITS, "space.batch_size=choice(16, 16)"], ["space.batch_size", "16"]),
    ([DIGITS, "space.batch_size=randint(16, 64)"], ["space.batch_size", "int(low, high)"]),
    ([DIGITS, "space.batch_size=uniform(16, 64)"], ["space.batch_size", "training.batch_size", "whole number"]),
    ([DIGITS, "space.batch_size=int(16.5, 64)"], ["space.batch_size", "16.5"]),
    ([DIGITS, "space.batch_size=[16, 32]"], ["space.batch_size", "choice(16, 32)"]),
    ([DIGITS, "space.momentum=uniform(0, 0.9, when={optimiser: sgd})"], ["space.momentum", "optimizer"]),
    ([DIGITS, "space.momentum=uniform(0, 0.9, when={optimizer: sgdd})"], ["space.momentum", "sgd"]),
    ([DIGITS, "space.momentum=uniform(0, 0.9, when={lr: 0.1})"], ["space.momentum", "lr"]),
    ([DIGITS, "space.momentum=uniform(0, 0.9, when={momentum: 0.1})"], ["space.momentum"]),
    ([DIGITS, "space.lr=__import__('os').system('true')"], ["space.lr"]),
    ([DIGITS, "space.arch=choice(cnn, resnet_18)"], ["arch", "'resnet18'"]),
    ([DIGITS, "space=3"], ["space", "there is no '3'"]),
    # the form of an override
    ([DIGITS, "trials"], ["trials", "key=value"]),
    ([DIGITS, "=3"], ["=3", "key=value"]),
    ([DIGITS, ""], ["key=value"]),
    ([DIGITS, "scheduler.max_t.x=3"], ["scheduler.max_t", "no keys"]),
    ([DIGITS, "resources.cpus_per_trial={"], ["resources.cpus_per_trial", "quote it"]),
    ([DIGITS, "resources.cpus_per_trial=&a [*a]"], ["resources.cpus_per_trial", "anchors"]),
    # the machine
    ([DIGITS, "resources.cpus_per_trial=1000"], ["resources.cpus_per_trial", "1000", "more than this machine has"]),
    ([DIGITS, "resources.workers_per_trial=0"], ["resources.workers_per_trial", "0"]),
    (
        [DIGITS, "resources.workers_per_trial=2", "resources.gpus_per_trial=0.5"],
        ["resources.gpus_per_trial", "0.5 GPUs for 2 workers", "a multiple of the workers, or 0"],
    ),
    ([DIGITS, "resources.gpus_per_trial=1000"], ["resources.gpus_per_trial", "1000", "more than this machine has"]),
    ([DIGITS, "slots=5000"], ["slots", "5000", "at most"]),
    ([DIGITS, "ray.address=127.0.0.1:1"], ["ray.address", "nothing answers"]),
    ([DIGITS, "ray.address=somewhere"], ["ray.address", "host:port"]),
    ([DIGITS, "ray.address=ray://127.0.0.1:10001"], ["ray.address", "host:port"]),
    ([DIGITS, "resources.cpus_per_trial=0"], ["resources.cpus_per_trial", "greater than 0"]),
    # data
    ([DIGITS, "data.root=photos"], ["data.root"]),
    (["experiment=images"], ["data.root", "HPO_RAY_DATA"]),
    (["experiment=images", "data.root=nowhere"], ["data.root", "nowhere"]),
    (["experiment=images", "data.root=my.py"], ["data.root", "my.py"]),
    (["experiment=images", "data.root=."], ["data.root"]),
    # the user's objective
    (["experiment=function", "space.x=uniform(0, 1)"], ["trainable.target", "my.py:train"]),
    ([*MINE, "trainable.target=my.py"], ["trainable.target", "path.py:name"]),
    ([*MINE, "trainable.target=your.py:train"], ["trainable.target", "your.py"]),
    ([*MINE, "trainable.target=my.py:trian"], ["trainable.target", "'train'"]),
    ([*MINE, "trainable.target=no_such_module:train"], ["trainable.target", "no_such_module"]),
    ([*MINE, "trainable.target=broken.py:train"], ["trainable.target", "line 2"]),
    ([*MINE, "trainable.target=wordless.py:train"], ["trainable.target", "train(config, trial)"]),
    (["experiment=function", "trainable.target=my.py:train"], ["space", "no parameter"]),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=lambda value: " ".join(value)[:70])
def test_a_mistake_is_named_and_nothing_starts(
    hpo_ray_command: Command, in_tmp: Path, arguments: list[str], expected: list[str]
) -> None:
    (in_tmp / "broken.py").write_text("import math\ndef train(config, trial:\n    pass\n")
    (in_tmp / "wordless.py").write_text("def train(config):\n    pass\n")
    code, out, err = hpo_ray_command("run", *arguments)
    assert code == 2, err
    assert "Traceback" not in err
    assert out == ""
    for text in expected:
        assert text in err
    assert not (in_tmp / "runs").exists()


def test_there_are_more_than_sixty_of_them() -> None:
    assert len(MISTAKES) >= 60


def test_all_mistakes_are_told_at_once(hpo_ray_command: Command) -> None:
    code, _, err = hpo_ray_command(
        "validate", DIGITS, "trails=3", "scheduler.max_t=x", "space.lr=loguniform(0, 1)", "space.unitz=int(1, 2)",
        "metric=val_eror", "data.valid_fraction=2", "resources.cpus_per_trial={", "searcher.name=gird",
    )  # fmt: skip
    assert code == 2
    assert "8 mistakes" in err
    for key in (
        "trails",
        "scheduler.max_t",
        "space.lr",
        "space.unitz",
        "metric",
        "data.valid_fraction",
        "resources.cpus_per_trial",
        "searcher.name",
    ):
        assert f"  {key}: " in err


def test_a_wrong_choice_does_not_bring_up_mistakes_that_are_not_the_users(hpo_ray_command: Command) -> None:
    code, _, err = hpo_ray_command("validate", "experiment=digtis", "trials=x")
    assert code == 2
    assert "2 mistakes" in err
    assert "'digits'" in err


VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from([
        "loguniform(1e-4, 1e-1)", "choice(1, 2)", "uniform(0, 1", "null", "[]", "{}", "{a: 1}", "1e999", "-1", "~",
        "!!python/object:os.system x", "${oc.env:HOME}", "${trials}", "???", "*a", "&a 1", "0x1f", "2026-11-21",
        "\x00", "\ud800", "'", '"', "when={}", "choice(" * 30,
    ]),
    st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip
KEYS = st.sampled_from([
    "trials", "slots", "seed", "metric", "mode", "fidelity", "space.lr", "space.units", "space.x", "space", "name",
    "scheduler", "scheduler.max_t", "scheduler.name", "searcher", "searcher.name", "training", "training.lr",
    "data.root", "model.arch", "model.weights", "resources.cpus_per_trial", "ray.address", "trainable.target",
    "~space.lr", "hydra.run", "+trials", "space.training.lr", "data", "a.b.c.d", "", ".",
])  # fmt: skip


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(overrides=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=4))
def test_any_override_is_good_or_a_named_mistake(hpo_ray_command: Command, overrides: list[tuple[str, str]]) -> None:
    arguments = [f"{key}={value}" for key, value in overrides]
    code, out, err = hpo_ray_command("validate", DIGITS, "--", *arguments)
    assert code in (0, 2)
    assert "Traceback" not in err
    assert (code == 0) == out.startswith("good")
    if code == 2:
        assert "mistake" in err


def test_a_broken_config_file_is_named_with_its_line(hpo_ray_command: Command, in_tmp: Path) -> None:
    folder = in_tmp / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nname: mine\nspace:\n  m: uniform(0, 1, when={a: b})\n")
    code, _, err = hpo_ray_command("validate", "experiment=mine", "--config-dir", str(in_tmp / "conf"))
    assert code == 2
    assert "mine.yaml" in err
    assert "line 4" in err
    assert "quote" in err


def test_a_mistake_in_a_config_file_names_the_file(hpo_ray_command: Command, in_tmp: Path) -> None:
    folder = in_tmp / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - digits\ntrails: 5\nspace:\n  lr: uniform(2, 1)\n"
    )
    code, _, err = hpo_ray_command("validate", "experiment=mine", "--config-dir", str(in_tmp / "conf"))
    assert code == 2
    assert err.count(str(folder / "mine.yaml")) == 2
    assert "2 mistakes" in err


def test_a_missing_config_dir_is_a_mistake(hpo_ray_command: Command) -> None:
    code, _, err = hpo_ray_command("validate", DIGITS, "--config-dir", "nowhere")
    assert code == 2
    assert "nowhere" in err


def test_an_existing_run_directory_is_left_alone(hpo_ray_command: Command, in_tmp: Path) -> None:
    (in_tmp / "old").mkdir()
    (in_tmp / "old" / "events.jsonl").write_text("precious")
    code, _, err = hpo_ray_command("run", *MINE, "--out", "old")
    assert code == 2
    assert "already holds a run" in err
    (in_tmp / "full").mkdir()
    (in_tmp / "full" / "thesis.tex").touch()
    code, _, err = hpo_ray_command("run", *MINE, "--out", "full")
    assert code == 2
    assert "is not empty" in err
    assert (in_tmp / "old" / "events.jsonl").read_text() == "precious"


def test_a_run_directory_that_cannot_be_made_is_a_mistake(hpo_ray_command: Command, in_tmp: Path) -> None:
    code, _, err = hpo_ray_command("run", *MINE, "--out", "my.py/run")
    assert code == 2
    assert "--out" in err
    assert "cannot be used" in err


def test_a_full_disk_is_a_mistake_before_ray_starts(hpo_ray_command: Command, in_tmp: Path) -> None:
    small = in_tmp / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        code, _, err = hpo_ray_command("run", *MINE, "--out", "small/run")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert code == 2
    assert "MiB are free" in err


@pytest.mark.parametrize("arguments", [["run", "--no-such-option"], ["rum"], ["report"], ["report", "nowhere"], []])
def test_wrong_usage_of_the_command_itself(in_tmp: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpo_ray.cli", *arguments], capture_output=True, text=True, cwd=in_tmp, env=os.environ
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr
