"""Every study in experiments/ runs, shrunk, and opens with its question and its command."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments").glob("*.py"))
SHRUNK = {"random_vs_grid": ["--trials", "8", "--seeds", "1", "--epochs", "1"]}


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_it_opens_with_its_question_and_command_and_is_logged(study: Path) -> None:
    text = ast.get_docstring(ast.parse(study.read_text())) or ""
    assert "?" in text.splitlines()[0]
    assert f"python experiments/{study.name}" in text
    assert len(study.read_text().splitlines()) < 80
    assert study.name in (ROOT / "experiments" / "README.md").read_text()


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_it_runs(study: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(study), *SHRUNK[study.stem]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "val_error" in done.stdout
