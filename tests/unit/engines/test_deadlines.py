"""Deadlines that follow the load, on a virtual clock: what waits is served, what hangs or is lost ends in time."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data.teacher_filter import TeacherFilter
from relay_verl.data.warmup_generator import WarmupSampler
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import EndpointEngine, Generation, GuardedEngine, ScriptedEngine
from relay_verl.engines.boundary import ask_within
from relay_verl.engines.deadlines import LONGEST_WAIT, LOOKS, LOST_FACTOR, DeadlineError, Pulse, pulse_of
from relay_verl.errors import EngineError, JobError
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines
from relay_verl.judging.judge import Judge
from tests.helpers.generators import ChatTokenizer
from tests.helpers.virtual_clock import now, run_virtually

TOKENIZER = ChatTokenizer()
TIMEOUT_S = 300.0


class SerialEngine:
    """Writes one response after the other, as a server does whose machine is too small.

    Args:
        seconds: of each request, in the order in which they come; the last one's for all further ones.
        lost: numbers of requests that it never answers, and that take none of its time.
        hangs_after: requests that it answers before it hangs.
    """

    def __init__(self, *seconds: float, lost: tuple[int, ...] = (), hangs_after: float = float("inf")):
        self._seconds = seconds
        self._lost = lost
        self._hangs_after = hangs_after
        self._lock = asyncio.Lock()
        self.num_requests = 0
        self.num_answers = 0

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, **_: Any) -> Generation:
        number = self.num_requests
        self.num_requests += 1
        if number in self._lost:
            await asyncio.Event().wait()
        async with self._lock:
            if self.num_answers >= self._hangs_after:
                await asyncio.Event().wait()
            await asyncio.sleep(self._seconds[min(number, len(self._seconds) - 1)])
            self.num_answers += 1
        return Generation([97] * max_tokens, None, "length")


Outcome = tuple[bool, float]


async def outcome_of(
    ask: Callable[[], Awaitable[Generation]], pulse: Pulse, *, max_tokens: int = 4, timeout_s: float = TIMEOUT_S
) -> Outcome:
    """Whether a request is answered, and the virtual seconds that it took."""
    sent_at = now()
    try:
        await ask_within(timeout_s, ask, pulse=pulse, max_tokens=max_tokens)
    except EngineError:
        return False, now() - sent_at
    return True, now() - sent_at


def ask_at_once(engine: Any, num_requests: int, pulse: Pulse | None = None, max_tokens: int = 4) -> list[Outcome]:
    """Send so many requests at the same time."""
    pulse = pulse or Pulse()

    async def run() -> list[Outcome]:
        asks = (lambda: engine.generate([1], max_tokens=max_tokens) for _ in range(num_requests))
        return await asyncio.gather(*(outcome_of(ask, pulse, max_tokens=max_tokens) for ask in asks))

    return run_virtually(run())


# ---- the rule ----


def test_24_calls_at_once_on_a_slow_teacher_are_all_served() -> None:
    outcomes = ask_at_once(SerialEngine(60.0), 24)
    assert all(is_served for is_served, _ in outcomes)
    assert max(seconds for _, seconds in outcomes) == 24 * 60.0, "far past one request's deadline"


def test_a_hung_engine_fails_all_within_the_timeout() -> None:
    outcomes = ask_at_once(SerialEngine(1.0, hangs_after=0), 24)
    assert outcomes == [(False, TIMEOUT_S)] * 24


def test_an_engine_that_hangs_later_fails_the_rest_a_timeout_after_its_last_answer() -> None:
    outcomes = ask_at_once(SerialEngine(100.0, hangs_after=5), 24)
    assert outcomes == [(True, 100.0 * (number + 1)) for number in range(5)] + [(False, 500.0 + TIMEOUT_S)] * 19


def test_one_request_that_takes_longer_than_the_timeout_fails() -> None:
    """Alone on an engine without a counter, silence cannot be told from work."""
    assert ask_at_once(SerialEngine(TIMEOUT_S + 1), 1) == [(False, TIMEOUT_S)]


def test_a_lost_request_fails_in_a_time_that_follows_the_pace() -> None:
    """The first one is lost; an engine that is busy for hours answers one every ten seconds."""

    async def run() -> tuple[Outcome, list[Outcome]]:
        engine, pulse = SerialEngine(10.0, lost=(0,)), Pulse()

        async def ask() -> Outcome:
            return await outcome_of(lambda: engine.generate([1], max_tokens=4), pulse)

        lost = asyncio.create_task(ask())
        await asyncio.sleep(0.001)
        others = [await ask() for _ in range(200)]
        return await lost, others

    (is_served, seconds), others = run_virtually(run())
    assert all(served for served, _ in others)
    assert not is_served
    longest = 10.0 + TIMEOUT_S + LOST_FACTOR * 10.0 + TIMEOUT_S / LOOKS  # overtaken, the rule, and a look
    assert TIMEOUT_S < seconds <= longest


def test_a_long_response_that_short_ones_overtake_is_not_lost() -> None:
    """1,000 tokens at one a second, next to calls of 4 tokens that take 4 s each."""

    async def run() -> Outcome:
        pulse = Pulse()

        async def write(num_tokens: int) -> Generation:
            await asyncio.sleep(float(num_tokens))
            return Generation([97] * num_tokens, None, "length")

        long = asyncio.create_task(outcome_of(lambda: write(1000), pulse, max_tokens=1000))
        await asyncio.sleep(0.001)
        while not long.done():
            await outcome_of(lambda: write(4), pulse, max_tokens=4)
        return await long

    assert run_virtually(run()) == (True, 1000.0)


def test_a_request_never_waits_longer_than_the_longest_wait() -> None:
    """The engine works for others for ever, as its counter says, and this one is lost."""
    tokens = iter(range(1_000_000))

    async def count() -> int:
        return next(tokens)

    assert ask_at_once(SerialEngine(1.0, lost=(0,)), 1, Pulse(count)) == [(False, LONGEST_WAIT * TIMEOUT_S)]


def test_a_counter_that_moves_is_a_sign_of_life() -> None:
    """Another process has the engine write for an hour before it comes to this request."""

    async def count() -> int:
        return int(now())

    assert ask_at_once(SerialEngine(3600.0), 1, Pulse(count)) == [(True, 3600.0)]


@pytest.mark.parametrize(
    ("count", "why"),
    [
        (lambda: 7, "a counter that stands still"),
        (lambda: None, "an engine that cannot be asked"),
        (lambda: 1 // 0, "a counter that fails"),
    ],
)
def test_what_is_not_a_sign_of_life(count: Callable[[], int | None], why: str) -> None:
    async def read() -> int | None:
        return count()

    assert ask_at_once(SerialEngine(3600.0), 1, Pulse(read)) == [(False, TIMEOUT_S)], why


def test_a_counter_that_hangs_delays_nothing() -> None:
    async def hang() -> int:
        await asyncio.Event().wait()
        return 0

    assert ask_at_once(SerialEngine(3600.0), 1, Pulse(hang)) == [(False, TIMEOUT_S)]
    assert ask_at_once(SerialEngine(100.0), 5, Pulse(hang)) == [(True, 100.0 * n) for n in range(1, 6)]


def test_an_error_is_not_a_sign_of_life() -> None:
    async def fail() -> Generation:
        raise EngineError("503")

    async def run() -> Outcome:
        pulse = Pulse()
        hung = asyncio.create_task(
            outcome_of(lambda: SerialEngine(0.0, hangs_after=0).generate([], max_tokens=1), pulse)
        )
        while not hung.done():
            await outcome_of(fail, pulse)
            await asyncio.sleep(10.0)
        return await hung

    assert run_virtually(run()) == (False, TIMEOUT_S)


@given(
    seconds=st.lists(st.floats(0.1, 299.0), min_size=1, max_size=40),
    gaps=st.lists(st.floats(0.0, 500.0), min_size=40, max_size=40),
)
def test_a_serial_engine_serves_all_that_each_take_less_than_the_timeout(
    seconds: list[float], gaps: list[float]
) -> None:
    """Whenever they come: while one waits, another one is answered at least every timeout."""

    async def run() -> list[Outcome]:
        engine, pulse, tasks = SerialEngine(*seconds), Pulse(), []
        for gap in gaps[: len(seconds)]:
            tasks.append(asyncio.create_task(outcome_of(lambda: engine.generate([1], max_tokens=4), pulse)))
            await asyncio.sleep(gap)
        return list(await asyncio.gather(*tasks))

    assert all(is_served for is_served, _ in run_virtually(run()))


@given(
    seconds=st.lists(st.floats(0.1, 299.0), min_size=1, max_size=30),
    lost=st.sets(st.integers(0, 29), max_size=5),
    hangs_after=st.integers(0, 30),
)
def test_whatever_the_engine_does_every_request_ends(seconds: list[float], lost: set[int], hangs_after: int) -> None:
    engine = SerialEngine(*seconds, lost=tuple(lost), hangs_after=hangs_after)
    outcomes = ask_at_once(engine, 30)
    assert all(taken <= LONGEST_WAIT * TIMEOUT_S for _, taken in outcomes)
    assert sum(is_served for is_served, _ in outcomes) == engine.num_answers
    assert engine.num_answers == min(hangs_after, 30 - len(lost)), "what could be answered is served"


# ---- a cancellation, another process ----


def test_a_caller_that_is_cancelled_cancels_its_request_and_leaves_no_trace() -> None:
    async def run() -> tuple[bool, bool]:
        pulse, was_cancelled = Pulse(), asyncio.Event()

        async def work() -> int:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled.set()
                raise
            return 1

        waiting = asyncio.create_task(pulse.wait(TIMEOUT_S, work()))
        await asyncio.sleep(1.0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.sleep(0.0)
        return was_cancelled.is_set() and waiting.cancelled(), bool(pulse._waiting)

    assert run_virtually(run()) == (True, False)


async def test_work_that_does_not_hear_its_cancellation_holds_nobody() -> None:
    async def deaf() -> int:
        while True:
            try:
                await asyncio.sleep(0.2)
                return 1
            except asyncio.CancelledError:
                continue

    with pytest.raises(DeadlineError):
        await Pulse().wait(0.02, deaf())


def test_a_pulse_starts_anew_in_another_process() -> None:
    async def run() -> list[Outcome]:
        pulse = Pulse()
        await pulse.wait(TIMEOUT_S, asyncio.sleep(1.0, 1))
        there = pickle.loads(pickle.dumps(pulse))
        return [await outcome_of(lambda: SerialEngine(TIMEOUT_S + 1).generate([1], max_tokens=1), there)]

    assert run_virtually(run()) == [(False, TIMEOUT_S)]


# ---- who has the rule ----


def relay_with(teacher: Any, num_responses: int, **limits: Any) -> list[Any]:
    """So many responses at once, each with one call."""
    config = RelayConfig(200, max_calls=1, max_tokens_per_call=5, teacher_timeout_s=TIMEOUT_S, **limits)

    async def run() -> list[Any]:
        decoders = RelayDecoder(ScriptedEngine(TOKENIZER, lambda _: "a<call>3</call>"), teacher, TOKENIZER, config)
        return await asyncio.gather(*(decoders.run([1]) for _ in range(num_responses)))

    return run_virtually(run())


@pytest.mark.parametrize("wrap", [lambda engine: engine, lambda engine: GuardedEngine(engine, num_retries=0)])
def test_24_responses_that_call_at_once_get_their_calls(wrap: Callable[[Any], Any]) -> None:
    served = [trajectory.num_calls for trajectory in relay_with(wrap(SerialEngine(60.0)), 24)]
    assert served == [1] * 24


def test_a_teacher_that_hangs_fails_the_calls_and_not_the_responses() -> None:
    trajectories = relay_with(SerialEngine(60.0, hangs_after=0), 24)
    assert [trajectory.num_failed_calls for trajectory in trajectories] == [1] * 24


def test_a_students_turns_have_the_same_rule() -> None:
    config = RelayConfig(4, max_calls=0, max_tokens_per_call=5, student_timeout_s=TIMEOUT_S)

    async def run() -> list[Any]:
        decoder = RelayDecoder(SerialEngine(60.0), None, TOKENIZER, config)
        return await asyncio.gather(*(decoder.run([1]) for _ in range(24)))

    assert {str(trajectory.status) for trajectory in run_virtually(run())} == {"completed"}


def test_all_who_ask_one_engine_share_its_pulse() -> None:
    engine = GuardedEngine(ScriptedEngine(TOKENIZER))
    one = RelayDecoder(engine, engine, TOKENIZER, RelayConfig(4, max_calls=0, max_tokens_per_call=5))
    assert one.student_pulse is one.teacher_pulse is pulse_of(engine) is engine.pulse
    assert pulse_of(object()) is not pulse_of(object()), "an engine that keeps none shares nothing"


def serial(seconds: float, answer: Any) -> Callable[..., Any]:
    """An asynchronous function that answers one caller after the other."""
    lock = asyncio.Lock()

    async def ask(*_: Any, **__: Any) -> Any:
        async with lock:
            await asyncio.sleep(seconds)
        return answer

    return ask


def test_24_verdicts_at_once_of_a_slow_judge_are_all_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[Any]:
        judge = Judge("http://127.0.0.1:9/v1", "big", timeout_s=60.0, num_retries=0)
        monkeypatch.setattr(judge, "_request", serial(20.0, "Yes"))
        return await asyncio.gather(*(judge.judge("1 + 1?", "2", "2") for _ in range(24)))

    assert [text["is_correct"] for text in run_virtually(run())] == [True] * 24


def test_a_judge_that_hangs_gives_no_verdict_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[list[Any], float]:
        judge = Judge("http://127.0.0.1:9/v1", "big", timeout_s=60.0, num_retries=4)
        monkeypatch.setattr(judge, "_request", serial(1e9, "Yes"))
        return await asyncio.gather(*(judge.judge("1 + 1?", "2", "2") for _ in range(24))), now()

    texts, seconds = run_virtually(run())
    assert [text["is_correct"] for text in texts] == [None] * 24
    assert seconds <= 60.0


COMPLETION = b'{"choices": [{"token_ids": [97], "finish_reason": "length"}]}'


def test_24_requests_at_once_to_a_slow_endpoint_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endpoint(EndpointEngine):
        async def _count_tokens(self) -> int | None:
            return None

    engine = Endpoint("http://127.0.0.1:9/v1", "big", timeout_s=TIMEOUT_S)
    monkeypatch.setattr(engine._client, "ask", serial(60.0, COMPLETION))

    async def run() -> list[Generation]:
        return await asyncio.gather(*(engine.generate([1], max_tokens=1) for _ in range(24)))

    assert [answer.token_ids for answer in run_virtually(run())] == [[97]] * 24


GENERATORS = {
    "filter": lambda engine: TeacherFilter(
        engine,
        TOKENIZER,
        num_samples=24,
        stop_at=None,
        max_tokens=4,
        sampling={},
        seed=0,
        template={},
        timeout_s=TIMEOUT_S,
    ),
    "warm-up data": lambda engine: WarmupSampler(
        engine,
        TOKENIZER,
        num_samples=24,
        num_placements=1,
        call_weights=[1.0],
        max_exponent=1,
        max_tokens=4,
        sampling={},
        seed=0,
        template={},
        timeout_s=TIMEOUT_S,
    ),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_24_samples_at_once_of_a_slow_model_are_all_there(name: str) -> None:
    row = {
        "prompt": [{"role": "user", "content": "1 + 1?"}],
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"id": "q"},
        "ability": "math",
    }
    engine = SerialEngine(60.0)
    run_virtually(GENERATORS[name](engine).process(row))
    assert engine.num_answers == 24


def job_of(process: Callable[..., Any]) -> Job:
    return Job(
        {"kind": "test"}, JsonLines(), process, lambda row, result: [result], max_concurrency=24, timeout_s=TIMEOUT_S
    )


def test_24_queries_at_once_of_a_slow_job_all_end(tmp_path: Path) -> None:
    queries = [(str(number), {}) for number in range(24)]
    manifest = run_virtually(run_job(job_of(serial(60.0, {"a": 1})), queries, 24, tmp_path / "out.jsonl"))
    assert manifest["num_queries"] == 24
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 24


def test_a_job_whose_queries_hang_stops(tmp_path: Path) -> None:
    queries = [(str(number), {}) for number in range(24)]
    with pytest.raises(JobError, match="20 of 20 queries failed"):
        run_virtually(run_job(job_of(serial(1e9, {})), queries, 24, tmp_path / "out.jsonl"))
