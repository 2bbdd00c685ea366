"""A chat API as the teacher: what it is sent, what becomes of its text, what it bills, and when it refuses a prefix."""

import asyncio
import itertools
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.data.schema import to_row
from relay_verl.data.teacher_filter import TeacherFilter
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import ChatEngine, EndpointEngine, GuardedEngine, PermanentError, ScriptedEngine
from relay_verl.engines.base import Billed, Generation, open_engine, stream_of
from relay_verl.engines.chat_prefix import ChatPrefix
from relay_verl.errors import EngineError, UserError
from relay_verl.pair.relay_pair import RelayPair
from relay_verl.prices.usage import usage_of
from relay_verl.serving.service import RelayService
from relay_verl.serving.settings import ServeSettings
from relay_verl.tokenization import TokenBytes
from relay_verl.types import CallOutcome, RelayTrajectory
from tests.helpers.fake_vllm import PREFILL, chat_route
from tests.helpers.generators import ChatTokenizer
from tests.helpers.tokenizers import bpe, sentencepiece

CHAT = [{"role": "user", "content": "What is 7*8?"}]
RESPONSE = "Let me see: 7*8 is fifty six, so \\boxed{56}."
PATH = "/v1/chat/completions"
FORMS = list(ChatPrefix)


def engine(fake: Any, tokenizer: Any = None, **options: Any) -> ChatEngine:
    return ChatEngine(fake.url, "big", tokenizer or bpe(), **{"num_retries": 0, **options})


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return TokenBytes(tokenizer).encode(text.encode())


def ask(api: ChatEngine, written: str = "", max_tokens: int = 100, tokenizer: Any = None, **asked: Any) -> Generation:
    """What follows `written`, after a prompt of three ids."""
    context = [1, 2, 3, *ids_of(tokenizer or bpe(), written)]
    return asyncio.run(open_engine(api, CHAT, 3).generate(context, max_tokens=max_tokens, **asked))


def bodies(fake: Any) -> list[dict[str, Any]]:
    return [body for path, _, body in fake.requests if path == PATH]


# ---- what it is sent ----


@pytest.mark.parametrize("form", FORMS)
def test_the_first_call_is_the_chat_as_it_is(fake_vllm: Any, form: ChatPrefix) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE)
    sampling = {"temperature": 0.7, "top_k": 5, "logprobs": True, "bad_words": ["<call>"]}
    ask(engine(fake_vllm, prefix=form, template={"enable_thinking": False}), max_tokens=20, sampling=sampling)
    (body,) = bodies(fake_vllm)
    assert body["messages"] == CHAT
    assert (body["max_tokens"], body["temperature"], body["top_k"], body["top_p"]) == (20, 0.7, 5, 1.0)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert not body.keys() & {"continue_final_message", "add_generation_prompt", "logprobs", "bad_words", "stop"}


def test_vllm_continues_the_response_as_the_assistants_last_message(fake_vllm: Any) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE)
    answer = ask(engine(fake_vllm), "Let me see:", 4)
    assert TokenBytes(bpe()).join(answer.token_ids) == b" 7*8"
    (body,) = bodies(fake_vllm)
    assert body["messages"] == [*CHAT, {"role": "assistant", "content": "Let me see:"}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_the_flag_is_on_the_message(fake_vllm: Any) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE)
    assert TokenBytes(bpe()).join(ask(engine(fake_vllm, prefix=ChatPrefix.FLAG), "Let", 3).token_ids) == b" me"
    (body,) = bodies(fake_vllm)
    assert body["messages"][-1] == {"role": "assistant", "content": "Let", "prefix": True}
    assert "continue_final_message" not in body


@pytest.mark.parametrize(
    "chat",
    [CHAT, [{"role": "system", "content": "Be short."}, *CHAT], [*CHAT, {"role": "assistant", "content": "56."}], []],
    ids=["question", "system", "ends with an answer", "empty"],
)
def test_an_explained_response_stands_in_a_users_message(fake_vllm: Any, chat: list[dict[str, Any]]) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE, refuses_prefix=PREFILL)
    teacher = engine(fake_vllm, prefix=ChatPrefix.EXPLAIN).open(chat, 0)
    answer = asyncio.run(teacher.generate(ids_of(bpe(), "Let me"), max_tokens=4))
    assert TokenBytes(bpe()).join(answer.token_ids) == b" see"
    messages = bodies(fake_vllm)[0]["messages"]
    assert messages[-1]["role"] == "user" and "<answer>Let me</answer>" in messages[-1]["content"]
    roles = [message["role"] for message in messages]
    assert all(one != other for one, other in itertools.pairwise(roles)), "templates want them to alternate"
    assert [m for m in messages[:-1] if m not in chat] == []


def test_a_chat_with_an_image_is_refused_alone(fake_vllm: Any) -> None:
    with pytest.raises(PermanentError) as refused:
        engine(fake_vllm).open([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], 0)
    assert not refused.value.concerns_all


def test_ids_without_a_chat_are_refused(fake_vllm: Any) -> None:
    with pytest.raises(PermanentError, match="reads messages"):
        asyncio.run(engine(fake_vllm).generate([1, 2], max_tokens=1))


# ---- what becomes of its text ----

ENDS = [
    # choice, reason, text, why
    ({}, "eos", "fifty six<|end|>", "the message ends"),
    ({"stop_reason": "</call>"}, "stop", "fifty six", "a stop string"),
    ({"finish_reason": "length"}, "length", "fifty six", "max_tokens"),
    ({"finish_reason": "length", "message": {"content": "fifty\ufffd"}}, "length", "fifty", "a character in two"),
    ({"message": {"content": None}}, "eos", "<|end|>", "no content"),
]


@pytest.mark.parametrize(("choice", "reason", "text", "why"), ENDS, ids=[why for *_, why in ENDS])
def test_how_it_ends(fake_vllm: Any, choice: dict, reason: str, text: str, why: str) -> None:
    fake_vllm.routes[PATH] = chat_route("fifty six", **choice)
    answer = ask(engine(fake_vllm))
    assert (answer.finish_reason, TokenBytes(bpe()).join(answer.token_ids).decode()) == (reason, text)
    assert answer.logprobs is None


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "abort", None])
def test_an_answer_that_did_not_end_is_not_one(fake_vllm: Any, reason: Any) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE, finish_reason=reason)
    with pytest.raises(EngineError, match="finish_reason is ") as failed:
        ask(engine(fake_vllm))
    assert not isinstance(failed.value, PermanentError)


@pytest.mark.parametrize(
    "body",
    [{"choices": []}, [1], {"choices": [{"finish_reason": "stop"}]}, b"<html>"],
    ids=["none", "list", "no message", "page"],
)
def test_an_answer_that_is_not_a_completion(fake_vllm: Any, body: Any) -> None:
    fake_vllm.routes[PATH] = body
    with pytest.raises(EngineError, match="is not a chat completion"):
        ask(engine(fake_vllm))


def test_an_api_that_gives_the_whole_message_back(fake_vllm: Any) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE, message={"content": "Let me see: 7*8 is fifty six"})
    answer = ask(engine(fake_vllm), "Let me see: 7*8 is")
    assert TokenBytes(bpe()).join(answer.token_ids).removesuffix(b"<|end|>") == b" fifty six"


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bpe": bpe,
    "replace": lambda: sentencepiece("replace"),
    "metaspace": lambda: sentencepiece("metaspace"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), limit=st.integers(1, 12))
def test_the_join_is_the_answers_text_byte_for_byte(name: str, text: str, limit: int) -> None:
    """Whatever a tokenizer puts in front of a text, and whatever special token the text spells."""
    tokenizer = TOKENIZERS[name]()
    api = ChatEngine("http://127.0.0.1:9/v1", "big", tokenizer)
    whole = text + tokenizer.decode([tokenizer.eos_token_id])
    completion = {"choices": [{"message": {"content": whole}, "finish_reason": "length"}]}
    answer = api._read_chat(completion, "so", {"max_tokens": 10_000})
    tokens = TokenBytes(tokenizer)
    assert tokens.join(answer.token_ids).decode() == whole.rstrip("\ufffd")
    assert answer.finish_reason == "length" and tokenizer.eos_token_id not in answer.token_ids
    cut = api._read_chat(completion, "so", {"max_tokens": limit})
    assert cut.token_ids == answer.token_ids[:limit]


# ---- one response of both models ----


def relay(api: Any, script: list[Any]) -> RelayTrajectory:
    tokenizer = bpe()
    student = ScriptedEngine(tokenizer, script)
    decoder = RelayDecoder(student, api, tokenizer, RelayConfig(200, None, 4096))
    prompt = ids_of(tokenizer, "What is 7*8?")
    return asyncio.run(decoder.run(prompt, teacher=open_engine(api, CHAT, len(prompt))))


def text_of(trajectory: RelayTrajectory) -> str:
    return TokenBytes(bpe()).join(trajectory.response_ids).decode()


SCRIPT = ["Let me see:<call>4</call>", " is<call>6</call>", "<call>900</call>"]


@pytest.mark.parametrize("form", FORMS)
def test_a_response_of_student_and_api(fake_vllm: Any, form: ChatPrefix) -> None:
    """The API is given the response without commands, and writes n characters, which are tokens of its own."""
    fake_vllm.routes[PATH] = chat_route(RESPONSE, refuses_prefix=PREFILL if form is ChatPrefix.EXPLAIN else "")
    trajectory = relay(GuardedEngine(engine(fake_vllm, prefix=form)), SCRIPT)
    text = text_of(trajectory)
    assert text.removesuffix("<|end|>") == (
        "Let me see:<call>4</call> 7*8 is<call>6</call> fifty<call>900</call> six, so \\boxed{56}."
    )
    assert [call.outcome for call in trajectory.calls] == [CallOutcome.SERVED] * 3
    assert [call.num_billed_output for call in trajectory.calls] == [4, 6, len(" six, so \\boxed{56}.")]
    assert all(call.num_delivered <= call.num_requested and call.num_cached == 3 for call in trajectory.calls)
    for segment, mask in zip(trajectory.segments, _masks(trajectory), strict=True):
        assert set(mask) == {int(segment.source == "student")}, "the teacher's tokens are masked, as any teacher's"


def _masks(trajectory: RelayTrajectory) -> list[list[int]]:
    mask, masks = trajectory.response_mask, []
    for segment in trajectory.segments:
        masks.append(mask[: len(segment.token_ids)])
        mask = mask[len(segment.token_ids) :]
    return masks


def test_the_filter_asks_with_the_chat(fake_vllm: Any) -> None:
    fake_vllm.routes[PATH] = chat_route("so \\boxed{56}", num_hidden=7)
    tokenizer = ChatTokenizer()
    asked = TeacherFilter(
        GuardedEngine(engine(fake_vllm, tokenizer)), tokenizer, num_samples=3, stop_at=None, max_tokens=50, sampling={},
        seed=0, template={},
    )  # fmt: skip
    row = to_row(data_source="tiny/mul", question="7*8?", ground_truth="56", id="q")
    count = asyncio.run(asked.process(row))
    assert (count["num_done"], count["num_correct"]) == (3, 3)
    assert count["num_tokens"] == 3 * (len("so \\boxed{56}") + 7), "what it bills"
    assert [body["messages"] for body in bodies(fake_vllm)] == [row["prompt"]] * 3


# ---- an API that refuses the prefix ----

REFUSALS = [
    PREFILL,
    "Unrecognized request argument supplied: continue_final_message",
    "Cannot set add_generation_prompt to True when the last message is from the assistant.",
    "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refused_prefix_is_one_error_that_says_what_to_set(fake_vllm: Any, words: str) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE, refuses_prefix=words)
    with pytest.raises(PermanentError) as refused:
        ask(engine(fake_vllm), "Let me")
    line = str(refused.value)
    assert line.startswith(fake_vllm.url) and "\n" not in line
    for part in ("chat_prefix=continue", "chat_prefix=explain", "chat_fallback=true", words[:30]):
        assert part in line
    assert refused.value.concerns_all, "every other call would be refused, too"
    assert len(bodies(fake_vllm)) == 1


@pytest.mark.parametrize("words", REFUSALS)
def test_it_falls_back_where_that_is_allowed_and_says_so_once(
    fake_vllm: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE, refuses_prefix=words)
    with caplog.at_level(logging.WARNING):
        trajectory = relay(GuardedEngine(engine(fake_vllm, falls_back=True)), SCRIPT)
    assert text_of(trajectory).removesuffix("<|end|>").endswith("\\boxed{56}.")
    warnings = [record.getMessage() for record in caplog.records if "chat_prefix" in record.getMessage()]
    assert len(warnings) == 1 and "chat_prefix=explain" in warnings[0]
    asked = [body["messages"][-1]["role"] for body in bodies(fake_vllm)]
    assert asked == ["assistant", "user", "user", "user"], "the refused form is sent once"


def test_another_refusal_is_not_about_the_prefix(fake_vllm: Any) -> None:
    message = "This model's maximum context length is 10 tokens. However, your messages resulted in 12 tokens."
    fake_vllm.routes[PATH] = (400, {"error": {"message": message}})
    with pytest.raises(PermanentError, match="maximum context length") as refused:
        ask(engine(fake_vllm, falls_back=True), "Let me")
    assert "chat_prefix" not in str(refused.value) and not refused.value.concerns_all


def test_parameters_that_a_closed_api_does_not_know_are_left_out(fake_vllm: Any) -> None:
    route = chat_route(RESPONSE)

    def strict(body: dict[str, Any]) -> Any:
        for name in ("top_k", "min_p", "repetition_penalty", "chat_template_kwargs", "max_tokens"):
            if name in body:
                hint = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return 400, {"error": {"message": f"Unsupported parameter: '{name}'.{hint}", "param": name}}
        return route({**body, "max_tokens": body["max_completion_tokens"]})

    fake_vllm.routes[PATH] = strict
    api = engine(fake_vllm, template={"enable_thinking": False})
    assert TokenBytes(bpe()).join(ask(api, "Let me", 4).token_ids) == b" see"
    ask(api, "Let me", 4)
    assert bodies(fake_vllm)[-1]["max_completion_tokens"] == 4


# ---- what it bills ----


def test_an_api_that_bills_more_than_asked_is_counted_as_it_bills(
    fake_vllm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE, num_hidden=500)
    with caplog.at_level(logging.WARNING):
        trajectory = relay(GuardedEngine(engine(fake_vllm)), SCRIPT)
    billed = [call.num_billed_output for call in trajectory.calls]
    assert billed == [504, 506, len(" six, so \\boxed{56}.") + 500]
    assert trajectory.num_teacher_tokens < 30, "rho charges what is delivered"
    _, teacher = usage_of(trajectory)
    assert teacher.num_output == sum(n for n in billed if n is not None)
    assert teacher.num_input == sum(call.num_billed_input or 0 for call in trajectory.calls)
    warnings = [record.getMessage() for record in caplog.records if "bills" in record.getMessage()]
    assert len(warnings) == 1 and "504" in warnings[0]


def test_an_answer_without_a_token_is_a_failed_call_that_was_billed(fake_vllm: Any) -> None:
    """All of `max_tokens` went into hidden reasoning."""
    fake_vllm.routes[PATH] = chat_route(RESPONSE, message={"content": ""}, finish_reason="length")
    trajectory = relay(GuardedEngine(engine(fake_vllm)), [SCRIPT[0], " done"])
    (call,) = trajectory.calls
    assert (call.outcome, call.num_delivered, call.num_billed_output) == (CallOutcome.FAILED, 0, 4)
    assert usage_of(trajectory)[1].num_output == 4


def test_an_api_that_does_not_say_what_it_bills(fake_vllm: Any) -> None:
    fake_vllm.routes[PATH] = {"choices": [{"message": {"content": "ok"}, "finish_reason": "length"}]}
    answer = ask(engine(fake_vllm))
    assert (answer.billed, answer.num_cached, answer.num_billed_tokens) == (None, None, len(answer.token_ids))


def test_it_travels_to_another_process_without_its_key(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_vllm.routes[PATH] = chat_route(RESPONSE)
    monkeypatch.setenv("RELAY_TEACHER_API_KEY", "sk-very-secret")
    data = pickle.dumps(GuardedEngine(engine(fake_vllm)))
    assert b"sk-very-secret" not in data
    answer = asyncio.run(open_engine(pickle.loads(data), CHAT, 0).generate(ids_of(bpe(), "Let"), max_tokens=3))
    assert answer.billed == Billed(len("What is 7*8?") + 3, 3)
    assert fake_vllm.requests[-1][1]["authorization"] == "Bearer sk-very-secret"


def test_engines_of_ids_are_asked_as_they_are(fake_vllm: Any) -> None:
    endpoint = EndpointEngine(fake_vllm.url, "big")
    guarded = GuardedEngine(endpoint)
    assert open_engine(endpoint, CHAT, 3) is endpoint
    assert open_engine(guarded, CHAT, 3) is guarded
    assert guarded.open is None
    chat = GuardedEngine(engine(fake_vllm))
    assert chat.open is not None
    opened = chat.open(CHAT, 3)
    assert opened.pulse is chat.pulse and opened._breaker is chat._breaker


def test_a_chat_api_does_not_stream_and_its_answer_is_one_piece(fake_vllm: Any) -> None:
    api = engine(fake_vllm)
    for asked in (api, GuardedEngine(api), open_engine(api, CHAT, 3), open_engine(GuardedEngine(api), CHAT, 3)):
        assert stream_of(asked) is None
    fake_vllm.routes[PATH] = chat_route(RESPONSE)
    student = ScriptedEngine(bpe(), ["Let me<call>4</call>", " done"], chunk=1)
    decoder = RelayDecoder(student, api, bpe(), RelayConfig(100, None, 8))
    stream = decoder.stream([1, 2, 3], teacher=open_engine(api, CHAT, 3))

    async def read() -> list[str]:
        return [piece.source async for piece in stream]

    assert asyncio.run(read()).count("teacher") == 1
    (call,) = stream.calls
    assert (call.outcome, call.num_billed_output) == (CallOutcome.SERVED, 4)


@pytest.mark.parametrize("guard", [lambda api: api, GuardedEngine])
def test_who_serves_or_writes_in_python_refuses_it(fake_vllm: Any, guard: Callable[[Any], Any]) -> None:
    student, teacher = ScriptedEngine(bpe(), ["x"]), guard(engine(fake_vllm))
    with pytest.raises(UserError, match=r"teacher: .* reads a chat .*relay\.teacher\.api=chat"):
        RelayPair(student, teacher, bpe())
    with pytest.raises(UserError, match=r"teacher: .* reads a chat"):
        RelayService(student, teacher, bpe(), RelayFile(), "m", 64, None, ServeSettings())
    assert not fake_vllm.requests
