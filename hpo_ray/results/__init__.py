"""Results, read from journals: frames for pandas, the summary of a run. No Ray session, no unpickling."""

from hpo_ray.results.frame import load_results

__all__ = ["load_results"]
