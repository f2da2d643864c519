"""Other tools' views of a run: TensorBoard, MLflow, Optuna. Each is written from the journal, live or afterwards.

None is hooked into trials: while a run lasts a process of its own follows the journal, so that no logger can slow or
break a sweep. This module knows which there are and what they need; the packages are imported only when one is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from hpo_ray.errors import Problem, nearest

__all__ = ["LOGGERS", "Declared", "problem_of"]


@dataclass(frozen=True)
class Declared:
    """A logger.

    Attributes:
        module: Where its `open_sink` is.
        needs: Packages it imports; extras of the same name as the logger bring them.
        install: What installs them.
        default: Where it writes, below the run directory.
        address: The place as that tool takes it.
        look: The command that shows what it wrote.
    """

    module: str
    needs: tuple[str, ...]
    install: str
    default: str
    address: str
    look: str

    def looked_at(self, where: str) -> str:
        """The command that shows what was written to a place, or to an address of that tool's own kind."""
        return self.look.format(where if "://" in where else self.address.format(where))


LOGGERS: Final[dict[str, Declared]] = {
    "tensorboard": Declared(
        "hpo_ray.loggers.event_files",
        ("tensorboard",),
        "pip install tensorboard",
        "tensorboard",
        "{}",
        "tensorboard --logdir {}",
    ),
    "mlflow": Declared(
        "hpo_ray.loggers.tracking",
        ("mlflow", "sqlalchemy", "alembic"),
        "pip install mlflow-skinny sqlalchemy alembic sqlparse",
        "mlflow",
        "sqlite:///{}/mlflow.db",
        "mlflow ui --backend-store-uri {}",
    ),
    "optuna": Declared(
        "hpo_ray.loggers.study",
        ("optuna",),
        "pip install optuna",
        "optuna.db",
        "sqlite:///{}",
        "optuna-dashboard {}",
    ),
}


def problem_of(name: str, key: str) -> Problem | None:
    """What keeps a logger from being used, if anything: there is none of that name, or a package is missing.

    Args:
        name: As the user gave it.
        key: What the user gave it for.
    """
    declared = LOGGERS.get(name)
    if declared is None:
        return Problem(key, f"there is no '{name}'; {nearest(name, LOGGERS)}")
    lacks = [package for package in declared.needs if find_spec(package) is None]
    if lacks:
        return Problem(key, f"'{name}' needs {' and '.join(lacks)}, not installed here: {declared.install}")
    return None
