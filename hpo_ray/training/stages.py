"""The stages of a fine-tuning: what is trained from which epoch to which.

Plain arithmetic, so that the driver can check a plan; imports no torch, knows no model and no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo_ray.errors import InvalidInput, Problem


@dataclass(frozen=True)
class Stage:
    """A stretch of epochs in which the same parameters are trained.

    Attributes:
        name: For people.
        since: Epochs done before it.
        epochs: How long it is.
        train: ``all`` parameters, the ``head`` alone, or this many of the last layer groups.
        cached: The head is trained on the trunk's activations, computed once; only where `train` is ``head``.
        augment: Whether images are augmented; never where they are cached.
        lr_factor: Times the learning rate, at its highest in this stage.
    """

    name: str
    since: int
    epochs: int
    train: str | int = "all"
    cached: bool = False
    augment: bool = True
    lr_factor: float = 1.0

    @property
    def until(self) -> int:
        """Epochs done when it ends."""
        return self.since + self.epochs


def plan(stages: Sequence[Mapping[str, Any]] | None, epochs: int) -> tuple[Stage, ...]:
    """Stages one after another; the one without a length takes what the others leave of `epochs`.

    Args:
        stages: Mappings with the fields of `Stage`, without `since`; none: one stage in which everything is trained.
        epochs: The whole training's.

    Raises:
        InvalidInput: Their lengths don't add up to `epochs`, two have none, or activations are to be cached of a
            trunk that is trained or has been.
    """
    found = problems(stages, epochs)
    if found:
        raise InvalidInput(*found)
    if not stages:
        return (Stage("all", 0, epochs),)
    rest = epochs - sum(stage.get("epochs") or 0 for stage in stages)
    result: list[Stage] = []
    for index, stage in enumerate(stages):
        since = result[-1].until if result else 0
        name = stage.get("name") or f"stage {index + 1}"
        result.append(Stage(**{**stage, "name": name, "epochs": stage.get("epochs") or rest, "since": since}))
    return tuple(result)


def problems(stages: Sequence[Mapping[str, Any]] | None, epochs: int) -> list[Problem]:
    """What is wrong with stages whose fields have the right types; see `plan`."""
    found: list[Problem] = []
    lengths = [stage.get("epochs") for stage in stages or ()]
    total = sum(length or 0 for length in lengths)
    if lengths.count(None) > 1:
        found.append(
            Problem("training.stages", f"{lengths.count(None)} stages have no epochs; at most one takes the rest")
        )
    elif None in lengths and total >= epochs:
        found.append(
            Problem("training.epochs", f"{epochs} leaves nothing to the stage without epochs: the others take {total}")
        )
    elif lengths and None not in lengths and total != epochs:
        found.append(Problem("training.epochs", f"{epochs} is not what its stages add up to: {total}"))
    trained = False  # whether an earlier stage has changed the trunk
    for index, stage in enumerate(stages or ()):
        train = stage.get("train", "all")
        if stage.get("cached") and train != "head":
            message = f"{train!r} with cached=true: activations are cached of a trunk that stays as it is, train=head"
            found.append(Problem(f"training.stages[{index}].train", message))
        elif stage.get("cached") and trained:
            message = "an earlier stage has trained the trunk: caching its activations would help this trial alone"
            found.append(Problem(f"training.stages[{index}].cached", message))
        trained = trained or train != "head"
    return found


def stage_at(plan: Sequence[Stage], done: int) -> Stage:
    """The stage that the next epoch belongs to, after `done` epochs."""
    return next(stage for stage in plan if done < stage.until)
