"""What the teacher may write, and how many responses are written at a time."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.allowance import MINUTE_S, Allowance, MeteredTeacher
from relay_verl.engines import Generation
from relay_verl.engines.deadlines import Pulse
from relay_verl.errors import EngineError, UserError
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


class Raced(Allowance):
    """A minute that another client spends between a command and its call, once."""

    def __init__(self) -> None:
        super().__init__(5, MINUTE_S)
        self.rival: list[float] | None = None

    def reserve(self, num_tokens: int) -> list[float] | None:
        if self.rival is None:
            self.rival = super().reserve(5)
        return super().reserve(num_tokens)


@pytest.mark.parametrize("on_failure", ["continue", "drop", "fail"])
@pytest.mark.parametrize("policy", ["learned", "random_0.9"])
async def test_a_minute_that_is_spent_after_the_command_is_no_failure(on_failure: str, policy: str) -> None:
    service = make_service(teacher_tokens_per_minute=5)
    service._minute = Raced()
    body = {**TEXT, "relay": {"on_teacher_failure": on_failure, "policy": policy}}
    async with client_of(make_app(service)) as client:
        answer = await client.post("/v1/completions", json=body)
        metrics = (await client.get("/metrics")).text
    assert answer.status_code == 200, answer.text
    relay = answer.json()["usage"]["relay"]
    assert (relay["num_failed_calls"], relay["is_budget_spent"]) == (0, True)
    assert "relay:teacher_failures_total 0.0" in metrics
    assert "relay:budget_refusals_total 1.0" in metrics
    if policy == "learned":
        assert answer.json()["choices"][0]["text"] == " so end."
        assert 'relay:calls_total{outcome="over_limit"} 1.0' in metrics


async def test_a_call_that_the_budget_turned_off_is_none_of_max_calls() -> None:
    minute = Raced()

    def rule(context: list[int]) -> str:
        num_commands = text_of(context).count("</call>")
        if num_commands == 1 and minute.rival is not None:  # the minute has passed
            minute.settle(minute.rival, 0)
        return " end." if num_commands == 2 else "<call>3</call>"

    service = make_service(RuleEngine(rule), teacher_tokens_per_minute=5)
    service._minute = minute
    async with client_of(make_app(service)) as client:
        answer = await client.post("/v1/completions", json={**TEXT, "relay": {"max_calls": 1}})
    assert answer.json()["usage"]["relay"]["num_calls"] == 1


class Whole:
    """A teacher that does not stream, and that is in the middle of its answer when it is left."""

    def __init__(self, error: Exception | None = None) -> None:
        self.num_running = 0
        self._error = error

    async def generate(self, prompt_ids: list[int], **_: Any) -> Generation:
        if self._error:
            raise self._error
        self.num_running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.num_running -= 1
        raise AssertionError


@pytest.mark.parametrize("streams", [False, True])
async def test_a_whole_answer_that_is_left_keeps_its_grant(streams: bool) -> None:
    """How much of it was written is not known, and a minute has at most its tokens."""
    engine, allowance = Whole(), Allowance(10, MINUTE_S)
    metered = MeteredTeacher(engine, Pulse(), [allowance])

    async def ask() -> None:
        if streams:
            async for _ in metered.stream([1], max_tokens=4):
                pass
        else:
            await metered.generate([1], max_tokens=4)

    asking = asyncio.create_task(ask())
    while not engine.num_running:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert allowance.num_left == 6


async def test_an_answer_that_failed_gives_its_grant_back() -> None:
    allowance = Allowance(10, MINUTE_S)
    with pytest.raises(EngineError):
        await MeteredTeacher(Whole(EngineError("down")), Pulse(), [allowance]).generate([1], max_tokens=4)
    assert allowance.num_left == 10


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
            async with admission.place(min(sizes[number], places)):
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


@pytest.mark.parametrize("body", [{"n": 3}, {"n": 3, "stream": True}, {"prompt": ["a", "b", "c"]}])
async def test_each_response_has_a_place_of_its_own(body: dict[str, Any]) -> None:
    student = RuleEngine(lambda _: "x" * 20, delay_s=0.001)
    most_running = 0

    def rule(_: list[int]) -> str:
        nonlocal most_running
        most_running = max(most_running, student.num_running + 1)
        return "x" * 20

    student._rule = rule
    for places, status in ((2, 400), (3, 200)):
        async with client_of(make_app(make_service(student, max_concurrency=places))) as client:
            answer = await client.post("/v1/completions", json={**TEXT, **body})
        assert answer.status_code == status
        assert most_running <= places
    assert most_running == 3


@pytest.mark.parametrize(
    "field",
    ["max_concurrency", "max_queue", "port", "request_timeout_s", "teacher_tokens_per_minute", "max_body_bytes"],
)
def test_a_bad_setting_names_its_field(field: str) -> None:
    with pytest.raises(UserError, match=field):
        ServeSettings(**{field: -1})  # type: ignore[arg-type]
