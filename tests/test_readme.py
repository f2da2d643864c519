"""The README keeps its word: its commands run, its files and links exist, its code works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpo_ray import cli, console

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not {".venv", "node_modules"} & set(path.parts))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [body for name, body in found if name == language]


def commands(text: str) -> list[list[str]]:
    """Every `$ …` line of the console blocks, split as a shell would, comments left out."""
    lines = [line[2:] for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def newcomer(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README's reader has it: the objective that it shows, and a few photographs."""
    from PIL import Image

    (in_tmp / "my.py").write_text(next(block for block in blocks(README, "python") if block.startswith("# my.py")))
    for name in ("cats", "dogs"):
        (in_tmp / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (32, 32), (number, 0, 0)).save(in_tmp / "photos" / name / f"{number}.jpg")
    (in_tmp / "weights").mkdir()
    (in_tmp / "weights" / "convnext_tiny.pt").touch()
    (in_tmp / "data" / "fashion-mnist").mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (in_tmp / "data" / "fashion-mnist" / f"{part}-{kind}-ubyte.gz").touch()
    return in_tmp


def validated(command: list[str], folder: Path) -> int:
    """Exit code of a `run`, `config` or `lr-find` command, checked without running; photographs are here, GPUs may
    not be."""
    here = [re.sub(r"=/(?=photos|weights|data)", f"={folder}/", word) for word in command[2:]]
    if "--out" in here:
        del here[here.index("--out") : here.index("--out") + 2]
    words = [word for word in here if not word.startswith(("resources.gpus_per_trial=", "--supervise"))]
    if any(word.startswith("experiment=finetune") for word in words):  # torchvision's weights may be out of reach
        words = [f"model.weights={folder}/weights/convnext_tiny.pt", *words]
    return console.guarded(lambda: cli.app(["validate", "--", *words], standalone_mode=False))


@pytest.mark.parametrize(
    "command",
    [c for c in commands(README) if c[:2] in (["hpo-ray", "run"], ["hpo-ray", "config"], ["hpo-ray", "lr-find"])],
    ids=" ".join,
)
def test_every_hpo_ray_command_is_valid(newcomer: Path, command: list[str]) -> None:
    assert validated(command, newcomer) == 0


def test_every_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    asked = set(re.findall(r"`make ([a-z-]+)`", README + (ROOT / "CONTRIBUTING.md").read_text()))
    asked |= {command[1] for command in commands(README) if command[0] == "make"}
    assert {"demo", "test"} <= asked <= targets


def test_every_command_of_the_program_is_in_the_readme() -> None:
    for command in cli.app.registered_commands:
        assert f"hpo-ray {command.name}" in README, command.name


@pytest.mark.usefixtures("ray_here", "in_tmp")
def test_the_searcher_serves_a_tuner_as_shown(tmp_path: Path) -> None:
    code = next(block for block in blocks(README, "python") if "GPEISearcher" in block)
    code = code.replace("num_samples=20", "num_samples=5").replace(
        "tune_config=", "run_config=run_config, tune_config="
    )
    from ray import tune

    names: dict[str, Any] = {"run_config": tune.RunConfig(storage_path=str(tmp_path), verbose=0)}
    exec(code, names)
    results = names["tuner"].fit()
    assert len(results) == 5
    assert not results.errors


def test_the_objective_and_the_python_lines_work_as_shown(newcomer: Path) -> None:
    from_python = next(block for block in blocks(README, "python") if "hpo_ray.run(" in block)
    loading = next(block for block in blocks(README, "python") if "load_results" in block)
    code = f"import hpo_ray\nfrom my import train\n{from_python.replace('trials=24', 'trials=3')}\n{loading}"
    code += "\nassert len(trials) == 11 and len(reports) == 297, (len(trials), len(reports))"
    done = subprocess.run([sys.executable, "-c", code], cwd=newcomer, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), link


def test_the_mistakes_shown_are_the_mistakes_told(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    [block] = [block for block in blocks(README, "") if block.startswith("$ hpo-ray run")]
    command, _, shown = block.partition("\n")
    code = console.guarded(lambda: cli.app(shlex.split(command)[2:], standalone_mode=False))
    assert (code, capfd.readouterr().err) == (2, shown)


def missing_from_tree(text: str) -> list[str]:
    """Names in the README's tree that the project doesn't have, and modules that the tree leaves out."""
    [tree] = [block for block in blocks(text, "") if block.startswith("conf/")]
    named = set(re.findall(r"(?:^|  )([a-z_]+(?:/|\.py))(?= |$)", tree, flags=re.MULTILINE))
    real = {path.name for path in (ROOT / "hpo_ray").glob("*.py")} - {"__init__.py"}
    real |= {f"{path.name}/" for path in (ROOT / "hpo_ray").iterdir() if (path / "__init__.py").exists()}
    top = {"conf/", "experiments/", "cluster/", "benchmarks/", "hpo_ray/", "tests/"}
    return sorted((real | top) ^ named)


def test_the_tree_is_the_tree() -> None:
    assert missing_from_tree(README) == []


def test_planted_faults_are_seen(newcomer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert commands("```console\n$ hpo-ray run experiment=digits  # why not\nout\n```") == [
        ["hpo-ray", "run", "experiment=digits"]
    ]
    assert validated(["hpo-ray", "run", "experiment=digits", "scheduler.max_epochs=3"], newcomer) == 2
    assert "journal.py" in missing_from_tree(README.replace("journal.py ", "diary.py   "))
    assert "diary.py" in missing_from_tree(README.replace("journal.py ", "diary.py   "))
