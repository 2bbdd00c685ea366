"""Estimates with 95% intervals from the records of evaluations.

Every measure here is a ratio of two sums over questions: right samples over samples, teacher tokens over tokens. That
makes one bootstrap serve all of them:

- a resample draws whole questions, so that the samples of one question stay together, and draws within each benchmark
  (for BBEH's harmonic mean within each task);
- a measure is the mean of its benchmarks' ratios (accuracy, paper 4.2; the average call ratio), or one ratio of all
  sums (the pooled call ratio), or the adjusted harmonic mean of its tasks' ratios (BBEH);
- two measures over the same questions are resampled together: the paired bootstrap of their difference.

Over several training seeds their spread takes the place of the bootstrap: Student's t interval for a mean, Welch's
for a difference. `Estimate.basis` says which one it was. Where all questions were answered alike a bootstrap has no
width: a count of right answers keeps one (`alike`), a share by construction (a teacher's call ratio) none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import numpy as np

from relay_verl.report.alike import LEVEL, reach_of_alike, shares_of
from relay_verl.report.harmonic import adjusted_harmonic_mean
from relay_verl.report.student_t import t_quantile, welch_freedom
from relay_verl.traces.records import ResponseRecord

NUM_RESAMPLES = 10_000

Records = Sequence[ResponseRecord]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval, in the unit of the measure (shares of 1)."""

    value: float
    low: float
    high: float
    num_seeds: int
    """Training seeds it is the mean of; for a difference the fewer of the two sides."""
    basis: Literal["questions", "seeds"]
    """What the interval is over."""


class Average(StrEnum):
    """How the strata of a measure become one number."""

    MEAN = "mean"
    """The mean of their ratios."""
    POOLED = "pooled"
    """One ratio of all sums."""
    HARMONIC = "harmonic"
    """The adjusted harmonic mean of their ratios (`relay_verl.report.harmonic`)."""


@dataclass(frozen=True)
class Measure:
    """A ratio of sums over the questions of some benchmarks, for one or several seeds."""

    strata: tuple[np.ndarray, ...]
    """One array a benchmark or task: [num_questions, num_seeds, 2], numerator and denominator."""
    average: Average = Average.MEAN
    """How they become one number."""
    questions: tuple[tuple[str, ...], ...] = ()
    """Ids of each stratum's questions, in its order; () if they are not needed."""
    is_proportion: bool = False
    """Whether it counts successes that could have been failures: then a stratum of equal questions has an interval."""
    is_share: bool = True
    """Whether it lies between 0 and 1, where its interval ends; a cost lies above 0."""

    @property
    def num_seeds(self) -> int:
        """Seeds it was measured with."""
        return int(self.strata[0].shape[1])

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(self.of_seeds().mean())

    def of_seeds(self) -> np.ndarray:
        """The measure of each seed: [num_seeds]."""
        return self._ratio(np.stack([stratum.sum(axis=0) for stratum in self.strata])[None])[0]

    def resample(self, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> np.ndarray:
        """The measure of each seed over resampled questions: [num_resamples, num_seeds]."""
        sums = [_resample_sums(stratum.reshape(len(stratum), -1), rng, num_resamples) for stratum in self.strata]
        return self._ratio(np.stack(sums, axis=1).reshape(num_resamples, len(sums), self.num_seeds, 2))

    def _ratio(self, sums: np.ndarray) -> np.ndarray:  # [..., num_strata, num_seeds, 2] -> [..., num_seeds]
        if self.average is Average.POOLED:
            sums = sums.sum(axis=-3, keepdims=True)
        over, under = sums[..., 0], sums[..., 1]
        ratios = np.divide(over, under, out=np.zeros_like(over), where=under > 0)
        return adjusted_harmonic_mean(ratios, axis=-2) if self.average is Average.HARMONIC else ratios.mean(axis=-2)


Counts = Callable[[ResponseRecord], tuple[float, float]]
"""What a response adds to the numerator and to the denominator."""


def accuracy(seeds: Sequence[Records], benchmarks: Sequence[str]) -> Measure:
    """Share of right responses, averaged over benchmarks; one sequence of records a seed."""
    return replace(measure(seeds, benchmarks, lambda record: (record.is_correct, 1)), is_proportion=True)


def call_rate(seeds: Sequence[Records], benchmarks: Sequence[str]) -> Measure:
    """Share of responses that called, averaged over benchmarks."""
    return measure(seeds, benchmarks, lambda record: (record.has_called, 1))


def has_tasks(records: Records, benchmark: str) -> bool:
    """Whether there are responses on the benchmark and all of them say which task of it they belong to."""
    tasks = [record.task for record in records if record.benchmark == benchmark]
    return bool(tasks) and None not in tasks


def harmonic_accuracy(seeds: Sequence[Records], benchmark: str) -> Measure:
    """The adjusted harmonic mean of the accuracies of a benchmark's tasks, which all seeds' records name."""
    of_benchmark = [[record for record in records if record.benchmark == benchmark] for records in seeds]
    tasks = sorted({str(record.task) for records in of_benchmark for record in records})
    return measure(
        of_benchmark,
        tasks,
        lambda record: (record.is_correct, 1),
        average=Average.HARMONIC,
        stratum_of=lambda record: str(record.task),
    )


def average_call_ratio(seeds: Sequence[Records], benchmarks: Sequence[str]) -> Measure:
    """Teacher tokens over response tokens of each benchmark, averaged over benchmarks: the tables' "Avg. Call Ratio".

    The paper does not define its column. Within a benchmark it speaks of the share "of the total generated tokens" (1),
    and the release prints one such ratio a dataset.
    """
    return measure(seeds, benchmarks, lambda record: (record.num_teacher_tokens, record.num_tokens))


def pooled_call_ratio(seeds: Sequence[Records], benchmarks: Sequence[str]) -> Measure:
    """All teacher tokens over all response tokens, all benchmarks together: the longest responses weigh most."""
    return replace(average_call_ratio(seeds, benchmarks), average=Average.POOLED)


def mean_call_ratio(seeds: Sequence[Records], benchmarks: Sequence[str]) -> Measure:
    """Mean of rho over responses, which the reward charges."""
    return measure(seeds, benchmarks, lambda record: (record.call_ratio, 1), average=Average.POOLED)


def measure(
    seeds: Sequence[Records],
    strata: Sequence[str],
    counts: Counts,
    *,
    average: Average = Average.MEAN,
    stratum_of: Callable[[ResponseRecord], str] = lambda record: record.benchmark,
) -> Measure:
    """The measure that `counts` says.

    Args:
        seeds: one sequence of records a training seed, all over the same questions.
        strata: benchmarks, or tasks, to count; the others are left out.
        counts: what a response adds to the two sums.
        average: see `Measure`.
        stratum_of: which of them a response belongs to.

    Raises:
        ValueError: no seed, no stratum, or a stratum that a seed has no questions or other questions of.
    """
    if not seeds or not strata:
        raise ValueError("a measure needs records and benchmarks")
    arrays, questions = [], []
    for stratum in strata:
        of_seeds = [
            _sum_by_question((record for record in records if stratum_of(record) == stratum), counts)
            for records in seeds
        ]
        ids = sorted(of_seeds[0])
        if not ids or any(sums.keys() != of_seeds[0].keys() for sums in of_seeds):
            raise ValueError(f"{stratum}: not the same questions in all records, or none")
        arrays.append(np.array([[sums[id] for sums in of_seeds] for id in ids], dtype=float))
        questions.append(tuple(ids))
    return Measure(tuple(arrays), average, tuple(questions))


def _sum_by_question(records: Iterable[ResponseRecord], counts: Counts) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for record in records:
        over, under = counts(record)
        old_over, old_under = sums.get(record.id, (0.0, 0.0))
        sums[record.id] = (old_over + over, old_under + under)
    return sums


def estimate(measured: Measure, *, seed: int = 0) -> Estimate:
    """Mean over seeds with its interval: over seeds where there are several that differ, else over questions.

    An interval over seeds ends where a share does, at 0 and at 1; that of a cost at 0.
    """
    values = measured.of_seeds()
    mean, error = float(values.mean()), _standard_error(values)
    # Seeds that differ: their spread holds all sources of noise, also that of the questions.
    if error > 0:
        reach = t_quantile(len(values) - 1) * error
        highest = 1.0 if measured.is_share else math.inf
        return Estimate(mean, max(0.0, mean - reach), min(highest, mean + reach), len(values), "seeds")
    # One seed, or seeds of equal value: only the choice of questions is left to vary.
    low, high = _percentiles(measured.resample(np.random.default_rng(seed)).mean(axis=1))
    if measured.is_proportion:
        down, up = reach_of_alike([shares_of(stratum) for stratum in measured.strata], 0.0, 1.0)
        low, high = max(0.0, mean - math.hypot(mean - low, down)), min(1.0, mean + math.hypot(high - mean, up))
    return Estimate(mean, low, high, len(values), "questions")


def difference(of: Measure, to: Measure, *, seed: int = 0) -> Estimate:
    """`of` minus `to`: Welch's t interval where both have several seeds, else the paired bootstrap over questions.

    Raises:
        ValueError: the two are not over the same questions.
    """
    sizes, other_sizes = ([len(stratum) for stratum in side.strata] for side in (of, to))
    if sizes != other_sizes or of.questions != to.questions:
        raise ValueError("a difference needs the same questions on both sides")
    values, others = of.of_seeds(), to.of_seeds()
    mean, num_seeds = float(values.mean() - others.mean()), min(len(values), len(others))
    error, other_error = _standard_error(values), _standard_error(others)
    # Trainings are independent, so their seeds do not pair up; unequal spreads are why it is Welch's.
    if num_seeds > 1 and error + other_error > 0:
        reach = t_quantile(welch_freedom(error, len(values), other_error, len(others)))
        reach *= math.hypot(error, other_error)
        return Estimate(mean, mean - reach, mean + reach, num_seeds, "seeds")
    # Both sides draw the same questions, so what makes a question hard cancels out in the difference.
    pairs = zip(of.strata, to.strata, strict=True)
    both = Measure(tuple(np.concatenate(pair, axis=1) for pair in pairs), of.average)
    resampled = both.resample(np.random.default_rng(seed))
    low, high = _percentiles(resampled[:, : len(values)].mean(axis=1) - resampled[:, len(values) :].mean(axis=1))
    if of.is_proportion and to.is_proportion:
        apart = [shares_of(one) - shares_of(other) for one, other in zip(of.strata, to.strata, strict=True)]
        down, up = reach_of_alike(apart, -1.0, 1.0)
        low, high = max(-1.0, mean - math.hypot(mean - low, down)), min(1.0, mean + math.hypot(high - mean, up))
    return Estimate(mean, low, high, num_seeds, "questions")


def mix(of: Measure, to: Measure, share: float) -> Measure:
    """What questions get on average that go to `to` with probability `share`, else to `of`; a mean over seeds.

    Raises:
        ValueError: the two are not over the same questions.
    """
    if of.questions != to.questions:
        raise ValueError("a mixture needs the same questions on both sides")
    pairs = zip(of.strata, to.strata, strict=True)
    means = [[stratum.mean(axis=1, keepdims=True) for stratum in pair] for pair in pairs]
    return Measure(tuple((1 - share) * one + share * other for one, other in means), of.average, of.questions)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 and np.ptp(values) > 1e-12 else 0.0


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resample_sums(rows: np.ndarray, rng: np.random.Generator, num_resamples: int) -> np.ndarray:
    """Sums over rows drawn with replacement: [num_rows, num_columns] -> [num_resamples, num_columns].

    Rows that are alike, as most are where answers are right or wrong, are drawn by their number.
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    if len(kinds) <= len(rows) / 10:
        return rng.multinomial(len(rows), counts / len(rows), size=num_resamples) @ kinds
    sums = np.empty((num_resamples, rows.shape[1]))
    columns = np.ascontiguousarray(rows.T)
    # The draws are random reads: they cost several times as much once a block falls out of the cache.
    block = max(1, 100_000 // len(rows))  # fits a processor's cache
    for start in range(0, num_resamples, block):
        drawn = rng.integers(len(rows), size=(min(block, num_resamples - start), len(rows)), dtype=np.int32)
        for i, column in enumerate(columns):
            sums[start : start + len(drawn), i] = column.take(drawn).sum(axis=1)
    return sums
