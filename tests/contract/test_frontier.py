"""`relay-verl frontier` through its command line, on endpoints: planned, killed, resumed; one-line errors."""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.errors import UserError
from relay_verl.traces.results import RESPONSES, read_result
from tests.helpers.errors import names
from tests.helpers.fake_vllm import FakeVllm
from tests.helpers.killing import finished, kill_when
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

NUM_QUESTIONS = 8
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
METHODS = """
methods:
  - {name: student alone, policy: student_alone}
  - {name: teacher alone, policy: teacher_alone}
  - {name: query router 50%, policy: query_router_0.5}
  - {name: "relay, budget 2", policy: learned, options: {max_teacher_tokens: 2}}
  - {name: relay, policy: learned}
"""
PRICES = ["relay.prices.currency=USD", "relay.prices.teacher.input=1", "relay.prices.teacher.output=4"]
PRICES += ["relay.prices.teacher.num_parameters=1000"]


@pytest.fixture
def big() -> Iterator[FakeVllm]:
    """The teacher's endpoint."""
    fake = FakeVllm()
    yield fake
    fake.stop()


def writes(tokenizer: Any, answer: str, call: str = "", delay_s: float = 0.0) -> Any:
    """An endpoint's route: `call` first, if it has not been written and commands are served, then `answer`."""

    def route(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(delay_s)
        calls = bool(call) and "</call>" not in tokenizer.decode(body["prompt"]) and bool(body.get("stop"))
        ids = tokenizer.encode(call if calls else answer, add_special_tokens=False)
        ids = ids if calls else [*ids, tokenizer.eos_token_id]
        is_cut = len(ids) > body["max_tokens"]
        ids = ids[: body["max_tokens"]]
        first = tokenizer.decode(body["prompt"][:1])
        number = int(first) if first.isdigit() else 0  # the question's: it is surer of later ones
        scores = {"token_logprobs": [-1.0 / (1 + number)] * len(ids)}
        ended = {"finish_reason": "length" if is_cut else "stop", "stop_reason": "</call>" if calls else None}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(ids), "total_tokens": 0}
        choice = {"index": 0, "text": "", "token_ids": ids, "logprobs": scores, **ended}
        return {"choices": [choice], "usage": usage}

    return route


@pytest.fixture
def command(tmp_path: Path, fake_vllm: FakeVllm, big: FakeVllm) -> list[str]:
    """A student that calls for three tokens and is wrong, and a teacher that is right."""
    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    rows = [
        to_row(data_source="x", question=f"{i}?", ground_truth="7", id=f"q{i}", index=i) for i in range(NUM_QUESTIONS)
    ]
    write_parquet(tmp_path / "math.parquet", rows)
    (tmp_path / "methods.yaml").write_text(METHODS)
    fake_vllm.routes["/v1/completions"] = writes(tokenizer, "no", "so <call>3</call>", delay_s=0.1)
    big.routes["/v1/completions"] = writes(tokenizer, "\\boxed{7}")
    return [
        *("frontier", "--student", fake_vllm.url, "--teacher", big.url, "--tokenizer", str(tmp_path / "tokenizer")),
        *("--benchmark", "math-500", "--source", f"math-500={tmp_path / 'math.parquet'}", "--recipe", "relay_tiny"),
        *("--methods", str(tmp_path / "methods.yaml"), "--out", str(tmp_path / "out"), "--json"),
        *("relay.teacher.max_num_seqs=1", *PRICES),
    ]


def run(arguments: list[str]) -> dict[str, Any]:
    done = CliRunner().invoke(app, arguments)
    if done.exception:
        raise done.exception
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_a_comparison_is_planned_killed_and_resumed(command: list[str], tmp_path: Path, big: FakeVllm) -> None:
    planned = {row["method"]: row for row in run([*command, "--plan", "--trial-questions", "2"])["plan"]}
    assert planned["student alone"]["num_responses"] == planned["student alone"]["num_requests"] == NUM_QUESTIONS
    assert planned["relay"]["num_requests"] == 3 * NUM_QUESTIONS, "two turns of the student and a call"
    assert planned["relay"]["num_teacher_tokens"] == 3 * NUM_QUESTIONS
    assert planned["relay, budget 2"]["num_teacher_tokens"] == 2 * NUM_QUESTIONS
    assert planned["query router 50%"]["num_responses"] == 0
    assert planned["relay"]["currency"] == "USD"
    assert not (tmp_path / "out" / "results").exists()

    # killed in the fourth of five methods: what is finished stays
    results = tmp_path / "out" / "results"
    work = results / "relay-budget-2" / f"{RESPONSES}.work"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "relay_verl", *command], stdout=log, stderr=log)
        try:
            kill_when(process, work, 2)
        finally:
            process.terminate()
    num_kept = len(finished(work))
    assert 2 <= num_kept < NUM_QUESTIONS
    alone = (results / "teacher-alone" / RESPONSES).read_bytes()
    assert not (tmp_path / "out" / "frontier.html").exists()

    rows = {row["method"]: row for row in run(command)["methods"]}
    assert (results / "teacher-alone" / RESPONSES).read_bytes() == alone
    assert read_result(results / "relay-budget-2").manifest["num_resumed"] == num_kept
    assert {name: row["accuracy_percent"] for name, row in rows.items()} == {
        "student alone": 0,
        "teacher alone": 100,
        "query router 50%": 50,
        "relay, budget 2": 0,
        "relay": 0,
    }
    whole = rows["teacher alone"]["teacher_tokens_a_response"]
    tokens = {name: row["teacher_tokens_a_response"] for name, row in rows.items()}
    assert tokens == {
        "student alone": 0, "teacher alone": whole, "query router 50%": whole / 2, "relay, budget 2": 2, "relay": 3,
    }  # fmt: skip
    assert rows["relay"]["teacher_tokens_beaten_by"] == "student alone"
    assert rows["teacher alone"]["money_position"] == "hull"
    routed = read_result(results / "student-alone").records
    assert [record.mean_logprob for record in routed[:2]] == [-1.0, -0.5]

    # finished: drawn anew, at other prices, without asking a model
    num_asked = len(big.requests)
    dearer = run([*command, "relay.prices.teacher.output=8"])["methods"]
    assert len(big.requests) == num_asked
    assert dearer[1]["USD_per_1000_responses"] > rows["teacher alone"]["USD_per_1000_responses"]
    with (tmp_path / "out" / "frontier.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == list(rows)
    for axis in ("teacher_tokens", "teacher_flops", "money", "seconds"):
        assert (tmp_path / "out" / f"frontier_{axis}.svg").is_file()


BAD = [
    # what is changed, how the message begins, what it names
    (["--benchmark", "nope"], "unknown benchmark", "nope"),
    (["--source", "gsm8k=x.jsonl"], "--source", "gsm8k"),
    (["--student", "other=models/x"], "--student other", "--methods"),
    (["relay.prices.currency=null"], "relay.prices.teacher.input", "relay.prices.currency"),
]


@pytest.mark.parametrize(("options", "key", "value"), BAD, ids=[case[1] for case in BAD])
def test_bad_input_is_a_one_line_error_before_a_model_is_asked(
    options: list[str], key: str, value: str, command: list[str], fake_vllm: FakeVllm, big: FakeVllm
) -> None:
    with pytest.raises(UserError) as error:
        run([*command, *options])
    assert names(str(error.value), key, value), str(error.value)
    assert "\n" not in str(error.value)
    assert not fake_vllm.requests
    assert not big.requests
