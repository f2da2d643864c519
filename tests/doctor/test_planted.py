"""The preflight on real clusters with faults planted as really as one machine allows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.ray_start import CLONE, Started

ALONE = ["unshare", "--mount", "--net", "sh", "-c"]
mounting = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "--net", "true"], check=False).returncode,
    reason="this account may not have a view of its own of the file system and the network (unshare)",
)


def doctor(
    environment: dict[str, str], *arguments: str, within: str = ""
) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The command's exit code and its findings by check; `within`: what a shell of its own mounts first."""
    words = [sys.executable, "-m", "hpo_ray.cli", "doctor", "--json", *arguments]
    if within:
        words = [*ALONE, f'mount --make-rprivate / && {within} && exec "$@"', "sh", *words]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in answer["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    assert answer["ok"] == (done.returncode == 0)
    return done.returncode, found


def plain_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    return kept | {"PYTHONPATH": os.pathsep.join([str(CLONE), kept.get("PYTHONPATH", "")])}


@mounting
def test_this_machine_alone_is_looked_at_without_a_ray(in_tmp: Path) -> None:
    (in_tmp / "store").mkdir()
    code, found = doctor(
        plain_environment(),
        "--storage=store/runs",
        within=f"mount -t tmpfs -o size=64m tmpfs /dev/shm && mount -t tmpfs -o ro tmpfs {in_tmp / 'store'}",
    )
    assert code == 1
    [shm], [storage] = found["/dev/shm"], found["storage"]
    assert (shm["level"], shm["found"]) == ("problem", "64 MiB: data loading can end with a bus error")
    assert "--shm-size" in shm["advice"]
    assert (storage["level"], "Read-only file system" in storage["found"]) == ("problem", True)
    assert found["versions"][0]["level"] == "ok"
    assert "authentication" not in found  # there is no cluster to ask


@pytest.fixture
def clock(tmp_path: Path) -> str:
    """A library that moves the clock of whatever preloads it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to move a node's clock with")
    library = tmp_path / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)


@mounting
@pytest.mark.slow
def test_each_fault_of_one_node_among_three_is_found_with_what_to_do(in_tmp: Path, clock: str) -> None:
    photos, store, other = in_tmp / "photos", in_tmp / "store", in_tmp / "other" / "torch-9.9.9.dist-info"
    for number, name in enumerate(f"{letter}{n}" for letter in "ab" for n in range(8)):
        (photos / name[0]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number * 15, 100, 200)).save(photos / name[0] / f"{name}.png")
    store.mkdir()
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n")
    with Started(in_tmp / "cluster") as cluster:
        cluster.head("--include-dashboard=false")
        cluster.node()
        cluster.node(
            "--num-gpus=2",
            mounts=[
                "mount -t tmpfs -o size=120m tmpfs /dev/shm",
                f"mount -t tmpfs tmpfs {photos}",
                f"mount -t tmpfs -o ro tmpfs {store}",
            ],
            PYTHONPATH=os.pathsep.join([str(other.parent), cluster.client["PYTHONPATH"]]),
            LD_PRELOAD=clock,
            HPO_RAY_TEST_CLOCK="30",
        )
        cluster.wait(3)
        cluster.token.chmod(0o644)
        experiment = ["experiment=images", f"data.root={photos}", "model.arch=resnet18"]
        code, found = doctor(cluster.client, "--address", cluster.address, f"--storage={store}/runs", *experiment)
        missing = doctor(cluster.client, "--address", cluster.address, f"--storage={photos}/a")[1]["storage"]
    assert code == 1
    told = {check: [f for f in findings if f["level"] != "ok"] for check, findings in found.items()}
    [torch], [shm], [gpus], [storage], [data], [clocks] = (
        told[check] for check in ("torch", "/dev/shm", "GPUs", "storage", "data.root", "clocks")
    )
    assert "9.9.9 on " in torch["found"]
    assert "one version everywhere" in torch["advice"]
    assert shm["found"].startswith("120 MiB on ")
    assert "--shm-size" in shm["advice"]
    assert gpus["found"].startswith("Ray offers 2 on ")
    assert "--num-gpus" in gpus["advice"]
    assert storage["found"].startswith(f"'{store}' cannot be written to on ")
    assert storage["found"].endswith(": Read-only file system")
    assert data["found"].startswith(f"'{photos}' differs: 2 entries on ")
    assert "0 entries on " in data["found"]
    assert clocks["found"].startswith("30.0 s ahead")
    assert "chrony" in clocks["advice"]
    assert {finding["level"] for finding in (torch, shm, gpus, storage, data)} == {"problem"}
    assert told["token file"][0]["advice"] == f"chmod 600 {cluster.token}"
    assert "No such file or directory" in missing[0]["found"]
    assert missing[0]["advice"].startswith("mount it there under the same path")
    assert not any(path.name.startswith(".hpo-ray") for path in (*store.iterdir(), *(photos / "a").iterdir()))
    assert found["authentication"][0]["level"] == found["Ray Client port"][0]["level"] == "ok"
    assert found["trials"][0]["found"] == "2 at a time, each with 1 CPU"


OPEN = """
import os, sys
from pathlib import Path
from tests.doctor.test_planted import doctor
from tests.ray_start import Started
with Started(Path("cluster")) as cluster:
    closed = dict(RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH="", RAY_START_HOOK="", HOME=os.getcwd())
    cluster.head("--node-ip-address=127.0.0.1", "--dashboard-host=0.0.0.0", "--ray-client-server-port=10001", **closed)
    cluster.token.rename("elsewhere")
    without = cluster.client | dict(RAY_AUTH_MODE="", RAY_AUTH_TOKEN_PATH="", HOME=os.getcwd())
    code, found = doctor({k: v for k, v in without.items() if v}, "--address", cluster.address)
    assert code == 1
    levels = {check: findings[0]["level"] for check, findings in found.items()}
    print(found["authentication"][0]["found"], found["authentication"][0]["advice"], sep=chr(10))
    print(levels["dashboard"], found["dashboard"][0]["found"])
    print(levels["Ray Client port"], found["Ray Client port"][0]["found"], found["Ray Client port"][0]["advice"])
"""


@mounting
@pytest.mark.slow
def test_a_head_that_was_started_open_is_found_from_within(in_tmp: Path) -> None:
    """In a network of its own: not even for a test is there to be an open Ray on this machine's."""
    words = [*ALONE, 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", OPEN]
    done = subprocess.run(words, env=plain_environment(), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    off, advice, dashboard, client = done.stdout.splitlines()
    assert off == "off: a client without a token was let in"
    assert "RAY_AUTH_MODE=token" in advice
    assert dashboard.startswith("problem listens on 0.0.0.0:")
    assert client.startswith("problem Ray Client listens on ")
    assert "hpo_ray.start_hook.closed" in client


@pytest.mark.parametrize("said", [["--address", "127.0.0.1:1"], ["experiment=digits", "ray.address=127.0.0.1:1"]])
def test_a_wrong_address_is_a_mistake(said: list[str]) -> None:
    words = [sys.executable, "-m", "hpo_ray.cli", "doctor", *said]
    done = subprocess.run(words, env=plain_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--address: nothing answers at '127.0.0.1:1'" in done.stderr
