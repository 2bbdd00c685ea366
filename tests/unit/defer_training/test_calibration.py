"""The threshold that is stored is the one that was measured, and a target that none reaches changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from relay_verl.benchmarks.registry import Questions, find_benchmark
from relay_verl.data.schema import to_row
from relay_verl.defer.head_folder import load_head, read_info, save_head
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer.heads import make_head
from relay_verl.defer_training import calibration
from relay_verl.defer_training.calibration import Calibrated, calibrate
from relay_verl.defer_training.head_training import TRAINING_FILE
from relay_verl.defer_training.score_levels import quantiles
from relay_verl.errors import UserError
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.run_config import RunConfig
from relay_verl.traces.records import write_records
from relay_verl.traces.results import MANIFEST, RESPONSES
from tests.helpers.records import record

NUM_QUESTIONS = 40


@pytest.fixture
def head(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    info = HeadInfo(HeadKind.CITER, 4)
    save_head(tmp_path / "head", make_head(info), info)
    facts = {"training": {}, "held_out_quantiles": quantiles([number / 500 for number in range(1, 501)])}
    (tmp_path / "head" / TRAINING_FILE).write_text(json.dumps(facts))
    return tmp_path / "head"


@pytest.fixture
def suite() -> EvalSuite:
    rows = [
        to_row(data_source="tiny", question=f"{number}?", ground_truth="1", id=str(number))
        for number in range(NUM_QUESTIONS)
    ]
    return EvalSuite({"tiny": (find_benchmark("tiny"), Questions(rows, {}))})


class RoutedSystem:
    """Takes the place of the evaluation: its ratio is a function of the threshold."""

    def __init__(self, ratio_of: Callable[[float], float]):
        self.ratio_of = ratio_of
        self.thresholds: list[float] = []
        self.num_starts = 0

    def __call__(self, run: RunConfig, conditions: list[Condition], *_: Any, further: Any, **__: Any) -> None:
        (condition,) = conditions
        if (condition.out / MANIFEST).is_file():
            return
        self.num_starts += 1
        assert read_info(run.relay.defer.head or "").threshold == HeadInfo.threshold
        following: Condition | None = condition
        while following is not None:
            self._answer(following)
            following = further()

    def _answer(self, condition: Condition) -> None:
        threshold = float(condition.policy.removeprefix("deferred_"))
        self.thresholds.append(threshold)
        num_teacher = round(1000 * self.ratio_of(threshold))
        records = [
            record(id=str(number), num_tokens=1000, num_teacher_tokens=num_teacher + (number % 2) - (number + 1) % 2)
            for number in range(NUM_QUESTIONS)
        ]
        write_records(condition.out / RESPONSES, records)
        (condition.out / MANIFEST).write_text(json.dumps({"job": {}, "num_queries": len(records)}))


def run(head: Path, suite: EvalSuite, system: RoutedSystem, monkeypatch: Any, target: float) -> Calibrated:
    monkeypatch.setattr(calibration, "evaluate", system)
    config = RunConfig(OmegaConf.create({"relay": {"teacher": {"path": "teacher"}, "defer": {"head": None}}}))
    options: dict[str, Any] = {"student": "student", "target_ratio": target}
    return calibrate(config, head, "teacher", suite, head.parent / "out", lambda planned: None, **options)


def test_the_threshold_is_stored_with_its_interval(head: Path, suite: EvalSuite, monkeypatch: Any) -> None:
    system = RoutedSystem(lambda threshold: threshold**1.5)
    calibrated = run(head, suite, system, monkeypatch, 0.05)
    info = load_head(head)[1]
    assert info == calibrated.info and info.calibration is not None
    stored = info.calibration
    assert (stored.target_ratio, stored.num_questions) == (0.05, NUM_QUESTIONS)
    assert stored.reached_ratio == pytest.approx(0.05, rel=0.1)
    assert stored.reached_ratio == pytest.approx(info.threshold**1.5, abs=0.001)
    assert stored.interval is not None
    assert stored.interval[0] < stored.reached_ratio < stored.interval[1]
    assert system.num_starts == 1, "the models start once for the whole search"
    assert system.thresholds[0] == pytest.approx(0.05, abs=0.003), "the held-out scores' own quantile"


def test_the_same_command_again_measures_nothing(head: Path, suite: EvalSuite, monkeypatch: Any) -> None:
    first = run(head, suite, RoutedSystem(lambda threshold: threshold**1.5), monkeypatch, 0.05)
    system = RoutedSystem(lambda threshold: 0.0)
    again = run(head, suite, system, monkeypatch, 0.05)
    assert (again, system.thresholds) == (first, [])


def test_a_target_that_no_threshold_reaches(head: Path, suite: EvalSuite, monkeypatch: Any) -> None:
    before = (head / "defer_head.json").read_bytes()
    system = RoutedSystem(lambda threshold: 0.4 * (threshold > 0.3))
    with pytest.raises(
        UserError, match=r"--target-ratio: 0\.1: no threshold .* the nearest is 0(\.\d+)?, at threshold"
    ):
        run(head, suite, system, monkeypatch, 0.1)
    assert (head / "defer_head.json").read_bytes() == before


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 1.5])
def test_a_target_is_a_share(target: float, head: Path, suite: EvalSuite, monkeypatch: Any) -> None:
    with pytest.raises(UserError, match=r"--target-ratio: .* expected a share between 0 and 1"):
        run(head, suite, RoutedSystem(lambda threshold: threshold), monkeypatch, target)


def test_a_head_without_weights_is_calibrated_too(tmp_path: Path, suite: EvalSuite, monkeypatch: Any) -> None:
    info = HeadInfo(HeadKind.ENTROPY)
    save_head(tmp_path / "entropy", make_head(info), info)
    calibrated = run(tmp_path / "entropy", suite, RoutedSystem(lambda threshold: threshold / 3), monkeypatch, 0.02)
    assert calibrated.info.threshold == pytest.approx(0.06, rel=0.15)
