"""Results, read from journals: frames for pandas, the summary of a run. No Ray session, no unpickling."""

from hpo_ray.loggers.exporting import export
from hpo_ray.results.compaction import compact
from hpo_ray.results.frame import load_results

__all__ = ["compact", "export", "load_results"]
