"""Shared by all tests: one small real Ray for the whole session, started closed and quiet, ended by process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts what it puts into the background: the commands under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of joined clusters come first: they change the environment that this process's own Ray has its token from,
    which it reads again at any time once it runs."""
    items.sort(key=lambda item: item.path.name != "test_cluster.py")


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
