"""How many teacher GPUs for how many student GPUs: the simulation over clusters, splits and skews, and its tables.

All clusters have the same responses per GPU, so the batch grows with the cluster. The longest responses decide when a
batch ends, so one small batch says little: more are drawn, and a speed is that of all batches together. Pure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from relay_verl.bench.scale import Outcome, simulate
from relay_verl.bench.scenario import Scenario, Trajectory
from relay_verl.errors import UserError
from relay_verl.markdown import markdown_table

SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2)
"""Teacher's shares of the GPUs that are compared."""
TOLERANCE = 0.1
"""Of the splits that are at most so much slower than the fastest, the one with the fewest teacher GPUs is chosen."""
SIGMAS = (0.0, 0.4, 0.8, 1.2, 1.6)
"""Skews of the response lengths that are compared; the mean before the cut at the longest stays."""
MAX_DETAIL_GPUS = 64
"""Splits and skews are shown for the largest cluster up to this size."""


@dataclass(frozen=True)
class Split:
    """The GPUs of a cluster, divided."""

    num_gpus: int
    """All of them; some are left over where replicas have several GPUs."""
    num_students: int
    """The student's replicas."""
    num_teachers: int
    """The teacher's replicas."""


@dataclass(frozen=True)
class Speed:
    """How fast a cluster writes."""

    split: Split
    """The cluster."""
    num_responses: int
    """Responses of a batch."""
    tokens_per_s: float
    """Tokens of all responses a second, the student's and the teacher's."""
    student_busy: float
    """Share of the time in which a student replica has a request."""
    teacher_busy: float
    """Share of the time in which a teacher replica has a request."""
    teacher_share: float
    """The teacher's share of the busy time of all replicas."""


@dataclass(frozen=True)
class Pair:
    """Both ways of the same work on one cluster."""

    ours: Speed
    """Each trajectory continues by itself."""
    barrier: Speed
    """All wait for all at each turn."""

    @property
    def gain(self) -> float:
        """How many times faster ours is."""
        return self.ours.tokens_per_s / self.barrier.tokens_per_s


@dataclass(frozen=True)
class ScaleStudy:
    """All that the tables and the picture show."""

    origin: str
    """Where the curves are from."""
    teacher_gpus_per_replica: int
    """GPUs of a teacher replica."""
    by_gpus: list[Pair]
    """The chosen split of each cluster."""
    by_split: list[Pair]
    """Every split of one cluster."""
    by_sigma: list[tuple[float, Pair]]
    """The chosen split of that cluster, by skew of the response lengths."""


def study_scale(scenario: Scenario, gpus: Sequence[int], *, num_responses: int, seed: int = 0) -> ScaleStudy:
    """Simulate clusters.

    Args:
        scenario: curves and responses.
        gpus: GPUs of each cluster.
        num_responses: that each cluster writes at least.
        seed: of the first batch.

    Raises:
        UserError: a cluster has no room for both models.
    """
    sizes = sorted(set(gpus))
    divided = {size: splits_of(scenario, size) for size in sizes}
    detailed = max([size for size in sizes if size <= MAX_DETAIL_GPUS], default=sizes[0])
    by_gpus, by_split, by_sigma = [], [], []
    for size, splits in divided.items():
        batches = draw_batches(scenario, size, num_responses, seed)
        speeds = [measure(scenario, split, batches) for split in splits]
        fastest = max(speed.tokens_per_s for speed in speeds)
        chosen = next(speed for speed in speeds if speed.tokens_per_s >= (1 - TOLERANCE) * fastest)
        shown = speeds if size == detailed else [chosen]
        pairs = [Pair(speed, measure(scenario, speed.split, batches, has_barrier=True)) for speed in shown]
        by_gpus.append(next(pair for pair in pairs if pair.ours is chosen))
        if size == detailed:
            by_split = pairs
            skewed = [(sigma, skew(scenario, sigma)) for sigma in SIGMAS]
            by_sigma = [(sigma, _compare(each, chosen.split, num_responses, seed)) for sigma, each in skewed]
    return ScaleStudy(scenario.origin, scenario.teacher.gpus_per_replica, by_gpus, by_split, by_sigma)


def splits_of(scenario: Scenario, num_gpus: int) -> list[Split]:
    """Ways to divide a cluster, from the fewest teacher GPUs to the most.

    Raises:
        UserError: it has no room for a replica of both.
    """

    def split(num_teachers: int) -> Split:
        left = num_gpus - num_teachers * scenario.teacher.gpus_per_replica
        return Split(num_gpus, left // scenario.student.gpus_per_replica, num_teachers)

    counts = {max(1, round(share * num_gpus / scenario.teacher.gpus_per_replica)) for share in SHARES}
    splits = [each for each in map(split, sorted(counts)) if each.num_students >= 1]
    if not splits:
        least = scenario.student.gpus_per_replica + scenario.teacher.gpus_per_replica
        raise UserError(f"--gpus: {num_gpus}; a replica of both models takes at least {least}")
    return splits


def skew(scenario: Scenario, sigma: float) -> Scenario:
    """The same scenario with response lengths of this sigma, and of the same mean before the cut at the longest."""
    lengths = scenario.workload.response_tokens
    median = lengths.median * math.exp((lengths.sigma**2 - sigma**2) / 2)
    lengths = dataclasses.replace(lengths, median=median, sigma=sigma)
    return dataclasses.replace(scenario, workload=dataclasses.replace(scenario.workload, response_tokens=lengths))


def draw_batches(scenario: Scenario, num_gpus: int, num_responses: int, seed: int) -> list[list[Trajectory]]:
    """The batches that a cluster of this size writes, of `num_responses` or more together."""
    size = scenario.workload.responses_per_gpu * num_gpus
    return [scenario.workload.draw(size, seed + batch) for batch in range(math.ceil(num_responses / size))]


def measure(
    scenario: Scenario, split: Split, batches: Sequence[Sequence[Trajectory]], *, has_barrier: bool = False
) -> Speed:
    """How fast a cluster writes the batches, one after another."""
    outcomes: list[Outcome] = [
        simulate(scenario, batch, split.num_students, split.num_teachers, has_barrier=has_barrier) for batch in batches
    ]
    seconds = sum(outcome.seconds for outcome in outcomes)
    students = sum(outcome.student.busy_s for outcome in outcomes)
    teachers = sum(outcome.teacher.busy_s for outcome in outcomes)
    return Speed(
        split=split,
        num_responses=len(batches[0]),
        tokens_per_s=sum(outcome.num_tokens for outcome in outcomes) / seconds,
        student_busy=students / (split.num_students * seconds),
        teacher_busy=teachers / (split.num_teachers * seconds),
        teacher_share=teachers / (students + teachers),
    )


def _compare(scenario: Scenario, split: Split, num_responses: int, seed: int) -> Pair:
    batches = draw_batches(scenario, split.num_gpus, num_responses, seed)
    return Pair(measure(scenario, split, batches), measure(scenario, split, batches, has_barrier=True))


SPEED_COLUMNS = ("tokens/s", "student busy", "teacher busy", "teacher's share", "barrier, tokens/s", "ours / barrier")


def scale_to_markdown(study: ScaleStudy) -> str:
    """Three tables: by GPUs, by split, by skew; and what they are of."""
    detailed = study.by_split[0].ours.split.num_gpus
    by_gpus = [
        [
            f"{pair.ours.split.num_gpus:,}",
            f"{pair.ours.split.num_students:,}",
            f"{pair.ours.split.num_teachers:,}",
            f"{pair.ours.num_responses:,}",
            *_cells(pair),
        ]
        for pair in study.by_gpus
    ]
    by_split = [
        [f"{pair.ours.split.num_students:,}", f"{pair.ours.split.num_teachers:,}", *_cells(pair)]
        for pair in study.by_split
    ]
    by_sigma = [[f"{sigma:g}", *_cells(pair)] for sigma, pair in study.by_sigma]
    return "\n\n".join(
        [
            f"A simulation; the curves: {study.origin}.",
            f"The fewest teacher replicas within {TOLERANCE:.0%} of the fastest split:",
            markdown_table(["GPUs", "students", "teachers", "responses", *SPEED_COLUMNS], by_gpus),
            f"Every split of {detailed} GPUs:",
            markdown_table(["students", "teachers", *SPEED_COLUMNS], by_split),
            f"{detailed} GPUs by the skew of response lengths, their mean the same:",
            markdown_table(["sigma", *SPEED_COLUMNS], by_sigma),
        ]
    )


def _cells(pair: Pair) -> list[str]:
    ours = pair.ours
    return [
        f"{ours.tokens_per_s:,.0f}",
        f"{ours.student_busy:.0%}",
        f"{ours.teacher_busy:.0%}",
        f"{ours.teacher_share:.0%}",
        f"{pair.barrier.tokens_per_s:,.0f}",
        f"{pair.gain:.2f}",
    ]
