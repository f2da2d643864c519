"""What the clusters' `ray start` runs first: Ray finds it under its name, and then opens no port for the Ray Client."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster.folder import FOLDER, ROOT
from tests.processes import descendants
from tests.sweeps import wait_for

NAME = "hpo_ray.start_hook.closed"


def test_ray_finds_it_under_the_name_that_the_files_give_it() -> None:
    from ray._common.utils import load_class
    from ray._private.parameter import RayParams

    said = {found for path in FOLDER.iterdir() for found in re.findall(r"hpo_ray\.start_hook\.\w+", path.read_text())}
    assert said == {NAME}
    parameters = RayParams()
    parameters.ray_client_server_port = 10001
    load_class(NAME)(parameters, True)
    assert parameters.ray_client_server_port is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("grpc") is None, reason="without grpcio Ray has no Ray Client")
@pytest.mark.parametrize("hook", [None, NAME])
def test_a_head_opens_no_port_for_the_ray_client(tmp_path: Path, hook: str | None) -> None:
    """With the hook; without it, it does, or the hook is no longer needed."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    folder = tempfile.mkdtemp(prefix="sh-", dir="/tmp")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(ROOT)}
    command = ["--head", "--block", "--port=0", f"--temp-dir={folder}", "--num-cpus=0", "--include-dashboard=false"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *command, "--object-store-memory=80000000"],
        env={**kept, **own, **({"RAY_START_HOOK": hook} if hook else {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        wait_for(lambda: Path(folder, "ray_current_cluster").exists())
        assert any("ray.util.client.server" in process.command for process in descendants(head.pid)) is (hook is None)
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)
