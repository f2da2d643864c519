"""The last chapters: what failed and why, what it cost, how to do it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from hpo_ray.report.blocks import Block, Code, Facts, Paragraph, Section, Table
from hpo_ray.report.subject import Subject, table_of
from hpo_ray.results.accounts import FAILED, cause_of, cost, failures
from hpo_ray.screen import duration

# Of each cause so many trials have their log named.
MOST_LOGS = 3
TRACEBACK_LINES = 12


def failed(subject: Subject) -> Section:
    """Failures by cause with their logs; what was tried again."""
    run = subject.run
    blocks: list[Block] = []
    again = [(name, fault) for name, trial in run.trials.items() for fault in trial.faults]
    n = len(run.trials)
    if not run.count(*FAILED):
        blocks.append(Paragraph("No trial failed." if n else "No trial was started."))
    else:
        causes = failures(subject.trials)
        n, lost = int(causes["trials"].sum()), duration(float(causes["seconds"].sum()))
        known = "one cause" if len(causes) == 1 else f"{len(causes)} causes"
        blocks.append(Paragraph(f"{n} of {len(run.trials)} trials failed, of {known}; they took {lost} of training."))
        rows = []
        for row in causes.head(50).to_dict("records"):
            here = [
                trial
                for trial in run.trials.values()
                if trial.status in FAILED and trial.status == row["status"] and cause_of(trial.reason) == row["cause"]
            ]
            logs = "\n".join(subject.log(trial) for trial in here[:MOST_LOGS])
            logs += f"\n… {len(here) - MOST_LOGS} more" if len(here) > MOST_LOGS else ""
            rows.append([row["cause"], row["status"].replace("_", " "), row["trials"], row["reason"], logs])
        columns = ["cause", "status", "trials", "an example in full", "logs, in the run directory"]
        blocks.append(Table("Failures by cause, the most frequent first", columns, rows))
        for example in causes["example"].head(5):
            trace = run.trials[str(example)].traceback.strip()
            if trace:
                tail = "\n".join(trace.splitlines()[-TRACEBACK_LINES:])
                blocks.append(Code(f"The traceback's end, trial {example}", tail, folded=True))
    if again:
        attempts = "1 attempt went wrong and was" if len(again) == 1 else f"{len(again)} attempts went wrong and were"
        rows = [[name, fault.cause, fault.fidelity, fault.reason] for name, fault in again[:100]]
        blocks.append(Paragraph(f"{attempts} tried again."))
        blocks.append(Table("Attempts that were tried again", ["trial", "cause", subject.unit, "reason"], rows))
    return Section("failures", "What failed, and why", blocks)


def costs(subject: Subject) -> Section:
    """What was spent, by what became of the trials."""
    run, found, unit = subject.run, subject.summary, f"{subject.unit}s"
    gpus = (run.experiment.get("resources") or {}).get("gpus_per_trial") or 0.0
    table = cost(subject.trials, gpus_per_trial=float(gpus))
    spent = f"{found['total_fidelity']:g}" if found["total_fidelity"] < math.inf else "over 1e+308"
    total = f"{spent} {unit} in {duration(found['wall_time_s'])}"
    trials = "1 trial" if found["trials"] == 1 else f"{found['trials']} trials"
    blocks: list[Block] = [Paragraph(f"The run took {total} for {trials}.")]
    if len(table):
        columns = {"status": "status", "trials": "trials", "fidelity": unit, "seconds": "seconds of trials"}
        columns |= {"gpu_seconds": "GPU seconds"} if gpus else {}
        blocks.append(table_of(table, "What was spent on trials of each status", {**columns, "share": "share of time"}))
    return Section("cost", "What it cost", blocks)


def reproduce(subject: Subject) -> Section:
    """The exact command, versions, commit and the resolved experiment."""
    run = subject.run
    here = run.environment if isinstance(run.environment, Mapping) else {}
    blocks: list[Block] = []
    command = _command(here.get("command"))
    if command:
        blocks.append(Code("The command", command))
    git: Any = here.get("git") if isinstance(here.get("git"), Mapping) else {}
    commit = f"{git.get('commit')}" + (", with changes that were not committed" if git.get("dirty") else "")
    facts = [("run directory", str(run.run_dir)), ("git commit", commit if git else "none: not in a repository")]
    facts += [(name, str(here[name])) for name in ("cwd", "host", "platform", "cpus", "gpus") if name in here]
    blocks.append(Facts(facts))
    versions = here.get("versions")
    if isinstance(versions, Mapping):
        rows = [[str(name), str(version)] for name, version in versions.items() if version]
        blocks.append(Table("Versions", ["package", "version"], [list(row) for row in rows]))
    resolved = yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True, width=100)
    blocks.append(Code("The resolved experiment", resolved, folded=True))
    load = f"hpo_ray.load_results({str(run.run_dir)!r})"
    blocks.append(Code("The results in pandas", load))
    return Section("reproduce", "How to do it again", blocks)


def _command(words: Any) -> str:
    """What was typed: the program's path is this machine's, its name is anyone's."""
    if not isinstance(words, list) or not words:
        return ""
    program = PurePath(str(words[0])).name
    parts = str(PurePath(str(words[0])).parent)
    first = "hpo-ray" if program == "hpo-ray" or (program == "cli.py" and parts.endswith("hpo_ray")) else str(words[0])
    return shlex.join([first, *(str(word) for word in words[1:])])
