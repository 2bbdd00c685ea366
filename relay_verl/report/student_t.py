"""Student's t and Welch's degrees of freedom: what intervals over training seeds need."""

from __future__ import annotations

from functools import cache

from relay_verl.report.alike import LEVEL


def welch_freedom(error: float, num: int, other_error: float, other_num: int) -> float:
    """Welch and Satterthwaite's degrees of freedom."""
    return (error**2 + other_error**2) ** 2 / (error**4 / (num - 1) + other_error**4 / (other_num - 1))


@cache
def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Where Student's t with `freedom` degrees of freedom has `level` of its mass around 0; at least 1 degree.

    >>> round(t_quantile(2), 3)
    4.303
    """
    from scipy.special import stdtrit  # scipy.stats takes most of a second to import

    return float(stdtrit(freedom, (1 + level) / 2))
