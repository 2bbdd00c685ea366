"""BBEH's official score: the harmonic mean of its tasks' accuracies, each plus one percentage point. Pure.

BIG-Bench Extra Hard (arXiv 2502.19187) reports this for its 23 tasks, and the plain mean over all questions (its micro
average) for the mini set. A model that fails at one task is punished for it; the point added to each accuracy keeps a
task without a right answer from making the mean 0. The RelayLLM paper's number for BBEH is the plain mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, harmonic_mean

from relay_verl.evaluation.records import ResponseRecord

ADDED_POINTS = 1.0
"""What is added to each task's accuracy, in percentage points."""


def harmonic_mean_over_tasks(correct_by_task: Mapping[str, Sequence[bool]]) -> float:
    """The adjusted harmonic mean, in percent: from 1 (nothing is right) to 101 (everything is).

    Args:
        correct_by_task: whether each response is right, by task; at least one response a task.

    Raises:
        ValueError: there are no tasks, or one has no responses.

    >>> round(harmonic_mean_over_tasks({"time arithmetic": [True, False], "web of lies": [False, False]}), 2)
    1.96
    """
    if not correct_by_task:
        raise ValueError("there are no tasks")
    for task, correct in correct_by_task.items():
        if not correct:
            raise ValueError(f"task {task!r} has no responses")
    return harmonic_mean([100 * fmean(correct) + ADDED_POINTS for correct in correct_by_task.values()])


def harmonic_accuracy(records: Iterable[ResponseRecord]) -> float | None:
    """The same of one benchmark's responses; None unless each of them belongs to a task, and there are several."""
    by_task: dict[str | None, list[bool]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record.is_correct)
    tasks = {task: correct for task, correct in by_task.items() if task is not None}
    return harmonic_mean_over_tasks(tasks) if len(tasks) == len(by_task) > 1 else None
