"""The run directory: its name, and whether it can be used. Starts nothing."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.journal import FILE_NAME

FREE_SPACE_MB = 64


def new_run_dir(name: str, out: Path | None) -> Path:
    """A run directory that holds nothing yet.

    Args:
        name: The experiment's.
        out: Where it is to be; None: ``runs/<name>-<time>``.

    Raises:
        InvalidInput: It exists and holds something, can't be made, or its disk is full.
    """
    run_dir = (out or _next_name(name)).absolute()
    key = "--out" if out is not None else "runs"
    try:
        if (run_dir / FILE_NAME).exists():
            raise InvalidInput(Problem(key, f"'{run_dir}' already holds a run: choose another folder"))
        run_dir.mkdir(parents=True, exist_ok=True)
        if any(run_dir.iterdir()):
            raise InvalidInput(Problem(key, f"'{run_dir}' is not empty: choose another folder"))
        free_mb = shutil.disk_usage(run_dir).free / 2**20
    except OSError as error:
        raise InvalidInput(Problem(key, f"'{run_dir}' cannot be used: {error.strerror}")) from None
    if free_mb < FREE_SPACE_MB:
        message = f"only {free_mb:.0f} MiB are free where '{run_dir}' lies, expected {FREE_SPACE_MB} or more"
        raise InvalidInput(Problem(key, message))
    return run_dir


def _next_name(name: str) -> Path:
    """``runs/<name>-<time>``, made here, so that two runs started in the same second get two folders."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"_{number}" for number in range(2, 100))):
        folder = Path("runs") / f"{stem}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:
            break  # `new_run_dir` says why
        return folder
    return folder
