"""Whose verdict counts: never a mixture, and what is missing is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.errors import UserError
from relay_verl.traces.records import REFUSED, UNCLEAR_REPLY, JudgeText, ResponseRecord, write_records
from relay_verl.traces.results import MANIFEST, RESPONSES, VERDICTS, Result, read_result
from relay_verl.traces.verdicts import VerdictsBy, check_verdicts, parse_verdicts_by, take_verdicts, verdict_of
from tests.helpers.records import record

RULE, JUDGE = VerdictsBy.RULE, VerdictsBy.JUDGE


def says(is_correct: bool | None, error: str = "") -> JudgeText:
    return {"is_correct": is_correct, "reply": "", "error": error}


VERDICT_CASES = [
    # benchmark, right by rule, the judge's, right by judge, why
    ("math-500", True, says(False), False, "the judge says No"),
    ("math-500", False, says(True), True, "the judge says Yes"),
    ("math-500", False, says(False, "no answer to judge"), False, "there was no answer to ask about"),
    ("math-500", True, says(None, UNCLEAR_REPLY), False, "neither Yes nor No"),
    ("math-500", True, says(None, f"{REFUSED}: 400: too long"), False, "the judge does not take the question"),
    ("math-500", True, says(None, "http://judge/v1: no reply within 60 s"), None, "the judge was not heard"),
    ("math-500", True, None, None, "the judge was not asked"),
    ("tiny/mul", True, None, None, "a family of questions of the tiny world"),
    ("bbeh", True, None, True, "words stay by rule"),
    ("mmlu-pro", False, says(True), False, "letters stay by rule, whatever the judge says"),
]


@pytest.mark.parametrize(
    ("benchmark", "by_rule", "judge", "by_judge", "why"), VERDICT_CASES, ids=[case[4] for case in VERDICT_CASES]
)
def test_the_verdict_of_a_response(
    benchmark: str, by_rule: bool, judge: JudgeText | None, by_judge: bool | None, why: str
) -> None:
    response = record(benchmark=benchmark, is_correct=by_rule, judge=judge)
    assert verdict_of(response, RULE) is by_rule
    assert verdict_of(response, JUDGE) is by_judge


@given(st.lists(st.tuples(st.booleans(), st.none() | st.booleans()), max_size=8))
def test_no_number_mixes_the_two(pairs: list[tuple[bool, bool | None]]) -> None:
    """By judge each verdict is the judge's, or there are no numbers."""
    records = [record(id=str(i), is_correct=rule, judge=says(judge)) for i, (rule, judge) in enumerate(pairs)]
    assert [one.is_correct for one in take_verdicts(records, RULE)] == [rule for rule, _ in pairs]
    if any(judge is None for _, judge in pairs):
        with pytest.raises(ValueError, match="has no verdict of a judge"):
            take_verdicts(records, JUDGE)
    else:
        assert [one.is_correct for one in take_verdicts(records, JUDGE)] == [judge for _, judge in pairs]


def result(folder: Path, records: list[ResponseRecord], **job: Any) -> Result:
    write_records(folder / RESPONSES, records)
    (folder / MANIFEST).write_text(json.dumps({"job": {"policy": "learned", **job}, "num_queries": len(records)}))
    return read_result(folder)


def test_what_is_not_judged_is_named(tmp_path: Path) -> None:
    judged = result(tmp_path / "judged", [record(judge=says(True))])
    partly = result(tmp_path / "partly", [record(id="a", judge=says(True)), record(id="b"), record(id="c")])
    none = result(tmp_path / "none", [record()])
    words = result(tmp_path / "words", [record(benchmark="supergpqa")])
    check_verdicts([judged, words], JUDGE)
    check_verdicts([judged, partly, none], RULE)
    with pytest.raises(UserError) as caught:
        check_verdicts([judged, partly, none], JUDGE)
    line = str(caught.value)
    assert "\n" not in line
    assert f"2 of 3 responses in {partly.folder} have no verdict" in line
    assert "1 more results" in line
    assert f"relay-verl judge {partly.folder}" in line


def test_a_word_that_is_neither() -> None:
    assert parse_verdicts_by("judge") is JUDGE
    with pytest.raises(UserError, match="--by: 'gpt' is not one of rule, judge"):
        parse_verdicts_by("gpt")


def test_who_judged(tmp_path: Path) -> None:
    spec = {"model": "gpt-4o-mini", "base_url": "x"}
    assert result(tmp_path / "a", []).judge is None
    while_running = result(tmp_path / "b", [], judge=spec)
    assert while_running.judge == spec
    file = tmp_path / "b" / f"{VERDICTS}.manifest.json"
    file.write_text(json.dumps({"job": {"judge": spec | {"model": "later"}}}))
    assert while_running.judge == spec | {"model": "later"}, "who judged last"
    file.write_text("{}")
    with pytest.raises(UserError, match=r"verdicts\.parquet\.manifest\.json is damaged: KeyError"):
        _ = while_running.judge
