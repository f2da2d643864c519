"""The driver as Tune wants to see it: a searcher, a callback and a stopper, each passing calls on.

Knows Tune's protocols; decides nothing.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpo_ray.driver import Driver

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def guarded(driver: Driver, call: Callable[..., Any], *arguments: Any) -> Any:
    """Run a driver's method; an exception of ours ends the run instead of being reworded by Tune."""
    try:
        return call(*arguments)
    except Exception as error:
        driver.failure = driver.failure or error
        return None


def error_of(trial: Any) -> str:
    """What Ray says of a trial whose process it lost, in one line.

    Read from where Tune has just written it: `Trial.get_error` looks where that is copied to, later (2.60).
    """
    try:
        lines = Path(trial.error_file).read_text().splitlines()[1:]  # the first one counts Tune's own retries
    except (OSError, TypeError):
        lines = []
    # Lines that begin with a tab hold Ray's own numbers of the actor and its process.
    text = " ".join(_COLOUR.sub("", " ".join(line for line in lines if not line.startswith("\t"))).split())
    if len(text) > 400:
        text = f"{text[:250]} … {text[-140:]}"  # the cause of an exception stands last
    return f"the trial's process was lost: {text}" if text else "the trial's process was lost"


def preempted(trial: Any) -> bool:
    """Whether a trial's process was lost because its machine was taken back with notice, as spot machines are."""
    try:
        # Written by Tune in this process a moment ago, into this driver's own scratch folder.
        return bool(getattr(pickle.loads(Path(trial.pickled_error_file).read_bytes()), "preempted", False))
    except Exception:  # whatever an unpickled error may do
        return False


class Suggestions(Searcher):
    """The searcher that Tune sees: it hands out attempts."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        config: dict[str, Any] | None = guarded(self._driver, self._driver.next_attempt, trial_id)
        return self.FINISHED if config is None and self._driver.finished else config

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: the driver learns of ends through its callback."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as for `save`."""


class Events(Callback):
    """Tune's callbacks, passed to the driver. Reports are not among them: `Stops` sees them first."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        guarded(self._driver, self._driver.started, trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        guarded(self._driver, self._driver.ended, trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        guarded(self._driver, self._driver.ended, trial.trial_id, error_of(trial), preempted(trial))


class Stops(Stopper):
    """Tune's stopping protocol: each report passes here first, and here alone is decided what follows from it."""

    def __init__(self, driver: Driver, over: Callable[[], bool]) -> None:
        """Args: the driver, and what says whether all that still runs is to end at once; asked many times a second."""
        self._driver = driver
        self._over = over

    def __call__(self, trial_id: str, result: dict) -> bool:
        # What fails here must not go on as if nothing had been reported.
        return guarded(self._driver, self._driver.judge, trial_id, result) is not False

    def stop_all(self) -> bool:
        return guarded(self._driver, self._over) is not False

    def __deepcopy__(self, memo: dict) -> Stops:
        return self

    def __reduce__(self) -> tuple[type, tuple]:
        return object, ()  # as the driver: Tune's own state is scratch
