"""A Ray cluster on this machine, in a process of its own: a head without processors, two nodes with one each.

Says on stdout where it is, a line of JSON, then does what it is told on stdin, a line each, and answers each:

    kill N      end node N, its processes and theirs, at once
    raylet N    kill node N's own process only: what it has started lives on
    drain N     give node N three seconds' notice, as a cloud does that takes a spot machine back, then end it
    freeze N    stop node N as it stands, as if its network were cut
    thaw N      let it go on
    gcs         kill the head's control process
    add         one more node
    gpu         one with two processors, and a GPU that only Ray believes in

Ends with all that it has started when stdin closes. Knows nothing of hpo_ray.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from tests.processes import descendants

PR_SET_CHILD_SUBREAPER = 36
NOTICE_S = 3.0


class Nodes:
    """The cluster and what can happen to it."""

    def __init__(self) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes: list[Any] = []
        self._frozen: list[int] = []
        self.add()
        self.add()

    def add(self) -> None:
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def gpu(self) -> None:
        self._nodes.append(self._cluster.add_node(num_cpus=2, num_gpus=1))

    def told(self) -> dict[str, Any]:
        return {"address": self._cluster.address, "raylets": [self._raylet(n).pid for n in range(len(self._nodes))]}

    def kill(self, number: int) -> None:
        raylet = self._raylet(number)
        started = [process.pid for process in descendants(raylet.pid)]
        raylet.kill()
        _signal(started, signal.SIGKILL)
        raylet.wait()

    def raylet(self, number: int) -> None:
        """Not waited for: while its number is taken its workers think that it lives, as in a container without init."""
        self._raylet(number).kill()

    def drain(self, number: int) -> None:
        deadline = time.time() + NOTICE_S
        control, node = GcsClient(address=self._cluster.address), self._nodes[number]
        words = "the cloud takes the machine back"
        taken, why = control.drain_node(
            node.node_id, autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION, words, int(1000 * deadline)
        )
        assert taken, why
        time.sleep(max(0.0, deadline - time.time()))
        self.kill(number)

    def freeze(self, number: int) -> None:
        raylet = self._raylet(number)
        self._frozen = [raylet.pid, *(process.pid for process in descendants(raylet.pid))]
        _signal(self._frozen, signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        _signal(self._frozen, signal.SIGCONT)

    def gcs(self) -> None:
        control = self._cluster.head_node.all_processes["gcs_server"][0].process
        control.kill()
        control.wait()

    def _raylet(self, number: int) -> Any:
        return self._nodes[number].all_processes["raylet"][0].process


def end_all() -> None:
    """Kill whatever was started here; orphans have become this process's own children."""
    deadline = time.monotonic() + 20
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        _signal([process.pid for process in left], signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        nodes = Nodes()
        print(json.dumps(nodes.told()), flush=True)
        for line in sys.stdin:
            word, *numbers = line.split()
            getattr(nodes, word)(*map(int, numbers))
            print(json.dumps(nodes.told()), flush=True)
    finally:
        end_all()
        os._exit(0)  # Ray's own way out asks what is dead


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


if __name__ == "__main__":
    main()
