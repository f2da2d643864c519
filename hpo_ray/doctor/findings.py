"""What a preflight says of one thing: how bad, what was found, what to do. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]
# The facts of all nodes, by name, as `gather` has them.
Nodes = Mapping[str, Mapping[str, Any]]
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``; ``warning``: a run works, worse or less safely; ``problem``: it would fail, or is open to others.
        check: What was looked at.
        found: What there is, with the nodes where it is so.
        advice: What to do; empty where all is well.
    """

    level: Level
    check: str
    found: str
    advice: str = ""


def on(names: list[str], of: Nodes) -> str:
    """Nodes in words: ``on all 3 nodes``, ``on a``, ``on a and b``; empty where there is only one."""
    if len(of) == 1:
        return ""
    if len(names) == len(of):
        return f"on all {len(of)} nodes"
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return "on " + (" and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0])


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"
