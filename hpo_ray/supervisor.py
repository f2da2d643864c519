"""Keeps a run going when its driver dies: starts it as a child process, and resumes it after a death.

Prints nothing itself; knows the command line by its words, the run by its journal.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpo_ray import history, snapshot
from hpo_ray.errors import InvalidInput
from hpo_ray.lock import Lock, take_stop_request

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


def supervise(
    run_dir: Path,
    command: Sequence[str],
    shown: Sequence[str] = (),
    *,
    restarts: int,
    say: Callable[[str], None],
) -> int:
    """Run a command of ``hpo-ray`` and resume its run whenever its driver, or Ray under it, has died.

    What ended by decision (completed, stopped, interrupted, wrong input, too many failures) is not restarted.

    Args:
        run_dir: The run's folder.
        command: What to start with, e.g. ``["run", "experiment=digits", "--out", "runs/a"]``.
        shown: Options about output, given to each command.
        restarts: Deaths in a row, with no trial ended between them, before it gives up.
        say: Told of each death.

    Returns:
        The last child's exit code; of one that was killed, 1.
    """
    deaths, finished = 0, -1
    while True:
        code, asked = _child([*command, *shown])
        if asked or not _died(run_dir, code):
            return code if code >= 0 else 1
        ended = snapshot.load(run_dir).finished
        deaths = 1 if ended > finished else deaths + 1
        finished = ended
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if deaths > restarts:
            times = f"{deaths} death{'s' if deaths > 1 else ''} without progress"
            say(f"the driver {how}: giving up after {times}; `hpo-ray resume {run_dir}` goes on")
            return 1
        wait_s = min(FIRST_WAIT_S * 2 ** (deaths - 1), LONGEST_WAIT_S)
        say(f"the driver {how}: resuming in {wait_s:g} s")
        if not _pause(run_dir, wait_s):
            say(f"ended before the run was resumed; `hpo-ray resume {run_dir}` goes on")
            return 130
        command = ["resume", str(run_dir)]


def _pause(run_dir: Path, wait_s: float) -> bool:
    """Wait, with the run in our hands; False if we were asked to end meanwhile, by `hpo-ray stop` or Ctrl-C."""
    deadline = time.monotonic() + wait_s
    try:
        with Lock(run_dir):
            while (left := deadline - time.monotonic()) > 0:
                if take_stop_request(run_dir):
                    return False
                time.sleep(min(left, 0.2))
    except KeyboardInterrupt:
        return False
    return True


def _child(arguments: Sequence[str]) -> tuple[int, bool]:
    """Run a command to its end; its exit code, and whether we were told to end meanwhile.

    The child has a session of its own: what we are told, by a terminal's Ctrl-C too, is passed on once.
    """
    asked = False
    child = subprocess.Popen([sys.executable, "-m", "hpo_ray.cli", *arguments], start_new_session=True)

    def pass_on(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return child.wait(), asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _died(run_dir: Path, code: int) -> bool:
    """Whether a driver's end was nobody's decision: it said nothing in its journal, or that Ray died."""
    if code in (0, 2, 130):
        return False
    try:
        ended = history.load(run_dir).ended
    except InvalidInput:
        return False  # it never began: what kept it from that will again
    return ended is None or ended.get("cause") == "ray_lost"
