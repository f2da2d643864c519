"""The command line: the only place that prints. Exit codes: 0 good, 1 run failed, 2 wrong input, 130 interrupted."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hpo_ray.errors import HpoRayError, InvalidInput, Problem

if TYPE_CHECKING:
    from hpo_ray.experiment import Experiment
    from hpo_ray.history import History
    from hpo_ray.journal import Event

app = typer.Typer(
    name="hpo-ray",
    help="Hyperparameter experiments on Ray: which configuration, how sure, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

INTERRUPTED = 130

# The base of all mistakes in using the command itself, wherever this version of Typer keeps its copy of Click.
_UsageError: Any = typer.BadParameter.__mro__[1]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="experiment=digits searcher=hyperopt scheduler.max_t=27 'space.lr=loguniform(1e-4, 1e-1)'"),
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="Your own conf/ folder, laid over the packaged one.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/<name>-<time>.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout, and nothing else there.")]
RunDir = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]


@app.command("run")
def run_command(
    overrides: Overrides = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Run an experiment to its end."""
    from hpo_ray import runner

    experiment = _experiment(overrides, config_dir)
    with _screen(quiet or as_json) as listener:
        history = runner.start(experiment, out=out, listener=listener)
    _show(history, as_json)


@app.command("resume")
def resume_command(run_dir: RunDir, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Go on with a run that was interrupted, failed or killed."""
    from hpo_ray import runner

    with _screen(quiet or as_json) as listener:
        history = runner.resume(run_dir, listener=listener)
    _show(history, as_json)


@app.command("config")
def config_command(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the resolved experiment as YAML."""
    import yaml

    experiment = _experiment(overrides, config_dir)
    sys.stdout.write(yaml.safe_dump(experiment.model_dump(), sort_keys=False, allow_unicode=True, width=120))


@app.command("validate")
def validate_command(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Check an experiment without running it."""
    experiment = _experiment(overrides, config_dir)
    size = experiment.search_space.size
    reach = f"{size} configurations" if size is not None else "continuous"
    _out().print(f"good: experiment '{experiment.name}', {len(experiment.space)} parameters ({reach})")


@app.command("report")
def report_command(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Show the answer of a run again, finished or not: best configuration, how sure, at what cost."""
    from hpo_ray import history

    _show(history.load(run_dir), as_json)


def main() -> None:
    """Entry point of the ``hpo-ray`` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(_guarded(lambda: app(standalone_mode=False)))


def _guarded(call: Callable[[], object]) -> int:
    """Run a command; what went wrong becomes one clear message and an exit code."""
    try:
        result = call()
        code = result if isinstance(result, int) else 0
    except InvalidInput as error:
        _print_problems(error)
        return error.exit_code
    except HpoRayError as error:
        _err().print(f"failed: {error}", highlight=False, markup=False, soft_wrap=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.Exit as error:
        code = error.exit_code
    except _UsageError as error:
        error.show()
        return 2
    if code == INTERRUPTED:  # Typer turns Ctrl-C into this code too
        _err().print("interrupted: what was journalled is kept")
    return code


def _experiment(overrides: list[str] | None, config_dir: Path | None) -> Experiment:
    from hpo_ray import config
    from hpo_ray.preflight import check

    return check(config.load(overrides or [], config_dir))


class _screen:  # noqa: N801  # reads as the function it stands for
    """A context that shows a run's events while it lasts; gives the listener to call with each."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._console = _err()
        self._live: Any = None
        self._line_at = time.time()

    def __enter__(self) -> Callable[[Event, History], None]:
        if self._silent:
            return lambda event, run: None
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

        if event["event"] == "run_started" or time.time() - self._line_at > 0.25:
            self._line_at = time.time()
            self._live.update(live_table(run), refresh=True)

    def _print_line(self, event: Event, run: History) -> None:
        from hpo_ray.screen import plain_line

        line = plain_line(run, event, self._line_at)
        if line is not None:
            self._line_at = event["time"]
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show(run: History, as_json: bool) -> None:
    """Print a run's answer. A run that has ended without one has failed: exit code 1."""
    from hpo_ray.results.summary import summarise

    summary = summarise(run)
    if as_json:
        from hpo_ray.journal import encode

        sys.stdout.write(json.dumps(encode(summary), allow_nan=False) + "\n")
    else:
        _print_answer(run, summary)
    if run.ended is not None and summary["best_trial"] is None:
        raise typer.Exit(1)


def _print_answer(run: History, summary: dict[str, Any]) -> None:
    from hpo_ray.screen import answer, failures

    console = _out()
    if run.damaged:
        _err().print(f"note: {run.damaged} damaged line in the journal was passed over", highlight=False)
    failed = failures(run)
    if failed is not None:
        console.print(failed, soft_wrap=True)
    console.print(answer(summary, run), soft_wrap=True)


def _print_problems(error: InvalidInput) -> None:
    console = _err()
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


def _out() -> Console:
    return Console()


def _err() -> Console:
    return Console(stderr=True)


if __name__ == "__main__":
    main()
