"""Real clients, unchanged, over `relay-verl serve` and two real vLLM servers: openai's package, vLLM's own benchmark,
lm-evaluation-harness, guidellm, curl. The models' tokens are known (`tests/helpers/chain_models.py`)."""

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from relay_verl.data.parquet import write_parquet
from tests.helpers.chain_models import save_pair
from tests.helpers.pages import tables

pytestmark = pytest.mark.e2e

WAIT_S = 240.0
KEY = "sk-client-key"
ANSWER = "atttz"
"""What the pair writes behind `x`: the student's `a` and command, three tokens of the teacher's, the student's `z`."""
CHAT: list[Any] = [{"role": "user", "content": "x"}]
BENCH = (
    "import asyncio; from vllm.benchmarks import serve; from vllm.utils.argparse_utils import FlexibleArgumentParser; "
)
BENCH += (
    "parser = FlexibleArgumentParser(); serve.add_cli_args(parser); asyncio.run(serve.main_async(parser.parse_args()))"
)
"""`vllm bench serve`, whose command asks for the version of the distribution 'vllm': the CPU build has another name."""
TASK = """
task: chain
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 20, do_sample: false, temperature: 0}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the student, the teacher and the server's logs."""
    folder = tmp_path_factory.mktemp("clients")
    save_pair(folder)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Address of a running server, without /v1."""
    command = [sys.executable, "-m", "relay_verl", "serve", "student", "--teacher", "teacher", "--name", "pair"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--kv-cache-gb", "0.25", "--logs", str(folder)],
        cwd=folder,
        env=os.environ | {"RELAY_SERVE_API_KEY": KEY, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        match = re.search(r"(http://\S+)/v1", process.stdout.readline())
        assert match
        yield match[1]
    finally:
        process.terminate()
        process.wait(WAIT_S)


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=WAIT_S)


def run(folder: Path, *words: str) -> str:
    """The output of a client's command."""
    keys = ("OPENAI_API_KEY", "RELAY_SERVE_API_KEY", "RELAY_STUDENT_API_KEY", "RELAY_TEACHER_API_KEY")
    variables = {**dict.fromkeys(keys, KEY), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_openai(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="pair", messages=CHAT, temperature=0, max_completion_tokens=20)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (ANSWER, "stop")
    assert whole.usage and whole.usage.model_dump()["relay"]["teacher_tokens"] == 3
    text = client.completions.create(model="pair", prompt=["x", "y"], temperature=0, max_tokens=20, n=2, logprobs=0)
    assert [choice.text for choice in text.choices] == [ANSWER] * 4
    assert text.choices[0].logprobs and text.choices[0].logprobs.token_logprobs
    extra = {"relay": {"max_teacher_tokens": 2, "show_commands": True}}
    shown = client.chat.completions.create(
        model="pair", messages=CHAT, temperature=0, max_tokens=20, seed=1, extra_body=extra
    )
    assert shown.choices[0].message.content == "a<call>3</call>ttz"
    stopped = client.chat.completions.create(model="pair", messages=CHAT, temperature=0, max_tokens=20, stop="at")
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("", "stop")
    assert next(iter(client.models.list())).id == "pair"


@pytest.mark.parametrize(
    ("model", "text"), [("pair:student", "az"), ("pair:teacher", "t" * 6), ("pair:fixed-2", "attz")]
)
def test_openai_and_the_aliases(client: openai.OpenAI, model: str, text: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=CHAT, temperature=0, max_tokens=6 + 3 * (model[5] != "t")
    )
    assert answer.choices[0].message.content == text


async def test_openai_async_streams_errors_and_timeouts(client: openai.OpenAI) -> None:
    asking = openai.AsyncOpenAI(base_url=client.base_url, api_key=KEY, max_retries=0, timeout=WAIT_S)

    async def stream() -> str:
        chunks = await asking.chat.completions.create(
            model="pair",
            messages=CHAT,
            temperature=0,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
        text, usage = "", None
        async for chunk in chunks:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        assert usage and usage.completion_tokens == 9
        return text

    assert await asyncio.gather(*(stream() for _ in range(8))) == [ANSWER] * 8
    with pytest.raises(openai.NotFoundError):
        await asking.chat.completions.create(model="pear", messages=CHAT)
    with pytest.raises(openai.BadRequestError, match="tools"):
        await asking.chat.completions.create(
            model="pair", messages=CHAT, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    with pytest.raises(openai.AuthenticationError):
        await asking.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.APITimeoutError):  # `l` is followed by itself for ever
        await asking.with_options(timeout=0.2).completions.create(model="pair", prompt="l", max_tokens=1900)


def test_curl(url: str, folder: Path) -> None:
    body = json.dumps({"prompt": "x", "temperature": 0, "max_tokens": 20, "stream": True})
    headers = ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
    output = run(folder, "curl", "-sN", f"{url}/v1/completions", *headers, "-d", body)
    *chunks, done = [line.removeprefix("data: ") for line in output.split("\n\n") if line]
    assert done == "[DONE]"
    assert "".join(json.loads(chunk)["choices"][0]["text"] for chunk in chunks) == ANSWER


@pytest.mark.parametrize(
    ("backend", "endpoint"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")]
)
def test_vllm_bench_serve(url: str, folder: Path, backend: str, endpoint: str) -> None:
    load = ["--dataset-name", "random", "--random-input-len", "8", "--random-output-len", "9", "--num-prompts", "8"]
    where = ["--backend", backend, "--endpoint", endpoint, "--base-url", url, "--tokenizer", "student"]
    where += ["--model", "pair"]  # it asks for the names of models without its key
    result = ["--save-result", "--result-filename", f"{backend}.json", "--disable-tqdm", "--max-concurrency", "4"]
    run(folder, sys.executable, "-c", BENCH, *where, *load, *result)
    measured = json.loads((folder / f"{backend}.json").read_text())
    assert (measured["completed"], measured["failed"]) == (8, 0)
    assert measured["total_output_tokens"] > 0


def test_relay_verl_bench_serve(url: str, folder: Path) -> None:
    """The server takes the place of the bare ones, too, so both sides are as fast, and the proxy sees no command."""
    row = {"prompt": CHAT, "reward_model": {"style": "rule", "ground_truth": ANSWER}}
    write_parquet(folder / "questions.parquet", [row, row])
    command = [sys.executable, "-m", "relay_verl", "bench", "serve", "--tokenizer", "student", "--num-requests", "4"]
    where = [word for option in ("--url", "--student-url", "--teacher-url") for word in (option, url)]
    load = ["--input-len", "8", "--output-len", "9", "--concurrency", "2", "--rounds", "1", "--max-tokens", "20"]
    printed = run(folder, *command, *where, *load, "--questions", "questions.parquet")
    speed, cpu, hand_overs, ratios = tables(printed)
    assert [row["concurrency"] for row in speed + hand_overs + ratios] == ["2"] * 3
    assert [row["side"] for row in cpu] == ["bare", "relay"] and all(float(row["relay"]) > 0 for row in cpu)
    assert (hand_overs[0]["calls"], ratios[0]["texts that differ"]) == ("4", "0 of 4")


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
@pytest.mark.parametrize("api", ["completions", "chat-completions"])
def test_lm_eval(url: str, folder: Path, api: str) -> None:
    rows = folder / "rows.jsonl"
    questions = {"x": ANSWER, "y": ANSWER, "z": "another answer"}
    rows.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in questions.items()))
    (folder / "chain.yaml").write_text(TASK.format(rows=rows))
    model = f"model=pair,base_url={url}/v1/{api.replace('-', '/')},tokenizer={folder / 'student'},max_retries=1"
    options = ["--apply_chat_template"] if api.startswith("chat") else []
    command = [sys.executable, "-m", "lm_eval", "run", "--model", f"local-{api}", "--model_args", model]
    run(folder, *command, "--tasks", "chain", "--include_path", str(folder), "--output_path", api, *options)
    (results,) = (folder / api).rglob("results_*.json")
    assert json.loads(results.read_text())["results"]["chain"]["exact_match,none"] == pytest.approx(2 / 3)


@pytest.mark.skipif(importlib.util.find_spec("guidellm") is None, reason="guidellm is not installed")
def test_guidellm(url: str, folder: Path) -> None:
    options = {
        "--backend": f"kind=openai_http,target={url},api_key={KEY}",
        "--profile": "kind=concurrent,streams=2",
        "--constraint": "kind=max_requests,count=6",
        "--tokenizer": f"kind=hf_auto,model={folder / 'student'}",
        "--data": "kind=synthetic_text,prompt_tokens=8,output_tokens=9",
        "--output": f"kind=json,path={folder / 'guidellm.json'}",
    }
    words = [word for pair in options.items() for word in pair]
    run(folder, sys.executable, "-m", "guidellm", "run", *words, "--disable-progress")
    (benchmark,) = json.loads((folder / "guidellm.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (6, 0)
