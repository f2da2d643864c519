"""Whether the nodes of a cluster have what is asked of them, and what to say where they have not.

Knows what Ray says of its nodes; nothing of trials but what each of their processes is to get.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

Amounts = Mapping[str, float]

# Ray starts an actor in a second or two, also where the machine has much to do.
PATIENCE_S = 20.0
_EPSILON = 1e-6


def nodes() -> list[dict[str, float]]:
    """What each node of the cluster that is up has in all: `CPU`, `GPU` and others of Ray's resources."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def fits(bundles: Sequence[Amounts], nodes: Sequence[Amounts]) -> bool:
    """Whether nodes with nothing else to do hold all bundles at once, each of them on one node."""
    left = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=_size, reverse=True):
        # Of the nodes that hold it the one with the least: what is asked for is alike, mostly.
        holds = [node for node in left if _holds(node, bundle)]
        if not holds:
            return False
        node = min(holds, key=_size)
        for name, amount in bundle.items():
            node[name] = node.get(name, 0.0) - amount
    return True


def shortage(bundles: Sequence[Amounts], nodes: Sequence[Amounts], free: Amounts) -> str:
    """What keeps a trial from its start, in one line; empty: there is room for it.

    Args:
        bundles: What each of its processes is to get.
        nodes: What each node has in all.
        free: What the whole cluster has to spare.
    """
    counted = Counter(_told(bundle) for bundle in bundles)
    asked = " and ".join(f"{n} x {what}" if n > 1 else what for what, n in counted.items())
    if not fits(bundles, nodes):
        have = " and ".join(f"{n} x {what}" if n > 1 else what for what, n in Counter(map(_told, nodes)).items())
        each = ", each on one node" if len(bundles) > 1 else " on one node"
        return f"it asks for {asked}{each}; the cluster's nodes have {have or 'nothing'}"
    total = {name: sum(bundle.get(name, 0.0) for bundle in bundles) for bundle in bundles for name in bundle}
    if not _holds(free, total):
        return f"it asks for {asked}; others use the cluster, which has {_told(free)} to spare"
    return ""


class Watch:
    """Notices, once, that nothing runs because the cluster has no room for it."""

    def __init__(self, bundles: Callable[[], Sequence[Amounts]]) -> None:
        """Args: what says what a trial asks for."""
        self._bundles = bundles
        self._idle_since: float | None = None
        self._told = False

    def look(self, idle: bool) -> str:
        """What a user should be told now; mostly nothing.

        Args:
            idle: Whether trials wait and none runs.
        """
        now = time.monotonic()
        if not idle or self._told:
            self._idle_since = None
            return ""
        self._idle_since = now if self._idle_since is None else self._idle_since
        if now - self._idle_since < PATIENCE_S:
            return ""
        self._idle_since = now
        found = ""
        with contextlib.suppress(Exception):  # Ray's to tell, and it will
            import ray

            groups = ray.util.placement_group_table().values()
            if any(group["state"] == "PENDING" for group in groups):  # else there is room, and a process on its way
                found = shortage(self._bundles(), nodes(), ray.available_resources())
        self._told = bool(found)
        return f"no trial can start: {found}; waiting until there is room" if found else ""


def _holds(node: Amounts, bundle: Amounts) -> bool:
    return all(node.get(name, 0.0) >= amount - _EPSILON for name, amount in bundle.items())


def _size(amounts: Amounts) -> tuple[float, float]:
    return amounts.get("GPU", 0.0), amounts.get("CPU", 0.0)


def _told(amounts: Amounts) -> str:
    gpus = amounts.get("GPU", 0.0)
    return f"{amounts.get('CPU', 0.0):g} CPUs" + (f" + {gpus:g} GPUs" if gpus else "")
