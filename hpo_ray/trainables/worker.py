"""The process that runs objectives, one trial after another; `process` is its other end.

It must not import Ray. It lives as long as its parent's end of the pipe, and gives itself up when a trial's
memory does not come back, so that a leak in one trial never reaches another.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import math
import os
import pickle
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from hpo_ray.errors import InvalidInput
from hpo_ray.trainables import faults, meeting
from hpo_ray.trainables.trial import Message, Paused, Ready, Splits, Trial, TrialSpec, TrialStopped

Objective = Callable[[dict, Trial], None]

# A trial that waits for room on the disk looks again this often, and says so this often at most.
RETRY_S = 2.0
TELL_S = 10.0


@dataclass(frozen=True)
class Setup:
    """The first message to a worker: what to run, and how.

    Attributes:
        payload: The objective, pickled by value where it comes from a notebook or a file.
        sys_path: Entries to put on the import path, the driver's.
        cwd: The driver's working folder, so that relative paths in user code mean what they say.
        max_growth_mb: How many MiB of memory trials may leave behind before the process is replaced.
        variables: Environment variables of the driver's to set in the process: secrets, some of them.
    """

    payload: bytes
    sys_path: tuple[str, ...]
    cwd: str
    max_growth_mb: int
    variables: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Ended:
    """The last message of a trial.

    Attributes:
        status: ``completed``, ``stopped``, ``failed`` or ``out_of_memory``.
        reason: One line.
        traceback: The objective's own frames; empty unless it raised.
        replaced: Why the process gives itself up after this trial; empty if it stays.
        problems: Key and message of each mistake, where the objective found the experiment itself to be wrong.
        cause: Why it failed: ``exception``; ``input``: `problems` has some; ``exited``: the objective ended its
            process; ``killed``: a signal did; ``hung``; ``out_of_memory``; ``disk_full``. Empty unless it failed.
        splits: Whether the objective has asked for `Trial.micro_batches`.
    """

    status: str
    reason: str = ""
    traceback: str = ""
    replaced: str = ""
    problems: tuple[tuple[str, str], ...] = ()
    cause: str = ""
    splits: bool = False


class Worker:
    """Runs the trials it is sent until the pipe closes or its memory has grown too far."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pid = os.getpid()
        self._setup: Setup = connection.recv()
        for entry in reversed(self._setup.sys_path):
            if entry not in sys.path:
                sys.path.insert(0, entry)
        self._objective: Objective | None = None
        self._first_mb: float | None = None
        self._told_at = -math.inf

    def serve(self) -> None:
        """Run trials until this process is to be replaced.

        Raises:
            EOFError: The parent has closed the pipe.
        """
        while True:
            spec = self._connection.recv()
            if isinstance(spec, bool):
                continue  # a verdict that crossed with the end of its trial
            ended = self._run(spec)
            replaced = "it ran out of memory" if ended.cause == "out_of_memory" else self._release()
            self._connection.send(dataclasses.replace(ended, replaced=replaced))
            if replaced:
                return

    def _run(self, spec: TrialSpec) -> Ended:
        self._restore()
        try:
            spec.dir.mkdir(parents=True, exist_ok=True)
            name = f"output-{spec.rank}.log" if spec.rank else "output.log"
            with _output_to(spec.dir / name), _meeting_of(spec) as opened:
                return self._train(spec, opened)
        except OSError as error:  # its folder cannot be written to, or it is cut off from its network
            return _failure(error, spec.dir)

    def _train(self, spec: TrialSpec, opened: str) -> Ended:
        """Run the objective; `opened`: where the trial's other processes are to come to, if this one says so."""
        trial = Trial(spec, self._send)
        try:
            if opened:
                newest = trial.newest_checkpoint()
                self._send(Ready(opened, () if newest is None else (newest,)))
            if self._objective is None:
                self._objective = pickle.loads(self._setup.payload)
            self._objective(spec.config, trial)
        except TrialStopped:
            return Ended("stopped")
        except BaseException as error:
            if os.getpid() != self._pid:  # a process that the objective has forked ends here: the trial is not its own
                os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
            with contextlib.suppress(Exception):  # the disk is full, or memory
                traceback.print_exc()
            return _failure(error, spec.dir)
        finally:
            trial.end()
        if os.getpid() != self._pid:
            os._exit(0)
        return Ended("completed")

    def _restore(self) -> None:
        """Put back what the last trial may have changed: the working folder, closed or replaced streams."""
        with contextlib.suppress(OSError):
            os.chdir(self._setup.cwd)
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = getattr(sys, f"__{name}__")
            if stream is None or stream.closed:
                stream = open(number, "w", buffering=1, closefd=False)  # noqa: SIM115
                setattr(sys, f"__{name}__", stream)
            setattr(sys, name, stream)

    def _send(self, message: Message) -> bool:
        """Tell the parent, wait as long as the message asks for, and return whether the trial goes on."""
        if isinstance(message, Paused):
            return self._pause(message)
        self._told_at = -math.inf
        self._connection.send(message)
        return isinstance(message, Splits | Ready) or bool(self._connection.recv())

    def _pause(self, message: Paused) -> bool:
        if time.monotonic() - self._told_at >= TELL_S:
            self._told_at = time.monotonic()
            self._connection.send(message)
        # The parent speaks only to end the trial.
        return bool(self._connection.recv()) if self._connection.poll(RETRY_S) else True

    def _release(self) -> str:
        """Give memory back; say why this process is to be replaced, if it is.

        Growth is counted from after the first trial: that one loads libraries and data which stay on purpose.
        """
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory otherwise, which would read as growth
        used = _resident_mb() + _gpu_mb()
        if self._first_mb is None:
            self._first_mb = used
        grown, limit = used - self._first_mb, self._setup.max_growth_mb
        return f"memory grew by {grown:.0f} MiB (limit {limit} MiB)" if grown > limit else ""


def _failure(error: BaseException, folder: Path) -> Ended:
    """A raised exception as the end of a trial that writes to `folder`, with the objective's own frames."""
    frames = traceback.TracebackException.from_exception(error)
    ours = {__file__, str(Path(__file__).with_name("function.py"))}
    own = [frame for frame in frames.stack if frame.filename not in ours]
    frames.stack = traceback.StackSummary.from_list(own)
    cause = faults.cause_of(error, folder)
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return Ended(
        "out_of_memory" if cause == "out_of_memory" else "failed",
        f"{type(error).__name__}: {error}".rstrip(": \n").splitlines()[0][:300],
        "".join(frames.format()),
        problems=tuple((problem.key, problem.message) for problem in problems),
        cause=cause,
    )


@contextlib.contextmanager
def _meeting_of(spec: TrialSpec):  # type: ignore[no-untyped-def]
    """Bring the processes of a trial that several train together; yields the address if it is this one that has it."""
    with contextlib.ExitStack() as stack:
        host, _, port = spec.meeting.rpartition(":")
        opened = stack.enter_context(meeting.opened(host)) if port == "0" else ""
        if spec.meeting:
            stack.enter_context(meeting.variables(opened or spec.meeting, spec.rank, spec.workers))
        yield opened


@contextlib.contextmanager
def _output_to(path: Path):  # type: ignore[no-untyped-def]
    """Send everything that the trial prints, child processes and C code included, to its own file."""
    _flush()
    kept = os.dup(1), os.dup(2)
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        _flush()
        for number, original in zip((1, 2), kept, strict=True):
            os.dup2(original, number)
            os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or replaced by something else, or its disk is full
            stream.flush()


def _resident_mb() -> float:
    """Memory in use by this process in MiB, shared pages left out (a memory-mapped cache is not a leak)."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _gpu_mb() -> float:
    """GPU memory in MiB that this process still holds after giving back what it can; 0 without torch or a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0.0
    torch.cuda.empty_cache()
    return float(torch.cuda.memory_reserved()) / 2**20


def _die_with(parent_fd: int) -> None:
    """End this process when its parent does, however the parent ends: its end of the pipe then closes."""

    def watch() -> None:
        os.read(parent_fd, 1)
        os.killpg(0, signal.SIGKILL)  # with whatever its trials started

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main(arguments: list[str]) -> None:
    """Entry point. Arguments: the file descriptor of the message pipe, and of the parent's life line."""
    for number in map(int, arguments):
        os.set_inheritable(number, False)  # a trial's child processes must not hold the pipe open
    _die_with(int(arguments[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        Worker(Connection(int(arguments[0]))).serve()
