"""The storage's keys reach the trials, and nothing that Ray writes down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray

import hpo_ray

SECRET = "tHiSiSsEcReT0123456789"


def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
    (trial.dir / "seen").write_text(os.environ.get("AWS_SECRET_ACCESS_KEY", "nothing"))
    trial.report(loss=config["x"])


def test_keys_reach_trials_and_no_log(ray_here: None, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray was started before they were set: what trials know they know from us.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    run = hpo_ray.run(objective, {"x": "uniform(0, 1)"}, trials=2, searcher="random", out=in_tmp / "r")
    assert [path.read_text() for path in run.path.glob("trials/*/attempt-0/seen")] == [SECRET] * 2
    logs = Path(ray._private.worker._global_node.get_session_dir_path())
    written = [path for path in [*logs.rglob("*"), *run.path.rglob("*")] if path.is_file() and path.name != "seen"]
    assert len(written) > 10
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
