"""Imports point one way: no import against the table, no cycle, `import ray` only where Ray is met."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hpo_ray"

# Room -> the rooms that it may import. A room is a top-level module or folder of the package.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "domains": {"errors"},
    "space": {"errors", "domains"},
    "gp": set(),
    "encoding": {"domains", "gp", "space"},
    "plain": set(),
    "beside": set(),
    "credentials": set(),
    "events": {"plain"},
    "journal": {"errors", "events", "plain"},
    "lock": {"plain"},
    "storage": {"errors", "beside", "journal", "lock", "plain"},
    "tally": {"journal"},
    "snapshot": {"events", "journal", "plain", "tally"},
    "history": {"errors", "journal", "lock", "tally"},
    "config": {"errors"},
    "sections": set(),
    "experiment": {"errors", "sections", "space"},
    "prior": {"errors", "domains", "experiment", "history", "journal", "space"},
    "data": {"errors"},
    "models": {"errors"},
    "training": {"errors"},
    "trainables": {"errors", "data", "models", "training", "storage"},
    "schedulers": {"errors"},
    "searchers": {"errors", "space", "domains", "gp", "encoding", "results"},
    "watch": {"lock"},
    "session": {"errors", "lock", "watch"},
    "start_hook": set(),
    "folders": {"errors", "journal"},
    "budgets": {"experiment", "tally"},
    "retries": {"experiment", "history"},
    "keeper": {"history", "journal"},
    "loggers": {"errors", "beside", "domains", "events", "history", "journal", "lock", "plain", "space"},
    "preflight": {
        "errors",
        "loggers",
        "config",
        "experiment",
        "space",
        "space_check",
        "schedulers",
        "searchers",
        "trainable_check",
        "trainables",
        "environment",
        "wording",
        "storage",
    },
    "trainable_check": {"errors", "experiment", "space", "space_check", "trainables"},
    "wording": {"errors", "experiment"},
    "space_check": {"errors", "domains", "experiment", "space", "wording"},
    "bridge": {"driver"},
    "guide": {"experiment", "history", "journal", "schedulers", "searchers"},
    "attempts": {"errors", "experiment", "history", "journal"},
    "driver": {"errors", "attempts", "budgets", "experiment", "guide", "history", "journal", "keeper", "retries"},
    "capacity": set(),
    "winner": {"errors", "attempts", "capacity", "credentials", "experiment", "history", "trainables", "storage"},
    "stint": {
        "errors",
        "bridge",
        "capacity",
        "credentials",
        "driver",
        "environment",
        "experiment",
        "history",
        "journal",
        "keeper",
        "lock",
        "loggers",
        "schedulers",
        "session",
        "snapshot",
        "trainables",
        "winner",
        "storage",
    },
    "runner": {
        "errors",
        "brought",
        "config",
        "experiment",
        "folders",
        "history",
        "journal",
        "lock",
        "preflight",
        "prior",
        "results",
        "stint",
        "trainables",
        "storage",
    },
    "environment": {"lock"},
    "results": {
        "errors",
        "domains",
        "encoding",
        "events",
        "history",
        "journal",
        "lock",
        "loggers",
        "plain",
        "space",
        "gp",
        "storage",
    },
    "screen": {"history", "journal", "lock", "results", "tally"},
    "console": {"errors", "confirming", "history", "journal", "results", "screen"},
    "report": {"errors", "confirming", "history", "journal", "results", "screen", "snapshot", "space"},
    "supervisor": {"errors", "history", "lock", "snapshot"},
    "lr_range": {"errors", "config", "experiment", "preflight", "trainables", "training"},
    "brought": {"storage"},
    "confirming": {
        "errors",
        "brought",
        "config",
        "experiment",
        "history",
        "preflight",
        "refitting",
        "results",
        "trainables",
    },
    "refitting": {"errors", "brought", "config", "experiment", "history", "preflight", "space", "trainables"},
    "api": {
        "errors",
        "config",
        "experiment",
        "history",
        "confirming",
        "lr_range",
        "refitting",
        "results",
        "runner",
        "space",
        "trainables",
    },
    "best_model": {"errors", "experiment", "history", "trainables", "training", "storage"},
    "cli_models": {
        "errors",
        "best_model",
        "config",
        "console",
        "data",
        "results",
        "sections",
        "trainables",
        "wording",
    },
    "cli_results": {
        "errors",
        "confirming",
        "domains",
        "console",
        "history",
        "journal",
        "lock",
        "loggers",
        "results",
        "screen",
        "snapshot",
    },
    "cli_report": {"errors", "console", "history", "report", "screen"},
    "doctor": {"errors", "config", "environment", "lr_range", "preflight", "session", "storage"},
    "submission": {"errors", "config", "lr_range", "runner", "session"},
    "cli_cluster": {"console", "doctor", "errors", "history", "journal", "submission"},
    "cli": {
        "errors",
        "cli_cluster",
        "confirming",
        "refitting",
        "cli_models",
        "cli_report",
        "cli_results",
        "config",
        "console",
        "experiment",
        "folders",
        "history",
        "lock",
        "lr_range",
        "results",
        "runner",
        "screen",
        "snapshot",
        "supervisor",
        "storage",
    },
    "__init__": {"api", "errors", "experiment", "results", "space", "trainables"},
}
RAY_ROOMS = {
    "credentials",
    "capacity",
    "doctor",
    "submission",
    "session",
    "winner",
    "guide",
    "bridge",
    "stint",
    "schedulers",
    "searchers",
    "trainables",
}
# `SearchSpace.to_ray` makes Ray's own objects, one domain at a time: that function imports them when it is called.
RAY_LAZILY = {"domains"}
# What runs inside a worker process must not bring Ray in.
NO_RAY_MODULES = {
    "doctor/facts.py",
    "doctor/judge.py",
    "doctor/safety.py",
    "submission/confidential.py",
    "submission/parcel.py",
    "submission/request.py",
    "trainables/trial.py",
    "trainables/worker.py",
    "trainables/meeting.py",
    "trainables/process.py",
    "trainables/checkpoints.py",
    "trainables/faults.py",
    "trainables/function.py",
    "trainables/__init__.py",
    "trainables/image_classification.py",
    "trainables/image_plan.py",
    "trainables/image_source.py",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> list[tuple[str, int, bool]]:
    """Every import in a module, function-level and type-checking ones too: name, line, whether it is lazy."""
    found = []
    inside = {id(child) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
    for node in ast.walk(tree):
        lazy = id(node) in inside
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [f"hpo_ray.{alias.name}" for alias in node.names] if base == "hpo_ray" else [base]
            found += [(name, node.lineno, lazy) for name in names]
    return found


def violations(path: Path, source: str) -> list[str]:
    room, wrong = room_of(path), []
    for name, line, lazy in imported(ast.parse(source)):
        top, *rest = name.split(".")
        place = f"{path.relative_to(PACKAGE)}:{line}"
        if top == "hpo_ray" and rest and rest[0] != room and rest[0] not in ALLOWED[room]:
            wrong.append(f"{place} imports {rest[0]}; {room} may import {sorted(ALLOWED[room])}")
        if top == "ray":
            forbidden = path.relative_to(PACKAGE).as_posix() in NO_RAY_MODULES or room not in RAY_ROOMS | RAY_LAZILY
            if forbidden or (room in RAY_LAZILY and not lazy):
                wrong.append(f"{place} imports ray")
    return wrong


def test_every_room_is_in_the_table() -> None:
    assert {room_of(path) for path in modules()} <= ALLOWED.keys()


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_follow_the_table(path: Path) -> None:
    assert violations(path, path.read_text()) == []


def test_the_table_itself_has_no_cycle() -> None:
    order: list[str] = []

    def visit(room: str, above: tuple[str, ...]) -> None:
        assert room not in above, f"cycle: {' -> '.join((*above, room))}"
        if room not in order:
            for below in sorted(ALLOWED.get(room, set())):
                visit(below, (*above, room))
            order.append(room)

    for room in ALLOWED:
        visit(room, ())


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("results/frame.py", "import hpo_ray.runner", "imports runner"),
        ("space.py", "def f():\n    from hpo_ray import config", "imports config"),
        ("training/loop.py", "from hpo_ray.data.images import load", "imports data"),
        ("journal.py", "import ray", "imports ray"),
        ("domains/ray.py", "import ray.tune", "imports ray"),
        ("trainables/worker.py", "from ray import tune", "imports ray"),
    ],
)
def test_planted_faults_are_seen(file: str, source: str, expected: str) -> None:
    [found] = violations(PACKAGE / file, source)
    assert expected in found
