"""What the teacher may write, and how many responses are written at a time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.allowance import MINUTE_S, Allowance
from relay_verl.errors import UserError
from relay_verl.serving.admission import Admission
from relay_verl.serving.api_error import ApiError
from relay_verl.serving.settings import ServeSettings
from tests.helpers.serving import RuleEngine, client_of, make_app, make_service, text_of

TEXT = {"prompt": "hi", "max_tokens": 60}

STEPS = st.lists(
    st.tuples(st.floats(0, 40), st.integers(1, 30), st.integers(0, 30)),  # seconds before it, tokens asked for, written
    max_size=30,
)


@given(limit=st.integers(0, 50), steps=STEPS)
def test_no_minute_has_more_tokens_than_its_limit(limit: int, steps: list[tuple[float, int, int]]) -> None:
    now = 0.0
    allowance = Allowance(limit, MINUTE_S, lambda: now)
    written: list[tuple[float, int]] = []
    for wait_s, num_asked, num_written in steps:
        now += wait_s
        in_minute = sum(num for at, num in written if at > now - MINUTE_S)
        assert allowance.num_left == limit - in_minute
        grant = allowance.reserve(num_asked)
        assert (grant is None) == (in_minute >= limit)
        if grant is not None:
            assert grant[1] == min(num_asked, limit - in_minute)
            num = min(num_written, int(grant[1]))
            allowance.settle(grant, num)
            written.append((now, num))


def test_what_is_reserved_is_not_granted_twice() -> None:
    allowance = Allowance(10)
    first = allowance.reserve(8)
    second = allowance.reserve(8)
    assert first is not None and second is not None
    assert (first[1], second[1], allowance.reserve(1)) == (8, 2, None)
    allowance.settle(first, 3)
    assert allowance.num_left == 5


async def test_a_spent_minute_turns_calls_off_and_says_so() -> None:
    service = make_service(teacher_tokens_per_minute=5)
    async with client_of(make_app(service)) as client:
        relays = [(await client.post("/v1/completions", json=TEXT)).json()["usage"]["relay"] for _ in range(3)]
        # five tokens are three, then two; a third response has none
        assert [relay["teacher_tokens"] for relay in relays] == [3, 2, 0]
        assert [relay["is_budget_spent"] for relay in relays] == [False, True, True]
        assert relays[2]["num_failed_calls"] == 0
        alone = await client.post("/v1/completions", json={**TEXT, "model": "pair:teacher"})
        assert (alone.status_code, alone.json()["error"]["code"]) == (429, "teacher_budget_spent")
        assert alone.headers["retry-after"]
        metrics = (await client.get("/metrics")).text
        assert "relay:teacher_budget_left_tokens 0.0" in metrics
        # who needs no teacher is not told of its budget
        student = await client.post("/v1/completions", json={**TEXT, "model": "pair:student"})
        assert student.json()["usage"]["relay"]["is_budget_spent"] is False


async def test_a_teacher_alone_writes_within_its_budget() -> None:
    service = make_service(teacher=RuleEngine(lambda _: "y" * 50), teacher_tokens_per_minute=30)
    async with client_of(make_app(service)) as client:
        body = {**TEXT, "model": "pair:teacher"}
        (choice,) = (await client.post("/v1/completions", json={**body, "relay": {"max_teacher_tokens": 4}})).json()[
            "choices"
        ]
        assert (choice["text"], choice["finish_reason"]) == ("yyyy", "length")
        (choice,) = (await client.post("/v1/completions", json=body)).json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("y" * 26, "length")
        none = await client.post("/v1/completions", json={**body, "relay": {"max_teacher_tokens": 0}})
        assert none.status_code == 400


async def test_a_budget_bounds_every_call_of_a_response() -> None:
    student = RuleEngine(lambda ids: " end." if text_of(ids).count("</call>") >= 3 else "<call>3</call>")
    for max_teacher_tokens in range(10):
        async with client_of(make_app(make_service(student))) as client:
            relay = {"max_teacher_tokens": max_teacher_tokens}
            usage = (await client.post("/v1/completions", json={**TEXT, "relay": relay})).json()["usage"]["relay"]
        assert usage["teacher_tokens"] == usage["delivered_tokens"] == min(9, max_teacher_tokens)
        assert usage["num_failed_calls"] == 0


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    leaving=st.sets(st.integers(0, 11)),
    places=st.integers(1, 4),
    queue=st.integers(0, 8),
)
def test_places_are_kept_and_given_back(sizes: list[int], leaving: set[int], places: int, queue: int) -> None:
    async def run() -> None:
        admission = Admission(places, queue, 1)
        order: list[int] = []

        async def respond(number: int) -> None:
            async with admission.place(sizes[number]):
                order.append(number)
                assert admission.num_running <= places
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(respond(number)) for number in range(len(sizes))]
        await asyncio.sleep(0)
        assert admission.num_waiting <= queue
        for number in leaving & set(range(len(sizes))):
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert admission.num_running == admission.num_waiting == 0
        assert order == sorted(order)
        assert all(result is None or isinstance(result, ApiError | asyncio.CancelledError) for result in results)
        refused = [result for result in results if isinstance(result, ApiError)]
        assert all((error.status, error.retry_after_s) == (429, 1) for error in refused)

    asyncio.run(run())


async def test_a_full_server_says_when_to_come_back() -> None:
    service = make_service(
        RuleEngine(lambda _: "x" * 20, delay_s=0.01), max_concurrency=1, max_queue=1, retry_after_s=7
    )
    async with client_of(make_app(service)) as client:
        answers = await asyncio.gather(*(client.post("/v1/completions", json=TEXT) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
        (refused,) = [answer for answer in answers if answer.status_code == 429]
        assert refused.headers["retry-after"] == "7"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        streamed = await client.post("/v1/completions", json={**TEXT, "stream": True, "n": 3})
        assert streamed.status_code == 400


@pytest.mark.parametrize(
    "field",
    ["max_concurrency", "max_queue", "port", "request_timeout_s", "teacher_tokens_per_minute", "max_body_bytes"],
)
def test_a_bad_setting_names_its_field(field: str) -> None:
    with pytest.raises(UserError, match=field):
        ServeSettings(**{field: -1})  # type: ignore[arg-type]
