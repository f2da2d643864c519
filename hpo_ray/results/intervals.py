"""How sure an error rate is. Needs no torch, so that results can be shown without it."""

from __future__ import annotations


def wilson(errors: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), without continuity correction.

    It keeps close to its confidence near 0, where the textbook's ± 1.96 standard errors ends below 0 or has no width.

    Args:
        errors: How many of `n` were wrong.
        n: How many were tried, at least 1.
        confidence: Between 0 and 1.

    Returns:
        The interval's ends, fractions in 0..1.

    Raises:
        ValueError: `errors` is not in 0..n, or `n` is below 1.
    """
    from scipy.stats import binomtest  # half a second, which importing this module should not cost

    interval = binomtest(errors, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)
