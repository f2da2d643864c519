"""What the preflight is asked to look at, and that it works on nodes without hpo_ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from hpo_ray.doctor import facts
from hpo_ray.doctor.gather import TRAVEL
from hpo_ray.doctor.visit import visit
from hpo_ray.errors import InvalidInput

# A node's process: what it is sent on stdin, asked where it can write; it has no hpo_ray.
NODE = """
import sys
sys.modules["hpo_ray"] = None
from ray import cloudpickle
probe = cloudpickle.loads(sys.stdin.buffer.read())()
for folder in sys.argv[1:]:
    print(repr((probe.write(folder, "a"), probe.seen(folder, ["a"]))))
    probe.remove(folder, "a")
"""


def test_a_node_without_hpo_ray_writes_to_folders_and_uris(tmp_path: Path) -> None:
    for module in TRAVEL:
        cloudpickle.register_pickle_by_value(module)
    try:
        sent = cloudpickle.dumps(facts.Probe)
    finally:
        for module in TRAVEL:
            cloudpickle.unregister_pickle_by_value(module)
    places = [str(tmp_path), f"file://{tmp_path}"]
    done = subprocess.run([sys.executable, "-c", NODE, *places], input=sent, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == ["('', ['a'])"] * 2
    assert list(tmp_path.iterdir()) == []


def test_the_storage_is_the_experiments_own_unless_another_is_asked_for(in_tmp: Path) -> None:
    kept = f"storage.uri=file://{in_tmp}/kept/runs"  # made by the run itself: what is above it is looked at
    (in_tmp / "kept").mkdir()
    for storage, folder in ((None, in_tmp / "kept"), (f"file://{in_tmp}/none", in_tmp), ("runs", in_tmp)):
        findings, seen = visit(["experiment=digits", kept], None, storage, None)
        assert seen["storage"]["folder"] == str(folder)
        assert [finding.level for finding in findings if finding.check == "storage"] == ["ok"]


@pytest.mark.parametrize(("uri", "said"), [("s5://b", "there is no 's5'"), ("s3://k:p@b", "it holds a password")])
def test_a_storage_that_is_none_is_a_mistake(uri: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        visit([], None, uri, None)


@pytest.mark.parametrize("more", [["--json"], []])
def test_a_storages_password_is_never_shown(tmp_path: Path, more: list[str]) -> None:
    words = [sys.executable, "-m", "hpo_ray.cli", "doctor", "--storage", "s3://AKIAKEY:SECRETWORD@bucket/x", *more]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, "it holds a password" in done.stderr + done.stdout) == (2, True)
    assert "SECRETWORD" not in done.stdout + done.stderr
