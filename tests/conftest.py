"""Shared by all tests: one small real Ray for the whole session, started closed and quiet, ended by process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray session with two CPUs; runs started in this process use it."""
    from hpo_ray.session import ray_session

    with ray_session(address=None, cpus=2, gpus=0):
        yield


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder as the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
