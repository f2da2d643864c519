"""The job itself: sent over the dashboard's HTTP interface, followed to its exit code, its journal brought here.

Knows Ray's job client and the token; nothing of experiments. No environment variable of this machine travels.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import gzip
import importlib.util
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hpo_ray.errors import InvalidInput, Problem, RunFailed
from hpo_ray.session import authentication

RUN = "hpo_ray.run"  # the job's metadata that says where its run lies
OVER = ("SUCCEEDED", "FAILED", "STOPPED")
JOURNAL_LIMIT = 64 * 2**20
_POLL_S = 0.5
_FETCH_S = 300.0
_FETCHES = 4  # Ray's own lines on a job come into its log at any place, in the midst of ours too
_BEGIN, _END = "-----BEGIN JOURNAL-----", "-----END JOURNAL-----"
_NONE, _LARGE = "-----NO JOURNAL-----", "-----TOO LARGE-----"


class Jobs:
    """A cluster's jobs."""

    def __init__(self, address: str, client: Any) -> None:
        self.address = address
        self._client = client

    def submit(self, script: str, archive: Path, run: str) -> str:
        """Send a script with an archive as its working folder; the job's id.

        Raises:
            RunFailed: The cluster does not take it.
        """
        environment = {"working_dir": str(archive)}
        send = partial(self._client.submit_job, entrypoint=script, runtime_env=environment, metadata={RUN: run})
        return str(self._asked(send))

    def run_of(self, job: str) -> str:
        """Where a job's run lies on the cluster.

        Raises:
            InvalidInput: There is no such job, or hpo_ray has not sent it.
        """
        try:
            run = (self._client.get_job_info(job).metadata or {}).get(RUN)
        except RuntimeError:
            raise InvalidInput(Problem("--follow", f"there is no job '{job}' at {self.address}")) from None
        if not run:
            raise InvalidInput(Problem("--follow", f"the job '{job}' was not sent by hpo-ray submit"))
        return str(run)

    def follow(self, job: str, write: Callable[[str], object]) -> tuple[str, int]:
        """Pass on what a job prints until it is over; its status and exit code.

        Raises:
            RunFailed: The cluster does not answer any more.
        """
        shown = 0
        script = self._asked(lambda: self._client.get_job_info(job)).entrypoint
        echo = f"Running entrypoint for job {job}: {script}\n"

        async def tail() -> None:
            nonlocal shown
            at = 0
            async for text in self._client.tail_job_logs(job):  # from the beginning, each time
                new = text[max(0, shown - at) :]
                at += len(text)
                shown = max(shown, at)
                if new:
                    write(new.replace(echo, ""))

        while True:
            with contextlib.suppress(RuntimeError, OSError):  # a tunnel that broke: the status says whether to go on
                asyncio.run(tail())
            info = self._asked(lambda: self._client.get_job_info(job))
            status = str(getattr(info.status, "value", info.status))
            if status in OVER:
                code = info.driver_exit_code
                if code is None:
                    code = 0 if status == "SUCCEEDED" else 1
                    if info.message and status == "FAILED":
                        write(f"{info.message}\n")
                return status, int(code)
            time.sleep(_POLL_S)

    def journal(self, run: str) -> bytes | None:
        """A run's journal as it is on the cluster, printed by a second job; None if there is none.

        Raises:
            RunFailed: It is larger than `JOURNAL_LIMIT`, compressed; or it did not come whole.
        """
        place = f'"$HOME"/{shlex.quote(run[2:])}' if run.startswith("~/") else shlex.quote(run)
        words = [
            f"f={place}/events.jsonl",
            f'[ -e "$f" ] || {{ echo "{_NONE}"; exit 0; }}',
            f'[ "$(gzip -c "$f" | wc -c)" -le {JOURNAL_LIMIT} ] || {{ echo "{_LARGE}"; exit 0; }}',
            f'echo "{_BEGIN}"; gzip -c "$f" | base64; echo "{_END}"',
        ]
        for _ in range(_FETCHES):
            lines = self._printed("\n".join(words), run).splitlines()  # the script itself is among them
            if _LARGE in lines:
                most = f"{JOURNAL_LIMIT // 2**20} MiB, compressed"
                raise RunFailed(f"the journal is larger than {most}: copy {run} from the cluster")
            if _NONE in lines:
                return None
            with contextlib.suppress(ValueError, binascii.Error, OSError, EOFError):
                body = lines[lines.index(_BEGIN) + 1 : lines.index(_END)]
                return gzip.decompress(base64.b64decode("".join(body), validate=True))
        raise RunFailed(f"the journal did not come whole; it is at {run} on the cluster")

    def _printed(self, script: str, run: str) -> str:
        """All that a short job prints."""
        job = self._asked(partial(self._client.submit_job, entrypoint=script, metadata={RUN: run}))
        until = time.monotonic() + _FETCH_S
        while str(self._asked(lambda: self._client.get_job_info(job)).status.value) not in OVER:
            if time.monotonic() > until:
                raise RunFailed(f"the journal did not come within {_FETCH_S:.0f} s; it is at {run} on the cluster")
            time.sleep(_POLL_S)
        return str(self._asked(lambda: self._client.get_job_logs(job)))

    def _asked(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (RuntimeError, OSError) as error:
            raise RunFailed(f"{self.address} refused or did not answer: {_short(error)}") from None


@contextlib.contextmanager
def jobs(address: str) -> Iterator[Jobs]:
    """The jobs of a cluster, by its dashboard's URL.

    Raises:
        InvalidInput: `ray[default]` is missing here, the address is none, nothing answers there, or the token is
            missing or wrong.
    """
    if importlib.util.find_spec("aiohttp") is None:
        message = "sending jobs needs more of Ray than a sweep does: pip install 'hpo-ray[cluster]' (or 'ray[default]')"
        raise InvalidInput(Problem("submit", message))
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"'{address}': expected the dashboard's URL, e.g. http://127.0.0.1:8265 (the end of a tunnel)"
        raise InvalidInput(Problem("--address", message))
    # Ray would take these for what its own --address says.
    hidden = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        with authentication(None), _quiet():
            yield Jobs(address, _client(address))
    finally:
        os.environ.update(hidden)


def token() -> str | None:
    """The cluster's token, to keep it out of what is sent; None if this machine has none."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _client(address: str) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        message = (
            f"{address} asks for the cluster's token, and this machine has none or another: put it into "
            "~/.ray/auth_token (mode 0600), or name its file in RAY_AUTH_TOKEN_PATH"
        )
        raise InvalidInput(Problem("--address", message)) from None
    except (RuntimeError, OSError, ValueError) as error:
        message = f"no Ray dashboard answers at '{address}' ({_short(error)}): is the tunnel open?"
        raise InvalidInput(Problem("--address", message)) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray's client tells of packages and sockets."""
    logger = logging.getLogger("ray.dashboard.modules")
    children = [logging.getLogger(f"ray.dashboard.modules.{name}") for name in ("job.sdk", "dashboard_sdk")]
    before = [(each, each.level) for each in (logger, *children)]
    import_module("ray.job_submission")  # sets their levels
    for each, _ in before:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in before:
            each.setLevel(level)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
