"""A Ray session for one run: started closed and quiet on this machine, or joined; and left without a trace.

Knows Ray's environment variables and processes; nothing of trials or journals.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from hpo_ray.errors import InvalidInput, Problem, RunFailed
from hpo_ray.lock import process_start
from hpo_ray.watch import own_processes, own_ray, processes_with, watching

# How a driver whose Ray has died is called back: not by Ctrl-C's signal, which a shell's `&` ignores. A batch system's
# SIGTERM is an interruption as well; Ray's own handler prints a stack and exits with 15.
INTERRUPTION = signal.SIGUSR2

# What died of Ray in this process, in words; empty while all is well. Ray cannot be left or joined again then.
LOST: list[str] = []

_PREFIX = "hpo_ray-"
_MARKER = "hpo_ray-driver"
_TOKEN = "token"
# A scratch folder gets its marker at once: one that is older and has none is nobody's.
UNMARKED_S = 60.0

# Tune writes its own loggers' files, its state and its tables by default. The journal replaces all of them.
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else Tune starts a trial again by itself, unseen, whose machine was taken away with notice; `retries` does that.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    # Ray ends a process that has lost its control process, natively and after a minute: we notice sooner (`watch`).
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


@contextlib.contextmanager
def ray_session(
    *,
    address: str | None,
    cpus: int,
    gpus: int,
    on_lost: Callable[[str], bool] = lambda what: False,
    authenticated: bool = True,
) -> Iterator[Path]:
    """Hold a Ray session; yields a scratch folder that is deleted afterwards.

    A session that this process already has is used as it is and left running.

    Args:
        address: None: start Ray here; ``auto`` or ``host:port``: join a cluster.
        cpus: Processors to offer, when started here.
        gpus: GPUs to offer, when started here.
        on_lost: Called from another thread when Ray itself has died, with what did, until the session is left, or
            until it says that this cannot be waited for: then this process ends at once, with exit code 1.
        authenticated: False: look into a cluster that asks for no token, which would not understand one.

    Raises:
        InvalidInput: The cluster cannot be joined.
        RunFailed: Ray does not start.
    """
    if LOST:
        raise RunFailed(f"{LOST[0]}, and this process cannot start it again: start a new one (or restart the kernel)")
    _sweep()
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_tmp()))
    scratch.chmod(0o700)
    (scratch / _MARKER).write_text(f"{socket.gethostname()} {os.getpid()} {process_start(os.getpid())}")
    try:
        with _environment(_TUNE_ENVIRONMENT), _quiet(), _interrupted_by(INTERRUPTION):
            import ray

            if ray.is_initialized():
                with watching(_head(), partial(_lost_now, on_lost, scratch)):
                    yield scratch
                return
            with authentication(scratch / _TOKEN if address is None else None, on=authenticated), _silent():
                lost = partial(_lost_now, on_lost, scratch)
                try:
                    with contextlib.ExitStack() as watched:
                        if address is None:  # its own start, too, can wait for ever for what has died
                            watched.enter_context(watching(None, lost, starting=True))
                        _start(scratch, address, cpus, gpus)
                        watched.enter_context(_interrupted_by(signal.SIGTERM))
                        if address is not None:
                            watched.enter_context(watching(_head(), lost))
                        yield scratch
                finally:
                    _give_up(scratch) if LOST else ray.shutdown()
    finally:
        _reread_authentication()
        shutil.rmtree(scratch, ignore_errors=True)


def _start(scratch: Path, address: str | None, cpus: int, gpus: int) -> None:
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        _present_token(address)
        try:
            ray.init(address=address, **quiet)
        except Exception as error:
            message = (
                f"no Ray cluster could be joined at '{address}' ({' '.join(str(error).split())[:200]}): start one "
                f"with `ray start --head`, and give this machine its token (RAY_AUTH_TOKEN or ~/.ray/auth_token); "
                "from a machine that is none of its nodes, use `hpo-ray submit`"
            )
            raise InvalidInput(Problem("ray.address", message)) from None
        return
    try:
        # Ray's sockets must have paths under 108 bytes: hence the short folder names.
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            _temp_dir=str(scratch / "ray"),
            **quiet,
        )
    except Exception as error:
        raise RunFailed(f"Ray did not start on this machine: {error}") from error


def _present_token(address: str) -> None:
    """Ask the head one thing, in milliseconds: with a wrong token Ray tries for 20 s, and then speaks of no token.

    Raises:
        InvalidInput: There is no token here, or it is not this cluster's.
    """
    from ray.exceptions import AuthenticationError

    way = "put the cluster's token into ~/.ray/auth_token (mode 0600), or name its file in RAY_AUTH_TOKEN_PATH"
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    try:
        from ray._private import services
        from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        head = services.canonicalize_bootstrap_address_or_die(address)
        try:
            ensure_token_if_auth_enabled(create_token_if_missing=False)  # without one the client ends this process
        except (RuntimeError, AuthenticationError):
            message = f"there is no token in {path} or RAY_AUTH_TOKEN to join the cluster at '{head}' with: {way}"
            raise InvalidInput(Problem("ray.address", message)) from None
        with _no_stderr():
            GcsClient(address=head).get_all_node_info(timeout=10)
    except AuthenticationError:
        where = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else path
        message = f"the token in {where} is not that of the cluster at '{head}': {way}"
        raise InvalidInput(Problem("ray.address", message)) from None
    except InvalidInput:
        raise
    except Exception:  # no Ray there, or another one than this was written for: joining says what it is
        return


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Nothing on the process's own standard error, which Ray's native code writes to."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _lost_now(on_lost: Callable[[str], bool], scratch: Path, what: str) -> None:
    LOST[:] = [what]
    if on_lost(what):
        _give_up(scratch)
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)


def _give_up(scratch: Path) -> None:
    """Leave a Ray whose control process is gone: its own way of shutting down waits for that process, for ever."""
    import ray

    atexit.unregister(ray.shutdown)
    _kill([pid for pid, _ in own_processes()])
    # Where the raylet died its workers live on for a while, and one that starts just now makes its folders again.
    _kill([*processes_with(scratch / _TOKEN)])


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline and any(map(process_start, pids)):
        time.sleep(0.02)


def _head() -> str | None:
    """Where the cluster's control process listens; None where it is a child of this process."""
    import ray

    return None if own_ray() else str(ray.get_runtime_context().gcs_address)


@contextlib.contextmanager
def authentication(token: Path | None, *, on: bool = True) -> Iterator[None]:
    """Token authentication on, explicitly: Ray's own default differs by how a cluster was started.

    Args:
        token: Where to keep a token for a Ray of our own, 0600 (Ray's own file is 0644 in 2.60, readable by
            everyone); None: the cluster's token is the user's to provide.
        on: False: off, as explicitly.
    """
    values = {"RAY_AUTH_MODE": "token" if on else "disabled"}
    if token is not None:
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        values["RAY_AUTH_TOKEN_PATH"] = str(token)
    with _environment(values, drop=("RAY_AUTH_TOKEN", "RAY_ADDRESS") if token is not None else ()):
        _reread_authentication()
        yield


def _reread_authentication() -> None:
    """Make an already imported Ray look at its authentication variables again: it caches mode and token."""
    if "ray" not in sys.modules:
        return
    with contextlib.suppress(ImportError, AttributeError):
        from ray import _raylet  # a compiled module: no checker can look into it

        _raylet.Config.initialize("")  # type: ignore[attr-defined]
        _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def _tmp() -> str:
    """The folder for temporary files, unless its path is too long to hold Ray's sockets."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 40 else "/tmp"


def _sweep() -> None:
    """Delete the scratch folders of drivers that were killed before they could do so themselves.

    Only folders that hold our marker, written on this host by a process that is gone, by its number and start time; and
    those that have had no marker for a while.
    """
    for folder in Path(_tmp()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            found = folder.stat()
            if found.st_uid == os.getuid() and _abandoned(folder, time.time() - found.st_mtime):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path, age_s: float) -> bool:
    try:
        host, pid, start = (folder / _MARKER).read_text().split()
    except (FileNotFoundError, ValueError):  # its driver was killed in between, or an orphan of Ray's made it again
        return age_s > UNMARKED_S
    return host == socket.gethostname() and process_start(int(pid)) != start


@contextlib.contextmanager
def _environment(values: dict[str, str], drop: tuple[str, ...] = ()) -> Iterator[None]:
    """Set environment variables, and put all back, Ray's own changes too: a notebook's process lives on."""
    before = dict(os.environ)
    os.environ.update(values)
    for name in drop:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _interrupted_by(number: signal.Signals) -> Iterator[None]:
    """A signal is an interruption like Ctrl-C while this lasts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray's loggers at ERROR while the run lasts: what matters of theirs is in the journal."""
    wanted = {"ray": logging.ERROR, "ray.train": logging.ERROR, "ray.data": logging.ERROR}
    wanted["ray.tune"] = logging.CRITICAL  # its one error names attempts that failed, as if nothing had followed
    levels = {name: logging.getLogger(name).level for name in wanted}
    for name, level in wanted.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep Ray (2.60) from telling on stdout, which is ours, of nodes and processes that died."""
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *arguments, **options: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before
