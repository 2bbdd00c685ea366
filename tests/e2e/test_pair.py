"""RelayPair over two real vLLM servers that it starts itself, and what their streams are token by token."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from relay_verl import RelayPair
from relay_verl.engines import EndpointEngine, Generation, PermanentError
from tests.helpers.chain_models import make_tokenizer, save_deferring, save_pair

pytestmark = pytest.mark.e2e

GREEDY = {"temperature": 0.0, "logprobs": True}
PROMPTS = ["b", "a", "bl", "t"]
"""Answers with a call, one whose command is begun, one that never ends, and one without a call."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> Iterator[RelayPair]:
    with RelayPair.load(*folders, engine="vllm") as pair:
        yield pair
    assert psutil.Process().children(recursive=True) == [] or not any(
        "api_server" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)
    ), "its servers ended with it"


@pytest.fixture
def student(pair: RelayPair) -> EndpointEngine:
    """The student's server, asked by a client of the test's own."""
    engine: Any = pair._decoder.student  # a DoorEngine, which has the server's HTTP API, too
    return EndpointEngine(engine._endpoint.base_url, "student", api_key_env="RELAY_STUDENT_API_KEY", num_retries=0)


def test_texts_are_those_of_transformers(pair: RelayPair, folders: tuple[Path, Path]) -> None:
    options: dict[str, Any] = {"max_tokens": 24, "temperature": 0.0}
    texts = pair.generate(PROMPTS, **options)
    assert [text.text for text in texts[:2]] == ["atttz", "tttz"]
    with RelayPair.load(*folders, device="cpu") as other:
        others = other.generate(PROMPTS, **options)
    assert [text.trajectory.segments for text in others] == [text.trajectory.segments for text in texts]
    assert [text.finish_reason for text in others] == [text.finish_reason for text in texts]


def test_the_pieces_of_a_stream_are_the_trajectory(pair: RelayPair) -> None:
    for prompt, text in zip(PROMPTS, pair.generate(PROMPTS, max_tokens=24, temperature=0.0), strict=True):
        stream = pair.stream(prompt, max_tokens=24, temperature=0.0)
        deltas = list(stream)
        streamed = stream.result()
        assert streamed.trajectory.segments == text.trajectory.segments
        assert [i for delta in deltas for i in delta.token_ids] == text.trajectory.response_ids
        assert "".join(delta.text for delta in deltas) == text.text
        assert [(c.outcome, c.num_requested, c.num_delivered) for c in streamed.trajectory.calls] == [
            (c.outcome, c.num_requested, c.num_delivered) for c in text.trajectory.calls
        ]


async def test_an_endpoints_stream_is_its_answer(student: EndpointEngine) -> None:
    tokenizer = make_tokenizer()
    for text, max_tokens, stop in (("b", 50, ("</call>",)), ("bl", 7, ()), ("z", 5, ())):
        prompt = tokenizer.encode(text, add_special_tokens=False)
        options: dict[str, Any] = {"max_tokens": max_tokens, "stop": stop, "sampling": GREEDY}
        whole = await student.generate(prompt, **options)
        pieces = [piece async for piece in student.stream(prompt, **options)]
        assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        ids = [i for piece in pieces for i in piece.token_ids]
        logprobs = [logprob for piece in pieces for logprob in piece.logprobs or ()]
        last = pieces[-1]
        assert Generation(ids, logprobs, last.finish_reason) == Generation(
            whole.token_ids, whole.logprobs, whole.finish_reason
        )
        assert last.num_cached is not None
    with pytest.raises(PermanentError, match="maximum"):
        await anext(student.stream([1] * 5000, max_tokens=5))
    await student.aclose()


async def test_a_reader_who_leaves_ends_the_request_at_the_server(pair: RelayPair, student: EndpointEngine) -> None:
    prompt = make_tokenizer().encode("bl", add_special_tokens=False)  # never ends by itself
    async with aclosing(student.stream(prompt, max_tokens=2000, sampling=GREEDY)) as pieces:
        for _ in range(3):
            await anext(pieces)
    left = pair.astream("bl", max_tokens=2000)
    await anext(left)
    await left.aclose()
    root = student.base_url.removesuffix("/v1")
    async with httpx.AsyncClient() as client:
        for _ in range(600):
            page = (await client.get(f"{root}/metrics")).text
            running = [line.split()[-1] for line in page.splitlines() if line.startswith("vllm:num_requests_running{")]
            if running and all(float(number) == 0 for number in running):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(running)
    assert left.result().finish_reason == "unfinished"
    assert 0 < left.result().trajectory.num_tokens < 1900
    await student.aclose()


@pytest.mark.slow
def test_a_defer_head_asks_on_vllm_where_it_asks_on_transformers(tmp_path: Path) -> None:
    student, teacher, head = save_deferring(tmp_path)
    texts = {}
    for engine in ("vllm", "transformers"):
        with RelayPair.load(student, teacher, engine=engine, defer_head=head, device="cpu") as pair:
            asked = (("l", "deferred"), ("b", "deferred"), ("l", "deferred_0"), ("l", "deferred_1.5"))
            texts[engine] = [
                pair.generate(prompt, policy=policy, max_tokens=6, temperature=0.0)[0].text for prompt, policy in asked
            ]
    assert texts["vllm"] == texts["transformers"]
    assert [texts["vllm"][number] for number in (0, 2, 3)] == ["tltltl", "llllll", "tttttt"]
