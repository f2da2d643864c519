"""What the preflight makes of facts that this machine cannot show: cards, disks, folders that are not one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hpo_ray.doctor.findings import GIB, Finding
from hpo_ray.doctor.judge import judge

SPACE = {"path": "/x", "total": 500 * GIB, "free": 300 * GIB}
NODE: dict[str, Any] = {
    "host": "a",
    "versions": {"python": "3.12.1", "ray": "2.60.0", "torch": "2.15.0", "torchvision": "0.29.2", "hpo-ray": "0.1.0"},
    "code": "0123456789ab",
    "torch_cuda": "13.0",
    "gpus": [{"name": "H200", "total_mb": 143771.0, "used_mb": 0.0}],
    "shm": {"path": "/dev/shm", "total": 8 * GIB, "free": 8 * GIB},
    "disks": {"temporary files": SPACE, "results": SPACE},
    "paths": {"data.root": {"path": "/photos", "entries": 37}, "model.weights": {"path": "/w.pt", "bytes": 5 * 2**20}},
    "token": {"from": "/home/me/.ray/auth_token", "mode": 0o600},
    "tls": False,
    "servers": [{"kind": "dashboard", "listens": [["127.0.0.1", 8265]]}],
    "ray": {"CPU": 8.0, "GPU": 1.0, "memory": 1e10},
    "clock": {"ahead_s": 0.01, "within_s": 0.002},
}


def facts(**changes: Any) -> dict[str, Any]:
    """Three good nodes; node ``b`` with what `changes` say: a dotted path with ``__`` for the dots."""
    seen = {
        "nodes": {name: copy.deepcopy(NODE) for name in ("a (head)", "b", "c")},
        "silent": [],
        "door": {"open": False, "address": "a:6379", "said": "AuthenticationError"},
        "needs": {"cpus": 4.0, "gpus": 0.5, "workers": 1},
        "storage": {
            "asked": "/shared/runs",
            "folder": "/shared",
            "errors": dict.fromkeys(("a (head)", "b", "c"), ""),
            "seen": {name: ["a (head)", "b", "c"] for name in ("a (head)", "b", "c")},
        },
    }
    for path, value in changes.items():
        *above, last = path.split("__")
        place: Any = seen if above and above[0] == "seen" else seen["nodes"]["b"]
        for key in above[1:] if above and above[0] == "seen" else above:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place[last] = value
    return seen


def worse(seen: dict[str, Any]) -> list[Finding]:
    return [finding for finding in judge(seen) if finding.level != "ok"]


def test_a_good_cluster_has_nothing_but_good_findings() -> None:
    assert worse(facts()) == []
    found = {finding.check: finding.found for finding in judge(facts())}
    assert found["nodes"] == "3 answer: a (head), b, c"
    assert found["GPUs"] == "3 offered (H200)"
    assert found["trials"] == "6 at a time, each with 4 CPUs and 0.5 GPUs"
    assert found["storage"] == "'/shared' written and read by all 3 nodes"
    assert found["dashboard"] == "listens on 127.0.0.1:8265 alone"
    assert all(not finding.advice for finding in judge(facts()))


FAULTS: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({"seen__silent": ["d"]}, "problem", "nodes", "no answer from d", "look at its processes"),
    ({"versions__ray": "2.59.0"}, "problem", "ray", "2.59.0 on b", "install ray==2.60.0"),
    ({"versions__hpo-ray": None, "code": None}, "problem", "hpo-ray", "not installed on b", "pip install hpo-ray"),
    ({"code": "ba9876543210"}, "problem", "hpo-ray", "its files on b are not those on a", "same wheel"),
    ({"gpus": []}, "problem", "GPUs", "Ray offers 1 on b", "--gpus all"),
    ({"ray__GPU": 0.0}, "warning", "GPUs", "1 on b, of which Ray offers 0", "--num-gpus"),
    ({"torch_cuda": None}, "problem", "GPUs", "torch is built without CUDA on b", "with CUDA"),
    ({"gpus__0__used_mb": 70000.0}, "warning", "GPUs", "68.4 of 140.4 GiB", "nvidia-smi"),
    (
        {"seen__needs": {"cpus": 16.0, "gpus": 0, "workers": 1}},
        "problem",
        "trials",
        "no node has 16 CPUs: trials",
        "cpus_per_trial",
    ),
    (
        {"seen__needs": {"cpus": 32.0, "gpus": 0, "workers": 2}},
        "problem",
        "trials",
        "no node has 16 CPUs, which each of a trial's 2 workers needs",
        "workers_per_trial",
    ),
    (
        {"seen__needs": {"cpus": 4.0, "gpus": 4.0, "workers": 4}},
        "problem",
        "trials",
        "the nodes hold 3 of the 4 workers of a trial, each with 1 CPU and 1 GPU",
        "unless more nodes come",
    ),
    ({"shm": None}, "problem", "/dev/shm", "0 MiB on b", "--shm-size"),
    ({"shm__total": 0.5 * GIB}, "warning", "/dev/shm", "512 MiB on b", "--shm-size"),
    ({"shm__free": 0.1 * GIB}, "warning", "/dev/shm", "102 MiB of 8.0 GiB are free on b", "ls /dev/shm"),
    ({"disks__results": {**SPACE, "free": 20 * GIB}}, "problem", "disk", "20.0 GiB of 500.0 GiB", "make room at /x"),
    (
        {"disks__results": {"path": "/x", "total": 20 * GIB, "free": 2 * GIB}},
        "warning",
        "disk",
        "2.0 GiB of 20.0 GiB are free for results on b",
        "checkpoints",
    ),
    ({"seen__storage__seen__b": ["b"]}, "problem", "storage", "is not one folder: b cannot read", "NFS"),
    (
        {"seen__storage__errors__b": "Permission denied"},
        "problem",
        "storage",
        "on b: Permission denied",
        "the right to",
    ),
    (
        {"paths__data.root": {"path": "/photos", "error": "No such file or directory"}},
        "problem",
        "data.root",
        "'/photos' cannot be read on b",
        "copy it to the same path on b",
    ),
    ({"paths__model.weights__bytes": 2**20}, "problem", "model.weights", "differs: 5 MiB on a (head) and c; 1", "anew"),
    ({"clock__ahead_s": -3.0}, "warning", "clocks", "3.0 s behind (± 0.002 s) on b", "chrony"),
    ({"clock__ahead_s": 1200.0}, "problem", "clocks", "1200.0 s ahead", "object stores refuse"),
    ({"token__mode": 0o644}, "problem", "token file", "mode 0644 on b", "chmod 600 /home/me/.ray/auth_token"),
    ({"seen__door": {"open": True}}, "problem", "authentication", "off", "RAY_AUTH_MODE=token"),
    ({"seen__door": {"open": None, "said": "no answer"}}, "warning", "authentication", "no answer", "the head"),
    (
        {"servers": [{"kind": "dashboard", "listens": [["0.0.0.0", 8265]]}]},
        "warning",
        "dashboard",
        "listens on 0.0.0.0:8265: only the token",
        "--dashboard-host=127.0.0.1",
    ),
    (
        {"servers": [{"kind": "client", "listens": [["::", 10001]]}]},
        "problem",
        "Ray Client port",
        "listens on :::10001",
        "start_hook.closed",
    ),
]


@pytest.mark.parametrize(("changes", "level", "check", "found", "advice"), FAULTS, ids=lambda value: str(value)[:40])
def test_one_fault_makes_one_finding(changes: dict[str, Any], level: str, check: str, found: str, advice: str) -> None:
    [finding] = worse(facts(**changes))
    assert (finding.level, finding.check) == (level, check)
    assert found in finding.found
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("needs", "at_a_time"),
    [
        ({"cpus": 3.0, "gpus": 0.0, "workers": 3}, "8 at a time, each of 3 workers with 1 CPU"),
        ({"cpus": 24.0, "gpus": 0.0, "workers": 3}, "1 at a time, each of 3 workers with 8 CPUs"),
        ({"cpus": 3.0, "gpus": 3.0, "workers": 3}, "1 at a time, each of 3 workers with 1 CPU and 1 GPU"),
        ({"cpus": 1.0, "gpus": 0.1, "workers": 1}, "24 at a time, each with 1 CPU and 0.1 GPUs"),
    ],
)
def test_a_trials_workers_may_lie_on_several_nodes(needs: dict[str, float], at_a_time: str) -> None:
    assert {finding.check: finding.found for finding in judge(facts(seen__needs=needs))}["trials"] == at_a_time


def test_a_clock_within_the_round_trip_is_not_blamed() -> None:
    assert worse(facts(clock={"ahead_s": 5.0, "within_s": 4.0})) == []


def test_a_cluster_of_which_nothing_answers_has_this_one_problem() -> None:
    [finding] = judge(facts(seen__nodes={}, seen__silent=["a", "b"]))
    assert (finding.level, finding.found) == ("problem", "no answer from a, b")
