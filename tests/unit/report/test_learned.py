"""What a trained pair learned: numbers of questions, rank correlations, the effect of calls, the page and its data."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from typer.testing import CliRunner

from relay_verl.benchmarks.own import find_benchmarks
from relay_verl.benchmarks.registry import Questions, load_benchmark
from relay_verl.cli.main import app
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.errors import UserError
from relay_verl.report.levels import MAX_VALUES, levels_of
from relay_verl.report.question_numbers import QuestionNumbers, numbers_of
from relay_verl.report.rank_correlation import correlate_ranks, rank_correlation
from relay_verl.report.usefulness import Effect, is_right_without, tried_calls
from relay_verl.traces.records import ResponseRecord, write_records
from relay_verl.traces.results import MANIFEST, RESPONSES, Result
from tests.helpers.records import alone, call, record

NUM_QUESTIONS = 24
NEEDED = (0, 1, 3, 6)
"""Tokens that a question of grade 0, 1, 2, 3 needs."""

# ---- levels ----


@given(st.lists(st.integers(-50, 50) | st.floats(-50, 50), min_size=1, max_size=200))
def test_every_value_belongs_to_one_level(values: list[float]) -> None:
    levels = levels_of(values)
    assert all(sum(level.has(value) for level in levels) == 1 for value in values)
    assert all(any(level.has(value) for value in values) for level in levels)
    assert len(levels) <= MAX_VALUES
    assert [level.low for level in levels] == sorted(level.low for level in levels)


def test_what_is_not_known_belongs_to_no_level() -> None:
    assert not levels_of([1, 2])[0].has(None)


# ---- rank correlation ----

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=3, max_size=60)


@given(PAIRS)
def test_the_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    values = np.asarray(pairs, dtype=float)
    own = correlate_ranks(values[None])[0]
    is_defined = np.ptp(values, axis=0).all()
    assert np.isfinite(own) == is_defined
    if is_defined:
        assert own == pytest.approx(spearmanr(values[:, 0], values[:, 1]).statistic)


@settings(max_examples=20, deadline=None)
@given(PAIRS)
def test_the_interval_holds_the_correlation_and_stays_within_its_limits(pairs: list[tuple[int, int]]) -> None:
    estimate = rank_correlation([np.asarray(pairs, dtype=float)])
    if estimate is not None:
        assert -1 <= estimate.low <= estimate.high <= 1
        assert estimate.basis == "questions"


def test_an_order_that_is_kept_correlates_fully_and_one_number_for_all_not_at_all() -> None:
    needed = np.arange(10.0)
    kept = rank_correlation([np.stack([needed, needed**3], axis=1)])
    assert kept is not None and (kept.value, kept.low, kept.high) == pytest.approx((1, 1, 1))
    assert rank_correlation([np.stack([needed, np.full(10, 20.0)], axis=1)]) is None
    assert rank_correlation([np.zeros((2, 2))]) is None, "two questions have an order of their own"


def test_seeds_that_differ_have_students_t() -> None:
    """Of two seeds at +1 and -1 the mean is 0, and the interval is all there is."""
    needed = np.arange(10.0)
    estimate = rank_correlation([np.stack([needed, needed], axis=1), np.stack([needed, -needed], axis=1)])
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high, estimate.basis) == (pytest.approx(0), -1, 1, "seeds")


# ---- the numbers of questions ----


def question(number: int, **extra: Any) -> dict[str, Any]:
    return to_row(data_source="x", question=f"{number}?", ground_truth="7", id=f"q{number}", index=number, **extra)


def result(rows: list[dict[str, Any]], **changes: Any) -> Result:
    asked = {"sha256": Questions(rows, {}).sha256, "num_questions": len(rows)} | changes
    return Result(Path("folder"), {"job": {"benchmarks": {"x": asked}}}, [])


def test_numbers_are_those_of_the_questions_by_their_ids() -> None:
    rows = [question(0, grade=2, family="a", is_easy=True), question(1, grade=float("nan"), needed=np.int64(3))]
    numbers = numbers_of({"x": Questions(rows, {})}, [result(rows)])
    assert numbers.keys == ("grade", "needed"), "neither texts, nor truths, nor a row's number"
    of = [numbers.of(record(benchmark="x", id=id), key) for id in ("q0", "q1", "q2") for key in ("grade", "needed")]
    assert of == [2, None, None, 3, None, None]


def test_the_first_questions_alone_may_have_been_asked() -> None:
    rows = [question(number, grade=number) for number in range(3)]
    assert numbers_of({"x": Questions(rows, {})}, [result(rows[:2])]).keys == ("grade",)


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ({"x": [question(0, grade=2)]}, r"--benchmark x: these are not the questions that folder answers"),
        ({"y": [question(0, grade=1)]}, r"--benchmark: folder is on x, which is not among y"),
    ],
)
def test_other_questions_are_refused(questions: dict[str, Any], message: str) -> None:
    loaded = {name: Questions(rows, {}) for name, rows in questions.items()}
    with pytest.raises(UserError, match=message):
        numbers_of(loaded, [result([question(0, grade=1)])])


def test_a_key_that_no_question_has_is_refused_and_the_usual_one_may_be_missing() -> None:
    numbers = QuestionNumbers({("x", "a"): {"grade": 1.0, "carries": 2.0}})
    assert numbers.choose("--grade", None, "grade") == "grade"
    assert numbers.choose("--needed", None, "needed") is None
    assert numbers.choose("--needed", "carries", "needed") == "carries"
    with pytest.raises(UserError, match=r"--grade: 'carry' .*; they have grade, carries; did you mean 'carries'\?"):
        numbers.choose("--grade", "carry", "grade")


# ---- the effect of calls ----


def called(is_correct: bool, without: list[bool], *, num_calls: int | None = None) -> ResponseRecord:
    """A response with a call of 1, 2, ... tokens at token 10, 20, ...; `without` each, as far as it was tried."""
    numbers = range(1, (num_calls or len(without)) + 1)
    return record(
        is_correct=is_correct,
        calls=[call("served", 9, number) | {"position": 10 * number} for number in numbers],
        num_calls=len(numbers),
        refusals=[
            {"position": 10 * number, "is_correct": is_right, "answer": None, "num_tokens": 3, "text": "..."}
            for number, is_right in enumerate(without, start=1)
        ],
    )


@pytest.mark.parametrize(
    ("is_correct", "without", "effect"),
    [
        (True, False, Effect.USEFUL),
        (False, True, Effect.HARMFUL),
        (True, True, Effect.RIGHT_ANYWAY),
        (False, False, Effect.WRONG_ANYWAY),
    ],
)
def test_the_effect_of_a_single_call(is_correct: bool, without: bool, effect: Effect) -> None:
    [tried] = tried_calls(called(is_correct, [without]))
    assert (tried.number, tried.num_tokens, tried.effect) == (1, 1, effect)


@given(st.booleans(), st.lists(st.booleans(), min_size=1, max_size=6))
def test_the_effects_of_a_responses_calls_add_up(is_correct: bool, without: list[bool]) -> None:
    """To what the teacher changed in all."""
    response = called(is_correct, without)
    effects = [tried.effect for tried in tried_calls(response)]
    assert len(effects) == len(without)
    assert effects.count(Effect.USEFUL) - effects.count(Effect.HARMFUL) == is_correct - is_right_without(response)


def test_a_call_whose_successor_was_not_tried_has_no_known_effect() -> None:
    """Of three calls two were refused: what the second one adds would be the third one's refusal."""
    assert [tried.number for tried in tried_calls(called(True, [False, True], num_calls=3))] == [1]


def test_a_response_without_a_call_is_as_it_is() -> None:
    assert list(tried_calls(alone())) == []
    assert [is_right_without(alone(is_correct=is_correct)) for is_correct in (True, False)] == [True, False]


# ---- the page ----


def answer(number: int, policy: str, *, asks: int, refusals: bool) -> ResponseRecord:
    """Grades 0 and 1 are right alone, 2 and 3 by a call; `asks` is what a call asks for, -1: what is needed."""
    grade = number % 4
    facts: dict[str, Any] = {"benchmark": "x", "id": f"q{number}", "question": f"{number}?", "condition": policy}
    if policy != "learned" or grade == 0:
        return alone(**facts, is_correct=grade < 2)
    num_tokens = NEEDED[grade] if asks == -1 else asks
    response = called(True, [grade < 2])
    return replace(
        response,
        **facts,
        calls=[call("served", num_tokens, num_tokens) | {"position": 10}],
        num_tokens=40,
        num_teacher_tokens=num_tokens,
        refusals=response.refusals if refusals else None,
    )


def make(folder: Path, rows: list[dict[str, Any]], policy: str, *, asks: int = -1, refusals: bool = True) -> None:
    records = [answer(number, policy, asks=asks, refusals=refusals) for number in range(len(rows))]
    benchmarks = {"x": {"sha256": Questions(rows, {}).sha256, "num_questions": len(rows), "num_samples": 1}}
    job = {"policy": policy, "student": "/m/s", "student_sha256": f"s{asks}", "teacher": "/m/t", "teacher_name": "t"}
    job |= {"benchmarks": benchmarks, "limits": {}, "seed": 0, "condition": policy if asks == -1 else f"asks {asks}"}
    write_records(folder / RESPONSES, records)
    (folder / MANIFEST).write_text(json.dumps({"job": job, "num_queries": len(records)}))


def asked_rows(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as `--benchmark x=FILE` reads them."""
    write_parquet(file, rows)
    [benchmark], own = find_benchmarks([f"x={file}"])
    return load_benchmark(benchmark, own["x"]).rows


def fill(folder: Path) -> Path:
    """Results of a student that asks for what it needs, of one that always asks for 6, and of the first one alone; the
    questions; and a log."""
    graded = [question(number, grade=number % 4, needed=NEEDED[number % 4]) for number in range(NUM_QUESTIONS)]
    rows = asked_rows(folder / "x.parquet", graded)
    make(folder / "results" / "learned", rows, "learned")
    make(folder / "results" / "always", rows, "learned", asks=6, refusals=False)
    make(folder / "results" / "free", rows, "teacher_free")
    steps = [{"step": step, "data": {"relay/call_rate": step / 20, "relay/accuracy": 0.5}} for step in range(1, 21)]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder, with all there can be on it; `printed.txt` is what the command said."""
    folder = fill(tmp_path_factory.mktemp("learned"))
    text = show(folder, "--metrics", f"relay={folder / 'log.jsonl'}")
    (folder / "page" / "printed.txt").write_text(text)
    return folder / "page"


def show(folder: Path, *options: str) -> str:
    command = ["learned", str(folder / "results"), "--benchmark", f"x={folder / 'x.parquet'}"]
    done = CliRunner().invoke(app, [*command, "--out", str(folder / "page"), *options])
    if done.exception:
        raise done.exception
    return done.output


def lines(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def row_of(text: str, *cells: str) -> list[str]:
    """The first line of a Markdown table that begins with these cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return next(row for row in rows if row[: len(cells)] == list(cells))


def test_the_page_says_what_was_learned(page: Path) -> None:
    text = (page / "learned.md").read_text()
    assert text in (page / "printed.txt").read_text()
    assert row_of(text, "condition", "questions")[2] == "rank correlation, all"
    assert row_of(text, "commands served", "18") == [  # 6 of 24 need none
        "commands served",
        "18",
        "+1.00 (+1.00 to +1.00)",
        "18",
        "+1.00 (+1.00 to +1.00)",
    ]
    always = row_of(text, "asks 6", "18")
    assert (always[2], always[-1]) == ("not defined", "not defined"), "n is the same wherever tokens are needed"
    # grades: right alone up to 1, right with a call from 2 on
    alone = "100.0 (61.0–100.0)"  # Wilson's interval of 6 of 6
    assert row_of(text, "without teacher", alone)[1:] == [alone, alone, *["0.0 (0.0–39.0)"] * 2]
    # grade 1 calls for a token that it does not need; 2 and 3 for 3 and 6 that they do
    useful = row_of(text, "commands served", "18 of 18")
    assert [cell.split()[0] for cell in useful[2:6]] == ["66.7", "33.3", "0.0", "0.0"]
    assert useful[6] == "60"
    assert useful[7].split()[0] == "90.0"
    assert [cell.split()[0] for cell in useful[8:]] == ["100.0", "50.0", "+50.0"]
    assert row_of(text, "relay", "20") == ["relay", "20", "7.5", "52.5", "97.5"]
    assert "90% of the teacher's tokens were useful" in text


def test_the_data_has_a_line_for_each_response_call_and_step(page: Path) -> None:
    responses, calls = lines(page / "responses.csv"), lines(page / "calls.csv")
    assert (len(responses), len(calls)) == (3 * NUM_QUESTIONS, 2 * 18)
    assert {row["effect"] for row in calls if row["condition"] == "commands served"} == {"useful", "right anyway"}
    assert {row["effect"] for row in calls if row["condition"] == "asks 6"} == {""}
    learned = [row for row in responses if row["condition"] == "commands served"]
    assert all(float(row["needed"]) == float(row["num_requested"]) for row in learned)
    assert [row["step"] for row in lines(page / "training.csv")] == [str(step) for step in range(1, 21)]


def test_the_pictures_are_there(page: Path) -> None:
    for name in ("lengths", "places", "grades", "useful", "curves"):
        assert "<svg" in (page / f"{name}.svg").read_text()
    assert (page / "learned.html").read_text().count("<figure") == 5


def test_any_number_of_the_questions_may_be_the_grade(folder: Path) -> None:
    assert "Accuracy by needed (%)" in show(folder, "--grade", "needed")


def test_what_is_missing_is_named(folder: Path) -> None:
    rows = asked_rows(folder / "x.parquet", [question(number) for number in range(4)])
    for name in ("learned", "always", "free"):
        (folder / "results" / name / RESPONSES).unlink()
        (folder / "results" / name / MANIFEST).unlink()
    make(folder / "results" / "learned", rows, "learned", refusals=False)
    text = show(folder)
    for option in ("--needed KEY", "--grade KEY", "--refusals N", "--metrics LABEL=PATH"):
        assert option in text
    with pytest.raises(UserError, match=r"--needed: 'steps' is not a number at extra_info of the questions; .* none"):
        show(folder, "--needed", "steps")


def test_another_version_of_the_questions_is_refused(folder: Path) -> None:
    rows = [question(number, grade=0, needed=1) for number in range(NUM_QUESTIONS)]
    write_parquet(folder / "x.parquet", rows)
    with pytest.raises(UserError, match="these are not the questions that"):
        show(folder)


def test_a_log_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"--metrics: .*none\.jsonl"):
        show(folder, "--metrics", f"relay={folder / 'none.jsonl'}")
