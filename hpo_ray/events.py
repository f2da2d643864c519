"""What a journal's lines say, and what each kind of event must hold for a reader to take it.

A run directory may come from anywhere: an event that lacks something, or holds something of another type than our own
writer puts there, is damage like a torn line, so that nothing further in has to ask. Knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from hpo_ray import plain

Event = dict[str, Any]

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
STATUSES = ("pending", "running", "completed", "stopped", "failed", "out_of_memory", "interrupted")
# Times are Unix seconds; pandas' nanoseconds end in 2262.
LATEST = 9e9
# Whole numbers above are not told apart as floats: no epoch, and no key of a report.
EXACT = 2**53
LARGEST_INT = 2**31
_LONGEST_ID = 18


def number(value: Any) -> Any:
    """What the journal made of a number that JSON has no name for, as a number again; anything else as it is."""
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def is_trial_id(value: Any) -> bool:
    """Whether it is one of ours: digits. It names folders, so nothing else may pass."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isascii() and value.isdigit()


def parse(line: bytes) -> Event | None:
    """The event that a line holds, non-finite numbers decoded; None: the line is damaged.

    Kinds that are not in `KNOWN` come from a newer version and are returned as they are.
    """
    try:
        event = plain.loads(line)
        check = KNOWN.get(event["event"])
        if check is not None:
            if not 0 <= event["time"] < LATEST:
                return None
            check(event)
        return event if isinstance(event["event"], str) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _need(*facts: bool) -> None:
    if not all(facts):
        raise ValueError


def _measured(value: Any) -> float:
    if isinstance(value, str):
        return NON_FINITE[value]
    float(value)  # raises where it is no number, or an integer too large for one
    return value  # type: ignore[no-any-return]


def _text(event: Event, *keys: str) -> None:
    for key in keys:
        _need(isinstance(event.get(key, ""), str))


def _trial(event: Event) -> None:
    attempt = event.get("attempt", 0)
    _need(is_trial_id(event["trial_id"]), type(attempt) is int, 0 <= attempt < LARGEST_INT)


def _fidelity(event: Event, key: str) -> None:
    value = event[key]
    _need(math.isfinite(value), isinstance(value, float) or -EXACT <= value <= EXACT)


def _run_started(event: Event) -> None:
    experiment = event["experiment"]
    _need(isinstance(experiment, dict), isinstance(event.get("environment", {}), dict))
    _text(event, "stored")
    for key in ("name", "metric", "mode", "fidelity"):
        _need(isinstance(experiment.get(key), str | None))
    for key in ("trials", "seed", "folds", "repeats"):
        _need(isinstance(experiment.get(key), int | None))
    for key in ("data", "resources"):
        _need(isinstance(experiment.get(key), dict | None))
    _need(0 <= ((experiment.get("resources") or {}).get("gpus_per_trial") or 0.0) < EXACT)
    _need(all(isinstance(point, dict) for point in event.get("prior", ())))
    race = experiment.get("race")
    if race is not None:
        contenders = race["contenders"]
        _need(isinstance(contenders, dict), all(isinstance(config, dict) for config in contenders.values()))
        _need(type(race["repeats"]) is int, 0 < race["repeats"] < LARGEST_INT, 0.5 <= race["confidence"] < 1)


def _run_ended(event: Event) -> None:
    _need(isinstance(event["status"], str))
    _text(event, "reason", "cause")
    test = event.get("test")
    if test is not None:
        _need(
            type(test["n"]) is int, type(test["errors"]) is int, 0 < test["n"] < EXACT, 0 <= test["errors"] <= test["n"]
        )
        alone = test.get("each", [0, 0])
        _need(len(alone) > 1, all(type(errors) is int and 0 <= errors <= test["n"] for errors in alone))


def _trial_suggested(event: Event) -> None:
    _trial(event)
    state = event.get("state", {})
    _need(isinstance(event["config"], dict), isinstance(event["config_id"], str), isinstance(state, dict))
    if "contender" in state:
        _need(isinstance(state["contender"], str), type(state["repeat"]) is int, 0 <= state["repeat"] < LARGEST_INT)


def _trial_started(event: Event) -> None:
    _trial(event)
    _need(event["attempt"] >= 0, 0 <= event.get("gpus", 0.0) < EXACT)


def _trial_reported(event: Event) -> None:
    _trial(event)
    _need(event["attempt"] >= 0)
    _fidelity(event, "fidelity")
    if "since" in event:
        _fidelity(event, "since")
    _need(isinstance(event["elapsed_s"], int | float), not math.isnan(float(event["elapsed_s"])))
    metrics = event["metrics"]
    for name, value in metrics.items():
        if type(value) is not float:
            metrics[name] = _measured(value)


def _rung_decided(event: Event) -> None:
    _trial(event)
    _fidelity(event, "rung")
    event["value"] = _measured(event["value"])
    if event.get("cutoff") is not None:
        event["cutoff"] = _measured(event["cutoff"])
    _need(isinstance(event["kept"], bool))
    for key in ("rank", "n"):
        _need(event.get(key) is None or -EXACT <= event[key] <= EXACT)


def _trial_checkpointed(event: Event) -> None:
    _trial(event)
    _need(event["attempt"] >= 0)
    _fidelity(event, "fidelity")
    path = PurePosixPath(event["path"])
    _need(isinstance(event["path"], str), not path.is_absolute(), bool(path.parts), ".." not in path.parts)
    _need("\0" not in event["path"])


def _trial_ended(event: Event) -> None:
    _trial(event)
    _need(event["status"] in STATUSES)
    _text(event, "reason", "traceback", "cause", "fault")
    pieces = event.get("micro_batches", 1)
    _need(type(pieces) is int, 0 < pieces < LARGEST_INT)
    _need(event.get("gpus") is None or 0 <= event["gpus"] < EXACT)


KNOWN: dict[str, Callable[[Event], None]] = {
    "run_started": _run_started,
    "trial_suggested": _trial_suggested,
    "trial_started": _trial_started,
    "trial_reported": _trial_reported,
    "rung_decided": _rung_decided,
    "trial_checkpointed": _trial_checkpointed,
    "trial_ended": _trial_ended,
    "run_ended": _run_ended,
}
