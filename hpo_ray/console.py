"""What the commands share on a terminal: the live screen, the answer, how mistakes are shown, exit codes.

Only `cli` uses it. Knows nothing of Ray.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.segment import Segment

from hpo_ray.errors import HpoRayError, InvalidInput, Problem

if TYPE_CHECKING:
    from hpo_ray.history import History
    from hpo_ray.journal import Event

INTERRUPTED = 130
REFRESH_PERIOD_S = 0.25
OVER = ("completed", "stopped", "failed", "out_of_memory")

# The base of all mistakes in using the command itself, wherever this version of Typer keeps its copy of Click.
_UsageError: Any = typer.BadParameter.__mro__[1]


def guarded(call: Callable[[], object]) -> int:
    """Run a command; what went wrong becomes one clear message and an exit code."""
    try:
        result = call()
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
    except InvalidInput as error:
        _print_problems(error)
        return error.exit_code
    except HpoRayError as error:
        sys.stdout.flush()
        err().print(f"failed: {error}", highlight=False, markup=False, soft_wrap=True)
        return error.exit_code
    except BrokenPipeError:  # whoever read it, has read enough
        _give_up_stdout()
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _give_up_stdout()
        err().print(f"failed: the output cannot be written: {error.strerror}", highlight=False, markup=False)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.Exit as error:
        code = error.exit_code
    except _UsageError as error:
        error.show()
        return 2
    if code == INTERRUPTED:  # Typer turns Ctrl-C into this code too
        err().print("interrupted: what was journalled is kept")
    return code


def _give_up_stdout() -> None:
    """Python would flush what is left when it ends, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    """Shows a run's events while it lasts; as a context manager it gives the listener to call with each."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._console = err()
        self._live: Any = None
        self._line_at = time.time()

    def __enter__(self) -> Callable[[Event, History], None]:
        if self._silent:
            return lambda event, run: note(event["text"]) if event["event"] == "note" else None
        if not self._console.is_terminal:
            return self._print_line
        from rich.live import Live

        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        return self._refresh

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _refresh(self, event: Event, run: History) -> None:
        from hpo_ray.screen import live_table

        if event["event"] == "note":
            note(event["text"])
        elif event["event"] == "run_started" or time.time() - self._line_at > REFRESH_PERIOD_S:
            self._line_at = time.time()
            self._live.update(live_table(run.tally), refresh=True)

    def _print_line(self, event: Event, run: History) -> None:
        from hpo_ray.screen import plain_line

        if event["event"] == "note":
            note(event["text"])
            return
        line = plain_line(run, event, self._line_at)
        if line is not None:
            self._line_at = event["time"]
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def show(run: History, as_json: bool) -> None:
    """Print a run's answer. A run that has ended without one has failed: exit code 1."""
    from hpo_ray.results.summary import summarise

    if run.experiment.get("race") and run.count(*OVER):
        _show_race(run, as_json)
        return
    summary = summarise(run)
    if as_json:
        print_json(summary)
    else:
        _print_answer(run, summary)
    if run.ended is not None and summary["best_trial"] is None:
        raise typer.Exit(1)


def _show_race(run: History, as_json: bool) -> None:
    from dataclasses import asdict

    from hpo_ray.confirming import standing
    from hpo_ray.screen import failures, race_answer

    found = standing(run)
    if as_json:
        print_json({**asdict(found), "table": found.table.to_dict("records"), "run_dir": str(run.run_dir)})
        return
    failed = failures(run)
    if failed is not None:
        out().print(failed, soft_wrap=True)
    out().print(race_answer(found, run), soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    """One line of JSON on stdout, NaN and infinities as strings."""
    from hpo_ray.journal import encode

    sys.stdout.write(json.dumps(encode(document), allow_nan=False) + "\n")


def note(text: str) -> None:
    """A line that a user should see, out of the answer's way."""
    err().print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)


class SafeConsole(Console):
    """A terminal that nothing in a run can speak to: what it would take for commands becomes �."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """As rich does; a stranger's names, values and reasons are shown, not obeyed."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in segment.text)
                yield Segment(shown, segment.style)


def out() -> Console:
    """Where answers go."""
    return SafeConsole()


def err() -> Console:
    """Where progress and mistakes go."""
    return SafeConsole(stderr=True)


def _print_answer(run: History, summary: dict[str, Any]) -> None:
    from hpo_ray.screen import answer, failures

    console = out()
    if run.damaged:
        note(f"damaged lines in the journal, which were passed over: {run.damaged}")
    failed = failures(run)
    if failed is not None:
        console.print(failed, soft_wrap=True)
    console.print(answer(summary, run), soft_wrap=True)


def _print_problems(error: InvalidInput) -> None:
    console = err()
    count = len(error.problems)
    console.print(f"[bold red]{count} mistake{'s' if count != 1 else ''}[/]", highlight=False)
    for problem in error.problems:
        _print_problem(console, problem)


def _print_problem(console: Console, problem: Problem) -> None:
    from rich.text import Text

    text = Text("  ")
    text.append(problem.key or "input", style="bold")
    text.append(f": {problem.message}")
    if problem.source:
        text.append(f"  [{problem.source}]", style="dim")
    console.print(text, soft_wrap=True)
