"""What of an image training can be checked and planned without torch: stages, schedules, rungs.

The driver calls it; knows no trial and no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hpo_ray.data import checks
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.models import names
from hpo_ray.training import lr_schedules, stages
from hpo_ray.training.lr_schedules import Schedule
from hpo_ray.training.stages import Stage

# The options of a learning rate schedule, as `training` has them.
_SCHEDULE = (
    *("warmup_epochs", "floor", "step_epochs", "gamma", "staircase", "half_cycle_epochs", "cycle_len", "cycle_mult"),
    *("peak_at", "div", "final_div", "cycle_momentum", "parts"),
)


def check(config: Mapping[str, Mapping[str, Any]], sampled: Mapping[str, Any], *, folds: int = 1) -> list[Problem]:
    """Mistakes that can be seen before anything starts, in a fraction of a second; no picture is opened.

    Torch is imported only if a torchvision architecture is named.

    Args:
        config: The sections `data`, `model` and `training`.
        sampled: The search space's fields, each with its values, or with None if they are too many to list.
        folds: In how many parts each configuration's images are divided in turn.

    Returns:
        Every problem, with the key it belongs to; empty if there are none.
    """
    data, model, training = config["data"], config["model"], config["training"]
    archs = sampled.get("arch") or [model["arch"]]
    where, kept = (data["name"], data.get("root")), bool(data.get("valid_is_test"))
    wrong = checks.check(*where, download=bool(data.get("download")), valid_is_test=kept)
    if not wrong and folds > 1:
        wrong = checks.check_folds(*where, folds, valid_is_test=kept)
    return [
        *wrong,
        *(problem for arch in archs for problem in _check_model(arch, model)),
        *_check_training(training, model, data, sampled),
    ]


def rungs(config: Mapping[str, Mapping[str, Any]], sampled: Mapping[str, Any], **scheduler: int) -> list[int]:
    """Where ASHA compares trials so that a cycle of the learning rate has just ended.

    Args:
        config: As for `check`.
        sampled: Likewise.
        **scheduler: `grace_period`, `max_t`, `reduction_factor`.

    Raises:
        InvalidInput: The search moves the cycles.
    """
    training = config["training"]
    moved = sorted({"schedule", "epochs", *_SCHEDULE} & set(sampled))
    if moved:
        message = f"'cycle_ends' differ from trial to trial: the space holds {', '.join(moved)}"
        raise InvalidInput(Problem("scheduler.rungs", message))
    ends = [
        stage.since + end
        for stage in stages.plan(training["stages"], training["epochs"])
        for end in schedule_of(training, stage).cycle_ends
    ]
    return lr_schedules.rungs_at_cycle_ends(ends, **scheduler)


def _check_model(arch: str, model: Mapping[str, Any]) -> list[Problem]:
    weights = model.get("weights")
    found = names.check_arch(arch) or names.check_weights(arch, weights)
    if found is None and weights == names.DEFAULT_WEIGHTS:
        found = names.check_download(arch)
    return [found] if found else []


def _check_training(
    training: Mapping[str, Any], model: Mapping[str, Any], data: Mapping[str, Any], sampled: Mapping[str, Any]
) -> list[Problem]:
    found = stages.problems(training["stages"], training["epochs"])
    if "epochs" in sampled and training["stages"]:
        message = "the search would change it, but the stages have lengths of their own: search without it"
        found.append(Problem("space.epochs", message))
    if training.get("layer_decay") is not None and "lr_ratio" in sampled:
        message = "it has no effect beside training.layer_decay, which takes its place: ~space.lr_ratio"
        found.append(Problem("space.lr_ratio", message))
    for index, stage in enumerate(training["stages"]):
        if isinstance(stage.get("train"), int) and stage["train"] > training.get("groups", 3):
            message = f"{stage['train']} is more than training.groups={training.get('groups', 3)}: say all"
            found.append(Problem(f"training.stages[{index}].train", message))
    if training.get("optimizer") == "nesterov" and training.get("momentum") == 0 and "optimizer" not in sampled:
        found.append(Problem("training.momentum", "0 leaves nothing of nesterov: above 0 expected, or optimizer=sgd"))
    if data.get("train_on_valid") and training.get("patience") is not None:
        message = f"{training['patience']} epochs without a gain on validation images, but these are learnt from"
        found.append(Problem("training.patience", message))
    if any(stage.get("cached") for stage in training["stages"]) and model.get("weights") is None:
        message = "cached=true keeps the activations of a trunk with weights, but model.weights is null"
        found.append(Problem("training.stages", message))
    return found or _check_schedules(training, sampled)


def _check_schedules(training: Mapping[str, Any], sampled: Mapping[str, Any]) -> list[Problem]:
    """Each schedule that may be chosen, over each stage."""
    given = {key: training[key] for key in _SCHEDULE if key not in sampled and training.get(key) is not None}
    planned = stages.plan(training["stages"], training["epochs"]) if "epochs" not in sampled else ()
    found: list[Problem] = []
    for name in sampled.get("schedule", [training["schedule"]]):
        options = given
        if "schedule" in sampled and name in lr_schedules.NAMES:  # what others read is none of its own
            options = {key: value for key, value in given.items() if key in lr_schedules.reads(name)}
        if name == "composed" and "parts" in sampled:
            continue
        for stage in planned:
            where = f" (stage '{stage.name}', {stage.epochs} epochs)" if len(planned) > 1 else ""
            wrong = lr_schedules.problems(name, epochs=stage.epochs, **options)
            found += [Problem(problem.key, f"{problem.message}{where}") for problem in wrong]
            if wrong:
                break
    return found


def schedule_of(training: Mapping[str, Any], stage: Stage) -> Schedule:
    """The learning rate over one stage."""
    name = training.get("schedule", "constant")
    schedule = lr_schedules.build(name, epochs=stage.epochs, **_options(training, name))
    return replace(schedule, lr=lambda epoch: stage.lr_factor * schedule.lr(epoch))


def _options(training: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a schedule reads of the options: where a search chooses among schedules, others' stand beside its own."""
    return {key: training[key] for key in lr_schedules.reads(name) if training.get(key) is not None}
