"""What a hyperparameter may be: its domain, the domain's text form and map to [0, 1]; how parameters depend on others.

Must not know: searchers, the journal, configuration files. Ray is met in ``ray`` alone.
"""

from hpo_ray.domains.base import MAX_GRID, MAX_TEXT, When
from hpo_ray.domains.construct import Domain, choice, integer, logint, lognormal, loguniform, normal, ordinal, uniform
from hpo_ray.domains.levelled import Levelled
from hpo_ray.domains.levels import UNSET, Level, Scalar, Unset, exact, freeze, level_key, level_text, thaw
from hpo_ray.domains.messages import collecting, show, wrong
from hpo_ray.domains.numeric import Numeric
from hpo_ray.domains.text import list_hint, parse_domain

__all__ = [
    "MAX_GRID",
    "MAX_TEXT",
    "UNSET",
    "Domain",
    "Level",
    "Levelled",
    "Numeric",
    "Scalar",
    "Unset",
    "When",
    "choice",
    "collecting",
    "exact",
    "freeze",
    "integer",
    "level_key",
    "level_text",
    "list_hint",
    "logint",
    "lognormal",
    "loguniform",
    "normal",
    "ordinal",
    "parse_domain",
    "show",
    "thaw",
    "uniform",
    "wrong",
]
