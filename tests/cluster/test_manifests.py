"""The Kubernetes manifests: KubeRay and Kubernetes take them, and what comes of them is closed."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from hpo_ray import lock
from tests.cluster.folder import MANIFESTS, manifests, text

SCHEMA = yaml.safe_load((Path(__file__).parent / "kuberay.yaml").read_text())
KUBERNETES = "1.34"


def inside(kind: str, value: Any) -> dict[str, Any]:
    """A whole object of Kubernetes' that has this part in it."""
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    if kind == "Pod":
        return {**pod, "metadata": {"name": "x", **value["metadata"]}, "spec": value["spec"]}
    key = {"SecurityContext": "securityContext", "ResourceRequirements": "resources"}[kind]
    return {**pod, "spec": {"containers": [{"name": "x", "image": "x", key: value}]}}


def of_kubernetes(validator: Any, kind: str, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    try:
        kubernetes_validate.validate(inside(kind, value), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield jsonschema.ValidationError(str(error))


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"x-kubernetes": of_kubernetes})


@pytest.fixture(params=MANIFESTS)
def objects(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return manifests(request.param)


def cluster(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec = objects["RayCluster"]["spec"] if "RayCluster" in objects else objects["RayJob"]["spec"]["rayClusterSpec"]
    assert isinstance(spec, dict)
    return spec


def groups(objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [cluster(objects)["headGroupSpec"], *cluster(objects)["workerGroupSpecs"]]


def templates(objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pod that comes of it."""
    found = [group["template"] for group in groups(objects)]
    return [*found, objects["RayJob"]["spec"]["submitterPodTemplate"]] if "RayJob" in objects else found


def test_kuberay_and_kubernetes_take_it(objects: dict[str, dict[str, Any]]) -> None:
    for kind, found in objects.items():
        if kind.startswith("Ray"):
            Validator(SCHEMA["$defs"][kind] | {"$defs": SCHEMA["$defs"]}).validate(found)
        else:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    "path",
    [
        ("authOptons",),
        ("authOptions", "mod"),
        ("headGroupSpec", "rayStartParams", "num-cpus"),
        ("headGroupSpec", "template", "spec", "securityContext", "runAsNonRot"),
        ("headGroupSpec", "template", "spec", "containers", 0, "portz"),
        ("autoscalerOptions", "securityContext", "allow"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_slip_anywhere_in_it_is_found(path: tuple[Any, ...]) -> None:
    """The schemas check what they should: unknown keys, and numbers where KubeRay wants text."""
    found = manifests(MANIFESTS[0])["RayCluster"]
    part = found["spec"]
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = 0
    with pytest.raises(jsonschema.ValidationError):
        Validator(SCHEMA["$defs"]["RayCluster"] | {"$defs": SCHEMA["$defs"]}).validate(found)


def test_everything_asks_for_the_token_and_none_has_a_port_for_the_ray_client(objects: dict[str, Any]) -> None:
    assert cluster(objects)["authOptions"] == {"mode": "token"}  # KubeRay gives mode and token to every container
    for group in groups(objects):
        (container,) = group["template"]["spec"]["containers"]
        assert container["env"] == [{"name": "RAY_START_HOOK", "value": "hpo_ray.start_hook.closed"}]
    head = cluster(objects)["headGroupSpec"]
    # With none said, KubeRay would add the client's to the head's service.
    assert [port["containerPort"] for port in head["template"]["spec"]["containers"][0]["ports"]] == [6379, 8265]
    assert head["serviceType"] == "ClusterIP"
    assert not head.get("enableIngress")


def test_the_dashboard_is_the_heads_own_or_kuberays(objects: dict[str, Any]) -> None:
    """A RayJob's is asked by KubeRay's operator, from its own pod: there the policy is the lock, and the token."""
    host = cluster(objects)["headGroupSpec"]["rayStartParams"]["dashboard-host"]
    outside = [rule for rule in objects["NetworkPolicy"]["spec"]["ingress"] if rule not in [_own(objects)]]
    if "RayJob" not in objects:
        assert (host, outside) == ("127.0.0.1", [])
        return
    assert host == "0.0.0.0"
    (operator,) = outside
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    (peer,) = operator["from"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}


def _own(objects: dict[str, Any]) -> dict[str, Any]:
    return {"from": [{"podSelector": objects["NetworkPolicy"]["spec"]["podSelector"]}]}


def test_the_policy_is_for_every_pod_and_lets_in_nothing_from_outside(objects: dict[str, Any]) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    for template in templates(objects):
        assert template["metadata"]["labels"].items() >= policy["podSelector"]["matchLabels"].items()
    assert _own(objects) in policy["ingress"]
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert peers
    assert all("podSelector" in peer and "ipBlock" not in peer for peer in peers)
    blocks = [peer["ipBlock"] for rule in policy["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert all("169.254.0.0/16" in block["except"] for block in blocks)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_rule_for_pod_identity_opens_the_nodes_agent_alone_once_it_is_wanted(name: str) -> None:
    lines = text(name).splitlines()
    at = next(number for number, line in enumerate(lines) if "169.254.170.23" in line)
    lines[at : at + 2] = [line.replace("# ", "", 1) for line in lines[at : at + 2]]
    policy = next(found for found in yaml.safe_load_all("\n".join(lines)) if found["kind"] == "NetworkPolicy")
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    opened = [rule for rule in policy["spec"]["egress"] if rule["to"] == [{"ipBlock": {"cidr": "169.254.170.23/32"}}]]
    assert [rule["ports"] for rule in opened] == [[{"protocol": "TCP", "port": 80}]]
    assert len(policy["spec"]["egress"]) == 4


def test_every_container_is_without_root_and_bounded(objects: dict[str, Any]) -> None:
    for template in templates(objects):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert cluster(objects)["autoscalerOptions"]["securityContext"]["allowPrivilegeEscalation"] is False


def test_every_ray_pod_has_the_shared_folder_and_shared_memory_of_its_own_size(objects: dict[str, Any]) -> None:
    claim = objects["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups(objects):
        spec = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        places = {mount["mountPath"]: volumes[mount["name"]] for mount in spec["containers"][0]["volumeMounts"]}
        assert places["/shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert places["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        assert int(places["/dev/shm"]["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30 > int(
            group["rayStartParams"]["object-store-memory"]
        )


def test_workers_come_from_zero_to_spot_nodes_and_the_head_never_does(objects: dict[str, Any]) -> None:
    assert cluster(objects)["enableInTreeAutoscaling"] is True
    head, *workers = groups(objects)
    assert head["rayStartParams"]["num-cpus"] == "0"
    for worker in workers:
        assert (worker["minReplicas"], worker["replicas"]) == (0, 0)
        wished, needed = (one["template"]["spec"]["affinity"]["nodeAffinity"] for one in (worker, head))
        spot = [
            (row["key"], row["values"])
            for one in wished["preferredDuringSchedulingIgnoredDuringExecution"]
            for row in one["preference"]["matchExpressions"]
        ]
        (term,) = needed["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert [(row["key"], row["values"]) for row in term["matchExpressions"]] == spot
        assert {row["operator"] for row in term["matchExpressions"]} == {"NotIn"}


def test_both_manifests_share_their_storage() -> None:
    first, second = (manifests(name)["PersistentVolumeClaim"] for name in MANIFESTS)
    assert first == second


def test_a_job_s_second_attempt_goes_on_where_the_first_was(tmp_path: Path) -> None:
    """The submitter's shell splits the entry point for `ray job submit`, which joins the words for the head's."""
    entrypoint = manifests("kuberay-job.yaml")["RayJob"]["spec"]["entrypoint"].replace("/shared", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hpo-ray").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin" / "hpo-ray").chmod(0o755)
    (tmp_path / "bin" / "sleep").write_text('#!/bin/sh\necho sleep "$@"\n')
    (tmp_path / "bin" / "sleep").chmod(0o755)
    joined = shlex.join(shlex.split(entrypoint))

    def attempt() -> list[str]:
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(joined, shell=True, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first = attempt()
    run = first[first.index("--out") + 1]
    assert first[0] == "run"
    Path(run).mkdir(parents=True)
    (Path(run) / "events.jsonl").touch()
    assert attempt() == ["resume", run, "ray.address=auto"]
    (Path(run) / "driver.lock").touch()  # of a head that was lost: `resume` believes in it for a minute
    assert attempt() == ["sleep", "61", "resume", run, "ray.address=auto"]
    assert lock.SILENCE_S < 61
