"""BBEH's official score: the adjusted harmonic mean of the accuracies of its tasks. Pure.

BIG-Bench Extra Hard (arXiv 2502.19187) reports the harmonic mean over its 23 tasks, so that a model that fails at some
of them cannot make up for it with others. Some accuracies are zero, for which it adds 1 to each accuracy in percent
before it takes the mean, and takes nothing off afterwards: a model that is always wrong has 1%, one that is always
right 101%. The paper of RelayLLM does not say which mean its Table 2 has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

HARMONIC_BENCHMARKS = ("bbeh",)
"""Benchmarks whose official score this is."""
NUM_BBEH_TASKS = 23
"""Tasks of the whole BBEH."""


def harmonic_mean_over_tasks(correct_by_task: Mapping[str, Sequence[bool]]) -> float:
    """The adjusted harmonic mean, as a share of 1.

    Args:
        correct_by_task: for each task, at least one, whether each response is right; no task without responses.

    Raises:
        ValueError: no task, or a task without responses; names it.

    >>> round(100 * harmonic_mean_over_tasks({"a": [True, False], "b": [False, False]}), 2)  # 2 / (1/51 + 1/1)
    1.96
    """
    if not correct_by_task:
        raise ValueError("correct_by_task: there is no task")
    if empty := [task for task, correct in correct_by_task.items() if not len(correct)]:
        raise ValueError(f"correct_by_task: {empty[0]!r} has no responses")
    shares = [sum(correct) / len(correct) for correct in correct_by_task.values()]
    return float(adjusted_harmonic_mean(np.array(shares)))


def adjusted_harmonic_mean(shares: np.ndarray, axis: int = -1) -> np.ndarray:
    """The harmonic mean along an axis of accuracies as shares of 1, each a percentage point higher."""
    raised: np.ndarray = shares + 0.01
    return np.asarray(1.0 / (1.0 / raised).mean(axis=axis))
