"""The resolved experiment: one frozen model, each field with its meaning, unit and default.

Knows the search space and the names of searchers, schedulers and trainables; nothing of files, Hydra or Ray.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from hpo_ray.sections import Count, DataConfig, ModelConfig, Section, TrainingConfig, Whole
from hpo_ray.space import SearchSpace


class SearcherConfig(Section):
    """Which searcher proposes configurations."""

    name: str
    """A key of `hpo_ray.searchers.SEARCHERS`."""


class SchedulerConfig(Section):
    """Which trials are stopped early. `none` takes no options."""

    name: str
    """A key of `hpo_ray.schedulers.SCHEDULERS`."""
    max_t: Count | None = None
    """No trial goes beyond this fidelity (epochs, mostly)."""
    grace_period: Count | None = None
    """No trial is stopped before this fidelity."""
    reduction_factor: Annotated[Whole, Field(ge=2)] | None = None
    """One trial in so many is kept at each rung."""
    rungs: Literal["geometric", "cycle_ends"] | tuple[Count, ...] | None = None
    """Where trials are compared: at grace_period * reduction_factor^k; likewise but each at the nearest end of a cycle
    of the learning rate, before which a loss says more of the rate than of the trial; or at these fidelities."""


class TrainableConfig(Section):
    """What a trial runs."""

    name: str
    """A key of `hpo_ray.trainables.TRAINABLES`."""
    target: str | None = None
    """For `function`: the objective, as ``path.py:name`` or ``package.module:name``."""


class ResourcesConfig(Section):
    """What each trial may use."""

    cpus_per_trial: Annotated[float, Field(gt=0)] = 1
    """Processors; also the number of torch threads, rounded down, at least 1."""
    gpus_per_trial: Annotated[float, Field(ge=0)] = 0
    """GPUs; a fraction shares one."""
    workers_per_trial: Count = 1
    """Processes that train a trial together, each with an equal part of its processors and GPUs, and of every batch,
    which holds `training.batch_size` images for each of them."""
    max_growth_mb: Count = 512
    """MiB that trials may leave behind in a worker process before it is replaced."""


class RayConfig(Section):
    """Where Ray is."""

    address: str | None = None
    """None: started on this machine for this run; `auto` or `host:port`: an existing cluster."""


class StopConfig(Section):
    """When the sweep ends, beside its number of trials. What still runs then is interrupted, and can be resumed."""

    total_fidelity: Annotated[float, Field(gt=0)] | None = None
    """Training of all trials together, in units of the fidelity (epochs, mostly)."""
    wall_time_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds that drivers worked on the run; the time between a death and a resume is left out."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours that trials held GPUs, a fraction of one counting as that fraction."""
    target: float | None = None
    """The metric at this value, or better."""
    plateau_trials: Count | None = None
    """So many trials in a row have ended without a new best."""
    grace_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds that running trials have to reach their next report; then they are ended where they stand."""


class RetryConfig(Section):
    """What happens to a trial that fails, and when too many have failed."""

    max_retries: Annotated[Whole, Field(ge=0)] = 2
    """Restarts of a trial after a failure, from its last checkpoint; the same error twice in a row ends it earlier."""
    backoff_s: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before the first restart; each later one waits twice as long, at most a minute."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """A trial with no report for so many seconds hangs: it is ended, and restarted as after a failure."""
    out_of_memory: Literal["micro_batch", "gpu_share", "fail"] = "micro_batch"
    """How a trial that ran out of memory is restarted: with its batches in twice as many pieces whose gradients add
    up, with twice the share of a GPU, or not at all."""
    max_failures: Annotated[Whole, Field(ge=0)] | None = None
    """More failed trials than this end the sweep."""
    max_failure_share: Annotated[float, Field(gt=0, le=1)] | None = 0.9
    """A larger share of failures than this among the trials that ended, ten or more, ends the sweep."""


class PriorConfig(Section):
    """Earlier runs whose results the searcher starts from."""

    runs: str | None = None
    """Run directories: a path, a glob such as ``runs/digits-*``, or several with commas."""


class StorageConfig(Section):
    """What is kept, and where besides the run directory."""

    keep_checkpoints: Count = 5
    """Checkpoints kept over all trials, the best by the metric; beside them what unfinished trials need to go on."""
    uri: str | None = None
    """A folder on a file system of pyarrow's, e.g. ``s3://bucket/folder``: the run is kept at ``<uri>/<run>`` too."""


class RaceConfig(Section):
    """Known configurations compared with each other, in place of a search; `hpo-ray confirm` writes it."""

    contenders: dict[str, dict[str, Any]]
    """Name -> configuration, of the space."""
    repeats: Count
    """Of each, at most; repeat r has the same seed and fold for all."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Of what is said of their differences."""


SECTIONS: dict[str, type[Section]] = {
    "trainable": TrainableConfig,
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
}


class Experiment(Section):
    """Everything a run is made of, resolved and checked."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=60)]
    """The run directory's first part."""
    trials: Count | None = 24
    """How many configurations; None: as many as a grid has."""
    slots: Count | Literal["auto"] = "auto"
    """How many trials at a time; `auto`: as many as the machine's processors and GPUs allow."""
    seed: Annotated[Whole, Field(ge=0)] = 0
    """All randomness comes from it."""
    folds: Count = 1
    """Each configuration is trained this many times, validated on another part of the images each time; 1: as split."""
    repeats: Count = 1
    """Each configuration is trained (on all folds) this many times, with other seeds and, with folds,
    other divisions."""
    metric: Annotated[str, Field(min_length=1)]
    """The reported key to optimise."""
    mode: Literal["min", "max"]
    """Which way is better."""
    fidelity: str | None = None
    """The reported key that says how far training got; None: reports are counted."""
    space: dict[str, Any]
    """Search space: name -> domain, in its text form."""
    searcher: SearcherConfig
    scheduler: SchedulerConfig
    trainable: TrainableConfig
    data: DataConfig | None = None
    model: ModelConfig | None = None
    training: TrainingConfig | None = None
    resources: ResourcesConfig = ResourcesConfig()
    ray: RayConfig = RayConfig()
    stop: StopConfig = StopConfig()
    retry: RetryConfig = RetryConfig()
    prior: PriorConfig = PriorConfig()
    storage: StorageConfig = StorageConfig()
    loggers: tuple[str, ...] = ()
    """Other tools that the run is written for while it lasts: keys of `hpo_ray.loggers.LOGGERS`."""
    race: RaceConfig | None = None

    @cached_property
    def search_space(self) -> SearchSpace:
        """The space as an object."""
        return SearchSpace.parse(self.space)

    def trial_config(self, sampled: dict[str, Any], repeat: int | None = None) -> dict[str, Any]:
        """What the objective receives for one sampled configuration, the space's constants with it.

        In a race `repeat` says which of the folds: the first `folds` repeats are those of one division, the next of
        another.

        The user's own function receives the values as they are. A built-in trainable receives its sections, nested,
        each value in its place.
        """
        values = {**self.search_space.constants, **sampled}
        if self.trainable.name == "function":
            return values
        config: dict[str, Any] = {"folds": self.folds, "repeats": self.repeats}
        if repeat is not None:
            config["child"] = [repeat % self.folds, repeat // self.folds]
        config |= {name: getattr(self, name).model_dump() for name in SECTIONS if getattr(self, name) is not None}
        for key, value in values.items():
            section, field = locate(key)[0]
            config[section][field] = value
        return config


def locate(key: str) -> list[tuple[str, str]]:
    """Where a key of the space belongs: each (section, field) that a dotted path or a short name can mean."""
    section, dot, field = key.partition(".")
    if dot:
        return [(section, field)] if field in getattr(SECTIONS.get(section), "model_fields", {}) else []
    return [(name, key) for name, model in SECTIONS.items() if key in model.model_fields]


def short_name(section: str, field: str) -> str:
    """A field's shortest unambiguous name: ``lr`` for ``training.lr``."""
    return field if len(locate(field)) == 1 else f"{section}.{field}"
