"""`relay-verl calibrate`: the threshold of a head at which the teacher writes a target share of all tokens on held-out
questions, measured by the routed system itself, and stored with the head.

Each threshold that is tried is an evaluation with a results folder of its own, so that a command that was stopped
continues, and what is measured is what `relay-verl eval` would measure: all teacher tokens over all tokens.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from relay_verl.defer.head_folder import WEIGHTS_FILE, read_info, save_info
from relay_verl.defer.head_info import Calibration, HeadInfo
from relay_verl.defer_training.head_training import read_training
from relay_verl.defer_training.score_levels import levels
from relay_verl.defer_training.threshold_search import Measured, ThresholdSearch, policy_at
from relay_verl.errors import UserError
from relay_verl.evaluation.runner import PlannedEvaluation, evaluate
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.files import replacing, writing
from relay_verl.report.statistics import Estimate, estimate, pooled_call_ratio
from relay_verl.run_config import RunConfig
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.results import read_result

UNIFORM = levels()
"""Quantiles of a head that says nothing of its scores, such as one without weights: they are the levels themselves."""


@dataclass(frozen=True)
class Calibrated:
    """What a calibration has."""

    info: HeadInfo
    """The head's description, with the threshold."""
    measured: list[Measured]
    """All that was tried."""


def calibrate(
    run: RunConfig,
    head: Path,
    teacher: str,
    suite: EvalSuite,
    out: Path,
    check: Callable[[PlannedEvaluation], None],
    *,
    student: str,
    target_ratio: float,
    tolerance: float = 0.1,
    most: int = 10,
    endpoint_models: Mapping[str, str] = {},
    num_workers: int | None = None,
) -> Calibrated:
    """Find the threshold, and store it in the head's folder with its interval.

    Args:
        run: a composed recipe.
        head: its folder; `relay.defer.head` of the run is set to it.
        teacher, student: folder, hub id or endpoint.
        suite: held-out questions.
        out: folder of the evaluations.
        check: as for `relay_verl.evaluation.runner.evaluate`.
        target_ratio: teacher tokens over all tokens, between 0 and 1.
        tolerance: how far from it the ratio may be, as a share of it.
        most: thresholds that are tried.
        endpoint_models: the models' names at endpoints.
        num_workers: as for `evaluate`.

    Raises:
        UserError: no threshold reaches the target; names the nearest. The head stays as it is.
        JobError: an evaluation cannot continue; what is finished is saved.
    """
    if not 0 < target_ratio < 1:
        raise UserError(f"--target-ratio: {target_ratio:g}: expected a share between 0 and 1, such as 0.01")
    info = read_info(head)
    training = read_training(head)
    known = UNIFORM if training is None else training["held_out_quantiles"]
    copy = _copy_head(head, info, out / "head")
    search = ThresholdSearch(target_ratio, known, tolerance=tolerance, most=most)
    steps = _Steps(search, out, student, teacher)
    started = run.changed("relay.defer.head", str(copy.absolute()))
    while (condition := steps.next_condition()) is not None:
        evaluate(
            started,
            [condition],
            suite,
            check,
            endpoint_models=endpoint_models,
            num_workers=num_workers,
            further=steps.next_condition,
        )
    nearest = search.nearest
    ratio = steps.ratios[nearest.threshold]
    if not search.is_reached:
        raise UserError(
            f"--target-ratio: {target_ratio:g}: no threshold of {head} reaches it on these questions within "
            f"{tolerance:.0%}: the nearest is {ratio.value:.4g}, at threshold {nearest.threshold:g}, of "
            f"{len(search.measured)} that were tried"
        )
    num_questions = sum(len(questions.rows) for _, questions in suite.benchmarks.values())
    calibration = Calibration(target_ratio, ratio.value, (ratio.low, ratio.high), num_questions)
    changed = replace(info, threshold=nearest.threshold, calibration=calibration)
    with writing():
        save_info(head, changed)
    return Calibrated(changed, search.measured)


def _copy_head(head: Path, info: HeadInfo, folder: Path) -> Path:
    """The head without its threshold: the evaluations are then the same job before and after it is stored."""
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        if info.kind.has_weights:
            with replacing(folder / WEIGHTS_FILE) as temporary:
                shutil.copyfile(head / WEIGHTS_FILE, temporary)
        save_info(folder, replace(info, threshold=HeadInfo.threshold, calibration=None))
    return folder


class _Steps:
    """The conditions of the search, one after another; each reads the results of the one before."""

    def __init__(self, search: ThresholdSearch, out: Path, student: str, teacher: str):
        self._search = search
        self._out = out
        self._models = (student, teacher)
        self._waiting: tuple[float, Condition] | None = None
        self.ratios: dict[float, Estimate] = {}
        """What was measured, by threshold."""

    def next_condition(self) -> Condition | None:
        """The next threshold's; None at the end."""
        if self._waiting is not None:
            threshold, answered = self._waiting
            ratio = self.ratios[threshold] = ratio_of(list(read_result(answered.out).records))
            self._search.add(threshold, ratio.value)
            self._waiting = None
        threshold_to_try = self._search.next_threshold()
        if threshold_to_try is None:
            return None
        policy = policy_at(threshold_to_try)
        condition = Condition(policy, self._out / policy, *self._models, policy)
        self._waiting = threshold_to_try, condition
        return condition


def ratio_of(records: list[ResponseRecord]) -> Estimate:
    """All teacher tokens over all tokens, with its 95% interval over questions."""
    return estimate(pooled_call_ratio([records], sorted({record.benchmark for record in records})))
