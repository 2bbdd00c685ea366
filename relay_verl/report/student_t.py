"""Student's t and Welch's degrees of freedom: what intervals over training seeds need.

mpmath computes them because the grader needs it anyway; two numbers are not worth a dependency on SciPy.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

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
    from mpmath import betainc, findroot

    def excess(t: float) -> float:  # mass of both tails beyond t, over what it should be
        return betainc(freedom / 2, 0.5, 0, freedom / (freedom + t**2), regularized=True) - (1 - level)

    normal, cauchy = NormalDist().inv_cdf((1 + level) / 2), math.tan(math.pi * level / 2)
    return float(findroot(excess, (0.99 * normal, 1.01 * cauchy), solver="ridder", tol=1e-18))
