"""Ray clusters on this machine by `ray start`, as people start them: each node with its own variables and mounts.

Knows nothing of hpo_ray but the folder that its code is in. Whatever was started is ended by number, never by name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.processes import with_variable
from tests.sweeps import wait_for

MARK = "HPO_RAY_TEST_STARTED"
CLONE = Path(__file__).parents[1]


class Started:
    """A cluster that grows node by node; a context manager that ends all of it.

    Attributes:
        address: Of the head, as ``host:port``.
        dashboard: Its URL.
        token: The file with the cluster's token, 0600.
    """

    def __init__(self, folder: Path) -> None:
        """Args: where `hpo-ray` is put for the nodes, and their logs go."""
        self._short = tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp", ignore_cleanup_errors=True)
        self._mark = uuid.uuid4().hex
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.token = folder / "token"
        self.token.touch(0o600)
        self.token.write_text(secrets.token_hex(32))
        script = folder / "bin" / "hpo-ray"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m hpo_ray.cli "$@"\n')
        script.chmod(0o755)

    @property
    def client(self) -> dict[str, str]:
        """The variables of somebody who has the token, on this machine."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
        path = os.pathsep.join([str(CLONE), *filter(None, [kept.get("PYTHONPATH")])])
        return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), "PYTHONPATH": path}

    def head(self, *options: str, mounts: Sequence[str] = (), **variables: str) -> None:
        """Start the head, with no processors unless `options` say so."""
        port = free_port()
        self.dashboard = f"http://127.0.0.1:{port}"
        given = ["--head", "--port=0", f"--dashboard-port={port}", "--num-cpus=0", *options]
        self._start(given, mounts, variables)
        note = Path(self._short.name, "0", "ray_current_cluster")
        self.address = wait_for(lambda: note.exists() and note.read_text().strip()) or ""

    def node(self, *options: str, mounts: Sequence[str] = (), **variables: str) -> int:
        """Start one more node, with one processor; its number."""
        self._start([f"--address={self.address}", "--num-cpus=1", *options], mounts, variables)
        return len(self._nodes) - 1

    def wait(self, count: int) -> None:
        """Until so many nodes have joined."""
        ask = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False); " + (
            "import time\nwhile sum(node['Alive'] for node in ray.nodes()) < int(sys.argv[2]): time.sleep(0.1)"
        )
        words = [sys.executable, "-c", ask, self.address, str(count)]
        done = subprocess.run(words, env=self.client, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr + self.said()

    def kill(self, number: int) -> None:
        """End a node with all that it has started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._nodes[number].pid, signal.SIGKILL)
        for process in with_variable("HPO_RAY_TEST_NODE", f"{self._mark}-{number}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def said(self) -> str:
        """What the nodes' starts have printed."""
        return "".join(path.read_text()[-3000:] for path in sorted(self._folder.glob("node-*.log")))

    def _start(self, options: list[str], mounts: Sequence[str], variables: dict[str, str]) -> None:
        number = len(self._nodes)
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        words += [*options, "--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0"]
        # A folder each, as on machines of their own: nodes that start side by side in one are in each other's way.
        words += ["--dashboard-agent-listen-port=0", f"--temp-dir={self._short.name}/{number}"]
        if mounts:  # its own view of the file system, this machine's stays as it is
            script = " && ".join(["mount --make-rprivate /", *mounts, 'exec "$@"'])
            words = ["unshare", "--mount", "sh", "-c", script, "sh", *words]
        own = {MARK: self._mark, "HPO_RAY_TEST_NODE": f"{self._mark}-{number}"}
        own["PATH"] = f"{self._folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        own["RAY_START_HOOK"] = "hpo_ray.start_hook.closed"
        environment = self.client | own | variables
        environment = {name: value for name, value in environment.items() if value}
        with (self._folder / f"node-{number}.log").open("wb") as log:
            self._nodes.append(
                subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd="/", start_new_session=True)
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exception: object) -> None:
        def left() -> bool:
            for process in with_variable(MARK, self._mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            for node in self._nodes:
                node.poll()
            return bool(with_variable(MARK, self._mark))

        wait_for(lambda: not left(), timeout_s=30)
        self._short.cleanup()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
