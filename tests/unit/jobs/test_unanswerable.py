"""A query that can never be answered is recorded with its place and its cause, and never keeps a job from ending."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from ray.exceptions import RayTaskError

from relay_verl.data import source as sources
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.data.source import Source
from relay_verl.data.teacher_filter import filtered_schema
from relay_verl.engines import PermanentError
from relay_verl.engines.boundary import ask_within, describe
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.errors import EngineError, JobError, UserError
from relay_verl.jobs import Job, run_job, tell_unanswerable
from tests.helpers.generators import JOBS, ChatTokenizer, SeededEngine, filter_job, run, write_questions

REFUSAL = "Prompt length (140) leaves no room to generate within the model's maximum context length (128)"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_questions(tmp_path / "questions.parquet", 50)


@pytest.fixture
def few(tmp_path: Path) -> Source:
    """Few enough to ask a server about: ten requests each."""
    return write_questions(tmp_path / "questions.parquet", 12)


def refusing(*numbers: int, cause: str = REFUSAL, **options: Any) -> Callable[[str], None]:
    """What an engine does that refuses the questions with these numbers."""

    def fail(prompt: str) -> None:
        if any(f"What is {number}?" in prompt for number in numbers):
            raise PermanentError(cause, **options)

    return fail


def manifest_of(out: Path) -> Any:
    return json.loads(out.with_name(f"{out.name}.manifest.json").read_text())


def ids_of(out: Path) -> list[str]:
    """The queries in an output, each once."""
    if out.read_bytes()[:4] != b"PAR1":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pq.read_table(out).to_pylist()
    return list(dict.fromkeys(row["id"] if "id" in row else row["extra_info"]["id"] for row in rows))


def located(job: Job, source: Source) -> Job:
    return Job(**{**vars(job), "locate": source.locate})


@pytest.mark.parametrize("kind", JOBS)
def test_a_refused_query_is_left_out_and_named(kind: str, source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    job = JOBS[kind](source, SeededEngine(fail=refusing(13, 49)))
    manifest = run(located(job, source), source, out)
    assert ids_of(out) == [f"q{i}" for i in range(50) if i not in (13, 49)]
    data = tmp_path / "questions.parquet"
    assert manifest["unanswerable"] == [
        {"query": "q13", "place": f"{data}: row 14", "cause": REFUSAL},
        {"query": "q49", "place": f"{data}: row 50", "cause": REFUSAL},
    ]
    assert manifest == manifest_of(out)
    line = tell_unanswerable(out, manifest)
    assert all(part in line for part in ("2 of 50", "row 14", "row 50", REFUSAL))
    assert "\n" not in line
    assert tell_unanswerable(out, {"num_queries": 50, "unanswerable": []}) == ""
    assert tell_unanswerable(out, {"num_queries": 50}) == "", "a manifest of an earlier version"


def test_a_refused_query_is_not_asked_again_when_the_job_continues(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"

    def fail(prompt: str) -> None:
        refusing(3, 31)(prompt)
        if any(f"What is {number}?" in prompt for number in (5, 33)):
            raise EngineError("not now")

    with pytest.raises(JobError, match=r"2 of 50 queries.*: q"):
        run(filter_job(source, SeededEngine(fail=fail)), source, out)
    engine = SeededEngine(fail=refusing(3, 31))
    manifest = run(filter_job(source, engine), source, out)
    assert (manifest["num_resumed"], engine.num_asked) == (48, 20), "two queries of ten samples"
    assert [one["query"] for one in manifest["unanswerable"]] == ["q3", "q31"]
    assert ids_of(out) == [f"q{i}" for i in range(50) if i not in (3, 31)]


def test_refusals_in_a_row_do_not_stop_a_job(source: Source, tmp_path: Path) -> None:
    """Such as the long prompts at the end of a file that is sorted by length."""
    engine = SeededEngine(fail=refusing(*range(10, 50)))
    manifest = run(filter_job(source, engine, max_failures=5), source, tmp_path / "out.parquet")
    assert len(manifest["unanswerable"]) == 40
    assert ids_of(tmp_path / "out.parquet") == [f"q{i}" for i in range(10)]


def test_a_job_none_of_whose_queries_can_be_answered_writes_nothing(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(JobError, match=r"50 queries.*q0: no such parameter"):
        run(filter_job(source, SeededEngine(fail=refusing(*range(50), cause="no such parameter"))), source, out)
    assert not out.exists()
    manifest = run(filter_job(source, SeededEngine()), source, out)
    assert manifest["unanswerable"] == [], "the cause is gone, and so is what was noted under it"
    assert ids_of(out) == [f"q{i}" for i in range(50)]


def test_an_engine_that_refuses_whoever_asks_stops_the_job_at_once(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    engine = SeededEngine(fail=refusing(20, cause="401: wrong key", concerns_all=True))
    with pytest.raises(JobError, match=r"401: wrong key.*saved"):
        run(filter_job(source, engine, max_concurrency=1), source, out)
    assert engine.num_asked <= 21 * 10
    manifest = run(filter_job(source, SeededEngine(), max_concurrency=1), source, out)
    assert (manifest["num_resumed"], manifest["unanswerable"]) == (20, [])


class Particular(ChatTokenizer):
    """Its chat template takes no system message, as Gemma's does."""

    def apply_chat_template(self, messages: Iterable[Mapping[str, str]], **options: Any) -> list[int]:
        messages = list(messages)
        if messages[0]["role"] == "system":
            raise TemplateError("System role not supported")
        return super().apply_chat_template(messages, **options)


@pytest.mark.parametrize("kind", ["filter", "warmup-data"])
def test_a_row_that_the_template_does_not_take_is_left_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.helpers.generators.ChatTokenizer", Particular)
    rows = [to_row(data_source="d", question=f"What is {i}?", ground_truth="7", id=f"q{i}", index=i) for i in range(4)]
    rows[2]["prompt"].insert(0, {"role": "system", "content": "Be short."})
    write_parquet(tmp_path / "rows.parquet", rows)
    source = Source.scan(tmp_path / "rows.parquet")
    manifest = run(JOBS[kind](source, SeededEngine()), source, tmp_path / "out.parquet")
    [refused] = manifest["unanswerable"]
    assert refused["query"] == "q2"
    assert "System role not supported" in refused["cause"]
    assert ids_of(tmp_path / "out.parquet") == ["q0", "q1", "q3"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(refused=st.sets(st.integers(0, 19)), failing=st.sets(st.integers(0, 19)), shard_size=st.integers(1, 25))
def test_whatever_is_refused_or_fails_first_the_output_is_the_others_in_order(
    refused: set[int], failing: set[int], shard_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("job")
    source, out = write_questions(folder / "q.parquet", 20), folder / "out.parquet"

    def fail(prompt: str) -> None:
        refusing(*refused)(prompt)
        if any(f"What is {number}?" in prompt for number in failing):
            raise EngineError("not now")

    options: dict[str, Any] = {"shard_size": shard_size, "max_failures": 99}
    if failing - refused:
        with pytest.raises(JobError, match=f"{len(failing - refused)} of 20 queries failed"):
            run(filter_job(source, SeededEngine(fail=fail), **options), source, out)
    engine = SeededEngine(fail=refusing(*refused))
    if len(refused) == 20:
        with pytest.raises(JobError, match="none of the 20 queries can be answered"):
            run(filter_job(source, engine, **options), source, out)
        return
    manifest = run(filter_job(source, engine, **options), source, out)
    assert ids_of(out) == [f"q{i}" for i in range(20) if i not in refused]
    assert [one["query"] for one in manifest["unanswerable"]] == [f"q{i}" for i in sorted(refused)]
    if failing - refused:
        assert engine.num_asked == 10 * len(failing - refused), "only what failed is asked again"


# ---- who says that a request is refused ----


class Server:
    """verl's client, which raises what a server's `generate` raised in Ray."""

    def __init__(self, error: Exception):
        self._error = error

    async def generate(self, *_: Any, **__: Any) -> Any:
        raise self._error


def in_ray(error: Exception) -> Exception:
    """The error as Ray hands it on, with the worker's traceback as its text."""
    text = f'ray::vLLMHttpServer.generate() (pid=1)\n  File "server.py", line 7\n{type(error).__name__}: {error}'
    raised: Exception = RayTaskError("vLLMHttpServer.generate", text, error).as_instanceof_cause()
    return raised


async def test_a_prompt_without_room_behind_it_is_refused_by_verls_server() -> None:
    engine = VerlServerEngine(Server(in_ray(ValueError(REFUSAL))), ChatTokenizer())
    with pytest.raises(PermanentError) as refused:
        await ask_within(9.0, lambda: engine.generate([1], max_tokens=1))
    assert str(refused.value) == f"ValueError: {REFUSAL}"
    assert not refused.value.concerns_all


async def test_a_server_in_trouble_refuses_nothing_and_says_why_on_one_line() -> None:
    engine = VerlServerEngine(Server(in_ray(RuntimeError("CUDA error:\n  out of memory"))), ChatTokenizer())
    with pytest.raises(EngineError) as failed:
        await ask_within(9.0, lambda: engine.generate([1], max_tokens=1))
    assert not isinstance(failed.value, PermanentError)
    assert str(failed.value) == "RuntimeError: CUDA error: out of memory"


def test_another_librarys_error_is_one_line() -> None:
    assert describe(KeyError()) == "KeyError"
    assert len(describe(ValueError("x" * 9999))) < 450
    assert describe(in_ray(KeyError("a\nb"))).count("\n") == 0


# ---- the value and its schema ----

ANSWERS: dict[str, tuple[Any, list[Any]]] = {
    "int64": (pa.int64(), [7, 8]),
    "int32": (pa.int32(), [7, 8]),
    "uint64": (pa.uint64(), [7, 2**63]),
    "double": (pa.float64(), [7.0, 0.5]),
    "half": (pa.float16(), [7.0, 0.5]),
    "decimal": (pa.decimal128(9, 2), [7, 8]),
    "large text": (pa.large_string(), ["7", "8"]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["7", "8"]),
    "list": (pa.list_(pa.string()), [["7"], ["7", "8"]]),
    "list of numbers": (pa.large_list(pa.int64()), [[7], [7, 8]]),
    "object": (pa.struct([("target", pa.int64())]), [{"target": 7}, {"target": 8}]),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_of_any_type_is_written(kind: str, tmp_path: Path) -> None:
    """What is sampled can be written: the columns of the output are those of its rows."""
    answer_type, answers = ANSWERS[kind]
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    rows = {
        "data_source": pa.array(["d", "d"]),
        "prompt": pa.array([[{"role": "user", "content": f"What is {i}?"}] for i in range(2)], pa.list_(message)),
        "reward_model": pa.StructArray.from_arrays([pa.array(answers, answer_type)], ["ground_truth"]),
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    source = Source.scan(tmp_path / "rows.parquet")
    run(filter_job(source, SeededEngine()), source, tmp_path / "out.parquet")
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.schema.equals(filtered_schema(source.schema))
    assert len(written) == 2


def test_what_does_not_fit_the_columns_is_said_before_anything_is_sampled(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = source.schema.set(0, pa.field("data_source", pa.int64()))  # as if the two were told apart once more
    monkeypatch.setattr(sources, "dataset_schema", lambda path: schema)
    with pytest.raises(UserError, match=r"questions\.parquet.*1 .*'q0'.*columns") as bad:
        Source.scan(tmp_path / "questions.parquet")
    assert "\n" not in str(bad.value)


# ---- a query at which a server fails each time ----

WRITES = {"choices": [{"token_ids": [*b"\\boxed{7}", 256], "finish_reason": "stop", "stop_reason": None}]}
CRASH = "EngineCore: index out of range"


class Crashing:
    """vLLM's answer, but HTTP 500 to some questions.

    Args:
        numbers: to which questions.
        until: after so many crashes it answers these, too.
        status: another HTTP status.
        dies_after: answers, after which it crashes at every question.
    """

    def __init__(self, *numbers: int, until: int = 10**9, status: int = 500, dies_after: int = 10**9):
        self.numbers, self.until, self.status, self.dies_after = numbers, until, status, dies_after
        self.asked: Counter[int] = Counter()
        self.num_crashes = self.num_answers = 0

    def __call__(self, body: Any) -> Any:
        number = int("".join(filter(str.isdigit, bytes(body["prompt"]).decode())))
        self.asked[number] += 1
        if self.num_answers >= self.dies_after or (number in self.numbers and self.num_crashes < self.until):
            self.num_crashes += 1
            return self.status, {"error": {"message": CRASH}}
        self.num_answers += 1
        return WRITES


def run_over(fake: Any, route: Crashing, source: Source, out: Path, kind: str = "filter", **options: Any) -> Any:
    """The manifest of a job over a server."""
    fake.routes["/v1/completions"] = route
    engine = EndpointEngine(fake.url, "big", num_retries=0)
    return run(located(JOBS[kind](source, engine, **options), source), source, out)


@pytest.mark.parametrize("kind", JOBS)
def test_a_query_at_which_a_server_fails_each_time_is_left_out_and_named(
    kind: str, fake_vllm: Any, few: Source, tmp_path: Path
) -> None:
    out, route = tmp_path / "out.parquet", Crashing(3, 11)
    manifest = run_over(fake_vllm, route, few, out, kind)
    assert ids_of(out) == [f"q{i}" for i in range(12) if i not in (3, 11)]
    assert [(one["query"], one["place"].rpartition(": ")[2]) for one in manifest["unanswerable"]] == [
        ("q3", "row 4"),
        ("q11", "row 12"),
    ]
    assert all(f"HTTP 500: {CRASH}" in one["cause"] for one in manifest["unanswerable"])
    assert manifest["num_queries"] == 12
    num_samples = max(route.asked[i] for i in range(1, 3))
    # the other samples of a query that fails may be cancelled
    assert all(num_samples < route.asked[i] <= 2 * num_samples for i in (3, 11)), "it is tried again once"
    assert route.asked[0] == 2 * num_samples, "a query that was answered is asked again, to see that the server is well"
    assert route.asked[1] == num_samples


def test_a_query_that_is_answered_in_the_end_is_in_the_output(fake_vllm: Any, few: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    manifest = run_over(fake_vllm, Crashing(3, until=1), few, out)
    assert (manifest["unanswerable"], ids_of(out)) == ([], [f"q{i}" for i in range(12)])


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_overloaded_or_away_refuses_nothing(
    status: int, fake_vllm: Any, few: Source, tmp_path: Path
) -> None:
    out, route = tmp_path / "out.parquet", Crashing(3, status=status)
    with pytest.raises(JobError, match=rf"1 of 12 queries failed, the first one: q3: .*HTTP {status}: EngineCore"):
        run_over(fake_vllm, route, few, out)
    assert route.asked[3] <= 10, "it is left to the next run"
    assert run_over(fake_vllm, Crashing(), few, out)["unanswerable"] == []


def test_a_server_that_dies_refuses_nothing(fake_vllm: Any, few: Source, tmp_path: Path) -> None:
    """vLLM answers every request with HTTP 500 once its engine is dead."""
    out = tmp_path / "out.parquet"
    with pytest.raises(JobError, match=r"2 of 12 queries failed, the first one: q10: .*HTTP 500"):
        run_over(fake_vllm, Crashing(dies_after=100), few, out, max_concurrency=1)
    manifest = run_over(fake_vllm, Crashing(), few, out)
    assert (manifest["num_resumed"], manifest["unanswerable"]) == (10, [])
    assert ids_of(out) == [f"q{i}" for i in range(12)]


def test_when_too_many_fail_none_is_left_out(fake_vllm: Any, few: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(JobError, match="3 of 12 queries failed, the first one: q"):
        run_over(fake_vllm, Crashing(*range(9, 12)), few, out, max_failed_share=0.24)
    manifest = run_over(fake_vllm, Crashing(*range(9, 12)), few, out, max_failed_share=0.25)
    assert [one["query"] for one in manifest["unanswerable"]] == [f"q{i}" for i in range(9, 12)]
    assert manifest["num_resumed"] == 9


def test_a_job_whose_last_open_query_is_such_a_one_ends(fake_vllm: Any, few: Source, tmp_path: Path) -> None:
    """It was stopped after all others were answered: whether the server answers others is seen by asking one again."""
    out = tmp_path / "out.parquet"
    with pytest.raises(JobError, match="1 of 12 queries failed"):
        run_over(fake_vllm, Crashing(3, status=503), few, out)
    manifest = run_over(fake_vllm, Crashing(3), few, out)
    assert [one["query"] for one in manifest["unanswerable"]] == ["q3"]
    assert manifest["num_resumed"] == 11


def test_queries_that_can_be_read_once_only_are_refused(few: Source, tmp_path: Path) -> None:
    job = filter_job(few, SeededEngine())
    with pytest.raises(TypeError, match="read more than once"):
        asyncio.run(run_job(job, iter(few.queries()), 12, tmp_path / "out.parquet"))
