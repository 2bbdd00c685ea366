"""`relay-verl bench serve` over scripted servers: a relay, and the bare servers of its models."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.bench.hand_over import ask_relay, bench_hand_overs
from relay_verl.bench.naive_proxy import NaiveProxy
from relay_verl.bench.relayed_answer import RelayedAnswer, TimedPiece
from relay_verl.bench.running_server import RunningServer, reach
from relay_verl.bench.serving_speed import Load, bench_serving, count_calls
from relay_verl.bench.timing import run_in_turn
from relay_verl.errors import EngineError, UserError
from tests.helpers.pages import tables
from tests.helpers.serving import RuleEngine, asks_once, make_app, make_service, running, text_app, text_of

QUESTION = [{"role": "user", "content": "x"}]
KEY = "RELAY_SERVE_API_KEY"
Rule = Callable[[list[int]], str]
Servers = tuple[RunningServer, RunningServer, RunningServer]
EXAMPLE = RelayedAnswer(
    [
        TimedPiece(0.00, "student", False, 1, "So"),
        TimedPiece(0.01, "student", True, 3, "<call>2</call>"),
        TimedPiece(0.06, "teacher", False, 1, " the"),
        TimedPiece(0.07, "teacher", False, 1, " sum"),
        TimedPiece(0.10, "student", False, 1, " is"),
        TimedPiece(0.14, "student", True, 2, "<call>1</call>"),
        TimedPiece(0.17, "teacher", False, 1, " 4"),
    ],
    num_prompt_tokens=5,
    num_tokens=10,
    num_calls=2,
    num_failed_calls=0,
    num_read=15,
    num_cached=7,
)


async def test_variants_alternate_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def variant(name: str) -> Any:
        async def work() -> int:
            order.append(name)
            return len(order)

        return work

    results = await run_in_turn({"a": variant("a"), "b": variant("b")}, 2)
    assert "".join(order) == "abbaab"
    assert results == {"a": [4, 5], "b": [3, 6]}


def test_hand_overs_of_an_answer() -> None:
    assert list(EXAMPLE.gaps("student", "teacher")) == pytest.approx([0.05, 0.03])
    assert list(EXAMPLE.gaps("teacher", "student")) == pytest.approx([0.03])
    assert list(EXAMPLE.token_times()) == pytest.approx([0.01 / 3] * 3 + [0.02] * 2)
    assert EXAMPLE.text == "So<call>2</call> the sum is<call>1</call> 4"


@given(st.integers(1, 20))
def test_the_last_token_of_a_turn_is_in_no_cache(block_size: int) -> None:
    assert EXAMPLE.num_reread(block_size) == 7 // block_size * block_size


@asynccontextmanager
async def served(student: Rule = asks_once, teacher: Rule = lambda _: "abcdef") -> AsyncIterator[Servers]:
    """A relay over two models, and the bare servers of two that are like them."""
    async with AsyncExitStack() as stack:
        relay = make_app(make_service(RuleEngine(student), RuleEngine(teacher)))
        apps = (relay, text_app(RuleEngine(student)), text_app(RuleEngine(teacher)))
        urls = [await stack.enter_async_context(running(app)) for app in apps]
        relay_server, *bare = [await stack.enter_async_context(reach("--url", url, KEY)) for url in urls]
        yield relay_server, bare[0], bare[1]


async def test_the_relay_and_the_naive_proxy_write_the_same() -> None:
    """Here no token changes when its text is encoded again."""
    async with served() as (relay, student, teacher):
        ours = await ask_relay(relay, QUESTION, 64)
        assert await count_calls(relay) == 1
        text = "user: x\nassistant:"
        naive = await NaiveProxy(student, teacher, 64, None, 16).answer(text)
        no_call = await NaiveProxy(student, teacher, 64, 0, 16).answer(text)
    assert (ours.text, ours.num_tokens, ours.num_calls) == (naive.text, naive.num_tokens, naive.num_calls)
    assert (ours.num_calls, len(list(ours.gaps("student", "teacher")))) == (1, 1)
    assert (no_call.num_calls, no_call.text) == (0, " so<call>3</call>")


async def test_the_tables_of_hand_overs() -> None:
    async with served() as (relay, student, teacher):
        naive = NaiveProxy(student, teacher, 64, None, 16)
        hand_overs, ratios = tables(await bench_hand_overs(relay, naive, [QUESTION] * 3, [1, 2], 2))
    assert [(row["concurrency"], row["calls"], row["failed"]) for row in hand_overs] == [
        ("1", "6", "0"),
        ("2", "6", "0"),
    ]
    assert all(float(row["to the teacher, ms"]) >= 0 and row["from its cache"].endswith("%") for row in hand_overs)
    assert [row["texts that differ"] for row in ratios] == ["0 of 6"] * 2
    assert all(float(row["s, relay / naive"].split()[0]) > 0 for row in ratios)


async def test_texts_that_differ_are_counted() -> None:
    """Behind the command the teacher writes a line break: the tokenizer has one token for the two together."""

    def student(token_ids: list[int]) -> str:
        return (" even", " odd")[len(token_ids) % 2] if "</call>" in text_of(token_ids) else asks_once(token_ids)

    async with served(student, lambda _: "\nabc") as (relay, *bare):
        naive = NaiveProxy(bare[0], bare[1], 64, None, 16)
        _, (row,) = tables(await bench_hand_overs(relay, naive, [QUESTION] * 2, [2], 1))
    assert (row["calls, relay"], row["calls, naive"], row["texts that differ"]) == ("2", "2", "2 of 2")


async def test_cpu_time_of_the_process_that_listens() -> None:
    async with served() as (relay, *_):
        assert (relay.cpu_seconds() or 0) > 0


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://me:key@127.0.0.1:8000"])
async def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UserError, match="--url"):
        async with reach("--url", url, KEY):
            pass


async def test_a_server_that_is_down_or_no_relay() -> None:
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9/"):
        async with reach("--url", "http://127.0.0.1:9", KEY):
            pass
    async with served() as (_, bare, _):
        with pytest.raises(UserError, match="--url"):
            await bench_serving(bare, bare, Load("none", 1, 1, 1), [1], 1)


async def test_a_stream_that_fails_is_an_error_that_names_the_server() -> None:
    engine = RuleEngine(asks_once)
    engine.is_dead = True
    app: FastAPI = make_app(make_service(student=engine))
    async with running(app) as url, reach("--url", url, KEY) as relay:
        with pytest.raises(EngineError, match=url):
            await ask_relay(relay, QUESTION, 8)
