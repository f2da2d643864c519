"""The driver as Tune wants to see it: a searcher, a callback and a stopper, each passing calls on.

Knows Tune's protocols; decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpo_ray.driver import Driver


def guarded(driver: Driver, call: Callable[..., Any], *arguments: Any) -> Any:
    """Run a driver's method; an exception of ours ends the run instead of being reworded by Tune."""
    try:
        return call(*arguments)
    except Exception as error:
        driver.failure = driver.failure or error
        return None


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
        error = trial.get_error()
        text = " ".join(str(error).split())[:500] if error else "the trial's process was lost"
        guarded(self._driver, self._driver.ended, trial.trial_id, text)


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
