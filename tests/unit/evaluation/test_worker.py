"""One question answered once, over scripted engines; killed runs and the command line are tested elsewhere."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from relay_verl.config import read_settings
from relay_verl.data.schema import to_row
from relay_verl.engines import ChatEngine, GuardedEngine, PermanentError, ScriptedEngine
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.errors import EngineError
from relay_verl.evaluation.worker import EvalSettings, EvalWorker, count_tokens, to_records, unanswered
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines
from relay_verl.traces.records import JudgeText, ResponseRecord, read_records
from tests.helpers.fake_vllm import chat_route
from tests.helpers.generators import ChatTokenizer

TOKENIZER = ChatTokenizer()
GREEDY, SAMPLED = {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8, "top_k": 20}


class Noting(ScriptedEngine):
    """Keeps what it was asked for next to the contexts."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.asked: list[dict[str, Any]] = []

    async def generate(self, prompt_ids: list[int], **options: Any) -> Any:
        self.asked.append(options)
        return await super().generate(prompt_ids, **options)


def rules(policy: str = "learned", **changes: Any) -> EvalSettings:
    settings = read_settings({"teacher": {"path": "x", "temperature": 0.5}})
    plain = {"condition": "c", "settings": settings, "max_tokens": 200, "max_context": None, "template": {}, "seed": 0}
    return EvalSettings(policy=policy, **{**plain, **changes})  # type: ignore[arg-type]


def ask(student: Any, teacher: Any, rules: EvalSettings, *, sampling: dict = GREEDY, sample: int = 0) -> ResponseRecord:
    row = to_row(data_source="tiny/mul", question="7*8?", ground_truth="56", id="q")
    worker = EvalWorker(student, teacher, TOKENIZER, rules)
    return ResponseRecord(**asyncio.run(worker.process({"row": row, "sample": sample, "sampling": sampling})))


def test_the_record_of_a_relayed_response() -> None:
    student = Noting(TOKENIZER, ["7*8=<call>2</call>", ", so \\boxed{56}"])
    made = ask(student, Noting(TOKENIZER, ["56"]), rules())
    assert made.text == "7*8=<call>2</call>56, so \\boxed{56}" + TOKENIZER.decode([TOKENIZER.eos_token_id])
    assert (made.is_correct, made.answer, made.num_calls, made.num_teacher_tokens) == (True, "56", 1, 2)
    assert (made.question, made.benchmark, made.id, made.sample) == ("7*8?", "tiny/mul", "q", 0)
    assert made.calls[0]["num_context"] == made.num_prompt_tokens + len("7*8=")
    assert made.started_at > 1.7e9


def test_the_teacher_is_greedy_where_the_student_is_and_samples_have_seeds_of_their_own() -> None:
    seeds = []
    for sampling, sample in ((GREEDY, 0), (SAMPLED, 0), (SAMPLED, 1), (SAMPLED, 1)):
        student, teacher = Noting(TOKENIZER, ["<call>2</call>", "x"]), Noting(TOKENIZER, ["56"])
        ask(student, teacher, rules(), sampling=sampling, sample=sample)
        asked = [engine.asked[0]["sampling"] for engine in (student, teacher)]
        assert [one["temperature"] for one in asked] == ([0.0, 0.0] if sampling is GREEDY else [0.7, 0.5])
        seeds.append([one.get("seed") for one in asked])
    assert seeds[0] == [None, None], "greedy needs none"
    assert seeds[1] != seeds[2] == seeds[3]
    assert seeds[2][0] != seeds[2][1]


@pytest.mark.parametrize(
    ("limit", "delivered", "num_asked"), [(None, [4, 4], 2), (6, [4, 2], 2), (4, [4], 1), (0, [], 0)]
)
def test_a_budget_bounds_the_teachers_tokens_of_a_response(
    limit: int | None, delivered: list[int], num_asked: int
) -> None:
    """A command past it is text."""
    student = ScriptedEngine(TOKENIZER, ["a<call>4</call>", "b<call>4</call>", "c"])
    teacher = Noting(TOKENIZER, lambda _: "teacher")
    answer = ask(student, teacher, rules(max_teacher_tokens=limit))
    assert [call["num_delivered"] for call in answer.calls if call["outcome"] == "served"] == delivered
    assert answer.num_teacher_tokens == sum(delivered)
    assert len(teacher.asked) == num_asked
    assert "c" in answer.segments[-1]["text"], "the student ends the response"


@pytest.mark.parametrize(("has_scores", "mean"), [(False, None), (True, pytest.approx(-0.5))])
def test_scores_are_asked_for_where_a_condition_has_them(has_scores: bool, mean: Any) -> None:
    student = Noting(TOKENIZER, ["a<call>2</call>", "b"])
    answer = ask(student, Noting(TOKENIZER, ["56"]), rules(has_scores=has_scores))
    assert answer.mean_logprob == mean
    assert ("logprobs" in student.asked[0]["sampling"]) == has_scores
    assert ("mean_logprob" in answer.to_dict()) == has_scores
    assert ResponseRecord.from_json(answer.to_json()) == answer


STUDENT, TEACHER = "student", "teacher"
WRITERS = [
    # policy, whose sampling is the benchmark's, who is asked
    ("student_alone", {STUDENT}, {STUDENT}),
    ("router_0", {STUDENT}, {STUDENT}),
    ("teacher_alone", {TEACHER}, {TEACHER}),
    ("router_1", {TEACHER}, {TEACHER}),
    ("learned", {STUDENT}, {STUDENT, TEACHER}),
    ("fixed_2", {STUDENT}, {STUDENT, TEACHER}),
    ("random_1", {STUDENT}, {TEACHER}),  # a call before the first token of the student's, which ends the response
    ("teacher_free", {STUDENT}, {STUDENT}),
]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, {"temperature": 0.9}], ids=["greedy", "avg@k", "temperature"])
@pytest.mark.parametrize(("policy", "writes_all", "is_asked"), WRITERS, ids=[case[0] for case in WRITERS])
def test_whoever_writes_a_whole_response_has_the_benchmarks_sampling(
    policy: str, writes_all: set[str], is_asked: set[str], sampling: dict[str, Any]
) -> None:
    engines = {
        STUDENT: Noting(TOKENIZER, ["<call>2</call>", "\\boxed{56}"]),
        TEACHER: Noting(TOKENIZER, lambda _: "56" + TOKENIZER.decode([TOKENIZER.eos_token_id])),
    }
    ask(engines[STUDENT], engines[TEACHER], rules(policy), sampling=sampling)
    assert {name for name, engine in engines.items() if engine.asked} == is_asked
    for name in is_asked:
        for asked in engines[name].asked:
            kept = {key: value for key, value in asked["sampling"].items() if key not in ("seed", "bad_words")}
            if name in writes_all:
                assert kept == sampling, "nothing of relay.teacher's is left in it"
            else:
                assert kept["temperature"] == (0.0 if sampling == GREEDY else 0.5), "relay.teacher's"
                assert kept.get("top_p", 1.0) == 1.0
                assert kept.get("top_k", -1) == -1
            assert ("seed" in asked["sampling"]) == (sampling != GREEDY)


class Slow(ScriptedEngine):
    """Takes its time for each request."""

    def __init__(self, script: list[str], delay_s: float):
        super().__init__(TOKENIZER, script, delay_s=delay_s)


@pytest.mark.parametrize("policy", ["teacher_alone", "router_1", "learned", "random_1"])
def test_a_whole_response_of_the_teachers_has_the_students_time(policy: str) -> None:
    """The deadline of a call bounds calls alone; a teacher that answers calls keeps it."""
    settings = read_settings(
        {"teacher": {"path": "x", "timeout_s": 0.05}, "rollout_timeout_s": 60.0, "max_tokens_per_call": 4}
    )
    student, teacher = ScriptedEngine(TOKENIZER, ["<call>2</call>", "no"]), Slow(["\\boxed{56}"], delay_s=1.0)
    if policy in ("learned", "random_1"):
        with pytest.raises(EngineError, match=r"no answer within 0\.05 s"):
            ask(student, teacher, rules(policy, settings=settings))
    else:
        assert ask(None, teacher, rules(policy, settings=settings)).is_correct


def test_a_whole_response_of_the_teachers_ends_at_the_students_deadline() -> None:
    settings = read_settings({"teacher": {"path": "x"}, "rollout_timeout_s": 0.05})
    with pytest.raises(EngineError, match=r"no answer within 0\.05 s"):
        ask(None, Slow(["\\boxed{56}"], delay_s=30.0), rules("teacher_alone", settings=settings))


class Believer:
    """A judge that notes what it is asked about."""

    def __init__(self) -> None:
        self.answers: list[str | None] = []

    async def judge(self, question: str, answer: str | None, ground_truth: str) -> JudgeText:
        self.answers.append(answer)
        return {"is_correct": answer is not None, "reply": "", "error": ""}


COMMANDS_IN_BOXES = [
    (["\\boxed{<call>1</call>", "6}"], "in front of the answer"),
    (["\\boxed{5<call>1</call>", "}"], "inside the answer"),
    (["\\boxed<call>1</call>", "56}"], "between the box and its brace"),
    (["\\bo<call>1</call>", "ed{56}"], "inside the word"),
    (["\\boxed{1} \\boxed<call>1</call>", "56}"], "behind another box"),
    (["\\boxed{56<call>0</call>}"], "a command that is not served"),
]


@pytest.mark.parametrize(("turns", "where"), COMMANDS_IN_BOXES, ids=[case[1] for case in COMMANDS_IN_BOXES])
def test_grader_and_judge_read_the_answer_without_commands(turns: list[str], where: str) -> None:
    missing = {"in front of the answer": "5", "inside the answer": "6", "inside the word": "x"}
    student, teacher = Noting(TOKENIZER, turns), Noting(TOKENIZER, [missing.get(where, "{")])
    judge = Believer()
    row = to_row(data_source="tiny/mul", question="7*8?", ground_truth="56", id="q")
    worker = EvalWorker(student, teacher, TOKENIZER, rules(), judge)  # type: ignore[arg-type]
    made = ResponseRecord(**asyncio.run(worker.process({"row": row, "sample": 0, "sampling": GREEDY})))
    assert "<call>" in made.text
    assert (made.is_correct, made.answer, judge.answers) == (True, "56", ["56"])


@pytest.mark.parametrize(
    ("extra", "task"), [({"task": "boardgame qa"}, "boardgame qa"), ({}, None), ({"task": ""}, None)]
)
def test_a_record_names_its_question_s_task(extra: dict[str, str], task: str | None) -> None:
    row = to_row(data_source="bbeh", question="7*8?", ground_truth="56", id="q", **extra)
    worker = EvalWorker(ScriptedEngine(TOKENIZER, ["\\boxed{56}"]), None, TOKENIZER, rules("student_alone"))
    made = asyncio.run(worker.process({"row": row, "sample": 0, "sampling": GREEDY}))
    assert ResponseRecord(**made).task == task
    assert made == json.loads(ResponseRecord(**made).to_json()), "a line of the file is the record"


def test_a_model_that_fails_leaves_no_record() -> None:
    with pytest.raises(EngineError, match="gone"):
        ask(ScriptedEngine(TOKENIZER, [EngineError("gone")]), None, rules("student_alone"))
    dead = ScriptedEngine(TOKENIZER, [EngineError("gone")])
    with pytest.raises(EngineError, match="teacher: gone"):
        ask(ScriptedEngine(TOKENIZER, ["a<call>2</call>", "\\boxed{56}"]), dead, rules())


def test_a_long_prompt_leaves_less_room_and_one_that_fills_the_context_is_wrong() -> None:
    length = len(
        TOKENIZER.apply_chat_template(to_row(data_source="x", question="7*8?", ground_truth="1", id="q")["prompt"])
    )
    short = ask(ScriptedEngine(TOKENIZER, ["a" * 50]), None, rules("student_alone", max_context=length + 9))
    assert short.num_tokens == 9
    student = ScriptedEngine(TOKENIZER, ["a"])
    none = ask(student, None, rules("student_alone", max_context=length))
    assert (none.num_tokens, none.is_correct, none.is_completed, none.status) == (0, False, False, "student_failed")
    assert none.error == f"the prompt fills the context: {length} of {length} tokens"
    assert student.requests == []


REFUSED = PermanentError("400: this model's maximum context length is 64 tokens")


def test_a_question_that_an_engine_refuses_is_a_record_with_its_cause() -> None:
    """Not completed and wrong, with what was written before; nothing would change if it were asked again."""
    refusing = ScriptedEngine(TOKENIZER, [REFUSED])
    student = ask(refusing, None, rules("student_alone"))
    assert (student.status, student.error, student.num_tokens) == ("student_failed", str(REFUSED), 0)
    writing = ScriptedEngine(TOKENIZER, ["a<call>2</call>", "\\boxed{56}"])
    relayed = ask(writing, ScriptedEngine(TOKENIZER, [REFUSED]), rules())
    assert (relayed.status, relayed.error, relayed.text) == ("teacher_failed", str(REFUSED), "a<call>2</call>")
    whole = ask(None, ScriptedEngine(TOKENIZER, [REFUSED]), rules("teacher_alone"))
    assert (whole.status, whole.error) == ("teacher_failed", str(REFUSED))
    for response in (student, relayed, whole):
        assert (response.is_correct, response.is_completed) == (False, False)
        assert ResponseRecord.from_json(response.to_json()) == response


def test_an_engine_that_refuses_whoever_asks_leaves_no_record() -> None:
    refusing = ScriptedEngine(TOKENIZER, [PermanentError("401: wrong key", concerns_all=True)])
    with pytest.raises(EngineError, match="401: wrong key"):
        ask(refusing, None, rules("student_alone"))


def test_a_question_that_the_template_does_not_take_is_a_record_with_its_cause() -> None:
    class Particular(ChatTokenizer):
        def apply_chat_template(self, messages: Any, **_: Any) -> list[int]:
            raise TemplateError("Conversation roles must alternate")

    student = ScriptedEngine(TOKENIZER, ["\\boxed{56}"])
    row = to_row(data_source="tiny/mul", question="7*8?", ground_truth="56", id="q")
    worker = EvalWorker(student, None, Particular(), rules("student_alone"))
    response = asyncio.run(worker.process({"row": row, "sample": 0, "sampling": GREEDY}))
    record = ResponseRecord(**response)
    assert (record.is_completed, record.is_correct, record.num_prompt_tokens) == (False, False, 0)
    assert "Conversation roles must alternate" in str(record.error)
    assert student.requests == []


def test_a_completed_response_has_no_error_in_its_line() -> None:
    response = ask(ScriptedEngine(TOKENIZER, ["\\boxed{56}"]), None, rules("student_alone"))
    assert response.error is None
    assert "error" not in json.loads(response.to_json()), "a file of an earlier version stays byte for byte"


@pytest.mark.parametrize("policy", ["teacher_alone", "router_1"])
def test_the_teacher_alone_needs_no_student(policy: str) -> None:
    made = ask(None, ScriptedEngine(TOKENIZER, ["\\boxed{56}"]), rules(policy))
    assert (made.is_correct, made.call_ratio) == (True, 1.0)


@pytest.mark.parametrize("policy", ["learned", "teacher_alone", "router_1"])
def test_a_chat_api_as_the_teacher(fake_vllm: Any, policy: str) -> None:
    """It is given the row's chat and the text, in calls and as the one who writes all of it."""
    fake_vllm.routes["/v1/chat/completions"] = chat_route("7*8=56, so \\boxed{56}", num_hidden=3)
    api = GuardedEngine(ChatEngine(fake_vllm.url, "big", TOKENIZER, num_retries=0))
    student = None if policy != "learned" else Noting(TOKENIZER, ["7*8=<call>2</call>", ", so \\boxed{56}"])
    response = ask(student, api, rules(policy))
    assert response.is_correct and response.num_teacher_tokens == (
        2 if policy == "learned" else len("7*8=56, so \\boxed{56}") + 1
    )
    (body,) = [body for path, _, body in fake_vllm.requests if path.endswith("/chat/completions")]
    question, *written = body["messages"]
    assert "7*8?" in question["content"]
    assert written == ([{"role": "assistant", "content": "7*8="}] if policy == "learned" else [])
    (call,) = response.calls
    assert call["num_billed_output"] == (2 if policy == "learned" else len("7*8=56, so \\boxed{56}")) + 3


def test_a_sample_at_which_a_server_fails_each_time_is_a_record_and_the_evaluation_ends(
    fake_vllm: Any, tmp_path: Path
) -> None:
    def answer(body: Any) -> Any:
        if "3*8?" in bytes(body["prompt"]).decode():
            return 500, {"error": {"message": "index out of range"}}
        ids = [*b"\\boxed{56}", TOKENIZER.eos_token_id]
        return {"choices": [{"token_ids": ids, "finish_reason": "stop", "stop_reason": None}]}

    fake_vllm.routes["/v1/completions"] = answer
    student = EndpointEngine(fake_vllm.url, "big", num_retries=0)
    answerer = EvalWorker(student, None, TOKENIZER, rules("student_alone"))
    rows = [to_row(data_source="tiny/mul", question=f"{i}*8?", ground_truth="56", id=f"q{i}") for i in range(6)]
    queries = [(f"q{i}", {"row": row, "sample": 0, "sampling": GREEDY}) for i, row in enumerate(rows)]
    replace = partial(unanswered, "c", False)
    job = Job({"kind": "test"}, JsonLines(), answerer.process, to_records, replace=replace)
    manifest = asyncio.run(run_job(job, queries, len(queries), tmp_path / "responses.jsonl"))
    assert manifest["unanswerable"] == []
    records = read_records(tmp_path / "responses.jsonl")
    assert [record.id for record in records] == [f"q{i}" for i in range(6)]
    assert [record.is_correct for record in records] == [True, True, True, False, True, True]
    [failed] = [record for record in records if record.error]
    assert (failed.id, failed.question, failed.text, failed.answer) == ("q3", "3*8?", "", None)
    assert "HTTP 500: index out of range" in str(failed.error)


def saying(said: dict[str, str]) -> Noting:
    """A student whose words follow from what stands behind the question."""

    def write(context: list[int]) -> str:
        response = TOKENIZER.decode(context).partition("\\boxed{}.\n")[2]
        return said[response]

    return Noting(TOKENIZER, write)


CALL = "7*8=<call>2</call>"
SECOND = f"{CALL}56, so <call>3</call>"
TWO_CALLS = {"": CALL, f"{CALL}56": ", so <call>3</call>", f"{SECOND}56.": " \\boxed{56}"}
WITHOUT = {CALL: "54, so \\boxed{54}", SECOND: "\\boxed{56}"}
"""Without the first call the answer is wrong, without the second one it is right anyway."""


def test_a_refused_call_leaves_the_same_tokens_before_it_and_the_student_alone_after_it() -> None:
    student, teacher = saying(TWO_CALLS | WITHOUT), Noting(TOKENIZER, ["56", "56."])
    record = ask(student, teacher, rules(num_refusals=4))
    assert (record.is_correct, record.num_calls) == (True, 2)
    eos = TOKENIZER.decode([TOKENIZER.eos_token_id])
    assert record.refusals == [
        {
            "position": len(kept),
            "is_correct": answer == "56",
            "answer": answer,
            "num_tokens": len(WITHOUT[kept]) + 1,
            "text": f"{WITHOUT[kept]}{eos}",
        }
        for kept, answer in ((CALL, "54"), (SECOND, "56"))
    ]
    assert [one["position"] for one in record.refusals] == [call["position"] for call in record.calls]
    assert len(teacher.asked) == 2, "the teacher is not asked again"
    assert [bool(asked["sampling"].get("bad_words")) for asked in student.asked] == [False] * 3 + [True] * 2
    assert ResponseRecord.from_json(record.to_json()) == record
    num_refused = sum(one["num_tokens"] for one in record.refusals)
    assert count_tokens(record.to_dict())["student"] == record.num_tokens - 5 + num_refused


@pytest.mark.parametrize(("num_refusals", "num_tried"), [(0, None), (1, 1), (2, 2), (5, 2)])
def test_as_many_calls_are_refused_as_were_asked_for(num_refusals: int, num_tried: int | None) -> None:
    record = ask(saying(TWO_CALLS | WITHOUT), Noting(TOKENIZER, ["56", "56."]), rules(num_refusals=num_refusals))
    assert (None if record.refusals is None else len(record.refusals)) == num_tried
    assert ("refusals" in record.to_dict()) == (num_tried is not None)


def test_what_the_student_writes_without_a_call_fits_the_response() -> None:
    """The command ends at token 18 of 23: five are left for the student, too."""
    student = saying({"": CALL, f"{CALL}56": "!!!!", CALL: "0123456789"})
    record = ask(student, Noting(TOKENIZER, ["56"]), rules(num_refusals=1, max_tokens=23))
    assert record.num_tokens == 23
    assert record.refusals is not None
    assert (record.refusals[0]["position"], record.refusals[0]["text"]) == (18, "01234")


def test_a_refused_call_has_a_seed_of_its_own_where_responses_are_sampled() -> None:
    student = saying({"": CALL, f"{CALL}56": "b", CALL: "c"})
    ask(student, Noting(TOKENIZER, ["56"]), rules(num_refusals=1), sampling=SAMPLED)
    first, second, refused = (asked["sampling"]["seed"] for asked in student.asked)
    assert len({first, second, refused}) == 3  # the second turn of one response has its seed and place


def test_a_student_that_fails_without_a_call_fails_the_sample() -> None:
    """Half a pair is not a pair: it is asked for again."""

    def write(context: list[int]) -> Any:
        return EngineError("down") if TOKENIZER.decode(context).endswith(CALL) else f"{CALL}b"

    with pytest.raises(EngineError, match="down"):
        ask(Noting(TOKENIZER, write), Noting(TOKENIZER, ["56"]), rules(num_refusals=1))
