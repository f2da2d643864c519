"""Ray's session: closed, quiet, and gone without a trace, also from a process that goes on."""

from __future__ import annotations

import json
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
# Wrong, and then right, in one process, as in a notebook.
JOINING = """
import os, sys
from hpo_ray.errors import InvalidInput
from hpo_ray.session import ray_session
address, token = sys.argv[1:]
os.environ["RAY_AUTH_TOKEN"] = "f" * 64
try:
    with ray_session(address=address, cpus=0, gpus=0):
        raise SystemExit("a wrong token is let in")
except InvalidInput as error:
    assert "ray.address: the token in RAY_AUTH_TOKEN is not that of the cluster at" in str(error), error
del os.environ["RAY_AUTH_TOKEN"]
os.environ["RAY_AUTH_TOKEN_PATH"] = token
with ray_session(address=address, cpus=0, gpus=0):
    import ray
    assert ray.cluster_resources()["CPU"] == 1
print("joined")
"""
WRONG = """
import json, os, subprocess, sys
from hpo_ray.session import ray_session
with open("wrong", "w") as file:
    file.write("f" * 64)
with ray_session(address=None, cpus=1, gpus=0) as scratch:
    import ray
    address = ray.get_runtime_context().gcs_address
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    answers = []
    def ask(*words, **more):
        done = subprocess.run([sys.executable, *words], env=environment | more, capture_output=True, text=True)
        answers.append((done.returncode, done.stdout, done.stderr))
    wrong, missing = os.path.abspath("wrong"), os.path.abspath("missing")
    kept = f"storage.uri=file://{os.getcwd()}/kept"
    run = ["-m", "hpo_ray.cli", "run", "experiment=digits", f"ray.address={address}", kept, "--out", "r"]
    ask("-c", sys.argv[1], address, str(scratch / "token"))
    ask(*run, RAY_AUTH_TOKEN_PATH=wrong)
    ask(*run, RAY_AUTH_TOKEN_PATH=missing)
    ask("-m", "hpo_ray.cli", "doctor", "--address", address, RAY_AUTH_TOKEN_PATH=wrong)
print(json.dumps(answers))
"""


def test_a_token_that_is_not_the_clusters_is_told_and_leaves_no_run(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRONG, JOINING]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    joined, *refused = json.loads(done.stdout)
    assert joined == [0, "joined\n", ""]
    wrong, missing = tmp_path / "wrong", tmp_path / "missing"
    expected = [
        f"ray.address: the token in {wrong} is not that of the cluster at",
        f"ray.address: there is no token in {missing} or RAY_AUTH_TOKEN to join the cluster at",
        f"--address: the token in {wrong} is not that of the cluster at",
    ]
    for (code, _, said), mistake in zip(refused, expected, strict=True):
        assert (code, mistake in said, "gcs_client" in said) == (2, True, False), said
    assert not (tmp_path / "r").exists()
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]


def test_a_session_is_closed_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.stdout == "good\n", done.stderr
    assert done.stderr == ""
