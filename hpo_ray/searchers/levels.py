"""All values of a domain that has finitely many."""

from __future__ import annotations

from typing import Any

from hpo_ray.domains import thaw
from hpo_ray.space import Domain, Numeric


def levels_of(domain: Domain) -> list[Any]:
    """The levels in order, as a user gives them."""
    if isinstance(domain, Numeric):
        return [domain.level(index) for index in range(domain.levels or 0)]
    return [thaw(level) for level in domain.values]
