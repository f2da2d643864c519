"""Where a run comes from: versions, commit, host, command; and what this machine has. Imports no Ray, no torch."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from hpo_ray.lock import process_start


def environment() -> dict[str, Any]:
    """What a reader needs to know of where a run came from: versions, commit, host, command."""
    packages = ("hpo-ray", "ray", "torch", "torchvision", "hyperopt", "numpy", "pandas")
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "git": _git(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": process_start(os.getpid()),
        "cpus": local_cpus(),
        "gpus": local_gpus(),
        "platform": platform.platform(),
        "command": sys.argv,
        "cwd": str(Path.cwd()),
    }


def local_gpus() -> int:
    """How many GPUs this process may use, without importing torch or Ray."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1", "NoDevFiles")])
    with contextlib.suppress(OSError):
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    return 0


def local_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The commit of the working folder, and whether it holds changes; None outside a repository."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    commit = ask("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(ask("status", "--porcelain"))} if commit else None
