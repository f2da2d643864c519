"""Ray's session: closed, quiet, and gone without a trace, also from a process that goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import os, sys
import ray  # as in a notebook: Ray was imported, its settings cached, before the run
before = dict(os.environ)
from hpo_ray.session import ray_session
with ray_session(address=None, cpus=1, gpus=0) as scratch:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    context = ray.get_runtime_context()
    assert ray.get(ray.remote(lambda: os.environ["RAY_AUTH_MODE"]).remote()) == "token"
    assert ray._private.worker.global_worker.node.address_info["webui_url"] in ("", None)
    address = ray.get_runtime_context().gcs_address
    import subprocess
    code = f"import ray; ray.init(address='{address}', logging_level='ERROR'); print(ray.cluster_resources())"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    stranger = subprocess.run([sys.executable, "-c", code], env={**environment, "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64}, capture_output=True, text=True, timeout=100)
    assert stranger.returncode != 0, stranger.stdout
    assert "CPU" not in stranger.stdout
    with ray_session(address=None, cpus=1, gpus=0):
        pass
    assert ray.is_initialized()  # a session that was there is used and left alone
assert not ray.is_initialized()
assert not scratch.exists()
assert dict(os.environ) == before
with ray_session(address=None, cpus=1, gpus=0):  # and again, with another token
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
print("good")
"""


def test_a_session_is_closed_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.stdout == "good\n", done.stderr
    assert done.stderr == ""
