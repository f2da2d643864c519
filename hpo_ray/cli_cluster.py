"""The commands on a cluster, `doctor` and `submit`: their arguments, and what they print. Only `cli` uses it."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_ray.console import note, out, print_json, show
from hpo_ray.errors import InvalidInput, Problem, RunFailed

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hpo_ray.doctor.findings import Finding
    from hpo_ray.submission.job import Jobs

Overrides = Annotated[
    list[str] | None, typer.Argument(help="An experiment: its data, weights and needs are looked at.")
]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="Your own conf/ folder.")]
_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("problem", "bold red")}


def doctor_command(
    overrides: Overrides = None,
    address: Annotated[
        str | None, typer.Option("--address", help="auto or host:port of a cluster; without it, this machine alone.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Where runs lie: a folder or a URI; default: storage.uri, or runs.",
            metavar="PLACE",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on stdout.")] = False,
    config_dir: ConfigDir = None,
) -> int:
    """Look at a cluster, or at this machine, before a sweep does: what would fail, and what is open to others."""
    from hpo_ray.doctor.visit import visit

    findings, seen = visit(overrides or [], address, storage, config_dir)
    problems = [finding for finding in findings if finding.level == "problem"]
    if as_json:
        print_json({"ok": not problems, "address": address, "findings": [*map(asdict, findings)], **seen})
    else:
        out().print(_table(findings))
    return 1 if problems else 0


def _table(findings: list[Finding]) -> RenderableType:
    """Problems first, then warnings; each with what to do below it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    order = ("problem", "warning", "ok")
    for finding in sorted(findings, key=lambda finding: order.index(finding.level)):
        text, style = _MARKS[finding.level]
        said = Text(finding.found)
        if finding.advice:
            said.append(f"\n→ {finding.advice}", style="italic")
        table.add_row(Text(text, style=style), finding.check, said)
    counts: dict[str, Any] = {level: sum(finding.level == level for finding in findings) for level in order}
    words = [f"{counts[level]} {level}{'s' * (counts[level] != 1)}" for level in order[:2] if counts[level]]
    style = "bold red" if counts["problem"] else "bold yellow" if words else "bold green"
    return Group(table, Text(", ".join(words) or "all is well", style=style))


def submit_command(
    overrides: Annotated[list[str] | None, typer.Argument(help="As for run: experiment=digits trials=40 …")] = None,
    address: Annotated[str, typer.Option("--address", help="The dashboard's URL.")] = "http://127.0.0.1:8265",
    out_: Annotated[
        str | None,
        typer.Option("--out", help="Run directory on the cluster, on shared storage; default ~/runs/<name>-<time>."),
    ] = None,
    working_dir: Annotated[
        Path, typer.Option("--working-dir", help="The folder that is sent: code and conf/.")
    ] = Path(),
    wait: Annotated[bool, typer.Option(help="Follow the job, and fetch its journal.")] = True,
    follow: Annotated[
        str | None, typer.Option("--follow", metavar="JOB", help="Send nothing: follow a job that was sent before.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
    config_dir: Annotated[
        Path | None, typer.Option("--config-dir", help="Your own conf/ folder, relative to --working-dir.")
    ] = None,
) -> int:
    """Send a run to a cluster as a Ray job, with your code; follow it, and bring back what load_results needs."""
    from hpo_ray.submission import request
    from hpo_ray.submission.job import jobs

    if follow is not None and overrides:
        raise InvalidInput(Problem("--follow", "the job was sent: it takes no overrides any more"))
    name = "" if follow is not None else request.name_of(overrides or [], working_dir, config_dir)
    run = "" if follow is not None else request.run_directory(name, out_)
    with jobs(address) as cluster:
        if follow is not None:
            job, run = follow, cluster.run_of(follow)
        else:
            job = _send(cluster, request.script(run, overrides or [], config_dir), working_dir, run)
            note(f"job {job}, its run is {run} on the cluster")
        again = f"hpo-ray submit --address {address} --follow {job}"
        if not wait:
            out().print(job, highlight=False)
            note(f"`{again}` follows it and fetches the results")
            return 0
        return _followed(cluster, job, run, again, as_json)


def _send(cluster: Jobs, script: str, folder: Path, run: str) -> str:
    from hpo_ray.submission import job, parcel

    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "code.zip"
        packed = parcel.pack(folder.absolute(), archive, job.token())
        for why, names in packed.left_out.items():
            note(f"left out {len(names)} {why}: {', '.join(names[:5])}{' …' * (len(names) > 5)}")
        files = f"{packed.files} file{'s' * (packed.files != 1)} ({packed.size / 2**10:.0f} KiB)"
        note(f"sending {files} of {folder.absolute()}")
        return cluster.submit(script, archive, run)


def _followed(cluster: Jobs, job: str, run: str, again: str, as_json: bool) -> int:
    """Show what a job prints until it is over, then fetch its journal; the job's own exit code."""
    stream = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    try:
        status, code = cluster.follow(job, write)
    except KeyboardInterrupt:
        note(f"the job goes on; `{again}` follows it again")
        note(
            f"`ray job stop --address {cluster.address} {job}` ends it; the same `hpo-ray submit … --out {run}` resumes"
        )
        return 130
    if code == 127:
        note("the cluster's head has no `hpo-ray` on its PATH: install the package on every node")
    if status == "STOPPED":
        note(f"the job was stopped; the same `hpo-ray submit … --out {run}` goes on")
        code = 130
    _fetch(cluster, run, as_json)
    return code


def _fetch(cluster: Jobs, run: str, as_json: bool) -> None:
    """Bring the journal here, unless this machine sees the run directory itself."""
    from hpo_ray import history, journal

    content = cluster.journal(run)
    if content is None:
        note(f"{run} holds no journal: the run has not begun")
        return
    place = Path(run) if run.startswith("/") else Path("runs") / Path(run).name
    seen = place / journal.FILE_NAME
    if run.startswith("/") and seen.is_file() and seen.read_bytes() == content:
        note(f"results: {place}, which is seen from here too")
    else:
        place = Path("runs") / Path(run).name
        place.mkdir(parents=True, exist_ok=True)
        target = place / journal.FILE_NAME
        first = content.partition(b"\n")[0]
        if target.exists() and target.read_bytes().partition(b"\n")[0] != first:
            raise RunFailed(f"'{place}' already holds another run: the results are at {run} on the cluster")
        partial = target.with_suffix(".new")
        partial.write_bytes(content)
        partial.replace(target)
        note(f"results: {place} (the journal; logs and checkpoints stay in {run} on the cluster)")
    if as_json:
        show(history.load(place), as_json=True)
