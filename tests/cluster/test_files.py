"""What all files of cluster/ promise: one Ray version, a first line that says how to use each, no secret."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hpo_ray import cli, console
from tests.cluster.folder import FOLDER, LAUNCHERS, MANIFESTS, ROOT, text
from tests.test_readme import commands

FILES = sorted(path.name for path in FOLDER.iterdir() if path.is_file())
PINS = dict(line.split("==") for line in text("constraints.txt").splitlines() if "==" in line and line[0] != "#")
RUN = re.compile(r"\b(?:hpo-ray|slurm\.sh) ((?:run|submit) [^;`|#']+)")


def test_every_file_is_one_that_is_tested() -> None:
    others = {"Dockerfile", "Dockerfile.dockerignore", "README.md", "constraints.txt", "slurm.sh"}
    assert set(FILES) == {*LAUNCHERS, *MANIFESTS, *others}


def test_the_ray_version_is_the_same_everywhere_and_the_one_that_the_tests_run_on() -> None:
    said = {
        (name, found)
        for name in FILES
        for found in re.findall(r"(?:rayproject/ray:|hpo-ray:ray|rayVersion: \"|ray==)(\d+\.\d+\.\d+)", text(name))
    }
    assert {name for name, _ in said} == {*LAUNCHERS, *MANIFESTS, "Dockerfile", "README.md", "constraints.txt"}
    assert {found for _, found in said} == {PINS["ray"]}
    here = version("ray")
    assert PINS["ray"] == here, f"say {here} in cluster/constraints.txt and in {sorted({name for name, _ in said})}"


def test_pinned_versions_are_ones_that_the_package_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(line) for line in project["dependencies"]]
    for name, pin in PINS.items():
        (requirement,) = (one for one in needed if one.name == name)
        assert requirement.specifier.contains(pin), name


@pytest.mark.parametrize("name", [*LAUNCHERS, *MANIFESTS, "Dockerfile", "slurm.sh"])
def test_it_opens_with_the_command_that_uses_it(name: str) -> None:
    lines = text(name).splitlines()
    first = lines[1] if lines[0].startswith("#!") else lines[0]
    assert re.match(r"# (ray up|kubectl apply --filename|sbatch .*|docker build --file) ?cluster/" + name, first), first


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_in_it_and_no_image_floats(name: str) -> None:
    for line in text(name).splitlines():
        assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}|PRIVATE KEY", line), line
        assert not re.search(r"RAY_AUTH_TOKEN=(?!\$)\S|auth_token: *[^~\s]", line), line
        image = re.search(r"(?:image:|FROM) +(\S+)", line)
        assert image is None or re.fullmatch(r"[\w./-]+:\S*\d+\.\d+\.\d+\S*", image[1]), line


@pytest.mark.parametrize("name", FILES)
def test_every_sweep_that_it_shows_is_valid(name: str, in_tmp: Path) -> None:
    """Checked, not run; `submit` takes the same words, and its own."""
    joined = re.sub(r"\s*\\\n#?\s*|\n(?=    (?:then|else) )", " ", text(name))
    shown = [found.split()[1:] for line in joined.splitlines() for found in RUN.findall(line)]
    assert shown or name.startswith("Dockerfile") or name == "constraints.txt"
    for words in shown:
        for option in {"--out", "--address", "--follow"} & set(words):
            del words[words.index(option) : words.index(option) + 2]
        checked = [word for word in words if word not in ("--supervise", "…", "\\")]
        if checked:
            run = lambda words=checked: cli.app(["validate", "--", *words, "ray.address=auto"], standalone_mode=False)  # noqa: E731
            assert console.guarded(run) == 0


def test_the_files_that_its_commands_name_exist() -> None:
    named = [word for command in commands(text("README.md")) for word in command if word.startswith("cluster/")]
    assert {*LAUNCHERS, *MANIFESTS, "Dockerfile", "slurm.sh"} <= {Path(word).name for word in named}
    assert [word for word in named if not (ROOT / word).exists()] == []


@pytest.mark.slow
def test_what_the_image_is_built_from_is_enough(tmp_path: Path) -> None:
    """The package, made from the files alone that the Dockerfile copies and its ignore file lets through."""
    let_through = {line[1:] for line in text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for line in text("Dockerfile").splitlines():
        if line.startswith("COPY"):
            *sources, target = line.split()[2:]
            place = tmp_path / target.removeprefix("/home/ray/hpo_ray").lstrip("/")
            copied.update(sources)
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    into = place / Path(source).name if target.endswith("/") else place
                    into.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, into)
    assert copied == let_through
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        tmp_path / "dist",
    ]
    subprocess.run([*build, tmp_path], check=True)
    (wheel,) = (tmp_path / "dist").glob("hpo_ray-*.whl")
    assert {"hpo_ray/start_hook.py", "hpo_ray/conf/experiment/digits.yaml"} <= set(zipfile.ZipFile(wheel).namelist())
