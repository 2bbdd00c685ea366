"""The difference that a claim is about: its value, its standard error, its interval and its p-value.

Two sources of noise: training seeds, and questions, which all seeds share. Their variances add up, as for two crossed
random effects (the cautious sum, which counts the noise of single answers in both):

- of seeds: the spread of the differences where both sides are one student, else the sum of both sides' spreads; none
  where a side is not trained, and none under the test 'questions';
- of questions: the jackknife, which leaves out one question on both sides at a time, within each benchmark, so that
  what makes a question hard cancels out in the difference.

The degrees of freedom are Welch's and Satterthwaite's, the law Student's t. Where neither source shows any noise, all
questions being alike, a count of successes keeps the width of `relay_verl.report.alike`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from relay_verl.report.alike import Z, reach_of_alike
from relay_verl.report.claim import Claim, NoiseSource
from relay_verl.report.claim_measures import MEASURES, Answers, References
from relay_verl.report.student_t import t_quantile

FREEDOM_OF_MANY = 1e6
"""Degrees of freedom at which Student's t is normal."""


@dataclass(frozen=True)
class Effect:
    """A difference in the unit of its measure (percent and points, but for tokens and correlations)."""

    value: float
    """`of` minus `to`."""
    of: float
    to: float
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom."""
    num_seeds: int
    """Training seeds; of the side that has fewer, if both are trained."""
    num_questions: int

    @property
    def interval(self) -> tuple[float, float]:
        """95%."""
        reach = t_quantile(self.freedom) * self.error
        return self.value - reach, self.value + reach

    def p_value(self, border: float) -> float:
        """Two-sided, of a difference of `border`."""
        from scipy.special import stdtr

        if not self.error:
            return 1.0 if math.isclose(self.value, border) else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.value - border) / self.error))


@dataclass(frozen=True)
class Part:
    """One source of noise."""

    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom of it."""


def join(parts: Sequence[Part]) -> Part:
    """Independent sources together.

    >>> both = join([Part(3.0, 4), Part(4.0, 9)])
    >>> both.error, round(both.freedom, 1)
    (5.0, 12.8)
    """
    error = math.hypot(*(part.error for part in parts))
    below = sum(part.error**4 / part.freedom for part in parts)
    return Part(error, error**4 / below if below else FREEDOM_OF_MANY)


def seeds_part(claim: Claim, of: np.ndarray, to: np.ndarray) -> list[Part]:
    """The noise of trainings: none of a side that has one seed."""
    if claim.test is NoiseSource.QUESTIONS:
        return []
    sides = [of - to] if claim.is_one_student and len(of) == len(to) else [of, to]
    return [Part(float(v.std(ddof=1)) / math.sqrt(len(v)), len(v) - 1) for v in sides if len(v) > 1]


def effect_of(claim: Claim, of: Answers, to: Answers | None, references: References) -> Effect:
    """The difference of a claim; NaN where its measure means nothing.

    Args:
        claim: what is compared.
        of, to: the answers of both sides to the same questions; `to` is None where it is a constant.
        references: the student and the teacher alone, on the same questions.
    """
    measure = MEASURES[claim.measure]

    def values_of(places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        sides = [
            measure.values(side, references)
            if places is None
            else measure.values(side.take(places), references.take(places))
            for side in (of, to)
            if side is not None
        ]
        return sides[0], sides[1] if to is not None else np.array([claim.constant], dtype=float)

    ours, others = values_of()
    value = float(ours.mean() - others.mean())

    def difference(places: np.ndarray) -> float:
        one, other = values_of(places)
        return float(one.mean() - other.mean())

    parts = seeds_part(claim, ours, others)
    questions = Part(jackknife_error(difference, of.strata, of.num_questions), max(1, of.num_questions - 1))
    if measure.is_proportion:
        questions = Part(math.hypot(questions.error, _error_of_alike(claim, of, to)), questions.freedom)
    joined = join([*parts, questions])
    trained = [len(side) for side in (ours, others) if len(side) > 1]
    return Effect(
        value,
        float(ours.mean()),
        float(others.mean()),
        joined.error,
        joined.freedom,
        min(trained, default=1),
        of.num_questions,
    )


def jackknife_error(statistic: Callable[[np.ndarray], float], strata: Sequence[np.ndarray], num: int) -> float:
    """Standard error of a statistic of questions, drawn within each stratum.

    Args:
        statistic: of the places of the questions that are kept.
        strata: the places of each benchmark's questions.
        num: questions in all.
    """
    variance = 0.0
    everything = np.arange(num)
    for places in strata:
        if len(places) < 2:
            continue
        left_out = np.array([statistic(np.delete(everything, place)) for place in places])
        variance += (len(places) - 1) / len(places) * float(((left_out - left_out.mean()) ** 2).sum())
    return math.sqrt(variance)


def _error_of_alike(claim: Claim, of: Answers, to: Answers | None) -> float:
    """What benchmarks add whose questions were all answered alike, in percent."""
    name = "right" if claim.measure == "accuracy" else "called"
    shares = [(side.counts[name] / side.counts["samples"]).mean(axis=1) for side in (of, to) if side is not None]
    apart = shares[0] - shares[1] if to is not None else shares[0]
    lowest = -1.0 if to is not None else 0.0
    return 100 * max(reach_of_alike([apart[places] for places in of.strata], lowest, 1.0)) / Z
