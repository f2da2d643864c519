"""The facts of all nodes of a cluster, from an actor on each; or of this machine alone, without any Ray.

Knows Ray; judges nothing and prints nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hpo_ray import errors
from hpo_ray.doctor import facts
from hpo_ray.environment import local_gpus
from hpo_ray.storage import address as uris

# For a node's first worker process to start and answer; then for each further question.
ANSWERS_WITHIN_S = 60.0
_CLOCK_READINGS = 5
# What goes to the nodes as its own text: there may be no hpo_ray there, or another one.
TRAVEL = (facts, uris, errors)
_HEAD = "node:__internal_head__"

# Tries to come in without a token: as a process of its own, because Ray reads its mode once.
_KNOCK = """
import json, sys
from ray._private import services
from ray._raylet import GcsClient
address = services.canonicalize_bootstrap_address_or_die(sys.argv[1])
try:
    print(json.dumps({"address": address, "open": len(GcsClient(address=address).get_all_node_info(timeout=10)) > 0}))
except Exception as error:
    print(json.dumps({"address": address, "open": False, "said": type(error).__name__}))
"""


def knock(address: str) -> dict[str, Any]:
    """Whether a client without a token gets in.

    Returns:
        ``open``: true, false, or None where nothing could be found out; ``address``: the head's, if it answered;
        ``said``: the kind of the refusal.
    """
    hidden = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_gcs_rpc_server_connect_timeout_s": "10"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _KNOCK, address], capture_output=True, text=True, timeout=60, env=environment
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {"open": None, "said": "no answer"}
    if not found["open"] and found["said"] != "AuthenticationError":
        return {**found, "open": None}
    return found


def here(paths: Mapping[str, str], storage: str) -> dict[str, Any]:
    """This machine alone, no Ray started: what `cluster` gives for the nodes of one."""
    probe, folder = facts.Probe(), facts.standing(storage)
    node = {**probe.facts(paths, folder, None), "ray": {"GPU": local_gpus()}}
    name = f".hpo-ray-doctor-{secrets.token_hex(4)}"
    error = probe.write(folder, name)
    probe.remove(folder, name)
    return {"nodes": {node["host"]: node}, "silent": [], "storage": _storage(storage, folder, {node["host"]: error})}


def cluster(address: str, paths: Mapping[str, str], storage: str) -> dict[str, Any]:
    """All nodes of the cluster that this process has joined.

    Args:
        address: The head's, as ``host:port``.
        paths: Key -> a file or folder that trials read.
        storage: Where run directories are to lie: a folder, or a URI that pyarrow opens.

    Returns:
        ``nodes``: name -> its facts, what Ray says that it has (``ray``), and how its clock differs from this machine's
        (``clock``: seconds, and within how many); ``silent``: nodes that did not answer; ``storage``: who could write
        there and who sees what the others wrote.
    """
    folder = facts.standing(storage)
    with _probes() as probes:
        asked = {name: probe.facts.remote(paths, folder, address) for name, probe in probes.items()}
        found = _answers(asked)
        probes = {name: probe for name, probe in probes.items() if name in found}
        for name, node in _alive().items():
            if name in found:
                found[name]["ray"] = node["Resources"]
                found[name]["clock"] = _clock(probes[name])
        shared = _shared(storage, folder, probes)
    return {"nodes": found, "silent": sorted(set(asked) - set(found)), "storage": shared}


def _alive() -> dict[str, dict[str, Any]]:
    """Living nodes by name: the host's, with a part of the node's id where hosts have several; the head first."""
    import ray

    nodes = sorted(
        (node for node in ray.nodes() if node["Alive"]),
        key=lambda node: (_HEAD not in node["Resources"], node["NodeManagerHostname"], node["NodeID"]),
    )
    hosts = Counter(node["NodeManagerHostname"] for node in nodes)
    named = {}
    for node in nodes:
        host = node["NodeManagerHostname"]
        name = host if hosts[host] == 1 else f"{host}#{node['NodeID'][:6]}"
        named[f"{name} (head)" if _HEAD in node["Resources"] else name] = node
    return named


@contextmanager
def _probes() -> Iterator[dict[str, Any]]:
    """An actor on each node, that takes no processor from the trials that may run there."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    for module in TRAVEL:
        cloudpickle.register_pickle_by_value(module)
    try:
        kind = ray.remote(num_cpus=0)(facts.Probe)
        probes = {
            name: kind.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
            for name, node in _alive().items()
        }
        try:
            yield probes
        finally:
            for probe in probes.values():
                ray.kill(probe)
    finally:
        for module in TRAVEL:
            cloudpickle.unregister_pickle_by_value(module)


def _answers(asked: Mapping[str, Any], timeout_s: float = ANSWERS_WITHIN_S) -> dict[str, Any]:
    """What came back in time, without what failed: a node that dies meanwhile is a silent one."""
    import ray

    ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    found = {}
    for name, reference in asked.items():
        try:
            found[name] = ray.get(reference, timeout=0)
        except (ray.exceptions.RayError, TimeoutError):
            continue
    return found


def _clock(probe: Any) -> dict[str, float] | None:
    """How far a node's clock is ahead of ours: that of the quickest of some questions, within half its round trip."""
    best: tuple[float, float] | None = None
    for _ in range(_CLOCK_READINGS):
        sent, since = time.time(), time.perf_counter()
        answer = _answers({"": probe.now.remote()}, timeout_s=10.0)
        trip = time.perf_counter() - since
        if answer and (best is None or trip / 2 < best[1]):
            best = (answer[""] - (sent + trip / 2), trip / 2)
    return {"ahead_s": best[0], "within_s": best[1]} if best else None


def _shared(storage: str, folder: str, probes: Mapping[str, Any]) -> dict[str, Any]:
    """Each node leaves a file; each says which of them it reads; all are taken away again."""
    nonce = secrets.token_hex(4)
    names = {name: f".hpo-ray-doctor-{nonce}-{number}" for number, name in enumerate(probes)}
    errors = _answers({name: probe.write.remote(folder, names[name]) for name, probe in probes.items()})
    written = [names[name] for name, error in errors.items() if not error]
    try:
        seen = _answers({name: probe.seen.remote(folder, written) for name, probe in probes.items()})
    finally:
        _answers({name: probe.remove.remote(folder, names[name]) for name, probe in probes.items()}, timeout_s=10.0)
    of = {file: name for name, file in names.items()}
    return _storage(storage, folder, errors, {name: [of[file] for file in files] for name, files in seen.items()})


def _storage(
    storage: str, folder: str, errors: Mapping[str, str], seen: Mapping[str, list[str]] | None = None
) -> dict[str, Any]:
    storage, folder = uris.shown(storage), uris.shown(folder)
    return {"asked": storage, "folder": folder, "errors": dict(errors), "seen": dict(seen or {})}
