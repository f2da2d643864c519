"""Who else could get in: authentication, the token's file, the dashboard, the Ray Client's port. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from hpo_ray.doctor.findings import Finding, Level, Nodes, on

_CLOSE = "`RAY_START_HOOK=hpo_ray.start_hook.closed` before `ray start`"


def safety(nodes: Nodes, door: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Findings on what keeps others out.

    Args:
        nodes: As `gather` has them.
        door: Whether a client without a token got in, see `gather.knock`; None: there is no cluster.
    """
    if door is not None:
        yield _authentication(nodes, door)
    yield from _token(nodes, door)
    if door is not None:
        open_to_all = bool(door["open"])
        yield from _dashboard(nodes, open_to_all)
        yield from _client(nodes, open_to_all)


def _authentication(nodes: Nodes, door: Mapping[str, Any]) -> Finding:
    if door["open"]:
        advice = (
            "whoever reaches it runs code as you: end it, make a token (cluster/README.md), and start every node with "
            "RAY_AUTH_MODE=token"
        )
        return Finding("problem", "authentication", "off: a client without a token was let in", advice)
    if door["open"] is None:
        advice = "see that the head answers from here"
        return Finding("warning", "authentication", f"could not be tried ({door['said']})", advice)
    tls = all(node["tls"] for node in nodes.values())
    wire = "encrypted by TLS" if tls else "token and data cross the network in plain text: keep it a private one"
    return Finding("ok", "authentication", f"on: a client without the token is refused; {wire}")


def _token(nodes: Nodes, door: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Only its owner may read the file."""
    loose = [(name, node["token"]) for name, node in nodes.items() if node["token"].get("mode", 0) & 0o077]
    for name, token in loose:
        found = f"{token['from']} has mode {token['mode']:04o} {on([name], nodes)}".strip()
        level: Level = "warning" if door is None else "problem"  # here alone, hpo_ray makes a token of its own
        yield Finding(level, "token file", f"{found}: others can read it", f"chmod 600 {token['from']}")
    kept = [node["token"] for node in nodes.values() if "mode" in node["token"]]
    if kept and not loose:
        yield Finding("ok", "token file", f"{kept[0]['from']} is its owner's alone")
    elif not kept and not loose and door is not None:
        yield Finding("ok", "token file", "none: the token comes from the environment")


def _dashboard(nodes: Nodes, open_to_all: bool) -> Iterator[Finding]:
    found = _listening(nodes, "dashboard")
    public = [(host, port) for host, port in found if not _private(host)]
    for host, port in public:
        advice = "ray start --dashboard-host=127.0.0.1, and come by a tunnel: ssh -L 8265:127.0.0.1:8265 HEAD"
        level: Level = "problem" if open_to_all else "warning"
        reach = "runs jobs for anyone who reaches it" if open_to_all else "only the token keeps others out"
        yield Finding(level, "dashboard", f"listens on {host}:{port}: {reach}", advice)
    if not public:
        shown = f"listens on {found[0][0]}:{found[0][1]} alone" if found else "none"
        yield Finding("ok", "dashboard", shown)


def _client(nodes: Nodes, open_to_all: bool) -> Iterator[Finding]:
    found = _listening(nodes, "client")
    for host, port in found:
        level: Level = "problem" if open_to_all or not _private(host) else "warning"
        words = f"Ray Client listens on {host}:{port}: a second way in, which nothing here uses"
        yield Finding(level, "Ray Client port", words, f"leave it out: {_CLOSE}")
    if not found:
        yield Finding("ok", "Ray Client port", "closed")


def _listening(nodes: Nodes, kind: str) -> list[tuple[str, int]]:
    """Where a kind of server listens, each place once: nodes on one machine see the same processes."""
    servers = [server for node in nodes.values() for server in node["servers"] if server["kind"] == kind]
    return sorted({(str(host), int(port)) for server in servers for host, port in server["listens"]})


def _private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
