"""`relay-verl eval` through its command line, on endpoints: results, errors of one line, resuming, the judge."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.config import TeacherSettings
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.engines import ScriptedEngine
from relay_verl.errors import JobError, UserError
from relay_verl.evaluation.runner import _make_job
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.recipes.compose import compose
from relay_verl.run_config import RunConfig
from relay_verl.traces.results import MANIFEST, RESPONSES, SUMMARY, read_result
from tests.helpers.fake_vllm import FakeVllm
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

NUM_QUESTIONS = 6
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def big() -> Iterator[FakeVllm]:
    """The teacher's endpoint."""
    fake = FakeVllm()
    yield fake
    fake.stop()


@pytest.fixture
def judge() -> Iterator[FakeVllm]:
    """The judge's endpoint."""
    fake = FakeVllm()
    fake.routes["/v1/chat/completions"] = lambda body: chat("Yes" if says_right(body) else "No")
    yield fake
    fake.stop()


def says_right(body: dict[str, Any]) -> bool:
    """Whether the answer in a judge's prompt is the reference answer, letter by letter."""
    reference, answer = re.findall(r"answer [^\]]*\]\n(.*?)\n\[end", body["messages"][-1]["content"], flags=re.DOTALL)
    return reference == answer


def chat(reply: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer with a chat template, and questions whose answer is 7."""
    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = [
        to_row(data_source="x", question=f"{i}?", ground_truth="7", id=f"q{i}", index=i) for i in range(NUM_QUESTIONS)
    ]
    write_parquet(tmp_path / "math.parquet", rows)
    return tmp_path


def complete(tokenizer: Any, answer: str, student: str | None = None) -> Any:
    """An endpoint's route: the student writes `student` first if it has not, then `answer`."""

    def route(body: dict[str, Any]) -> dict[str, Any]:
        text = tokenizer.decode(body["prompt"])
        is_new = student is not None and "</call>" not in text and body.get("stop")
        ids = tokenizer.encode(student if is_new else answer, add_special_tokens=False)
        ended = {"finish_reason": "stop", "stop_reason": "</call>" if is_new else None}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(ids), "total_tokens": 0}
        return {
            "choices": [
                {"index": 0, "text": "", "token_ids": ids if is_new else [*ids, tokenizer.eos_token_id], **ended}
            ],
            "usage": usage | {"prompt_tokens_details": {"cached_tokens": 5}},
        }

    return route


@pytest.fixture
def pair(folder: Path, fake_vllm: FakeVllm, big: FakeVllm) -> list[str]:
    """Options of a student that calls for three tokens and a teacher that writes the answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    fake_vllm.routes["/v1/completions"] = complete(tokenizer, "no", "so <call>3</call>")
    big.routes["/v1/completions"] = complete(tokenizer, "\\boxed{7}")
    return [
        *("--student", fake_vllm.url, "--teacher", big.url, "--tokenizer", str(folder / "tokenizer")),
        *("--benchmark", "math-500", "--source", f"math-500={folder / 'math.parquet'}", "--recipe", "relay_tiny"),
        *("--out", str(folder / "out")),
    ]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["eval", *arguments])
    if result.exception:
        raise result.exception
    return result.output


def line_of(*arguments: str) -> str:
    """What the command says; it must not get as far as asking a model."""
    with pytest.raises((UserError, JobError)) as error:
        run(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_another_model_at_the_same_endpoint_answered_is_not_taken(pair: list[str], fake_vllm: FakeVllm) -> None:
    """lm-evaluation-harness#4063, #2715: the results folder is there, and no one was asked."""
    names = fake_vllm.routes["/v1/models"]["data"][0]
    fake_vllm.routes["/v1/models"] = {"data": [names, {**names, "id": "another"}]}
    run(*pair, "--policy", "student_alone", "--student-model", names["id"])
    line = line_of(*pair, "--policy", "student_alone", "--student-model", "another")
    assert f"belongs to another job: student_model is {names['id']!r} there and 'another' here" in line


def test_a_question_that_the_endpoint_refuses_counts_as_wrong_and_is_named(
    pair: list[str], folder: Path, fake_vllm: FakeVllm
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    answer = fake_vllm.routes["/v1/completions"]
    refusal = (400, {"error": {"message": "maximum context length is 64 tokens"}})
    fake_vllm.routes["/v1/completions"] = lambda body: (
        refusal if tokenizer.decode(body["prompt"]).startswith("3?") else answer(body)
    )
    printed = run(*pair, "--policy", "student_alone")
    result = read_result(folder / "out" / "student_alone")
    assert {r.id: r.status for r in result.records if not r.is_completed} == {"q3": "student_failed"}
    [refused] = [r for r in result.records if r.id == "q3"]
    assert not refused.is_correct
    assert "maximum context length" in str(refused.error)
    summary = json.loads((folder / "out" / "student_alone" / SUMMARY).read_text())
    [named] = summary["not_completed"]
    assert (named["id"], named["sample"], named["cause"]) == ("q3", 0, refused.error)
    assert f"1 of {NUM_QUESTIONS} responses are not completed and count as wrong: " in printed


def test_endpoints_are_measured_without_ray(pair: list[str], folder: Path, big: FakeVllm) -> None:
    import ray

    printed = run(*pair, "--policy", "learned", "--policy", "student_alone", "--row", "1.7b/relay")
    assert not ray.is_initialized()
    learned = read_result(folder / "out" / "learned")
    assert [record.id for record in learned.records] == [f"q{i}" for i in range(NUM_QUESTIONS)]
    first = learned.records[0]
    assert (first.benchmark, first.num_calls, first.is_completed) == ("math-500", 1, True)
    assert [segment["source"] for segment in first.segments] == ["student", "teacher", "student"]
    assert first.calls[0]["num_requested"] == 3
    assert first.calls[0]["num_cached"] == 5
    assert learned.row == "1.7b/relay"
    assert learned.job["benchmarks"]["math-500"]["num_samples"] == 1
    asked = [body for path, _, body in big.requests if path == "/v1/completions" and body["max_tokens"] > 1]
    assert all(body["temperature"] == 0 for body in asked), "greedy"
    alone = read_result(folder / "out" / "student_alone")
    assert {record.num_teacher_tokens for record in alone.records} == {0}
    assert alone.teacher is None
    assert "learned" in printed
    assert "student_alone" in printed


def test_avg_at_k_asks_the_teacher_alone_as_the_student_alone(
    pair: list[str], folder: Path, fake_vllm: FakeVllm, big: FakeVllm
) -> None:
    aime = ["--benchmark", "aime-2025", "--source", f"aime-2025={folder / 'math.parquet'}", "--limit", "1"]
    options = [*pair[:6], *aime, "--recipe", "relay_tiny", "--num-samples", "2"]
    policies = ["--policy", "student_alone", "--policy", "teacher_alone", "--policy", "router_0.5"]
    for own, expected in (([], (0.7, 0.8, 20)), (["--temperature", "0.9"], (0.9, 1.0, -1))):
        for endpoint in (fake_vllm, big):
            endpoint.requests.clear()
        run(*options, *policies, *own, "--out", str(folder / f"out{len(own)}"))
        for endpoint in (fake_vllm, big):
            asked = [
                body for path, _, body in endpoint.requests if path == "/v1/completions" and body["max_tokens"] > 1
            ]
            assert len(asked) >= 2
            assert {tuple(body.get(key) for key in ("temperature", "top_p", "top_k")) for body in asked} == {expected}


def slow(route: Any, delay_s: float) -> Any:
    def answer(body: dict[str, Any]) -> Any:
        if body["max_tokens"] > 1:  # a single token warms up
            time.sleep(delay_s)
        return route(body)

    return answer


@pytest.mark.parametrize("policy", ["student_alone", "teacher_alone", "router_1"])
def test_whole_responses_from_endpoints_have_the_students_time(
    policy: str, pair: list[str], folder: Path, fake_vllm: FakeVllm, big: FakeVllm
) -> None:
    """An endpoint that needs longer for a response than a call may take."""
    for endpoint in (fake_vllm, big):
        endpoint.routes["/v1/completions"] = slow(endpoint.routes["/v1/completions"], 1.0)
    run(*pair, "--limit", "2", "--policy", policy, "relay.teacher.timeout_s=0.1", "relay.teacher.num_retries=0")
    assert len(read_result(folder / "out" / policy).records) == 2


def test_the_job_waits_for_as_long_as_a_response_may_take() -> None:
    """The job's own default of an hour would end a response before `relay.rollout_timeout_s` does."""
    config, url = compose("relay_tiny", ["relay.rollout_timeout_s=9999"]), "http://127.0.0.1:9/v1"
    condition = Condition("alone", Path("unused"), url, policy="student_alone")
    tokenizer = make_bpe(BPE_WORDS)
    engines, models = {url: ScriptedEngine(tokenizer)}, {url: TeacherSettings(base_url=url)}
    job = _make_job(RunConfig(config), condition, {}, EvalSuite({}), engines, tokenizer, models, 0)
    assert job.timeout_s > 9999


def test_a_call_keeps_its_own_deadline(pair: list[str], big: FakeVllm) -> None:
    big.routes["/v1/completions"] = slow(big.routes["/v1/completions"], 1.0)
    with pytest.raises(JobError, match=r"teacher: no answer within 0\.1 s"):
        run(*pair, "--limit", "2", "relay.teacher.timeout_s=0.1", "relay.teacher.num_retries=0")


def test_what_is_finished_is_not_asked_again(pair: list[str], folder: Path, big: FakeVllm) -> None:
    run(*pair)
    before = len(big.requests)
    assert "is there already" in run(*pair)
    assert len(big.requests) == before


def test_a_teacher_that_fails_leaves_no_record_and_the_same_command_goes_on(
    pair: list[str], folder: Path, big: FakeVllm
) -> None:
    works = big.routes["/v1/completions"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")

    def fails(body: dict[str, Any]) -> Any:  # of four questions; start-up asks the first one
        is_one = tokenizer.decode(body["prompt"]).startswith(("2?", "3?", "4?", "5?"))
        return (500, {"error": {"message": "no"}}) if is_one else works(body)

    big.routes["/v1/completions"] = fails
    with pytest.raises(JobError, match=r"4 of 6 queries failed, the first one: math-500/q\d/0: teacher: .*the same"):
        run(*pair, "relay.teacher.num_retries=0")
    assert not (folder / "out" / "learned" / RESPONSES).exists()
    big.routes["/v1/completions"] = works
    run(*pair, "relay.teacher.num_retries=0")
    result = read_result(folder / "out" / "learned")
    assert result.manifest["num_resumed"] == 2
    assert all(record.num_calls == 1 for record in result.records), "none was written by the student alone"


def test_ctrl_c_says_what_is_saved_and_the_same_command_continues(pair: list[str], folder: Path, big: FakeVllm) -> None:
    works = big.routes["/v1/completions"]
    num_asked = 0

    def interrupts(body: dict[str, Any]) -> Any:
        nonlocal num_asked
        num_asked += body["max_tokens"] > 1  # a single token warms up
        if num_asked == 3:
            os.kill(os.getpid(), signal.SIGINT)
        if num_asked >= 3:
            time.sleep(3)
        return works(body)

    big.routes["/v1/completions"] = interrupts
    done = CliRunner().invoke(app, ["eval", *pair, "relay.teacher.max_num_seqs=1"])
    assert done.exit_code == 130
    said = re.search(r"interrupted: (\d) of 6 queries are saved in (\S+): the same command continues", done.stderr)
    assert said and said[2] == str(folder / "out" / "learned" / f"{RESPONSES}.work")
    assert done.stdout == ""
    big.routes["/v1/completions"] = works
    run(*pair, "relay.teacher.max_num_seqs=1")
    assert read_result(folder / "out" / "learned").manifest["num_resumed"] == int(said[1])


def test_a_file_of_ones_own_is_a_benchmark_and_the_result_is_json(pair: list[str], folder: Path) -> None:
    (folder / "sums.csv").write_text("Frage,Antwort\n3+4?,7\n2+5?,7\n")
    columns = ["--question-column", "Frage", "--answer-column", "Antwort", "+recipe=relay_tiny"]
    own = ["--benchmark", str(folder / "sums.csv"), *columns, "--out", str(folder / "own"), "--json"]
    done = CliRunner().invoke(app, ["eval", *pair[:6], *own, "--policy", "teacher_alone"])
    assert done.exit_code == 0, done.exception
    [result] = json.loads(done.stdout)["results"]
    assert result["benchmarks"]["sums"]["num_responses"] == 2
    assert result["benchmarks"]["sums"]["accuracy_percent"] == 100
    page = ["report", str(folder / "own"), "--out", str(folder / "report"), "--json"]
    reported = json.loads(CliRunner().invoke(app, page).stdout)
    assert Path(reported["html"]).is_file()
    assert [each["condition"] for each in reported["results"]] == ["teacher_alone"]


def test_both_verdicts_are_stored(pair: list[str], folder: Path, judge: FakeVllm) -> None:
    run(*pair, "--policy", "teacher_alone", "--judge-url", judge.url, "--judge-model", "big")
    result = read_result(folder / "out" / "teacher_alone")
    assert all(record.is_correct for record in result.records)
    assert [record.judge and record.judge["is_correct"] for record in result.records] == [True] * NUM_QUESTIONS
    assert result.job["judge"]["model"] == "big"


def test_results_can_be_judged_afterwards(pair: list[str], folder: Path, judge: FakeVllm) -> None:
    printed = run(*pair, "--policy", "teacher_alone")
    assert "accuracy by rule" in printed and "accuracy by judge" not in printed
    report = ["report", str(folder / "out"), "--out", str(folder / "report"), "--by", "judge"]
    unjudged = CliRunner().invoke(app, report).exception
    assert f"{NUM_QUESTIONS} of {NUM_QUESTIONS} responses in {folder / 'out' / 'teacher_alone'}" in str(unjudged)
    result = CliRunner().invoke(app, ["judge", str(folder / "out"), "--judge-url", judge.url, "--judge-model", "big"])
    assert result.exit_code == 0, result.exception
    assert "teacher_alone" in result.output
    judged = read_result(folder / "out" / "teacher_alone").records
    assert [record.judge and record.judge["is_correct"] for record in judged] == [True] * NUM_QUESTIONS
    reported = CliRunner().invoke(app, report)
    assert reported.exit_code == 0, reported.exception
    assert "by the LLM judge big" in reported.output
    assert "accuracy by judge" in run(*pair, "--policy", "teacher_alone"), "the same command shows both"


BAD: list[Any] = [
    # options, what the line says, why
    (
        ["--benchmark", "math-5"],
        r"unknown benchmark 'math-5'; allowed: minerva, math-500, .*; did you mean 'math-500'\?",
        "unknown benchmark",
    ),
    (["--policy", "greedy"], r"--policy: 'greedy' is not one of learned, teacher_free", "unknown policy"),
    (["--policy", "router_7"], r"--policy: 'router_7' is not one of", "no probability"),
    (["--row", "1.7b/relai"], r"1.7b/relay", "unknown row"),
    (["--source", "gsm8k=/no/such"], r"--source: gsm8k is not among --benchmark math-500", "a source of another"),
    (["--source", "math-500"], r"--source: 'math-500' is not NAME=PATH", "no path"),
    (["--judge-url", "http://127.0.0.1:9/v1"], r"judge: .* without a model", "half a judge"),
    (["--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m"], r"judge 'm': ", "a judge that is down"),
    (["relay.max_calls=-1"], r"relay.max_calls: -1", "a bad override"),
    (["--student", "/no/such"], r"/no/such does not exist", "no such model"),
]


@pytest.mark.parametrize(("options", "says", "why"), BAD, ids=[why for _, _, why in BAD])
def test_bad_input_is_one_line(options: list[str], says: str, why: str, pair: list[str], fake_vllm: FakeVllm) -> None:
    assert re.search(says, line_of(*pair, *options)), why
    assert not [path for path, _, _ in fake_vllm.requests if path == "/v1/completions"]


def test_a_policy_that_needs_a_model_says_which(pair: list[str]) -> None:
    without = [option for option in pair if option not in ("--teacher", pair[3])]
    assert line_of(*without, "--policy", "random_0.1") == "--teacher: policy random_0.1 needs one"


def test_a_model_without_a_chat_template_is_one_line(pair: list[str], folder: Path) -> None:
    make_bpe(BPE_WORDS).save_pretrained(folder / "plain")
    line = line_of(*pair, "--tokenizer", str(folder / "plain"))
    assert "plain: its tokenizer has no chat template" in line


def test_results_of_something_else_are_not_mixed(pair: list[str], folder: Path) -> None:
    run(*pair)
    for options, field in [
        (["--seed", "3"], "seed is 0 there and 3 here"),
        (["--limit", "2"], "benchmarks is "),
        (["--row", "1.7b/grpo"], "row is None there and '1.7b/grpo' here"),
        (["relay.max_calls=2"], "limits is "),
    ]:
        line = line_of(*pair, *options)
        assert field in line
        assert "belongs to another job" in line


def test_a_result_that_was_cut_is_named(pair: list[str], folder: Path) -> None:
    run(*pair)
    file = folder / "out" / "learned" / RESPONSES
    file.write_bytes(file.read_bytes()[:-30])
    result = CliRunner().invoke(app, ["trace", str(folder / "out"), "--out", str(folder / "page.html")])
    assert isinstance(result.exception, UserError)
    assert f"{RESPONSES}, line {NUM_QUESTIONS}: " in str(result.exception)
    assert not (folder / "page.html").exists()
    assert json.loads((folder / "out" / "learned" / MANIFEST).read_text())["num_queries"] == NUM_QUESTIONS
