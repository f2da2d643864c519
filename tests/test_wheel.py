"""The built wheel works outside the clone: its command, and the `conf/` it ships."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True)
    return next(folder.glob("hpo_ray-*.whl"))


def test_it_holds_the_package_and_its_choices_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "hpo_ray/conf/experiment/digits.yaml" in names
    assert {"hpo_ray/report/report.js", "hpo_ray/report/report.css"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"hpo_ray"}
    packaged = {name.removeprefix("hpo_ray/") for name in names if name.startswith("hpo_ray/conf/")}
    in_clone = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert packaged == in_clone


def test_installed_elsewhere_the_command_works_outside_the_clone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, stderr=subprocess.DEVNULL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = [sys.executable, "-c", "import hpo_ray; print(hpo_ray.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True, cwd=elsewhere, env=environment)
    assert found.stdout.startswith(str(site))
    command = [str(site / "bin" / "hpo-ray"), "config", "experiment=digits", "scheduler.max_t=9"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["training"]["epochs"] == 9
