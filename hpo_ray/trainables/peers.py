"""The other workers of a trial that several train together: a Ray actor each, in a bundle of the trial's own group.

Tune knows of the first worker alone. The group is Tune's, so that whatever ends the trial's actor gives all of it back
(Ray's own TorchTrainer keeps groups of trials that a scheduler stopped, 2.60).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hpo_ray.trainables.process import WorkerProcess
from hpo_ray.trainables.trial import Paused, Ready, Report, TrialSpec
from hpo_ray.trainables.worker import RETRY_S, TELL_S, Ended, Setup

# So long the others have to come to the same report, or the same end, as the first, or to say why not, in a trial that
# has no limit of its own.
TOGETHER_S = 600.0
LAST_WORDS_S = 3.0
LOOK_S = 0.2

GOOD = ("completed", "stopped")
LOST = ("lost", "preempted")
# What torch says in a process that waits for another which is gone.
_CONSEQUENCES = ("gloo", "NCCL", "ProcessGroup", "DistBackendError", "DistNetworkError", "DistStoreError", "TCPStore")

Outcome = Report | Ended


class Seat:
    """A worker process with the devices that Ray has given to this actor; replaced where it must not be used again."""

    def __init__(self, setup: Setup) -> None:
        self.gpus = bool(ray.get_gpu_ids())
        self._setup = setup
        self.worker = self._start()

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def replace_if_gone(self, ended: Ended | None) -> None:
        """Start a new worker where the old one hangs (no message), gave itself up, or died with no traceback."""
        died = ended is not None and ended.status in ("failed", "out_of_memory") and not ended.traceback
        if ended is None or ended.replaced or died:
            self.replace()

    def replace(self) -> None:
        """Start a new worker, whatever the old one does."""
        self.worker.close()
        self.worker = self._start()

    def _start(self) -> WorkerProcess:
        # Without a GPU of its own a trial must see none: Ray leaves them all visible (2.60).
        return WorkerProcess(self._setup, {} if self.gpus else {"CUDA_VISIBLE_DEVICES": ""})


class Peer:
    """One of the other workers."""

    def __init__(self, setup: Setup) -> None:
        self._seat = Seat(setup)
        self._running = False

    def host(self) -> str:
        """The node's address."""
        return str(ray.util.get_node_ip_address())

    def run(self, spec: TrialSpec) -> Outcome | Paused:
        """Start a trial; returns its first message."""
        self._seat.worker.run(dataclasses.replace(spec, device=self._seat.device))
        self._running = True
        return self._next()

    def go_on(self) -> Outcome | Paused:
        """Answer the last report; returns the next message."""
        self._seat.worker.decide(True)
        return self._next()

    def wait(self) -> Outcome | Paused:
        """The message after one that says that the worker waits."""
        return self._next()

    def stop(self, grace_s: float) -> None:
        """Answer the last report with a no, and wait for the trial's `finally` blocks."""
        if self._running:
            self._running = False
            self._seat.worker.decide(False)
            self._seat.replace_if_gone(self._seat.worker.unwind(grace_s))

    def _next(self) -> Outcome | Paused:
        message = self._seat.worker.next_message()
        if isinstance(message, Ended):
            self._running = False
            self._seat.replace_if_gone(message)
        assert message is not None  # it is waited for without a limit
        assert not isinstance(message, Ready)  # which the first worker alone says
        return message


class Peers:
    """All other workers of a trial's actor: they do what the first one does."""

    def __init__(self, setup: Setup, count: int) -> None:
        """Start `count` of them, in the bundles after the first."""
        self._setup = setup
        self._peers = [self._start(rank) for rank in range(1, count + 1)]
        self._spec: TrialSpec | None = None  # the trial's, until all have begun it
        self._together_s = TOGETHER_S
        self.paused_until = -math.inf  # how long, on the monotonic clock, all may wait for one that waits for its disk
        self._due: dict[Any, int] = {}  # what each still has to say
        self._said: dict[int, Outcome] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def prepare(self, spec: TrialSpec) -> TrialSpec:
        """Get ready for a trial; returns the first worker's spec, which says from where the others will come.

        Raises:
            ray.exceptions.RayError: One of them is lost.
        """
        here = ray.util.get_node_ip_address()
        alone = all(host == here for host in ray.get([peer.host.remote() for peer in self._peers]))
        self._said, self._due, self.paused_until = {}, {}, -math.inf
        self._spec = dataclasses.replace(spec, meeting=f"{'127.0.0.1' if alone else here}:0")
        self._together_s = TOGETHER_S if spec.timeout_s is None else spec.timeout_s
        return self._spec

    def run(self, ready: Ready) -> None:
        """Start the trial that they are prepared for as the first worker has begun it."""
        assert self._spec is not None
        told = dataclasses.replace(self._spec, meeting=ready.meeting, checkpoints=ready.checkpoints)
        self._spec = None
        self._due = {
            peer.run.remote(dataclasses.replace(told, rank=rank)): rank for rank, peer in enumerate(self._peers, 1)
        }

    def go_on(self) -> None:
        self._said = {}
        self._due = {peer.go_on.remote(): rank for rank, peer in enumerate(self._peers, 1)}

    def failed(self) -> bool:
        """Whether one of them has, so far."""
        self._look(0.0)
        return bool(self._failures())

    def fate(self, own: Ended | None) -> Ended:
        """How a trial has failed: what one of the workers said that is no mere consequence of another's end.

        Args:
            own: The first worker's end; None if it has none yet.
        """
        deadline = time.monotonic() + LAST_WORDS_S
        while True:
            found = [own] if own is not None else []
            found += [dataclasses.replace(end, reason=f"worker {rank}: {end.reason}") for rank, end in self._failures()]
            first = next((end for end in found if not _is_consequence(end)), None)
            left = deadline - time.monotonic()
            if first is not None or not self._due or left <= 0:
                return first or found[0]
            self._look(left)

    def _failures(self) -> list[tuple[int, Ended]]:
        said = sorted(self._said.items())
        return [(rank, end) for rank, end in said if isinstance(end, Ended) and end.status not in GOOD]

    def joined(self, first: Outcome) -> Ended | None:
        """Wait until all have come as far as the first worker; None if they have, else how the trial ended instead."""
        kind, deadline = type(first), time.monotonic() + self._together_s
        while self._due and all(isinstance(said, kind) for said in self._said.values()):
            if time.monotonic() > max(deadline, self.paused_until):
                break
            self._look(LOOK_S)
        if self._failures():
            return self.fate(None)
        odd = next((rank for rank, said in sorted(self._said.items()) if not isinstance(said, kind)), None)
        if odd is None and not self._due:
            return None
        did, other = ("reported", "ended") if kind is Report else ("ended", "reported")
        cause, what = "exception", f"worker {odd} {other}"
        if odd is None:
            cause, what = "hung", f"worker {min(self._due.values())} had not {self._together_s:g} s later"
        return Ended("failed", f"worker 0 {did}, {what}: all must report equally often", cause=cause)

    def stop(self, grace_s: float) -> list[Any]:
        """Begin to end a trial that waits for a verdict; returns what to wait for."""
        self._due = {}
        return [peer.stop.remote(grace_s) for peer in self._peers]

    def unwind(self, stopping: list[Any], grace_s: float) -> None:
        """Wait for what `stop` began; those that do not end are replaced."""
        done, _ = ray.wait(stopping, num_returns=len(stopping), timeout=grace_s)
        for rank, reference in enumerate(stopping, 1):
            try:
                if reference in done:
                    ray.get(reference)
                    continue
            except ray.exceptions.RayError:
                pass
            self._replace(rank)

    def replace_unfinished(self) -> None:
        """New ones for those that still work on a trial that is over, or are lost."""
        self._look(0.0)
        if self._spec is not None:
            return  # they have never begun
        for rank in range(1, len(self._peers) + 1):
            outcome = self._said.get(rank)
            if rank in self._due.values() or not isinstance(outcome, Ended) or outcome.cause in LOST:
                self._replace(rank)
        self._due = {}

    def close(self, stopping: list[Any], grace_s: float) -> None:
        """End them, after what `stop` began, if anything: their `finally` blocks are waited for, too."""
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=grace_s)
        for peer in self._peers:
            ray.kill(peer)

    def _look(self, wait_s: float) -> None:
        if not self._due:
            return
        done, _ = ray.wait(list(self._due), num_returns=1, timeout=wait_s)
        if done:
            done, _ = ray.wait(list(self._due), num_returns=len(self._due), timeout=0)
        for reference in done:
            rank = self._due.pop(reference)
            try:
                said = ray.get(reference)
                if isinstance(said, Paused):
                    self._due[self._peers[rank - 1].wait.remote()] = rank
                    self.paused_until = time.monotonic() + TELL_S + RETRY_S + self._together_s
                else:
                    self._said[rank] = said
            except ray.exceptions.RayError as error:
                told = " ".join(str(error).split())[:300]
                cause = "preempted" if getattr(error, "preempted", False) else "lost"
                self._said[rank] = Ended("failed", f"its process was lost: {told}", cause=cause)

    def _replace(self, rank: int) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._peers[rank - 1])
        self._peers[rank - 1] = self._start(rank)

    def _start(self, rank: int) -> Any:
        group = get_current_placement_group()
        bundle = group.bundle_specs[rank]
        return (
            ray.remote(Peer)
            .options(
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            )
            .remote(self._setup)
        )


def _is_consequence(end: Ended) -> bool:
    told = f"{end.reason}\n{end.traceback}".lower()
    return end.cause == "exception" and any(word.lower() in told for word in _CONSEQUENCES)
