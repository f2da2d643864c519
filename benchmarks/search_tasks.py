"""What the searchers are compared on: functions with an exact optimum, and small models on scikit-learn's bundled data.

Losses are minimised and deterministic; a noisy task's noise is added by the script. None: the trial failed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from hpo_ray.space import SearchSpace

Config = dict[str, Any]
Loss = Callable[[Config], float | None]


@dataclass(frozen=True)
class Task:
    """One thing to search.

    Attributes:
        name: Its name.
        kind: What makes it hard, in a word; "real" for a model on data.
        space: Where to search.
        loss: Configuration -> noise-free loss; None where the trial fails.
        best: The optimal configuration of a function; None for a model.
        optimum: The loss there; None for a model (`search_references.json` has the best found).
        noise: Standard deviation of what is added to the loss before the searcher sees it.
    """

    name: str
    kind: str
    space: SearchSpace
    loss: Loss
    best: Config | None = None
    optimum: float | None = None
    noise: float = 0.0
    _known: dict[tuple, float | None] = field(default_factory=dict, repr=False, compare=False)

    def true(self, config: Config) -> float | None:
        """The noise-free loss, evaluated once a configuration."""
        ordered = {name: config[name] for name in self.space.names if name in config}
        key = tuple(ordered.items())
        if key not in self._known:
            self._known[key] = self.loss(ordered)
        return self._known[key]


TASKS: list[Task] = []


def task(kind: str, space: str, **rest: Any) -> Callable[[Loss], Loss]:
    """Register a loss under its own name; `space` is "name: domain" after "name: domain", with semicolons."""

    def register(loss: Loss) -> Loss:
        parsed = SearchSpace.parse(dict(entry.split(": ", 1) for entry in space.split("; ")))
        TASKS.append(Task(loss.__name__, kind, parsed, loss, **rest))
        return loss

    return register


def select(names: str) -> list[Task]:
    """The tasks of a comma-separated list of names and kinds, "all" for all; SystemExit where one names nothing."""
    asked = set(names.split(","))
    known = {word for task in TASKS for word in (task.name, task.kind)} | {"all"}
    if asked - known:
        raise SystemExit(f"no such task: {', '.join(sorted(asked - known))}; there are {', '.join(sorted(known))}")
    return [task for task in TASKS if asked & {task.name, task.kind, "all"}]


def vector(config: Config) -> np.ndarray:
    return np.array(list(config.values()), dtype=float)


def floats(dims: int, low: float, high: float) -> str:
    return "; ".join(f"x{i}: uniform({low}, {high})" for i in range(dims))


def point(*values: float) -> Config:
    return {f"x{i}": value for i, value in enumerate(values)}


HARTMANN_A = [
    [10, 3, 17, 3.5, 1.7, 8],
    [0.05, 10, 17, 0.1, 8, 14],
    [3, 3.5, 1.7, 10, 17, 8],
    [17, 8, 0.05, 10, 0.1, 14],
]
HARTMANN_P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]
HARTMANN_BEST = point(0.20168951, 0.15001069, 0.47687398, 0.27533243, 0.31165162, 0.65730053)
ROSENBROCK_BEST = point(1.7, -0.9, 2.4, 0.3)
LEVY_BEST = point(4.2, -6.1, 1.3, -2.7, 7.4)


@task("smooth", floats(6, 0, 1), best=HARTMANN_BEST, optimum=-3.322368011415513)
def hartmann6(config: Config) -> float:
    squares = (vector(config) - HARTMANN_P) ** 2
    return float(-np.dot([1.0, 1.2, 3.0, 3.2], np.exp(-np.sum(HARTMANN_A * squares, axis=1))))


@task("skewed", floats(4, -3, 5), best=ROSENBROCK_BEST, optimum=0.0)
def rosenbrock4(config: Config) -> float:
    """A curved valley along no axis: turned in three planes about its optimum."""
    z = vector(config) - vector(ROSENBROCK_BEST)
    for i, angle in enumerate((0.7, 1.1, 0.4)):
        c, s = math.cos(angle), math.sin(angle)
        z[i], z[i + 1] = c * z[i] - s * z[i + 1], s * z[i] + c * z[i + 1]
    return float(np.sum(100 * (z[1:] + 1 - (z[:-1] + 1) ** 2) ** 2 + z[:-1] ** 2))


@task("multimodal", floats(5, -10, 10), best=LEVY_BEST, optimum=0.0)
def levy5(config: Config) -> float:
    w = 1 + (vector(config) - vector(LEVY_BEST)) / 4
    ripples = np.append(10 * np.sin(np.pi * w[:-1] + 1) ** 2, np.sin(2 * np.pi * w[-1]) ** 2)
    return float(np.sin(np.pi * (w[0] - 1)) ** 2 + np.sum((w - 1) ** 2 * (1 + ripples)))


@task(
    "noisy",
    "lr: loguniform(1e-5, 1); a: uniform(0, 1); b: uniform(0, 1); c: uniform(0, 1)",
    best={"lr": 10**-2.2, "a": 0.3, "b": 0.75, "c": 0.15},
    optimum=0.1,
    noise=0.05,
)
def noisy_plateau(config: Config) -> float:
    """A validation error: at most 1, flat far from the optimum, a skewed bowl near it; seeds differ by 0.05."""
    z = np.array([math.log10(config["lr"]) + 2.2, *(vector(config)[1:] - (0.3, 0.75, 0.15))])
    z[1] += 0.2 * z[0]
    return 0.1 + 0.9 * (1 - math.exp(-0.5 * float(np.dot((0.9, 6.0, 2.5, 5.0), z**2))))


@task(
    "skewed",
    "lr: loguniform(1e-5, 3); decay: loguniform(1e-6, 1); batch: logint(16, 1024); warmup: uniform(0, 0.5)",
    best={"lr": 10**-1.5, "decay": 1e-3, "batch": 64, "warmup": 0.1},
    optimum=2.0,
)
def training_loss(config: Config) -> float:
    """Slow learning below the best rate, which follows batch and warm-up; above it the loss explodes by decades."""
    lr, decay, batch = (math.log10(config[name]) for name in ("lr", "decay", "batch"))
    excess = lr + 1.5 - 0.5 * (batch - math.log10(64)) - 0.8 * (config["warmup"] - 0.1)
    fit = 0.5 * excess**2 / (1 + abs(excess) / 2) if excess < 0 else math.expm1(4 * excess) - 4 * excess
    return (
        2.0
        + fit
        + 0.08 * (lr + decay + 4.5) ** 2
        + 0.3 * (batch - math.log10(64)) ** 2
        + 0.5 * (config["warmup"] - 0.1) ** 2
    )


ACTIVATIONS = {"relu": (0.2, 1.5, 0.5), "tanh": (0.6, -1.0, 2.0), "gelu": (0.0, 1.3, -0.6), "silu": (0.1, 2.5, 0.4)}


@task(
    "mixed",
    "x: uniform(-3, 5); y: uniform(-3, 5); depth: int(1, 12); width: logint(8, 512); "
    "activation: choice(relu, tanh, gelu, silu); patch: ordinal(1, 2, 4, 8, 16)",
    best={"x": 1.3, "y": -0.6, "depth": 7, "width": 96, "activation": "gelu", "patch": 8},
    optimum=0.0,
)
def mixed(config: Config) -> float:
    """The two numbers' best values hang on the activation; depth and width trade off; ripples in one of them."""
    penalty, best_x, best_y = ACTIVATIONS[config["activation"]]
    x, y, depth = config["x"] - best_x, config["y"] - best_y, config["depth"] - 7
    width, size = math.log2(config["width"] / 96), math.log2(config["patch"] / 8)
    bowl = 0.3 * x**2 + 0.2 * y**2 + 0.3 * (1 - math.cos(4 * x)) + 0.15 * abs(size)
    return penalty + bowl + 0.02 * depth**2 + 0.06 * depth * width + 0.15 * width**2


@task(
    "conditional",
    "lr: loguniform(1e-5, 1); optimizer: choice(sgd, adam, lion); momentum: uniform(0, 0.99, when={optimizer: sgd}); "
    "beta1: uniform(0, 0.99, when={optimizer: adam}); gap2: loguniform(1e-4, 0.5, when={optimizer: adam}); "
    "layers: int(1, 4); units1: logint(8, 512); units2: logint(8, 512, when={layers: [2, 3, 4]}); "
    "units3: logint(8, 512, when={layers: [3, 4]}); units4: logint(8, 512, when={layers: 4}); "
    "residual: choice('on', 'off', when={layers: [3, 4]})",
    best={"lr": 1e-3, "optimizer": "adam", "beta1": 0.85, "gap2": 0.01, "layers": 3, "residual": "on"}
    | {"units1": 256, "units2": 128, "units3": 64},
    optimum=0.0,
)
def conditional(config: Config) -> float:
    """A network: each optimizer with settings of its own, each layer with its units."""
    rate, layers = math.log10(config["lr"]), config["layers"]
    if config["optimizer"] == "sgd":
        loss = 0.15 + 0.3 * (rate + 1) ** 2 + 2 * (config["momentum"] - 0.9) ** 2
    elif config["optimizer"] == "adam":
        gap = math.log10(config["gap2"]) + 2
        loss = 0.3 * (rate + 3) ** 2 + 1.5 * (config["beta1"] - 0.85) ** 2 + 0.1 * gap**2
    else:
        loss = 0.3 + 0.3 * (rate + 2) ** 2
    loss += sum(0.06 * math.log2(config[f"units{k}"] / (512 >> k)) ** 2 for k in range(1, layers + 1))
    return loss + {1: 0.5, 2: 0.15, 3: 0.0, 4: 0.1}[layers] + (0.2 if config.get("residual") == "off" else 0.0)


@task(
    "failing",
    "lr: loguniform(1e-4, 10); momentum: uniform(0, 0.99); batch: logint(8, 256); clip: choice('off', value, norm)",
    best={"lr": 0.125 * 10**-0.25, "momentum": 0.9, "batch": 32, "clip": "norm"},
    optimum=0.2,
)
def diverging(config: Config) -> float | None:
    """The best effective learning rate is a quarter decade below the one from which training fails."""
    limit = 0.5 * math.sqrt(config["batch"] / 32) * {"off": 1.0, "value": 1.5, "norm": 2.5}[config["clip"]]
    margin = math.log10(limit * (1 - config["momentum"]) / config["lr"])
    if margin < 0:
        return None
    loss = 0.2 + 0.25 * (margin - 0.25) ** 2 + 2 * (config["momentum"] - 0.9) ** 2
    return loss + 0.1 * math.log2(config["batch"] / 32) ** 2 + {"off": 0.1, "value": 0.05, "norm": 0.0}[config["clip"]]


@task(
    "finite",
    "kernel: choice(a, b, c, d); depth: int(1, 5); width: ordinal(8, 16, 32, 64, 128, 256); norm: choice(e, f, g)",
    best={"kernel": "c", "depth": 4, "width": 16, "norm": "g"},
    optimum=0.0,
)
def few_levels(config: Config) -> float:
    """360 configurations, all effects entangled; only one is at 0."""
    mix, norm = "abcd".index(config["kernel"]), "efg".index(config["norm"])
    depth, width = config["depth"], int(math.log2(config["width"])) - 3
    smooth = (0.5, 0.3, 0.0, 0.2)[mix] + 0.15 * (depth - mix - 2) ** 2 + 0.1 * (width - 5 + depth) ** 2
    rugged = abs(math.sin(3.7 * (17 * (mix - 2) + 5 * (depth - 4) + 7 * (width - 1) + 3 * (norm - 2))))
    return smooth + 0.25 * ((norm + mix) % 3 != 1) + 0.2 * rugged


@lru_cache
def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (x[:300] / 16, np.eye(10)[y[:300]]) if name == "digits" else (x, y)


def cross_validated(model: Any, name: str, scoring: str) -> float:
    """Mean loss over three folds."""
    from sklearn.model_selection import cross_val_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ill-conditioned ridges
        return -float(np.mean(cross_val_score(model, *data(name), cv=3, scoring=scoring)))


@task(
    "real",
    "scaler: choice(raw, standard, quantile); model: choice(ridge, svr, knn); degree: int(1, 2, when={model: ridge}); "
    "alpha: loguniform(1e-4, 1e4, when={model: ridge}); C: loguniform(1e-2, 1e3, when={model: svr}); "
    "gamma: loguniform(1e-4, 10, when={model: svr}); epsilon: loguniform(1e-1, 1e2, when={model: svr}); "
    "n_neighbors: logint(1, 150, when={model: knn}); weights: choice(uniform, distance, when={model: knn})",
)
def pipeline_diabetes(config: Config) -> float:
    """Mean absolute error of a scaler and one of three models, each with its own settings."""
    from sklearn import linear_model, neighbors, pipeline, preprocessing, svm

    quantile = preprocessing.QuantileTransformer(n_quantiles=100)
    scaler = {"raw": None, "standard": preprocessing.StandardScaler(), "quantile": quantile}[config["scaler"]]
    models = {"ridge": linear_model.Ridge, "svr": svm.SVR, "knn": neighbors.KNeighborsRegressor}
    own = {key: value for key, value in config.items() if key not in ("scaler", "model", "degree")}
    powers = preprocessing.PolynomialFeatures(config.get("degree", 1), include_bias=False)
    model = pipeline.make_pipeline(scaler, powers, models[config["model"]](**own))
    return cross_validated(model, "diabetes", "neg_mean_absolute_error")


@task(
    "real",
    "criterion: choice(gini, entropy); splitter: choice(best, random); max_depth: int(1, 15); "
    "min_samples_leaf: logint(1, 100); max_features: uniform(0.05, 1); ccp_alpha: loguniform(1e-5, 1e-1)",
)
def tree_cancer(config: Config) -> float:
    """Brier score of one decision tree."""
    from sklearn.tree import DecisionTreeClassifier

    return cross_validated(DecisionTreeClassifier(**config, random_state=0), "breast_cancer", "neg_brier_score")


@task(
    "real",
    "components: int(2, 48); whiten: choice(true, false); kernel: choice(rbf, laplacian, poly); "
    "gamma: loguniform(1e-4, 10); degree: int(1, 5, when={kernel: poly}); alpha: loguniform(1e-6, 1e2)",
)
def kernel_digits(config: Config) -> float:
    """Squared error of kernel ridge regression on the classes, over the first principal components."""
    from sklearn import decomposition, kernel_ridge, pipeline

    own = {key: value for key, value in config.items() if key not in ("components", "whiten")}
    axes = decomposition.PCA(config["components"], whiten=config["whiten"], svd_solver="full")
    model = pipeline.make_pipeline(axes, kernel_ridge.KernelRidge(**own))
    return cross_validated(model, "digits", "neg_mean_squared_error")
