"""Defer heads on real vLLM, a tiny pair, greedy: who writes each token, and that the head changes nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay_verl.defer.head_info import HeadKind

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def results(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("defer") / "results.json"
    script = Path(__file__).with_name("defer_engines.py")
    subprocess.run([sys.executable, str(script), str(pair), str(out)], check=True, timeout=800)
    return json.loads(out.read_text())


def test_without_a_head_it_is_the_plain_class_bit_by_bit(results: dict[str, Any]) -> None:
    assert results["headless"] == results["plain"]


def test_a_head_that_is_not_asked_changes_no_token(results: dict[str, Any]) -> None:
    plain = [one["ids"] for one in results["plain"]]
    assert [one["ids"] for one in results["off"]] == plain
    assert [one["ids"] for one in results["zero"]] == plain


def test_a_batch_of_64_is_each_request_alone(results: dict[str, Any]) -> None:
    batch, alone = ([one["ids"] for one in results[name]] for name in ("batch", "alone"))
    assert len(batch) == 64
    assert batch == alone
    ends = {ids[-1] == results["reserved"] for ids in batch}
    assert True in ends, "the head asks"
    assert all(results["reserved"] not in ids[:-1] for ids in batch), "the reserved id ends a request"


@pytest.mark.parametrize("kind", HeadKind)
def test_scores_are_those_of_a_forward_of_transformers(results: dict[str, Any], kind: HeadKind) -> None:
    scores = results["scores"][kind]
    assert len(scores["engine"]) > 0
    for engine, reference in zip(scores["engine"], scores["reference"], strict=True):
        assert engine == pytest.approx(reference, abs=1e-3)


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_ends_of_the_scale(results: dict[str, Any], engine: str) -> None:
    never, student = (results[f"{policy} by {engine}"] for policy in ("deferred_0", "student_alone"))
    always, teacher = (results[f"{policy} by {engine}"] for policy in ("deferred_1.5", "teacher_alone"))
    assert never == student
    assert always == teacher
    assert {writer for one in always for writer in one["writers"]} == {"teacher"}
    assert student != teacher


def test_in_between_vllm_defers_where_transformers_does(results: dict[str, Any]) -> None:
    ours, reference = results["deferred_middle by vllm"], results["deferred_middle by transformers"]
    assert ours == reference
    assert {writer for one in ours for writer in one["writers"]} == {"student", "teacher"}


def test_first_token_entropy_is_asked_where_a_step_begins(results: dict[str, Any]) -> None:
    """Rows: behind a step's end in the prompt; in a step; behind an end in the output; without a threshold."""
    only_reserved, others = [True, False, False, False], [False, True, True, True]
    assert results["rows"] == [only_reserved, others, only_reserved, others]
