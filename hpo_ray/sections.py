"""The sections of an experiment that trainables read: data, model, training. One frozen model each.

Knows nothing of searchers, schedulers, files, Hydra or Ray.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]


def _whole(value: object) -> object:
    """pydantic would take 3.0 and True for 3; a count must be written as one."""
    if isinstance(value, bool | float):
        raise ValueError("expected a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1)]


class Section(BaseModel):
    """Frozen; an unknown key is a mistake; values are not converted behind the user's back."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class DataConfig(Section):
    """Images and how they are split. Every trial sees the same split."""

    name: Literal["digits", "folder", "csv", "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100"] = "digits"
    """`digits`: scikit-learn's bundled 8x8 images; `folder`: your own; `csv`: your own, a file of paths and labels;
    or one of torchvision's, from files below `root`."""
    root: str | None = None
    """The image folder, CSV file, or folder of torchvision's files; None: the environment variable ``HPO_RAY_DATA``."""
    download: bool = False
    """Whether torchvision may fetch files that are missing."""
    valid_fraction: Fraction = 0.15
    """Share of all images that configurations are compared on."""
    test_fraction: Fraction = 0.2
    """Share of all images kept for the winner alone."""
    split_seed: Annotated[Whole, Field(ge=0)] = 0
    """Which images go where; not the run's seed, so that runs stay comparable."""
    valid_is_test: bool = False
    """A set's own validation part is kept for the winner alone, as its test part; choices are made on a part of
    ``train``."""
    train_on_valid: bool = False
    """Validation images are learnt from too: for a last training, in which nothing is chosen (`hpo-ray refit`)."""
    image_size: Count | None = None
    """Pixels a side; None: what the weights were made for, else the set's own, or 160 for photographs."""
    augment: Literal["none", "side_on", "top_down", "trivial", "crop"] = "none"
    """How training images are varied. `side_on`: flips, zoom, rotation, lighting; `top_down`: quarter turns besides;
    `trivial`: TrivialAugment; `crop`: shifts and flips, for small images."""
    zoom: Annotated[float, Field(ge=1, le=4)] = 1.1
    """Largest zoom (`side_on`, `top_down`)."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest rotation in degrees (`side_on`, `top_down`)."""
    lighting: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of brightness and contrast (`side_on`, `top_down`)."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """Against unequal classes: rare ones weigh more in the loss, or are drawn more often."""
    max_corrupt_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Unreadable images are left out up to this share; more is an error."""
    workers: Annotated[Whole, Field(ge=0)] = 0
    """Processes that decode images, beside the trial's own."""
    cache_gb: Annotated[float, Field(gt=0)] = 20.0
    """Disk for cached activations on each node (in HPO_RAY_CACHE, else the user's cache folder)."""


class ModelConfig(Section):
    """The network."""

    arch: str = "cnn"
    """`softmax`, `mlp`, `cnn`, or any torchvision classification architecture by name."""
    weights: str | None = None
    """None: from scratch; a path to a state dict; or `default`: torchvision's own (downloads)."""
    norm: Literal["own", "group"] = "own"
    """`group`: GroupNorm for every BatchNorm, which suits batches of a few images."""
    units: Count = 128
    """Units of each hidden layer (`mlp`, `cnn`)."""
    layers: Count = 1
    """Hidden layers before the last one (`mlp`, `cnn`)."""
    activation: Literal["relu", "tanh", "sigmoid", "gelu"] = "relu"
    """Between the layers (`mlp`, `cnn`)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of units dropped before the last layer; None: as the architecture has it."""


class StageConfig(Section):
    """A stretch of epochs in which the same parameters are trained."""

    name: str = ""
    """For people."""
    epochs: Count | None = None
    """How long; None, in one stage at most: what the others leave."""
    train: Literal["all", "head"] | Count = "all"
    """Everything, the new head alone, or this many of the last layer groups."""
    cached: bool = False
    """The head is trained on the trunk's activations, computed once per node for all trials."""
    augment: bool = True
    """Whether `data.augment` applies; never where activations are cached."""
    lr_factor: Annotated[float, Field(gt=0)] = 1.0
    """Times `training.lr`."""


class TrainingConfig(Section):
    """How the network is trained."""

    lr: Annotated[float, Field(gt=0)] = 0.003
    """Learning rate; the highest one where a schedule or layer groups vary it."""
    batch_size: Count = 64
    """Images a step."""
    epochs: Count | None = None
    """Passes over the training images; None: the scheduler's `max_t`, the sum of the stages, or 20."""
    optimizer: Literal[
        "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "adamw", "adamax", "nadam", "lars"
    ] = "adam"
    """torch's own, and LARS."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """For those that have one; None: 0.9 for `momentum`, `nesterov`, `lars`, else 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """As each optimizer defines it."""
    decay_norms: bool = True
    """Whether weight decay applies to norms and biases too."""
    groups: Count = 3
    """Layer groups by depth, the head the last, for `lr_ratio` and a stage's `train`."""
    lr_ratio: Annotated[float, Field(ge=1)] = 1.0
    """Each layer group learns this much slower than the one after it: 3 gives lr/9, lr/3, lr."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each block learns this much slower than the one after it, instead of `lr_ratio`."""
    stages: tuple[StageConfig, ...] = ()
    """What is trained when; none: everything all the time."""
    freeze_norms: bool = False
    """BatchNorm keeps its statistics while the rest is trained."""
    schedule: Literal[
        "constant",
        "step",
        "exponential",
        "cosine",
        "triangular",
        "triangular2",
        "exp_range",
        "sgdr",
        "one_cycle",
        "composed",
    ] = "constant"
    """How the learning rate goes over each stage; see `hpo_ray.training.lr_schedules` for it and its options."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear warm-up before any schedule."""
    floor: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Lowest learning rate as a share of the highest."""
    step_epochs: Annotated[float, Field(gt=0)] | None = None
    """Epochs between two drops (`step`)."""
    gamma: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of a drop (`step`), or per epoch (`exponential`, `exp_range`)."""
    staircase: bool | None = None
    """`exponential` once an epoch."""
    half_cycle_epochs: Annotated[float, Field(gt=0)] | None = None
    """Epochs from lowest to highest (`triangular…`, `exp_range`): Smith's step size."""
    cycle_len: Annotated[float, Field(gt=0)] | None = None
    """Epochs of the first cycle (`sgdr`)."""
    cycle_mult: Annotated[float, Field(ge=1)] | None = None
    """How much longer each cycle is than the one before (`sgdr`)."""
    peak_at: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the epochs before the highest rate (`one_cycle`)."""
    div: Annotated[float, Field(ge=1)] | None = None
    """Highest over first rate (`one_cycle`)."""
    final_div: Annotated[float, Field(ge=1)] | None = None
    """Highest over last rate (`one_cycle`)."""
    cycle_momentum: bool | None = None
    """Momentum falls while the rate rises (`one_cycle`, `triangular…`)."""
    parts: tuple[dict[str, Any], ...] | None = None
    """Schedules one after another (`composed`): each a mapping with name, epochs and options."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label spread over all classes."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Pairs of images are blended, with a share from Beta(mixup, mixup); 0: not."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """A rectangle of each image comes from another; 0: not. With `mixup` too, each batch has one of both."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients are scaled down to this norm at most."""
    accumulate: Count = 1
    """Each batch goes through the model in so many pieces whose gradients add up, to save memory."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What is validated and kept are exponential averages of the weights; each step counts the past this much."""
    patience: Count | None = None
    """So many epochs without a lower validation loss end a trial; the best checkpoint is the one that counts."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of matrix products and convolutions."""
    channels_last: bool = False
    """Memory layout; faster for convolutions on GPUs, mostly with half precision."""
    compile: bool = False
    """`torch.compile`: a minute or more before the first step, faster ones afterwards."""
