"""The adapters: scripts, an endpoint over HTTP, the guard around an engine, and verl's servers."""

import asyncio
import pickle
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from relay_verl.config import TeacherSettings
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import EndpointEngine, Generation, GuardedEngine, ScriptedEngine
from relay_verl.engines.base import NEUTRAL_SAMPLING
from relay_verl.engines.client import CONNECT_TIMEOUT_S
from relay_verl.engines.deadlines import LONGEST_WAIT
from relay_verl.engines.load import EngineLoad, read_load
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.errors import EngineError, PermanentError
from relay_verl.types import RelayStatus
from tests.helpers.tokenizers import ByteTokenizer, bpe, bpe_id, bpe_ids

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_token_id


def text(generation: Generation) -> tuple[str, str]:
    """What was written, '$' for the EOS, and why it ended."""
    return "".join("$" if i == EOS else chr(i) for i in generation.token_ids), generation.finish_reason


# ---- scripts ----

SCRIPT_CASES = [
    # script, [(max_tokens, stop) ...], [(text, reason) ...], why
    (["ab"], [(9, ())], [("ab$", "eos")], "the EOS after the last item"),
    (["ab"], [(2, ())], [("ab", "length")], "no room for the EOS"),
    (["ab"], [(2, ()), (9, ())], [("ab", "length"), ("$", "eos")], "it comes the next time"),
    ([], [(9, ()), (9, ())], [("$", "eos"), ("$", "eos")], "past the end of the script"),
    (["abcde"], [(2, ()), (2, ()), (9, ())], [("ab", "length"), ("cd", "length"), ("e$", "eos")],
     "a call continues where the last one stopped"),
    (["ab", "cd"], [(9, ()), (9, ())], [("ab", "stop"), ("cd$", "eos")], "an item a call"),
    (["ab!cd!e"], [(9, ("!",)), (9, ("!",)), (9, ("!",))], [("ab!", "stop"), ("cd!", "stop"), ("e$", "eos")],
     "a stop string, kept"),
    (["ab!cd"], [(9, ())], [("ab!cd$", "eos")], "no one asked it to stop"),
    (["ab!"], [(3, ("!",))], [("ab!", "stop")], "a stop string in the last token that fits"),
    (["ab!"], [(2, ("!",)), (9, ("!",))], [("ab", "length"), ("!", "stop")], "cut before it"),
    (["a</call>b"], [(99, ("</call>",))], [("a</call>", "stop")], "a stop string of several tokens"),
    (["a", [98, EOS, 99]], [(9, ()), (9, ()), (9, ())], [("a", "stop"), ("b$", "eos"), ("$", "eos")],
     "an EOS in the script ends it, the rest of its item is gone"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "calls", "answers", "why"), SCRIPT_CASES, ids=[case[-1] for case in SCRIPT_CASES])
async def test_scripted_engine(script: list, calls: list, answers: list, why: str) -> None:
    engine = ScriptedEngine(TOKENIZER, script)
    got = [text(await engine.generate([i], max_tokens=n, stop=stop)) for i, (n, stop) in enumerate(calls)]
    assert got == answers, why
    assert engine.requests == [[i] for i in range(len(calls))]


async def test_scripted_engine_stops_after_the_token_that_completes_the_string() -> None:
    engine = ScriptedEngine(bpe(), [bpe_ids(b"x", b"</call>\n", b"x")])
    generation = await engine.generate([], max_tokens=9, stop=["</call>"])
    assert (generation.token_ids, generation.finish_reason) == (bpe_ids(b"x", b"</call>\n"), "stop")
    assert (await engine.generate([], max_tokens=1)).token_ids == bpe_ids(b"x")


async def test_scripted_engine_raises_when_an_exception_s_turn_comes() -> None:
    engine = ScriptedEngine(TOKENIZER, ["a", EngineError("down"), KeyError("x"), "b"])
    assert text(await engine.generate([], max_tokens=9)) == ("a", "stop")
    with pytest.raises(EngineError, match="down"):
        await engine.generate([], max_tokens=9)
    with pytest.raises(EngineError, match="x") as error:
        await engine.generate([], max_tokens=9)
    assert isinstance(error.value.__cause__, KeyError)
    assert text(await engine.generate([], max_tokens=9)) == ("b$", "eos")
    assert len(engine.requests) == 4, "failed ones too"


async def test_scripted_engine_by_a_function_of_the_context() -> None:
    engine = ScriptedEngine(TOKENIZER, lambda ids: chr(ids[-1] + 1) * 3)
    assert text(await engine.generate([97], max_tokens=9)) == ("bbb$", "eos")
    assert text(await engine.generate([98], max_tokens=2)) == ("cc", "length")
    assert text(await engine.generate([97], max_tokens=9)) == ("bbb$", "eos"), "nothing is left over"


async def test_scripted_engine_logprobs_and_delay() -> None:
    assert (await ScriptedEngine(TOKENIZER, ["ab"]).generate([], max_tokens=9)).logprobs == [-0.5] * 3
    assert (await ScriptedEngine(TOKENIZER, ["ab"], logprob=None).generate([], max_tokens=9)).logprobs is None
    started = time.monotonic()
    await ScriptedEngine(TOKENIZER, ["ab"], delay_s=0.03).generate([], max_tokens=9)
    assert time.monotonic() - started >= 0.03


# ---- an endpoint ----

KEY = "sk-very-secret-0123"


def completion(**choice: Any) -> dict[str, Any]:
    """vLLM's answer with `return_token_ids`."""
    known = {"index": 0, "text": "hi", "finish_reason": "stop", "stop_reason": None, "logprobs": None}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "big",
        "choices": [{**known, "token_ids": [7, 8], **choice}],
    }


ENDPOINT_CASES = [
    # choice, finish reason, why
    ({"finish_reason": "length"}, "length", "max_tokens, or the context is full"),
    ({"finish_reason": "stop", "stop_reason": None}, "eos", "the EOS of the tokenizer"),
    ({"finish_reason": "stop", "stop_reason": 151643}, "eos", "another end-of-sequence id"),
    ({"finish_reason": "stop", "stop_reason": "</call>"}, "stop", "a stop string"),
    ({"finish_reason": "length", "stop_reason": "</call>"}, "length", "the reason counts"),
]


@pytest.mark.parametrize(("choice", "reason", "why"), ENDPOINT_CASES)
async def test_endpoint_finish_reasons(fake_vllm: Any, choice: dict, reason: str, why: str) -> None:
    fake_vllm.routes["/v1/completions"] = completion(**choice)
    generation = await EndpointEngine(fake_vllm.url, "big").generate([1, 2], max_tokens=2, stop=["</call>"])
    assert generation == Generation([7, 8], None, reason), why  # type: ignore[arg-type]


OTHER_MODELS = [
    # what the answer calls the model, what the endpoint lists by then, whether it is an error
    ("big", ["big"], False),
    ("big-alias", ["big", "big-alias"], False),
    ("small", ["big"], True),
    (None, ["big"], False),
]


@pytest.mark.parametrize(("name", "listed", "is_error"), OTHER_MODELS)
async def test_a_server_that_answers_for_another_model(
    fake_vllm: Any, name: str | None, listed: list[str], is_error: bool
) -> None:
    """As behind a balancer over servers that are not alike: a failed call, not tokens of a stranger."""
    fake_vllm.routes["/v1/models"] = {"object": "list", "data": [{"id": each, "object": "model"} for each in listed]}
    fake_vllm.routes["/v1/completions"] = completion() | {"model": name}
    engine = EndpointEngine(fake_vllm.url, "big", num_retries=0)
    if is_error:
        with pytest.raises(EngineError, match="it answers for model 'small', not for 'big'"):
            await engine.generate([1], max_tokens=4)
    else:
        assert (await engine.generate([1], max_tokens=4)).token_ids


@pytest.mark.parametrize("reason", ["abort", None, "error", "content_filter", 7])
async def test_a_request_that_the_endpoint_gave_up_is_not_a_response(fake_vllm: Any, reason: Any) -> None:
    """A part of a response would count as a whole one that ended by itself (vllm#57082, vllm#27572)."""
    fake_vllm.routes["/v1/completions"] = {"choices": [{"token_ids": [7, 8], "finish_reason": reason}]}
    with pytest.raises(EngineError, match="the request did not end: finish_reason is ") as failed:
        await EndpointEngine(fake_vllm.url, "big", num_retries=0).generate([1], max_tokens=9)
    assert not isinstance(failed.value, PermanentError), "asked again it may end"


async def test_endpoint_request(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    fake_vllm.routes["/v1/completions"] = completion(logprobs={"token_logprobs": [-0.5, -1.5]})
    engine = EndpointEngine(fake_vllm.url, api_key_env="TEACHER_KEY")
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "bad_words": ["<call>"], "logprobs": True}
    generation = await engine.generate([5, 6], max_tokens=20, stop=["</call>"], sampling=sampling, request_id="r")
    assert generation.logprobs == [-0.5, -1.5]
    (models, *_), (path, headers, body) = fake_vllm.requests
    assert (models, path) == ("/v1/models", "/v1/completions"), "the first model, asked for once"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "big",
        "prompt": [5, 6],
        "max_tokens": 20,
        "stop": ["</call>"],
        "logprobs": 0,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "bad_words": ["<call>"],
        "return_token_ids": True,
        "include_stop_str_in_output": True,
    }
    await engine.generate([5, 6], max_tokens=20)
    assert len(fake_vllm.requests) == 3, "the model's name is remembered"
    body = fake_vllm.requests[-1][2]
    assert body.get("stop") is None
    assert body.get("logprobs") is None
    assert {key: body[key] for key in NEUTRAL_SAMPLING} == NEUTRAL_SAMPLING, "nothing is left to the server to decide"


async def test_the_likeliest_tokens_are_asked_for_by_their_number(fake_vllm: Any) -> None:
    top = [{"token_id:5": -0.1, "token_id:9": -2.5}, {"token_id:3": -3.0, "token_id:6": -0.2, "token_id:8": -1.0}]
    scores = {"token_logprobs": [-0.1, -3.0], "top_logprobs": top}
    fake_vllm.routes["/v1/completions"] = completion(logprobs=scores)
    generation = await EndpointEngine(fake_vllm.url).generate([5], max_tokens=2, sampling={"logprobs": 2})
    assert generation.logprobs == [-0.1, -3.0]
    assert generation.top_logprobs == [[-0.1, -2.5], [-0.2, -1.0, -3.0]], "the sampled one is not among the two"
    body = fake_vllm.requests[-1][2]
    assert (body["logprobs"], body["return_tokens_as_token_ids"]) == (2, True)


CALLERS = [
    # what a caller says, what it must be sampled with, why
    (TeacherSettings(path="x").sampling(), {"temperature": 0.7, "top_p": 1.0, "top_k": -1}, "a teacher in training"),
    (TeacherSettings(path="x").sampling(greedy=True), {"temperature": 0.0, "top_p": 1.0}, "a greedy teacher"),
    (TeacherSettings(path="x", top_p=0.95, top_k=20).sampling(), {"top_p": 0.95, "top_k": 20}, "as the recipe says"),
    ({"temperature": 0.0}, {"temperature": 0.0, "top_p": 1.0, "top_k": -1}, "a greedy student at an endpoint"),
    ({"temperature": 0.7, "top_p": 0.8, "top_k": 20}, {"top_p": 0.8, "top_k": 20, "min_p": 0.0}, "a sampled one"),
    ({"temperature": 0.3}, {"temperature": 0.3, "top_p": 1.0, "top_k": -1}, "`relay-verl eval --temperature`"),
    ({"temperature": 1.0, "seed": 5}, {"temperature": 1.0, "seed": 5, "top_k": -1}, "a benchmark"),
    ({}, {"temperature": 1.0, "top_p": 1.0, "top_k": -1}, "a caller without a wish"),
]


@pytest.mark.parametrize(("sampling", "expected", "why"), CALLERS, ids=[case[-1] for case in CALLERS])
async def test_a_servers_generation_config_decides_nothing(
    sampling: dict, expected: dict, why: str, fake_vllm: Any
) -> None:
    """vLLM's server fills what a request leaves out from the model's generation_config (Qwen3's has top_p 0.95 and
    top_k 20), verl's from the rollout's config. An endpoint and a replica are sent the same, and all of it. What vLLM
    makes of it is in tests/contract/test_verl.py."""
    fake_vllm.routes["/v1/completions"] = completion()
    await EndpointEngine(fake_vllm.url, "big").generate([1], max_tokens=2, sampling=sampling)
    body = fake_vllm.requests[-1][2]
    client = FakeClient(output([1]))
    await VerlServerEngine(client, bpe()).generate([1], max_tokens=2, sampling=sampling)
    sent = client.requests[0][2]
    for request in (body, sent):
        assert {key: request[key] for key in expected} == expected, why
    assert {key: body[key] for key in NEUTRAL_SAMPLING} == {key: sent[key] for key in NEUTRAL_SAMPLING}


BAD_ANSWERS = [
    # answer, why
    (completion(token_ids=None), "an endpoint that does not know return_token_ids"),
    (completion(token_ids="abc"), "ids of another type"),
    ({**completion(), "choices": []}, "no choice"),
    ({**completion(), "choices": None}, "no choices at all"),
    ({}, "another JSON object"),
    ([1, 2], "a JSON list"),
    (b"<html>Welcome</html>", "a web page: base_url is not an API"),
    ((200, b"{"), "broken JSON"),
    ((404, {"error": {"message": "no such path"}}), "the wrong path"),
    ((401, {"error": {"message": "who are you"}}), "no key"),
    ((400, {"error": {"message": "prompt too long"}}), "a request it does not take"),
    ((500, {"error": {"message": "boom"}}, {"Retry-After-Ms": "1"}), "it broke"),
]


@pytest.mark.parametrize(("answer", "why"), BAD_ANSWERS, ids=[why for _, why in BAD_ANSWERS])
async def test_endpoint_that_talks_rubbish_is_an_engine_error(fake_vllm: Any, answer: Any, why: str) -> None:
    fake_vllm.routes["/v1/completions"] = answer
    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        await EndpointEngine(fake_vllm.url, "big").generate([1], max_tokens=2)


BAD_MODELS = [
    # answer of /v1/models, why
    ({"object": "list", "data": []}, "it serves none"),
    ({"object": "list", "data": [{"id": "other", "object": "model"}]}, "not the one asked for"),
    ({}, "another JSON object"),
    (b"<html>Welcome</html>", "a web page"),
    ((500, {"error": {"message": "boom"}}, {"Retry-After-Ms": "1"}), "it broke"),
]


@pytest.mark.parametrize(("answer", "why"), BAD_MODELS, ids=[why for _, why in BAD_MODELS])
async def test_endpoint_without_the_model_is_an_engine_error(fake_vllm: Any, answer: Any, why: str) -> None:
    fake_vllm.routes["/v1/models"] = answer
    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        await EndpointEngine(fake_vllm.url, "big").model()


async def test_endpoint_names_the_models_there_are(fake_vllm: Any) -> None:
    assert await EndpointEngine(fake_vllm.url).model() == "big"
    with pytest.raises(EngineError, match="no model 'small'; it serves big"):
        await EndpointEngine(fake_vllm.url, "small").model()


async def test_endpoint_that_is_down_is_an_engine_error(fake_vllm: Any) -> None:
    fake_vllm.stop()
    engine = EndpointEngine(fake_vllm.url, "big", num_retries=0)
    for ask in (engine.model, lambda: engine.generate([1], max_tokens=1), lambda: engine.tokenize("x")):
        with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
            await ask()


async def test_endpoint_that_is_slow_is_an_engine_error(fake_vllm: Any) -> None:
    def slow(body: Any) -> Any:
        time.sleep(0.5)
        return completion()

    fake_vllm.routes["/v1/completions"] = slow
    with pytest.raises(EngineError, match="Timeout"):
        await EndpointEngine(fake_vllm.url, "big", timeout_s=0.05).generate([1], max_tokens=1)


@pytest.mark.parametrize(("timeout_s", "connect_s"), [(7200.0, CONNECT_TIMEOUT_S), (0.05, 0.05)])
async def test_a_connection_does_not_get_a_responses_time(timeout_s: float, connect_s: float) -> None:
    timeout = EndpointEngine("http://127.0.0.1:9/v1", timeout_s=timeout_s)._client.openai.timeout
    assert timeout.connect == connect_s
    assert timeout.read == LONGEST_WAIT * timeout_s, "a request in the endpoint's queue is silent"


TOKENIZE_CASES = [
    # answer, ids, why
    ({"tokens": [1, 2, 3], "count": 3}, [1, 2, 3], "vLLM's"),
    ((404, {"detail": "Not Found"}), None, "an endpoint without /tokenize"),
]


@pytest.mark.parametrize(("answer", "ids", "why"), TOKENIZE_CASES)
async def test_endpoint_tokenize(
    fake_vllm: Any, monkeypatch: pytest.MonkeyPatch, answer: Any, ids: Any, why: str
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    fake_vllm.routes["/tokenize"] = answer
    assert await EndpointEngine(fake_vllm.url, api_key_env="TEACHER_KEY").tokenize("a b") == ids, why
    path, headers, body = fake_vllm.requests[-1]
    assert path == "/tokenize", "next to /v1, not under it"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {"model": "big", "prompt": "a b", "add_special_tokens": False}


async def test_the_key_travels_in_requests_alone(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    fake_vllm.routes["/v1/completions"] = completion()
    endpoint = EndpointEngine(fake_vllm.url, api_key_env="TEACHER_KEY")
    await endpoint.generate([1], max_tokens=1)  # its client has read the key by now
    for engine in (endpoint, GuardedEngine(endpoint)):
        assert KEY.encode() not in pickle.dumps(engine)
        assert KEY not in repr(engine)
        assert KEY not in str(engine.__getstate__())
    there = pickle.loads(pickle.dumps(GuardedEngine(endpoint)))
    assert (await there.generate([1], max_tokens=1)).token_ids == [7, 8], "it works where it is sent"
    assert fake_vllm.requests[-1][1]["authorization"] == f"Bearer {KEY}", "the key is read there"


async def test_an_error_does_not_quote_the_key(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    fake_vllm.routes["/v1/completions"] = (401, {"error": {"message": "who are you"}})
    with pytest.raises(EngineError) as error:
        await EndpointEngine(fake_vllm.url, "big", api_key_env="TEACHER_KEY").generate([1], max_tokens=1)
    assert KEY not in str(error.value)


def test_endpoint_outlives_an_event_loop(fake_vllm: Any) -> None:
    """A notebook or a command line calls asyncio.run more than once with one engine."""
    fake_vllm.routes["/v1/completions"] = completion()
    engine = EndpointEngine(fake_vllm.url, "big")
    for _ in range(3):
        assert asyncio.run(engine.generate([1], max_tokens=1)).token_ids == [7, 8]


# ---- the guard ----


class Flaky:
    """Goes through a list of errors and ends in a generation that is given for ever."""

    def __init__(self, *answers: BaseException | Generation, delay_s: float = 0.0):
        self.answers = list(answers)
        self.delay_s = delay_s
        self.num_requests = 0

    async def generate(self, prompt_ids: list[int], **arguments: Any) -> Generation:
        self.num_requests += 1
        self.arguments = {"prompt_ids": prompt_ids, **arguments}
        await asyncio.sleep(self.delay_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


GOOD = Generation([1], None, "eos")


def down() -> EngineError:
    return EngineError("down")


def guard(engine: Any, **values: Any) -> GuardedEngine:
    return GuardedEngine(engine, **{"first_wait_s": 0.001, **values})


async def test_guard_tries_again() -> None:
    engine = Flaky(down(), ConnectionError("reset"), GOOD)
    arguments = {"max_tokens": 3, "stop": ("x",), "sampling": {"temperature": 0.5}, "request_id": "r"}
    assert await guard(engine, num_retries=2).generate([9], **arguments) == GOOD
    assert engine.num_requests == 3
    assert engine.arguments == {"prompt_ids": [9], **arguments}, "handed on as they are"


@pytest.mark.parametrize("num_retries", [0, 1, 3])
async def test_guard_gives_up_with_the_last_error(num_retries: int) -> None:
    engine = Flaky(down())
    with pytest.raises(EngineError, match="down"):
        await guard(engine, num_retries=num_retries).generate([], max_tokens=1)
    assert engine.num_requests == 1 + num_retries


async def test_guard_s_breaker_opens_and_closes_again() -> None:
    engine = Flaky(down(), down(), down(), GOOD)
    guarded = guard(engine, num_retries=0, breaker_threshold=3, breaker_reset_s=0.2)
    for _ in range(3):
        with pytest.raises(EngineError):
            await guarded.generate([], max_tokens=1)
    engine.delay_s = 20.0
    for _ in range(20):
        with pytest.raises(EngineError, match="circuit open"):
            await asyncio.wait_for(guarded.generate([], max_tokens=1), 1.0)
    assert engine.num_requests == 3, "while it is open no one is asked"
    engine.delay_s = 0.0
    await asyncio.sleep(0.25)
    assert await guarded.generate([], max_tokens=1) == GOOD
    assert await guarded.generate([], max_tokens=1) == GOOD
    assert engine.num_requests == 5


async def test_guard_s_breaker_opens_again_if_the_trial_fails() -> None:
    engine = Flaky(down())
    guarded = guard(engine, num_retries=0, breaker_threshold=2, breaker_reset_s=0.1)
    for _ in range(2):
        with pytest.raises(EngineError):
            await guarded.generate([], max_tokens=1)
    await asyncio.sleep(0.15)
    for _ in range(5):
        with pytest.raises(EngineError):
            await guarded.generate([], max_tokens=1)
    assert engine.num_requests == 3, "one trial, then it is open again"


async def test_guard_s_breaker_lets_one_call_through_to_try() -> None:
    engine = Flaky(down(), delay_s=0.02)
    guarded = guard(engine, num_retries=0, breaker_threshold=2, breaker_reset_s=0.1)
    for _ in range(2):
        with pytest.raises(EngineError):
            await guarded.generate([], max_tokens=1)
    await asyncio.sleep(0.15)
    await asyncio.gather(*(guarded.generate([], max_tokens=1) for _ in range(10)), return_exceptions=True)
    assert engine.num_requests == 3, "a teacher that is coming up is not met by everybody at once"


async def test_guard_counts_failures_in_a_row() -> None:
    engine = Flaky(down(), GOOD, down(), GOOD, down(), GOOD, down(), GOOD)
    guarded = guard(engine, num_retries=1, breaker_threshold=2)
    for _ in range(4):
        assert await guarded.generate([], max_tokens=1) == GOOD


async def test_guard_counts_failures_over_all_trajectories() -> None:
    engine = Flaky(down())
    guarded = guard(engine, num_retries=0, breaker_threshold=4, breaker_reset_s=30.0)
    await asyncio.gather(*(guarded.generate([i], max_tokens=1) for i in range(4)), return_exceptions=True)
    with pytest.raises(EngineError, match="circuit open"):
        await guarded.generate([], max_tokens=1)
    assert engine.num_requests == 4


async def test_guard_can_be_sent_with_its_breaker_closed() -> None:
    guarded = guard(ScriptedEngine(TOKENIZER, [down()]), num_retries=0, breaker_threshold=1)
    with pytest.raises(EngineError):
        await guarded.generate([], max_tokens=1)
    with pytest.raises(EngineError, match="circuit open"):
        await guarded.generate([], max_tokens=1)
    there = pickle.loads(pickle.dumps(guarded))
    assert (await there.generate([], max_tokens=1)).token_ids == [EOS], "each worker counts for itself"


async def hangs_for(seconds: float, ask: Callable[[], Any]) -> tuple[float, BaseException | None]:
    """Seconds until a cancelled request ends, and what it raised."""
    task = asyncio.ensure_future(ask())
    await asyncio.sleep(0.02)
    task.cancel()
    started = time.monotonic()
    await asyncio.wait({task}, timeout=seconds)
    took = time.monotonic() - started
    for _ in range(20):  # a request that does not hear its cancellation is cancelled until it does
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.1)
    if task.cancelled():
        return took, asyncio.CancelledError()
    return took, task.exception()


async def test_guard_lets_a_cancellation_through() -> None:
    """The caller's deadline is a cancellation: it must end the request, not be one more failure to try again after."""
    engine = Flaky(GOOD, delay_s=20.0)
    took, error = await hangs_for(0.5, lambda: guard(engine, num_retries=2).generate([], max_tokens=1))
    assert engine.num_requests == 1, "a cancelled try is not tried again"
    assert isinstance(error, asyncio.CancelledError)
    assert took < 0.4


async def test_guard_lets_a_cancellation_through_at_the_threshold() -> None:
    engine = Flaky(GOOD, delay_s=20.0)
    guarded = guard(engine, num_retries=0, breaker_threshold=1)
    _, error = await hangs_for(0.5, lambda: guarded.generate([], max_tokens=1))
    assert isinstance(error, asyncio.CancelledError), "not a failure that the caller may take for the teacher's"


async def test_guard_around_a_teacher_that_hangs_keeps_the_decoder_s_deadline() -> None:
    engine = Flaky(GOOD, delay_s=20.0)
    config = RelayConfig(60, max_calls=1, max_tokens_per_call=5, teacher_timeout_s=0.05)
    student = ScriptedEngine(TOKENIZER, ["a<call>3</call>b"])
    task = asyncio.ensure_future(RelayDecoder(student, guard(engine), TOKENIZER, config).run([1]))
    started = time.monotonic()
    done, _ = await asyncio.wait({task}, timeout=1.0)
    took = time.monotonic() - started
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
    assert done, f"still waiting after {took:.1f} s; the deadline was 0.05 s"
    trajectory = task.result()
    assert trajectory.status is RelayStatus.COMPLETED
    assert trajectory.num_failed_calls == 1


# ---- verl's servers ----


class FakeClient:
    """verl's LLMServerClient as far as we use it."""

    def __init__(self, *outputs: SimpleNamespace):
        self.outputs = list(outputs)
        self.requests: list[tuple[Any, list[int], dict[str, Any]]] = []

    async def generate(self, request_id: Any, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        self.requests.append((request_id, prompt_ids, sampling_params))
        return self.outputs.pop(0)


def output(
    token_ids: list[int], *, log_probs: Any = None, stop_reason: str = "completed", **extra: Any
) -> SimpleNamespace:
    return SimpleNamespace(token_ids=token_ids, log_probs=log_probs, stop_reason=stop_reason, extra_fields=extra)


STOP = ("</call>",)
CLOSE = [b"<", b"/", b"c", b"a", b"l", b"l", b">"]
VERL_CASES = [
    # tokens (None: the EOS), max_tokens, stop, reason, why
    ([b"x", None], 9, STOP, "eos", "ends with the EOS"),
    ([b"x", None], 2, STOP, "eos", "with the last token that fits"),
    ([b"x", b"x"], 2, STOP, "length", "as many as asked for"),
    ([b"x", b"x"], 9, STOP, "eos", "fewer, no EOS: another end-of-sequence id"),
    ([b"x", b"</call>"], 9, STOP, "stop", "a stop string as one token"),
    ([b"x", b"</call>"], 2, STOP, "stop", "with the last token that fits"),
    ([b"x", *CLOSE], 99, STOP, "stop", "a stop string of many tokens"),
    ([b"x", b"<", b"</call", b"><"], 9, STOP, "stop", "its last token holds more"),
    ([b"x", b"</call>\n"], 9, STOP, "stop", "the same"),
    ([b"x", b"</call", b">\xc3\xa9"], 9, STOP, "stop", "more outside ASCII"),
    ([b"x", b"</call>"], 9, (), "eos", "no one asked for it"),
    ([b"x", b"</call>"], 2, (), "length", "no one asked for it"),
    ([b"</call", b"x"], 9, STOP, "eos", "not all of the string"),
    ([b"x", b"<call>"], 9, STOP, "eos", "an opening is not a close"),
    ([b"</call>"] + [b"x"] * 20, 21, STOP, "length", "long ago: it was not what ended it"),
    ([b"x", b".<"], 9, ("!", "."), "stop", "any of several strings"),
    ([b"x"], 1, STOP, "length", "one token"),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "max_tokens", "stop", "reason", "why"), VERL_CASES)
async def test_verl_finish_reasons(pieces: list, max_tokens: int, stop: tuple, reason: str, why: str) -> None:
    ids = [bpe().eos_token_id if piece is None else bpe_id(piece) for piece in pieces]
    engine = VerlServerEngine(FakeClient(output(ids)), bpe())
    assert await engine.generate([1], max_tokens=max_tokens, stop=stop) == Generation(ids, None, reason), why  # type: ignore[arg-type]


async def test_verl_request() -> None:
    client = FakeClient(output([1, 2], log_probs=[-0.5, -1.0]), output([3]))
    engine = VerlServerEngine(client, bpe())
    sampling = {"temperature": 1.0, "logprobs": True}
    generation = await engine.generate([9], max_tokens=5, stop=STOP, sampling=sampling, request_id="r")
    assert generation.logprobs == [-0.5, -1.0]
    assert client.requests == [
        (
            "r",
            [9],
            {
                **NEUTRAL_SAMPLING,
                **sampling,
                "max_tokens": 5,
                "stop": ["</call>"],
                "include_stop_str_in_output": True,
            },
        )
    ]
    assert sampling == {"temperature": 1.0, "logprobs": True}, "the caller's own"
    await engine.generate([9], max_tokens=5)
    name, *request = client.requests[1]
    assert name and name != "r", "a request without a name gets one"
    assert request == [[9], {**NEUTRAL_SAMPLING, "max_tokens": 5}]


async def test_verl_request_that_was_aborted_is_an_engine_error() -> None:
    engine = VerlServerEngine(FakeClient(output([1], stop_reason="aborted")), bpe())
    with pytest.raises(EngineError, match="aborted"):
        await engine.generate([9], max_tokens=5)


VERSION_CASES = [
    # extra fields of each turn, versions, why
    ([{"min_global_steps": 3, "max_global_steps": 3}], (3, 3), "one turn"),
    ([{"min_global_steps": 3, "max_global_steps": 4}, {"min_global_steps": 4, "max_global_steps": 6}], (3, 6), "two"),
    ([{}], (None, None), "a server that does not say"),
    ([{"min_global_steps": None, "max_global_steps": None}], (None, None), "the same"),
    ([], (None, None), "nothing was asked"),
]


@pytest.mark.parametrize(("turns", "versions", "why"), VERSION_CASES)
async def test_verl_weight_versions(turns: list[dict], versions: tuple, why: str) -> None:
    client = FakeClient(*(output([1], **extra) for extra in turns), output([1]))
    engine = VerlServerEngine(client, bpe(), tracks_versions=True)
    for _ in turns:
        await engine.generate([9], max_tokens=5, request_id="r")
    await engine.generate([9], max_tokens=5, request_id="another")
    assert engine.pop_weight_versions("r") == versions, why
    assert engine.pop_weight_versions("r") == (None, None), "forgotten"


async def test_verl_weight_versions_are_not_kept_for_those_who_never_ask() -> None:
    client = FakeClient(output([1], min_global_steps=3, max_global_steps=3))
    engine = VerlServerEngine(client, bpe())
    await engine.generate([9], max_tokens=5, request_id="r")
    assert engine.pop_weight_versions("r") == (None, None), "a teacher serves millions of requests"


# ---- what a server says of its load ----

METRICS = b"""# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="big"} 120.0
vllm:generation_tokens_total{engine="1",model_name="big"} 30.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="big"} 1e3
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="big"} 24.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="big"} 3.0
"""
UNKNOWN_LOADS = [
    # answer at /metrics, why
    ((404, {}), "not vLLM"),
    ((500, METRICS), "it is broken"),
    (b"<html>Welcome</html>", "a web page"),
    (b"vllm:num_requests_running 3\n", "without the counters: disable_log_stats"),
    (b"vllm:generation_tokens_total many\n", "not a number"),
    (b"", "nothing"),
    (b"\xff\xfe", "not UTF-8"),
]


async def test_the_load_of_a_server(fake_vllm: Any) -> None:
    fake_vllm.routes["/metrics"] = METRICS
    server = fake_vllm.url.removesuffix("/v1")
    assert await read_load([server]) == EngineLoad(num_written=150, num_read=1000, num_running=24, num_waiting=3)
    assert await read_load([server, server]) == EngineLoad(300, 2000, 48, 6), "the sum over replicas"
    assert await read_load([]) is None


@pytest.mark.parametrize(("answer", "why"), UNKNOWN_LOADS)
async def test_a_load_that_cannot_be_known(fake_vllm: Any, answer: Any, why: str) -> None:
    fake_vllm.routes["/metrics"] = answer
    assert await read_load([fake_vllm.url.removesuffix("/v1")]) is None, why


async def test_the_load_of_a_server_that_is_down_cannot_be_known(fake_vllm: Any) -> None:
    fake_vllm.stop()
    assert await read_load([fake_vllm.url.removesuffix("/v1"), "http://a..b"]) is None


async def test_an_endpoint_looks_at_its_own_counter_also_in_another_process(fake_vllm: Any) -> None:
    fake_vllm.routes["/metrics"] = METRICS
    engine = EndpointEngine(fake_vllm.url, "big")
    there = pickle.loads(pickle.dumps(engine))
    for each in (engine, there):
        assert each.pulse._count_tokens.__self__ is each
        assert await each.pulse._count_tokens() == 1150
