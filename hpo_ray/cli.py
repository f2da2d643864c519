"""The command line: the only place that prints. Exit codes: 0 good, 1 run failed, 2 wrong input, 130 interrupted."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_ray import cli_cluster, cli_models, cli_report, cli_results
from hpo_ray.console import Screen, guarded, note, print_json, show
from hpo_ray.console import out as console
from hpo_ray.errors import InvalidInput, Problem, RunFailed

if TYPE_CHECKING:
    from hpo_ray.experiment import Experiment

app = typer.Typer(
    name="hpo-ray",
    help="Hyperparameter experiments on Ray: which configuration, how sure, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

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
Supervise = Annotated[
    bool, typer.Option("--supervise", help="Resume by itself when the driver or Ray dies, with growing pauses.")
]
Restarts = Annotated[
    int, typer.Option("--restarts", min=0, help="With --supervise: give up after so many deaths without progress.")
]
AddTrials = Annotated[int, typer.Option("--add-trials", min=0, help="So many trials more than it was to have.")]
Changes = Annotated[
    list[str] | None, typer.Argument(help="stop.wall_time_s=7200 retry.max_retries=0 slots=4 …: what may change.")
]


@app.command("run")
def run_command(
    overrides: Overrides = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
    supervise: Supervise = False,
    restarts: Restarts = 5,
) -> int:
    """Run an experiment to its end."""
    if supervise:
        experiment = _experiment(overrides, config_dir)
        from hpo_ray.folders import new_run_dir

        run_dir = new_run_dir(experiment.name, out)
        options = [*(["--config-dir", str(config_dir)] if config_dir else []), "--out", str(run_dir)]
        return _supervised(run_dir, ["run", *(overrides or []), *options], quiet, as_json, restarts)
    from hpo_ray import config, lr_range, runner

    experiment, narrowed = lr_range.resolve(config.load(overrides or [], config_dir))
    with _answered(as_json), Screen(quiet or as_json) as listener:
        history = runner.start(experiment, out=out, listener=listener, narrowed=narrowed)
    show(history, as_json)
    return 0


@app.command("resume")
def resume_command(
    run: Annotated[
        str, typer.Argument(help="A run directory; or a run's URI, e.g. s3://bucket/folder/NAME.", metavar="RUN")
    ],
    changes: Changes = None,
    add_trials: AddTrials = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    supervise: Supervise = False,
    restarts: Restarts = 5,
    out: Annotated[
        Path | None, typer.Option("--out", help="Of a run at a URI: the folder to bring it to; default runs/NAME.")
    ] = None,
) -> int:
    """Go on with a run that was interrupted, stopped, failed or killed, or add trials to one that is complete."""
    if supervise:
        from hpo_ray.storage import address, holding

        run_dir = Path(run)
        if address.is_uri(run):
            run_dir = holding.bring(run, out)
            changes = [f"storage.uri={address.split(run)[0]}", *(changes or [])]
        options = ["--add-trials", str(add_trials)] if add_trials else []
        return _supervised(run_dir, ["resume", str(run_dir), *(changes or []), *options], quiet, as_json, restarts)
    from hpo_ray import runner

    with _answered(as_json), Screen(quiet or as_json) as listener:
        history = runner.resume(run, out=out, add_trials=add_trials, overrides=changes or [], listener=listener)
    show(history, as_json)
    return 0


@app.command("refit")
def refit_command(
    run_dir: RunDir,
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="seed=1 training.epochs=10 resources.cpus_per_trial=2 …: what may change."),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="So many models, each from its own seed.")] = 1,
    trial: Annotated[
        str | None, typer.Option("--trial", help="Another configuration than the best, e.g. 0007.")
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Train a run's best configuration once more, on training and validation images together; then score it."""
    from hpo_ray import refitting, runner

    experiment = refitting.experiment_of(run_dir, trial_id=trial, repeats=repeats, overrides=changes or [])
    with _answered(as_json), Screen(quiet or as_json) as listener:
        history = runner.start(experiment, out=out, listener=listener)
    show(history, as_json)
    return 0


@app.command("confirm")
def confirm_command(
    run_dir: RunDir,
    changes: Annotated[
        list[str] | None, typer.Argument(help="seed=1 slots=4 resources.cpus_per_trial=2 …: what may change.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="So many of its best configurations.")] = 5,
    repeats: Annotated[int, typer.Option("--repeats", min=2, help="Of each, at most.")] = 5,
    folds: Annotated[int | None, typer.Option("--folds", min=1, help="For images: 1 keeps the run's split.")] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the verdict.")] = 0.95,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Try a run's best configurations again, on fresh seeds and folds, against each other: is the winner one?"""
    from hpo_ray import confirming, lock, runner

    experiment = confirming.experiment_of(
        run_dir, top=top, repeats=repeats, folds=folds, confidence=confidence, overrides=changes or []
    )
    if lock.holder(run_dir) is not None:
        note(f"'{run_dir}' is still running: what is raced is the best of it so far")
    with _answered(as_json), Screen(quiet or as_json) as listener:
        history = runner.start(experiment, out=out, listener=listener)
    show(history, as_json)
    return 0


@app.command("stop")
def stop_command(
    run_dir: RunDir,
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
) -> None:
    """Ask a running sweep to end: each trial goes on to its next report. It can be resumed."""
    import time

    from hpo_ray import lock, snapshot

    snapshot.load(run_dir)  # says so if it is no run
    living = lock.holder(run_dir)
    if living is None:
        raise InvalidInput(Problem("run", f"'{run_dir}' is not running: there is nothing to stop"))
    try:
        lock.ask_to_stop(run_dir)
    except OSError as error:
        raise InvalidInput(Problem("run", f"'{run_dir}' cannot be written to: {error.strerror}")) from None
    note(f"asked {living} to end; its trials go on to their next report")
    while wait and lock.holder(run_dir) is not None:
        time.sleep(0.2)
    status_command(run_dir)


@app.command("status")
def status_command(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Tell how a run stands: counts, cost, best so far, running trials. Quick however long it is."""
    from hpo_ray import lock, snapshot
    from hpo_ray.screen import status_table, status_words

    tally = snapshot.load(run_dir)
    living = lock.holder(run_dir)
    if living is None:
        tally.interrupt()
    if as_json:
        print_json(status_words(tally, living, run_dir) | tally.state())
    else:
        console().print(status_table(tally, living, run_dir), soft_wrap=True)


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
    console().print(f"good: experiment '{experiment.name}', {len(experiment.space)} parameters ({reach})")


@app.command("lr-find")
def lr_find_command(
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the curve goes: FILE.csv and FILE.png; default lr-find-<name>.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=10, help="Batches to try, one learning rate each.")] = 100,
    as_json: AsJson = False,
    config_dir: ConfigDir = None,
) -> None:
    """Find learning rates: train a throw-away model with a growing rate, and draw the loss over it."""
    from hpo_ray import lr_range
    from hpo_ray.results import plots

    experiment = _experiment(overrides, config_dir)
    target = (out or Path(f"lr-find-{experiment.name}")).with_suffix("")
    if not target.parent.is_dir():
        raise InvalidInput(Problem("--out", f"'{target.parent}' is no folder"))
    found = lr_range.find(experiment, steps=steps)
    frame = found.frame()
    files = [target.with_suffix(suffix) for suffix in (".csv", ".png")]
    try:
        frame.to_csv(files[0], index=False)
        plots.save(plots.lr_range(frame, found.suggestions, found.bounds()), files[1])
    except OSError as error:
        raise InvalidInput(Problem("--out", f"'{error.filename}' cannot be written: {error.strerror}")) from None
    if as_json:
        print_json({"suggestions": found.suggestions, "bounds": found.bounds(), "reason": found.reason})
        return
    for name, rate in found.suggestions.items():
        console().print(f"{name:<10}{'–' if rate is None else f'{rate:.2e}'}", highlight=False)
    console().print(f"range     {found.reason}", soft_wrap=True, highlight=False)
    console().print(f"curve     {files[1]}, {files[0]}", soft_wrap=True, highlight=False)


app.command("show")(cli_report.show_command)
app.command("report")(cli_report.report_command)
app.add_typer(cli_models.data_app, name="data")
app.command("ls")(cli_results.ls_command)
app.command("best")(cli_results.best_command)
app.command("compare")(cli_results.compare_command)
app.command("export")(cli_results.export_command)
app.command("predict")(cli_models.predict_command)
app.command("evaluate")(cli_models.evaluate_command)
app.command("export-weights")(cli_models.export_weights_command)
app.command("submit")(cli_cluster.submit_command)
app.command("doctor")(cli_cluster.doctor_command)


def main() -> None:
    """Entry point of the ``hpo-ray`` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal has no letters for is no reason to fail
        sys.stdout.reconfigure(errors="replace")
    code = guarded(lambda: app(standalone_mode=False))
    session = sys.modules.get("hpo_ray.session")
    if session is not None and session.LOST:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a normal end waits for what has died
    sys.exit(code)


@contextlib.contextmanager
def _answered(as_json: bool) -> Iterator[None]:
    """A run that failed has an answer too: what it found until then, and which trials failed."""
    try:
        yield
    except RunFailed as error:
        if error.run_dir is not None:
            from hpo_ray import history

            with contextlib.suppress(typer.Exit, InvalidInput):
                show(history.load(error.run_dir), as_json)
        raise


def _supervised(run_dir: Path, command: list[str], quiet: bool, as_json: bool, restarts: int) -> int:
    from hpo_ray.supervisor import supervise

    shown = [*(["--quiet"] if quiet else []), *(["--json"] if as_json else [])]
    return supervise(run_dir, command, shown, restarts=restarts, say=note)


def _experiment(overrides: list[str] | None, config_dir: Path | None) -> Experiment:
    from hpo_ray import config, lr_range

    return lr_range.checked(config.load(overrides or [], config_dir))


if __name__ == "__main__":
    main()
