"""Any runs, finished, live or dead, as a pandas frame. Reads files as data only: no Ray, nothing is ever unpickled."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from hpo_ray.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.results.places import Place
    from hpo_ray.results.tables import Table

Level = Literal["trials", "reports", "rungs", "failures", "cost"]
_log = logging.getLogger(__name__)


def load_results(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], level: Level = "trials"
) -> pd.DataFrame:
    """Load one run, or many, as one frame.

    Directories of plain Ray Tune are read as well, from its JSON files: they have no rungs, failures or cost, and say
    neither how good a trial's best report was nor why it was started again.

    Args:
        path: A run directory; a glob such as ``runs/*`` or ``runs/**`` (at any depth); or either as a URI that pyarrow
            knows, such as ``s3://bucket/runs/**`` or ``file:///data/runs/*``; or a list of these, a run counting once.
        level: One row for each: ``trials``: trial; ``reports``: report that counts (one a fidelity); ``rungs``:
            decision of a rung; ``failures``: attempt that went wrong; ``cost``: attempt.

    Returns:
        The columns of the table under "Results in pandas" in the README. Rows of many runs follow each other in name
        order, those of a list in its order; a column that a run lacks is missing there. Times are UTC, durations
        seconds. Runs of one name are told apart in ``run`` by the folders above them. A metric whose name another
        column has is ``metrics/<name>``.
        Lines that cannot be read are left out, with a warning in the log ``hpo_ray.results.frame``.

    Raises:
        InvalidInput: There is no run at `path` or one of it, none that can be read, or `level` is none of these.
    """
    from hpo_ray.results import source, tables

    if level not in tables.COLUMNS:
        raise InvalidInput(Problem("level", f"'{level}' is not a level; {nearest(level, tables.COLUMNS)}"))
    found: list[tuple[Place, Table]] = []
    problems: list[Problem] = []
    for place in _places(path):
        try:
            table, damaged = source.load(place, level)
        except InvalidInput as error:
            problems.extend(error.problems)
            continue
        if damaged:
            limit = "torn, not JSON, not an event of ours, or too long"
            said = "1 damaged line is" if damaged == 1 else f"{damaged} damaged lines are"
            _log.warning("%s: %s left out (%s)", place, said, limit)
        found.append((place, table))
    if not found:
        raise InvalidInput(*problems)
    for problem in problems:
        _log.warning("%s; the run is left out", problem)
    return _frame(level, _names([place for place, _ in found]), [table for _, table in found])


def _places(path: Any) -> list[Place]:
    from hpo_ray.results import places

    paths = list(path) if isinstance(path, list | tuple) else [path]
    if not paths or not all(isinstance(each, str | os.PathLike) for each in paths):
        expected = "expected a run directory, a glob or a URI, or a list of them"
        raise InvalidInput(Problem("path", f"{path!r:.80} is no path: {expected}"))
    found = {place.path: place for each in paths for place in places.find(each)}
    return list(found.values())


def _names(found: list[Place]) -> list[str]:
    """Each run's name: its folder's, with as many folders above as tell it from others; bytes that are no UTF-8, which
    no frame takes, as ``\\xff``."""
    parts = [os.path.abspath(p.path).split("/") if p.system is None else p.path.split("/") for p in found]  # noqa: PTH100
    names, depth = [part[-1] for part in parts], 1
    while len(set(names)) < len(names) and depth < max(map(len, parts)):
        depth += 1
        twice = {name for name in names if names.count(name) > 1}
        names = ["/".join(part[-depth:]) if n in twice else n for n, part in zip(names, parts, strict=True)]
    return [os.fsencode(name).decode(errors="backslashreplace") for name in names]


def _frame(level: str, names: list[str], tables: list[Table]) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    from hpo_ray.results import dtypes
    from hpo_ray.results.tables import COLUMNS

    sizes = [len(table) for table in tables]
    categories = sorted(set(names))
    codes = np.repeat(np.array([categories.index(name) for name in names], np.int64), sizes)
    columns: dict[str, Any] = {"run": pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(categories))}
    for name, kind in COLUMNS[level].items():
        columns[name] = dtypes.fixed(kind, [table.columns[name] for table in tables])
    configs = [config for table in tables for config in table.configs]
    for key in dict.fromkeys(key for config in configs for key in config):
        columns[f"config/{key}"] = dtypes.inferred([config.get(key) for config in configs])
    metrics = list(dict.fromkeys(name for table in tables for name in table.metrics))
    bests = dict.fromkeys(table.best[0] for table in tables if table.best is not None and table.best[0] in metrics)
    last = {f"{name}_best" for name in bests}
    for name in metrics:
        free = name
        while free in columns or free in last or (free != name and free in metrics):
            free = f"metrics/{free}"
        columns[free] = dtypes.measured([table.metrics.get(name) for table in tables], sizes)
    for name in bests:
        values = [t.best[1] if t.best is not None and t.best[0] == name else None for t in tables]
        columns[f"{name}_best"] = dtypes.measured(values, sizes)
    return pd.DataFrame(columns, copy=False)
