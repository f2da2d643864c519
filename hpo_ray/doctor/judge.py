"""From the facts of all nodes to findings, worst first within each part of the cluster. Pure: asks no machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpo_ray.doctor.findings import GIB, Finding, Nodes, on, size
from hpo_ray.doctor.safety import safety

# Trainings load images through it, and Ray keeps its objects there. Docker gives 64 MiB.
SHM_TOO_SMALL = 0.25 * GIB
SHM_SMALL = 1.0 * GIB
# Ray starts nothing on a node whose disk is fuller than this share.
DISK_FULL = 0.95
DISK_SMALL = 5.0 * GIB
GPU_IN_USE = 0.1
# Beyond it, times of one node don't compare with those of another; beyond the second, stores and TLS refuse requests.
CLOCK_OFF_S = 2.0
CLOCK_WRONG_S = 300.0


def judge(seen: Mapping[str, Any]) -> list[Finding]:
    """Everything that was looked at.

    Args:
        seen: ``nodes``, ``silent`` and ``storage`` as `gather.cluster` gives them; ``door`` as `gather.knock` does,
            None without a cluster; ``needs``: the experiment's ``cpus`` and ``gpus`` per trial, and its ``workers``,
            each of which has an equal part of them on a node.
    """
    nodes: Nodes = seen["nodes"]
    if not nodes:  # nothing more can be said
        return [*_answering(nodes, seen["silent"], seen["door"])]
    return [
        *_answering(nodes, seen["silent"], seen["door"]),
        *_versions(nodes),
        *_gpus(nodes),
        *_fits(nodes, seen["needs"]),
        *_shm(nodes),
        *_disks(nodes),
        *_storage(nodes, seen["storage"]),
        *_paths(nodes),
        *_clocks(nodes),
        *safety(nodes, seen["door"]),
    ]


def _answering(nodes: Nodes, silent: list[str], door: Mapping[str, Any] | None) -> Iterator[Finding]:
    if silent:
        advice = "look at its processes and memory; end its Ray and start it again, or run without it"
        yield Finding("problem", "nodes", f"no answer from {', '.join(silent)}", advice)
    if door is not None and nodes:
        yield Finding("ok", "nodes", f"{len(nodes)} answer: {', '.join(nodes)}")


def _versions(nodes: Nodes) -> Iterator[Finding]:
    """The same on all nodes; the first, the head where there is one, is what others are held against."""
    reference = next(iter(nodes))
    good = []
    for package, wanted in next(iter(nodes.values()))["versions"].items():
        others: dict[str | None, list[str]] = {}
        for name, node in nodes.items():
            others.setdefault(node["versions"][package], []).append(name)
        missing = others.pop(None, [])
        if missing:
            yield Finding("problem", package, f"not installed {on(missing, nodes)}".strip(), _install(package, wanted))
        if len(others) > 1:
            shown = "; ".join(f"{version} {on(names, nodes)}" for version, names in others.items())
            advice = f"one version everywhere: install {package}=={wanted or next(iter(others))} on the others, or use "
            yield Finding("problem", package, shown, advice + "one image for all nodes; then start their Ray again")
        elif others:
            good.append(f"{package} {next(iter(others))}")
    codes = {node["code"] for node in nodes.values() if node["code"]}
    if len(codes) > 1:
        differ = [name for name, node in nodes.items() if node["code"] not in (None, nodes[reference]["code"])]
        found = f"its files {on(differ, nodes)} are not those on {reference}, though the version is the same"
        if len({node["versions"]["hpo-ray"] for node in nodes.values()}) == 1:
            advice = "install the same wheel everywhere (pip install --no-deps --force-reinstall …)"
            yield Finding("problem", "hpo-ray", found, advice)
    if good:
        yield Finding("ok", "versions", ", ".join(good) + (" on every node" if len(nodes) > 1 else ""))


def _install(package: str, version: str | None) -> str:
    return f"pip install {package}{f'=={version}' if version else ''} there, and start its Ray again"


def _gpus(nodes: Nodes) -> Iterator[Finding]:
    total = 0.0
    for name, node in nodes.items():
        where, there = on([name], nodes), node["gpus"]
        offered = float(node["ray"].get("GPU", 0.0))
        total += offered
        if offered > len(there):
            found = f"Ray offers {offered:g} {where}, which has {len(there)}".replace(" , which", ", but the machine")
            advice = "start its Ray with the right --num-gpus; in a container, give it the GPUs (docker run --gpus all)"
            yield Finding("problem", "GPUs", found, advice)
        elif offered < len(there):
            found = f"{len(there)} {where}, of which Ray offers {offered:g}".replace(" , of", ", of")
            advice = "unless that is meant: start its Ray with --num-gpus, and see CUDA_VISIBLE_DEVICES there"
            yield Finding("warning", "GPUs", found, advice)
        if there and offered and not node["torch_cuda"]:
            yield Finding(
                "problem", "GPUs", f"torch is built without CUDA {where}".strip(), "install a build with CUDA"
            )
        used = [gpu for gpu in there if gpu["total_mb"] and gpu["used_mb"] > GPU_IN_USE * gpu["total_mb"]]
        if used:
            shown = ", ".join(f"{gpu['used_mb'] / 1024:.1f} of {gpu['total_mb'] / 1024:.1f} GiB" for gpu in used)
            found = f"memory in use {where}".strip() + f": {shown}"
            yield Finding("warning", "GPUs", found, "see whose it is with nvidia-smi there; trials would share it")
    kinds = sorted({gpu["name"] for node in nodes.values() for gpu in node["gpus"] if gpu["name"]})
    yield Finding("ok", "GPUs", f"{total:g} offered" + (f" ({', '.join(kinds)})" if kinds else ""))


def _fits(nodes: Nodes, needs: Mapping[str, float] | None) -> Iterator[Finding]:
    """Each worker of a trial fits a node, and so many trials fit all."""
    if needs is None or any("CPU" not in node["ray"] and "memory" not in node["ray"] for node in nodes.values()):
        return
    workers = int(needs["workers"])
    share = {"CPU": needs["cpus"] / workers, "GPU": needs["gpus"] / workers}
    each = " and ".join(f"{count:g} {kind}{'s' * (count != 1)}" for kind, count in share.items() if count)
    held = sum(
        int(min(node["ray"].get(kind, 0.0) / count + 1e-6 for kind, count in share.items() if count))
        for node in nodes.values()
    )
    if held >= workers:
        team = f"of {workers} workers " * (workers > 1)
        yield Finding("ok", "trials", f"{held // workers} at a time, each {team}with {each}")
        return
    keys = "resources.cpus_per_trial, resources.gpus_per_trial" + (", resources.workers_per_trial" * (workers > 1))
    advice = f"ask for less ({keys}), unless larger nodes come when needed"
    found = f"no node has {each}" + (f", which each of a trial's {workers} workers needs" * (workers > 1))
    if held:
        found = f"the nodes hold {held} of the {workers} workers of a trial, each with {each}"
        advice = advice.replace("larger", "more")
    yield Finding("problem", "trials", f"{found}: trials would wait for ever", advice)


def _shm(nodes: Nodes) -> Iterator[Finding]:
    sizes = {name: node["shm"]["total"] if node["shm"] else 0 for name, node in nodes.items()}
    advice = "give the container more: docker run --shm-size=4g; on Kubernetes a Memory volume at /dev/shm"
    for name, total in sizes.items():
        if total < SHM_SMALL:
            found = f"{size(total)} {on([name], nodes)}".strip() + ": data loading can end with a bus error"
            yield Finding("problem" if total < SHM_TOO_SMALL else "warning", "/dev/shm", found, advice)
    for name, node in nodes.items():
        if node["shm"] and node["shm"]["total"] >= SHM_SMALL and node["shm"]["free"] < SHM_TOO_SMALL:
            found = f"{size(node['shm']['free'])} of {size(node['shm']['total'])} are free {on([name], nodes)}".strip()
            yield Finding(
                "warning", "/dev/shm", found, "see what lies in it (ls /dev/shm): the dead may have left files"
            )
    if min(sizes.values()) >= SHM_SMALL:
        yield Finding("ok", "/dev/shm", f"{size(min(sizes.values()))} or more")


def _disks(nodes: Nodes) -> Iterator[Finding]:
    least: dict[str, float] = {}
    for name, node in nodes.items():
        for what, space in node["disks"].items():
            if space is None:
                continue  # where it is missing the storage says so
            least[what] = min(space["free"], least.get(what, space["free"]))
            found = f"{size(space['free'])} of {size(space['total'])} are free for {what} {on([name], nodes)}".strip()
            if space["free"] < (1 - DISK_FULL) * space["total"]:
                advice = f"make room at {space['path']}: Ray starts nothing where a disk is 95 % full"
                yield Finding("problem", "disk", found, advice)
            elif space["free"] < DISK_SMALL:
                yield Finding("warning", "disk", found, f"make room at {space['path']}: checkpoints go there")
    shown = ", ".join(f"{size(free)} for {what}" for what, free in least.items())
    if shown and all(free >= DISK_SMALL for free in least.values()):
        yield Finding("ok", "disk", f"free: {shown}" + (", or more" if len(nodes) > 1 else ""))


def _storage(nodes: Nodes, storage: Mapping[str, Any]) -> Iterator[Finding]:
    """Written by every node, and read by every other: checkpoints move with their trials."""
    folder, errors, seen = storage["folder"], storage["errors"], storage["seen"]
    by_error: dict[str, list[str]] = {}
    for name, error in errors.items():
        if error:
            by_error.setdefault(error, []).append(name)
    for error, names in by_error.items():
        found = f"'{folder}' cannot be written to {on(names, nodes)}".rstrip() + f": {error}"
        if "://" in folder:
            advice = "see that the bucket is there and that the nodes' environment or role has credentials for it"
        elif error == "No such file or directory":
            advice = "mount it there under the same path"
        else:
            advice = "give the account that Ray runs as the right to"
        yield Finding("problem", "storage", found, f"{advice}, or choose another: --storage")
    wrote = [name for name, error in errors.items() if not error]
    apart = [name for name, found in seen.items() if name in wrote and len(found) < len(wrote)]
    if apart:
        found = f"'{folder}' is not one folder: {', '.join(apart)} cannot read what others write there"
        advice = "trials that move lose their checkpoints: use a folder that all nodes mount (NFS, EFS), --storage PATH"
        yield Finding("problem", "storage", found, advice)
    if wrote and not apart and not by_error:
        shared = f"written and read by all {len(nodes)} nodes" if len(nodes) > 1 else "can be written to"
        yield Finding("ok", "storage", f"'{folder}' {shared}")


def _paths(nodes: Nodes) -> Iterator[Finding]:
    """What trials read: there on every node, and as large."""
    for key in next(iter(nodes.values()))["paths"]:
        of = {name: node["paths"][key] for name, node in nodes.items()}
        path = next(iter(of.values()))["path"]
        by_error: dict[str, list[str]] = {}
        for name, found in of.items():
            if "error" in found:
                by_error.setdefault(found["error"], []).append(name)
        code = key in ("trainable.target", "working folder")
        for error, names in by_error.items():
            advice = f"put it on storage that all nodes mount, or copy it to the same path {on(names, nodes)}".rstrip()
            if code:
                advice = "what the objective imports from beside it is missing there: work in a shared folder"
            found = f"'{path}' cannot be read {on(names, nodes)}".rstrip() + f": {error}"
            yield Finding("warning" if code else "problem", key, found, advice)
        amounts: dict[str, list[str]] = {}
        for name, found in of.items():
            if "error" not in found and not code:
                text = f"{found['entries']} entries" if "entries" in found else size(found["bytes"])
                amounts.setdefault(text, []).append(name)
        if len(amounts) > 1:
            shown = "; ".join(f"{text} {on(names, nodes)}" for text, names in amounts.items())
            advice = "copy it anew, or put it on storage that all nodes mount: trials would not learn from the same"
            yield Finding("problem", key, f"'{path}' differs: {shown}", advice)
        elif not by_error:
            yield Finding("ok", key, f"'{path}' can be read" + (" from every node" if len(nodes) > 1 else ""))


def _clocks(nodes: Nodes) -> Iterator[Finding]:
    clocks = {name: node["clock"] for name, node in nodes.items() if node.get("clock")}
    if not clocks:
        return
    for name, clock in clocks.items():
        ahead, within = clock["ahead_s"], clock["within_s"]
        surely = abs(ahead) - within
        if surely > CLOCK_OFF_S:
            words = f"{abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'} (± {within:.3f} s) {on([name], nodes)}"
            advice = "switch on time synchronisation there (chrony, systemd-timesyncd): times in logs don't compare"
            wrong = surely > CLOCK_WRONG_S
            advice += ", and object stores refuse requests" if wrong else ""
            yield Finding("problem" if wrong else "warning", "clocks", words.strip(), advice)
    most = max(abs(clock["ahead_s"]) + clock["within_s"] for clock in clocks.values())
    if most <= CLOCK_OFF_S or all(abs(c["ahead_s"]) - c["within_s"] <= CLOCK_OFF_S for c in clocks.values()):
        yield Finding("ok", "clocks", f"within {most:.3f} s of this machine's")
