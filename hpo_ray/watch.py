"""Notices that Ray itself has died: its own way of saying so is to end this process, a minute later and without a word.

Knows Ray's processes by name, nothing of runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpo_ray.lock import process_start

PERIOD_S = 0.5
# The control process and the node's own; without either, nothing starts or ends any more.
_VITAL = ("gcs_server", "raylet")
# A cluster's head may be restarted in place: it is given up only when nothing has answered for so long.
PATIENCE_S = 45.0
_PROBE_PERIOD_S = 5.0


@contextlib.contextmanager
def watching(address: str | None, on_lost: Callable[[str], None], *, starting: bool = False) -> Iterator[None]:
    """Call `on_lost` with what died, from a thread of its own, again and again until the context is left.

    Args:
        address: The cluster's ``host:port``; None: Ray's processes are this one's own children.
        on_lost: Told in words.
        starting: Whether those children are still to be started.
    """
    done = threading.Event()
    lost_now = _children(starting=starting) if address is None else _cluster(address)

    def watch() -> None:
        period = PERIOD_S if address is None else _PROBE_PERIOD_S
        while not done.wait(period):
            lost = lost_now()
            if lost:
                period = PERIOD_S
                on_lost(lost)

    thread = threading.Thread(target=watch, name="ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def own_ray() -> bool:
    """Whether this process has started Ray itself."""
    return any(name == _VITAL[0] and process_start(pid) is not None for pid, name in own_processes())


def _children(*, starting: bool) -> Callable[[], str]:
    """Says which of the vital processes that this one has started, or will, is gone; empty while all live."""
    # What is left of an earlier Ray, dead or about to be.
    others = {pid for pid, _ in own_processes() if starting or process_start(pid) is None}
    started: dict[int, tuple[str, str | None]] = {}

    def look() -> None:
        for pid, name in own_processes():
            if name in _VITAL and pid not in others:
                started.setdefault(pid, (name, process_start(pid)))

    def lost() -> str:
        if len(started) < len(_VITAL):
            look()
        dead = [name for pid, (name, start) in started.items() if start is None or process_start(pid) != start]
        return f"Ray's process {' and '.join(dead)} has died" if dead else ""

    look()
    return lost


def _cluster(address: str) -> Callable[[], str]:
    """Says that a cluster's head has not answered for long; empty while it does."""
    host, _, port = address.rpartition(":")
    answered = time.monotonic()

    def lost() -> str:
        nonlocal answered
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), timeout=_PROBE_PERIOD_S).close()
            answered = time.monotonic()
        silent = time.monotonic() - answered
        return f"the cluster's head at {address} has not answered for {silent:.0f} s" if silent > PATIENCE_S else ""

    return lost


def own_processes() -> Iterator[tuple[int, str]]:
    """Number and name of each of Ray's processes that this one has started."""
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                text = (entry / "stat").read_text()
                name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
                # The dead that nobody has taken note of have a name, and no command line any more.
                if int(rest.split()[1]) == os.getpid() and (
                    name in _VITAL or "/ray/" in (entry / "cmdline").read_text()
                ):
                    yield int(entry.name), name


def processes_with(token: Path) -> Iterator[int]:
    """Ray's processes that were given this token file, those too whose parent is gone; not this process."""
    given = f"RAY_AUTH_TOKEN_PATH={token}".encode()
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if given in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes()
                    if command.startswith(b"ray::") or b"/ray/_private/" in command:
                        yield int(entry.name)
