"""The commands on a cluster, `doctor` and `submit`: their arguments, and what they print. Only `cli` uses it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_ray.console import out, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hpo_ray.doctor.findings import Finding

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
        str, typer.Option("--storage", help="Where run directories are to lie: a folder, or a URI (s3://…).")
    ] = "runs",
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
