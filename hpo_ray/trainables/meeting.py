"""Where the processes that train a trial together find each other: a store of torch's, on an address of this machine.

Left to itself the first of them would have torch listen on every network of its machine. Imports no torch before one of
them comes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator


class Meeting:
    """The store, for as long as it is open. Whoever follows torchrun's variables meets there, in any process."""

    def __init__(self, host: str) -> None:
        """Listen on an address of this machine, on a port that is free.

        Raises:
            OSError: It is none of this machine's.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = host
        self._listener = socket.create_server((host, 0), family=family, backlog=512)
        self._port = int(self._listener.getsockname()[1])
        self._told, self._tell = os.pipe()
        self._store: object = None
        self._thread = threading.Thread(target=self._serve, name="meeting", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port``"""
        return f"{self._host}:{self._port}"

    def close(self) -> None:
        """Listen no more."""
        os.close(self._tell)
        self._thread.join()
        os.close(self._told)
        self._store = None
        self._listener.close()

    def _serve(self) -> None:
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        waiting.register(self._told, select.POLLHUP)
        if self._told in dict(waiting.poll()):
            return
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        # It answers those who have come meanwhile, too; the socket is its own from here on.
        self._store = TCPStore(
            self._host,
            self._port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=self._listener.detach(),
        )


@contextlib.contextmanager
def opened(host: str) -> Iterator[str]:
    """A meeting; yields its address."""
    meeting = Meeting(host)
    try:
        yield meeting.address
    finally:
        meeting.close()


@contextlib.contextmanager
def variables(address: str, rank: int, workers: int) -> Iterator[None]:
    """What torch.distributed looks for in the environment, as torchrun sets it; afterwards it is as it was.

    Args:
        address: ``host:port`` of the meeting.
        rank: Which of the processes this one is.
        workers: How many they are.
    """
    host, _, port = address.rpartition(":")
    told = {"MASTER_ADDR": host, "MASTER_PORT": port, "WORLD_SIZE": str(workers), "RANK": str(rank)}
    told |= {"LOCAL_RANK": "0"}  # each sees its own devices only
    told |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # the first one is to come to the store too, not to start its own
    if host == "127.0.0.1":  # gloo would take the interface that the machine's name leads to
        told |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    before = dict(os.environ)
    os.environ.update(told)
    try:
        yield
    finally:
        for name in told:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in told if name in before})
