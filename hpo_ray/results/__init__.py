"""Results, read from journals: frames for pandas, the summary of a run. No Ray session, no unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hpo_ray.loggers.exporting import export
from hpo_ray.results.compaction import compact
from hpo_ray.results.frame import load_results

if TYPE_CHECKING:
    import os

    from hpo_ray.space import SearchSpace

__all__ = ["compact", "export", "load_results", "space_of"]


def space_of(run_dir: str | os.PathLike[str]) -> SearchSpace:
    """What a run searched, as `hpo_ray.results.analysis` takes it.

    Raises:
        InvalidInput: `run_dir` is no run, or what it says of its space cannot be read.
    """
    from hpo_ray import history  # these read spaces, which loading results should not wait for
    from hpo_ray.space import SearchSpace

    return SearchSpace.parse(history.load(Path(run_dir)).experiment.get("space") or {})
