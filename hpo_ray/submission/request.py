"""What a job is to do: the user's overrides checked as far as that can be done here, and the command that runs there.

Knows experiments and paths, nothing of Ray.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hpo_ray import config, lr_range
from hpo_ray.config import Document
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.runner import AMENDABLE

# What lies on the cluster's disks only the cluster can know.
_THERE = ("data.root", "model.weights", "trainable.target")


def name_of(overrides: Sequence[str], folder: Path, config_dir: Path | None) -> str:
    """The experiment's name, once its mistakes are all told.

    Args:
        overrides: As for `hpo-ray run`; relative paths start at `folder`.
        folder: What travels.
        config_dir: The user's choices, in that folder; relative to it.

    Raises:
        InvalidInput: With every mistake, as `hpo-ray validate` finds them; but a path outside the folder may be one
            that only the cluster has.
    """
    if not folder.is_dir():
        raise InvalidInput(Problem("--working-dir", f"'{folder}' is no folder"))
    mistakes = [_address_given(text) for text in overrides if text.partition("=")[0] in ("ray", "ray.address")]
    inside = folder.resolve()
    if config_dir is not None and not (inside / config_dir).resolve().is_relative_to(inside):
        mistakes.append(Problem("--config-dir", f"'{config_dir}' is not in '{folder}', which is all that is sent"))
    if mistakes:
        raise InvalidInput(*mistakes)
    with contextlib.chdir(folder):
        document = config.load(overrides, config_dir)
        document.data["ray"] = {"address": "auto"}
        try:
            return lr_range.checked(document).name
        except InvalidInput as error:
            left = [problem for problem in error.problems if not _only_there(problem, document, inside)]
            if left:
                raise InvalidInput(*left) from None
            return str(document.data["name"])


def run_directory(name: str, out: str | None) -> str:
    """Where the run lies on the cluster; ``~`` is the home directory there.

    Raises:
        InvalidInput: It is a relative path: nobody could say of what.
    """
    if out is None:
        return f"~/runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not out.startswith(("/", "~/")):
        message = f"'{out}' is a path on the cluster: give a whole one, on storage that all nodes share"
        raise InvalidInput(Problem("--out", message))
    return out.rstrip("/")


def script(run: str, overrides: Sequence[str], config_dir: Path | None) -> str:
    """The job's shell script: puts the code beside the run, where a later cluster finds it, and starts or resumes.

    A run that is there goes on as it was started, with those overrides that a resumption may change; one that is still
    running is refused, and its code left alone.
    """
    path = PurePosixPath(run)
    start = ["run", *overrides, "ray.address=auto", *(["--config-dir", str(config_dir)] if config_dir else [])]
    go_on = [text for text in overrides if text.partition("=")[0].partition(".")[0] in AMENDABLE]
    return "\n".join(
        [
            "set -e",
            f"run={_quoted(path)} code={_quoted(path.parent / '.code' / path.name)}",
            # A run that is under way works with the code there; this says so.
            """if hpo-ray status "$run" --json 2>&1 | grep -q '"state": "running"'; then""",
            'exec hpo-ray resume "$run"; fi',
            'mkdir -p "$code"; cp -R . "$code"; cd "$code"',
            'if [ -e "$run/events.jsonl" ]; then',
            f'exec hpo-ray resume "$run" {shlex.join([*go_on, "ray.address=auto"])}; fi',
            f'exec hpo-ray {shlex.join(start)} --out "$run"',
        ]
    )


def _quoted(path: PurePosixPath) -> str:
    text = str(path)
    return f'"$HOME"/{shlex.quote(text[2:])}' if text.startswith("~/") else shlex.quote(text)


def _address_given(text: str) -> Problem:
    return Problem(text.partition("=")[0], "the job joins the cluster that it is sent to: leave it out", "command line")


def _only_there(problem: Problem, document: Document, inside: Path) -> bool:
    """Whether a problem is that something is not on this machine, where it need not be."""
    if problem.key not in _THERE:
        return False
    section, _, field = problem.key.partition(".")
    given = (document.data.get(section) or {}).get(field)
    path = Path(str(given).rpartition(":")[0] if problem.key == "trainable.target" else str(given)).expanduser()
    return path.is_absolute() and not path.exists() and not path.is_relative_to(inside)
