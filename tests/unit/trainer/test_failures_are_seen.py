"""A model that answers nothing is seen: warnings with the cause, and an end that keeps what was done."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.config import RelaySettings, read_settings
from relay_verl.data.source import Source
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import ScriptedEngine
from relay_verl.engines.failure_share import KEY, MIN_COUNT, FailureShare
from relay_verl.errors import EngineError, JobError, TeacherError, UserError
from relay_verl.evaluation.worker import missing_verdict
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines
from relay_verl.judging.judge import Judge
from relay_verl.traces.records import refusal
from relay_verl.trainer import teacher_watch
from relay_verl.trainer.metrics import SampleStats
from relay_verl.trainer.teacher_watch import TeacherWatch
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory
from tests.helpers.generators import SeededEngine, filter_job, run, write_questions
from tests.helpers.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()


# ---- the share ----


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20), st.floats(0, 1))
def test_too_few_requests_decide_nothing_and_a_limit_of_1_ends_nothing(
    steps: list[tuple[int, int]], limit: float
) -> None:
    share, endless = FailureShare(limit, "calls"), FailureShare(1.0, "calls")
    for served, failed in steps:
        for one in (share, endless):
            one.add(served, failed, "down")
        total = sum(map(sum, steps[: steps.index((served, failed)) + 1]))
        assert share.is_decided or total < MIN_COUNT
        assert not endless.is_over
    num_failed = sum(failed for _, failed in steps)
    num_all = sum(map(sum, steps))
    assert share.is_over == (num_all >= MIN_COUNT and num_failed > limit * num_all)


STEPS = [
    # limit, (served, failed) of each step, the step that ends the run, why
    (0.5, [(0, 43)], 0, "nothing is served"),
    (0.5, [(0, 19), (0, 1)], 1, "a step with too few calls decides with the next one"),
    (0.5, [(10, 10)] * 9, None, "half of them is not more than half"),
    (0.5, [(9, 11)], 0, "more than half"),
    (0.5, [(100, 0), (0, 20)], 1, "what was served earlier does not hide a teacher that died"),
    (0.5, [(19, 0), (0, 18), (0, 2)], None, "steps that decided together do not count again"),
    (0.0, [(1000, 1)], 0, "no failure is allowed"),
    (1.0, [(0, 1000)] * 5, None, "the user trains without a teacher"),
    (0.5, [(0, 0)] * 5, None, "no one calls"),
]


def stats(served: int, failed: int, cause: str = "HTTP 401: who are you") -> SampleStats:
    outcomes = {str(CallOutcome.SERVED): served, str(CallOutcome.FAILED): failed}
    return SampleStats("completed", num_tokens=3, outcomes=outcomes, failure=cause if failed else "")


@pytest.mark.parametrize(("limit", "steps", "ends_at", "why"), STEPS, ids=[why for *_, why in STEPS])
def test_the_step_that_ends_a_run(
    limit: float, steps: list, ends_at: int | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = TeacherWatch(limit)
    ended = []
    for step, (served, failed) in enumerate(steps):
        watch.count([stats(served, failed)])
        watch.warn(f"step {step}")
        said = capsys.readouterr().err
        assert said.count("\n") == (failed > 0), "one warning a step while it lasts"
        if failed:
            assert said.startswith(f"relay_verl: warning: step {step}: {failed} of {served + failed} calls")
            assert "HTTP 401: who are you" in said
        if too_many := watch.decide():
            ended.append(step)
            line = too_many.explain()
            assert line.startswith(f"{KEY}={limit:g}: ")
            assert "HTTP 401: who are you" in line
    assert ended == ([] if ends_at is None else [ends_at]), why


def test_a_sample_carries_why_its_last_call_failed() -> None:
    calls = [
        CallRecord(CallOutcome.FAILED, error="first"),
        CallRecord(CallOutcome.FAILED, error="the last\nof them", teacher="big"),
        CallRecord(CallOutcome.SERVED),
    ]
    trajectory = RelayTrajectory([1], [], RelayStatus.COMPLETED, calls)
    sample = SampleStats.of(trajectory, is_correct=False)
    assert sample.failure == "big: the last of them"
    assert SampleStats(**sample.to_dict()) == sample  # type: ignore[arg-type]
    assert SampleStats.of(RelayTrajectory([1], [], RelayStatus.COMPLETED), is_correct=False).failure == ""


def relay(teacher: Any, **options: Any) -> RelayDecoder:
    student = ScriptedEngine(TOKENIZER, lambda _: "a<call>3</call>")
    return RelayDecoder(student, teacher, TOKENIZER, RelayConfig(60, None, 5, **options))


class TemplateError(Exception):
    """What a chat template raises that refuses a row."""


@pytest.mark.parametrize("error", [EngineError("HTTP 401"), TemplateError("no system role")], ids=["endpoint", "row 8"])
async def test_the_first_failed_call_is_a_warning_with_its_cause(error: Exception, caplog: Any) -> None:
    class Broken:
        async def generate(self, *_: Any, **__: Any) -> Any:
            raise error

    decoder = relay(Broken())
    for _ in range(2):
        assert (await decoder.run([1])).num_failed_calls
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert str(error) in warning.getMessage()


async def test_where_a_failure_is_raised_it_is_not_said_twice(caplog: Any) -> None:
    with pytest.raises(TeacherError):
        await relay(ScriptedEngine(TOKENIZER, [EngineError("down")]), on_teacher_failure="fail").run([1])
    assert not caplog.records


# ---- the end of a training ----


class Trainer:
    """As much of verl's trainer as ends a run."""

    def __init__(self, save_freq: int | None, reason: str | None, error: Exception | None = None):
        self.config = SimpleNamespace(trainer=SimpleNamespace(save_freq=save_freq))
        self.replay_buffer = SimpleNamespace(end_reason=reason)
        self.logger = SimpleNamespace(log=lambda **what: self.logged.append(what))
        self.logged: list[Any] = []
        self.global_steps, self.num_saved, self.error = 7, 0, error

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> str:
        metrics |= {"relay/teacher_failures": 24.0, "table": {"not": "a number"}}
        return "batch"

    def _save_checkpoint(self) -> None:
        self.num_saved += 1
        if self.error:
            raise self.error


def wrapped(*arguments: Any) -> Any:
    class PPOTrainer(Trainer):
        pass

    module = SimpleNamespace(PPOTrainer=PPOTrainer)
    teacher_watch.install(module)
    once = PPOTrainer.step
    teacher_watch.install(module)
    assert PPOTrainer.step is once, "a second call does nothing"
    return PPOTrainer(*arguments)


REASON = f"{KEY}=0.5: 24 of 30 calls to the teacher failed (80%), the latest: refused"
ENDS = [
    # save_freq, error of the save, number of saves, part of the line
    (50, None, 1, "step 7 is saved"),
    (50, OSError("disk full"), 1, "step 7 could not be saved: disk full"),
    (-1, None, 0, "trainer.save_freq=-1"),
    (None, None, 0, "trainer.save_freq=None"),
]


@pytest.mark.parametrize(("save_freq", "error", "num_saved", "part"), ENDS)
def test_a_run_ends_behind_the_step_with_a_checkpoint(save_freq: Any, error: Any, num_saved: int, part: str) -> None:
    trainer = wrapped(save_freq, REASON, error)
    with pytest.raises(TeacherError) as ended:
        trainer.step({}, {})
    line = str(ended.value)
    assert line.startswith(REASON)
    assert part in line
    assert f"{KEY}=1" in line, "how to train without a teacher"
    assert "\n" not in line
    assert trainer.num_saved == num_saved
    assert trainer.logged == [{"data": {"relay/teacher_failures": 24.0}, "step": 7}], "the step's metrics are not lost"


def test_a_step_with_a_teacher_ends_nothing() -> None:
    trainer = wrapped(50, None)
    assert trainer.step({}, {}) == "batch"
    assert (trainer.num_saved, trainer.logged) == (0, [])


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "half", None])
def test_a_limit_that_is_not_a_share_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^relay\.max_failed_call_share: "):
        read_settings({"teacher": {"path": "x"}, "max_failed_call_share": value})


def test_the_default() -> None:
    assert RelaySettings.max_failed_call_share == 0.5
    assert read_settings({"teacher": {"path": "x"}, "max_failed_call_share": 1}).max_failed_call_share == 1.0


# ---- long jobs ----


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_questions(tmp_path / "questions.parquet", 50)


def failing(*shares: int) -> Any:
    """Fails the queries whose number modulo 10 is among `shares`."""

    def fail(prompt: str) -> None:
        number = int("".join(filter(str.isdigit, prompt.split("?")[0])))
        if number % 10 in shares:
            raise EngineError("HTTP 503: overloaded")

    return fail


def test_a_job_of_which_too_much_fails_ends_and_keeps_what_is_answered(
    source: Source, tmp_path: Path, caplog: Any
) -> None:
    out = tmp_path / "out.parquet"
    job = filter_job(source, SeededEngine(fail=failing(0, 1, 2, 3, 4, 5)), max_concurrency=1)
    with pytest.raises(JobError) as ended:
        run(job, source, out)
    line = str(ended.value)
    assert line.startswith(f"{KEY}=0.5: ")
    assert "13 of 21 queries failed" in line
    assert "HTTP 503: overloaded" in line
    assert "\n" not in line
    [warning] = [record.getMessage() for record in caplog.records]
    assert "1 of 1 queries failed" in warning, "the first failure is said at once"
    assert "HTTP 503: overloaded" in warning
    engine = SeededEngine()
    manifest = run(filter_job(source, engine), source, out)
    assert manifest["num_resumed"] == 8
    assert engine.num_asked == (50 - 8) * 10


def test_a_job_of_which_less_fails_runs_to_its_end(source: Source, tmp_path: Path) -> None:
    job = filter_job(source, SeededEngine(fail=failing(0, 1, 2, 3)), max_concurrency=1)
    with pytest.raises(JobError, match="20 of 50 queries failed, the first one: q0"):
        run(job, source, tmp_path / "out.parquet")


def test_a_job_whose_user_continues_is_bounded_by_failures_in_a_row_alone(source: Source, tmp_path: Path) -> None:
    job = filter_job(source, SeededEngine(fail=failing(*range(9))), max_failed_share=1.0, max_concurrency=1)
    with pytest.raises(JobError, match="45 of 50 queries failed"):
        run(job, source, tmp_path / "out.parquet")


def record_with(error: str, is_correct: bool | None = None) -> dict[str, Any]:
    return {"judge": {"is_correct": is_correct, "reply": "", "error": error}}


MISSING = [
    # record, whether the verdict is missing, why
    ({"judge": None}, False, "no judge was asked"),
    (record_with("", True), False, "a verdict"),
    (record_with("no answer to judge", False), False, "nothing to ask about"),
    (record_with("the reply is neither Yes nor No"), False, "it replied"),
    ({"judge": refusal("too long")}, False, "it will never reply to this one"),
    (record_with("http://h/v1: HTTP 500"), True, "it failed"),
]


@pytest.mark.parametrize(("record", "is_missing", "why"), MISSING, ids=[why for *_, why in MISSING])
def test_which_verdicts_are_missing(record: dict, is_missing: bool, why: str) -> None:
    assert (missing_verdict(record) is not None) == is_missing


async def test_a_judge_that_answers_nothing_ends_an_evaluation_and_keeps_the_responses(
    fake_vllm: Any, tmp_path: Path
) -> None:
    fake_vllm.routes["/v1/chat/completions"] = (500, {"error": {"message": "boom"}})
    judge = Judge(fake_vllm.url, "big", num_retries=0)
    num_answered = 0

    async def process(row: Any) -> Any:
        nonlocal num_answered
        num_answered += 1
        return {"id": row["id"], "judge": await judge.judge("7*8?", "56", "56")}

    options: dict[str, Any] = {"max_concurrency": 1, "find_failure": missing_verdict, "parts": "verdicts of the judge"}
    job = Job({"kind": "test"}, JsonLines(), process, lambda row, result: [result], **options)
    queries = [(str(i), {"id": i}) for i in range(50)]
    with pytest.raises(JobError, match=r"20 of 20 verdicts of the judge failed \(100%\), the latest: .*boom"):
        await run_job(job, queries, 50, tmp_path / "out.jsonl")
    assert num_answered == 20
    fake_vllm.routes["/v1/chat/completions"] = {"choices": [{"message": {"content": "Yes"}}]}
    judge = Judge(fake_vllm.url, "big", num_retries=0)
    manifest = await run_job(job, queries, 50, tmp_path / "out.jsonl")
    assert manifest["num_resumed"] == 20
    assert num_answered == 50
