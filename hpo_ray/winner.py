"""The winner of a run, tried once on the part of the data that no choice was made on. Needs a Ray session."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpo_ray import capacity, credentials
from hpo_ray.attempts import bundles_of
from hpo_ray.errors import RunFailed
from hpo_ray.experiment import Experiment
from hpo_ray.history import History
from hpo_ray.storage import carrying
from hpo_ray.storage.store import Store
from hpo_ray.trainables import TRAINABLES

# So long the run waits for a node that is as large as a trial's process needs it, and so long for one that others use.
PLACE_S = 120.0
FREE_S = 1800.0
# A machine that is lost takes the task with it, which is then tried elsewhere.
TRIES = 3


def try_winner(experiment: Experiment, history: History) -> dict[str, Any]:
    """The winner's error on the test part; empty where the trainable has none.

    The best of N on its own validation set flatters itself; this is the number to quote. It runs as a Ray task,
    where the trials ran and the data is, with the share of one of a trial's processes. A failure here is noted, never
    raised: the sweep's result stands.
    """
    module, best = TRAINABLES[experiment.trainable.name].module, history.best()
    if not module or best is None:
        return {}
    trial, row = best
    path = trial.checkpoints.get((row.attempt, row.fidelity))
    if path is None:
        return {}
    share = bundles_of(experiment, trial)[0]
    device = "cuda" if share["GPU"] > 0 else "cpu"
    config, pieces = experiment.trial_config(trial.config), trial.micro_batches
    name, variables = (history.stored, path), credentials.of_driver()
    try:
        given = (module, config, str(history.run_dir / path), device, pieces, name, variables)
        test = _on_a_node(share, _errors_on_test, *given)
    except Exception as error:
        return {"test_failure": " ".join(str(error).split())[-500:]}
    return {"test": test}


def _on_a_node(share: dict[str, float], call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, made where there is room for it; it may take as long as it likes once it has begun.

    Raises:
        RunFailed: No node has room.
        Exception: Whatever the call raises, or Ray's, if it has lost the call's process too often.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    for tried in range(1, TRIES + 1):
        place = placement_group([{name: amount for name, amount in share.items() if amount > 0}])
        try:
            _wait_for(place, share)
            task = ray.remote(call).options(
                num_cpus=share["CPU"],
                num_gpus=share["GPU"],
                max_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(place, 0),
            )
            return ray.get(task.remote(*arguments))
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:
            if tried == TRIES:
                raise
        finally:
            remove_placement_group(place)
    raise AssertionError("unreachable")


def _wait_for(place: Any, share: dict[str, float]) -> None:
    """Wait until a node has room.

    Raises:
        RunFailed: None is large enough, nor has come in time, or others keep them all.
    """
    begun = time.monotonic()
    while not place.wait(min(5.0, PLACE_S)):
        waited = time.monotonic() - begun
        nodes = capacity.nodes()
        if waited >= (FREE_S if capacity.fits([share], nodes) else PLACE_S):
            lacks = capacity.shortage([share], nodes, {}).removeprefix("it ")
            raise RunFailed(f"after {waited:.0f} s no node of the cluster has room for it, which {lacks}")


def _errors_on_test(
    module: str,
    config: dict[str, Any],
    checkpoint: str,
    device: str,
    pieces: int,
    stored: tuple[str, str],
    variables: dict[str, str],
) -> dict[str, Any]:
    """Runs as a Ray task, perhaps not where the checkpoint was saved; `stored`: the run's URI, and its path there."""
    os.environ.update(variables)
    if stored[0] and not Path(checkpoint).is_dir():
        carrying.pull(Store(stored[0]), stored[1], Path(checkpoint))
    result: dict[str, Any] = importlib.import_module(module).errors_on_test(config, Path(checkpoint), device, pieces)
    return result
