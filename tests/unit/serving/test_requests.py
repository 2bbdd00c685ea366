"""What a request may say: fields that are honoured, harmless, or refused in OpenAI's form."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from relay_verl.checkpoints.relay_file import RelayFile, RelayLimits, RelayTemplate
from tests.helpers.serving import RuleEngine, client_of, events_of, make_app, make_service, text_of, tokenizer

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
TEXT = {"prompt": "hi"}


async def post(
    body: dict[str, Any], path: str = "", headers: dict[str, str] | None = None, **options: Any
) -> httpx.Response:
    path = path or ("/v1/chat/completions" if "messages" in body else "/v1/completions")
    async with client_of(make_app(**options)) as client:
        return await client.post(path, json=body, headers=headers)


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {"json": {}}}, "structured_outputs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"bad_words": ["x"]}, "bad_words"),
        ({"not_a_field": 1}, "not_a_field"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"relay": {"max_calls": -1}}, "relay"),
        ({"relay": {"max_teacher_tokens": -1}}, "relay"),
        ({"relay": {"budget": 3}}, "relay"),
        ({"relay": {"policy": "os:system"}}, "relay.policy"),
        ({"relay": {"policy": "lerned"}}, "relay.policy"),
        ({"relay": {"policy": "fixed_0"}}, "relay.policy"),
        ({"relay": {"on_teacher_failure": "panic"}}, "relay"),
        ({"model": "pair:fixed-20", "relay": {"policy": "learned"}}, "relay.policy"),
    ],
)
@pytest.mark.parametrize("base", [CHAT, TEXT], ids=["chat", "text"])
async def test_what_cannot_be_honoured_is_refused(base: dict[str, Any], extra: dict[str, Any], param: str) -> None:
    response = await post({**base, **extra})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param.split(".")[0] in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**TEXT, "logprobs": 1}, "logprobs"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a"] * 17}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]}, "messages"),
        ({**CHAT, "top_logprobs": 3, "logprobs": True}, "top_logprobs"),
        ({**CHAT, "max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
        ({**CHAT, "chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs"),
        ({**CHAT, "continue_final_message": True}, "continue_final_message"),
    ],
)
async def test_prompts_that_are_none_are_refused(body: dict[str, Any], param: str) -> None:
    response = await post(body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_what_means_off_is_taken() -> None:
    """Clients send whole forms: guidellm, vLLM's bench and lm-eval have these."""
    off = {
        "tools": None, "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": {}, "best_of": 1,
        "stop": None, "ignore_eos": False, "presence_penalty": 0, "frequency_penalty": 0.0, "min_tokens": 0,
        "repetition_penalty": 1.0, "logprobs": None, "user": "me", "metadata": {"a": "b"}, "store": False, "seed": -1,
        "top_k": 0, "n": 1,
    }  # fmt: skip
    for base in (CHAT, TEXT):
        response = await post({**base, **off})
        assert response.status_code == 200, response.text


async def test_a_context_that_is_too_long_says_both_lengths() -> None:
    for body in ({"prompt": [1] * 60}, {"prompt": [1] * 50, "max_tokens": 20}):
        response = await post(body, service=make_service(max_model_len=60))
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
        assert "60" in error["message"]
        assert str(len(body["prompt"])) in error["message"]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'"x"', b"\xff", b"[" * 50_000, b'{"a":' * 5_000, b"NaN"])
async def test_a_body_that_is_not_an_object_is_the_clients_error(path: str, body: bytes) -> None:
    async with client_of(make_app()) as client:
        response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", rb'{"prompt": "\ud800"}'),
        ("/v1/completions", rb'{"prompt": ["a", "\udfffb"]}'),
        ("/v1/chat/completions", rb'{"messages": [{"role": "user", "content": "\ud800"}]}'),
        ("/v1/completions", rb'{"prompt": "a", "model": "\ud800"}'),
        ("/v1/completions", rb'{"prompt": "a", "stop": "\ud800"}'),
        ("/v1/completions", rb'{"prompt": "a", "\ud800": 1}'),
    ],
)
async def test_half_a_surrogate_pair_is_the_clients_error(path: str, body: bytes) -> None:
    async with client_of(make_app()) as client:
        response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"]


async def test_a_body_that_is_too_long_is_not_read() -> None:
    body = json.dumps({"prompt": "x" * 5000}).encode()

    async def pieces() -> Any:
        yield body[:2000]
        yield body[2000:]

    async with client_of(make_app(max_body_bytes=2048)) as client:
        for content in (body, pieces()):
            response = await client.post(
                "/v1/completions", content=content, headers={"Content-Type": "application/json"}
            )
            assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


async def test_ids_and_texts_are_one_prompt() -> None:
    seen: list[list[int]] = []

    def rule(context: list[int]) -> str:
        seen.append(context)
        return "."

    service = make_service(RuleEngine(rule))
    ids = tokenizer().encode("so <call>", add_special_tokens=False)
    for prompt in ("so <call>", ["so <call>"], ids, [ids]):
        await post({"prompt": prompt}, service=service)
    assert seen == [ids] * 4


async def test_a_chat_is_written_as_in_training() -> None:
    seen: list[str] = []

    def rule(context: list[int]) -> str:
        seen.append(text_of(context))
        return "."

    relay = RelayFile(template=RelayTemplate(system="Be brief."))
    service = make_service(RuleEngine(rule), relay=relay)
    parts = [{"type": "text", "text": "7*"}, {"type": "text", "text": "8?"}]
    await post({"messages": [{"role": "user", "content": parts}]}, service=service)
    await post({"messages": [{"role": "developer", "content": "Be long."}, *CHAT["messages"]]}, service=service)
    begun = [*CHAT["messages"], {"role": "assistant", "content": "It is"}]
    await post({"messages": begun, "continue_final_message": True}, service=service)
    assert seen[0] == "system: Be brief.\nuser: 7*8?\nassistant:"
    assert seen[1] == "system: Be long.\nuser: hi\nassistant:"
    assert seen[2].endswith("assistant: It is")


async def test_sampling_reaches_both_writers_and_each_response_has_a_seed() -> None:
    service = make_service()
    student, teacher = service._decoder.student, service._decoder.teacher
    assert isinstance(student, RuleEngine) and isinstance(teacher, RuleEngine)
    await post({**TEXT, "temperature": 0.25, "seed": 5, "n": 2, "max_tokens": 50}, service=service)
    assert {sampling["temperature"] for sampling in (*student.samplings, *teacher.samplings)} == {0.25}
    assert student.samplings[0]["seed"] == 5
    assert len({sampling["seed"] for sampling in student.samplings}) == len(student.samplings)
    # without a request's own sampling each writer samples as it was trained
    student.samplings.clear()
    teacher.samplings.clear()
    await post({**TEXT, "max_tokens": 50}, service=service)
    assert teacher.samplings[0]["temperature"] == RelayFile().sampling.teacher.temperature
    assert "seed" not in teacher.samplings[0]


async def test_headers_and_body_bound_a_request_together() -> None:
    ask = {**TEXT, "max_tokens": 50}
    assert (await post(ask)).json()["usage"]["relay"]["teacher_tokens"] == 3
    for headers, relay, num_tokens in [
        ({"X-Relay-Max-Calls": "0"}, {"max_calls": 5}, 0),
        ({"X-Relay-Max-Calls": "5"}, {"max_calls": 0}, 0),
        ({"X-Relay-Max-Teacher-Tokens": "2"}, {}, 2),
        ({"X-Relay-Max-Teacher-Tokens": "0"}, {"max_teacher_tokens": 2}, 0),
    ]:
        response = await post({**ask, "relay": relay}, headers=headers)
        assert response.json()["usage"]["relay"]["teacher_tokens"] == num_tokens
    for text in ("-1", "x", "1.5", "9" * 30, ""):
        response = await post(ask, headers={"X-Relay-Max-Calls": text})
        assert response.status_code == 400


async def test_a_request_does_not_raise_what_the_models_file_allows() -> None:
    service = make_service(relay=RelayFile(limits=RelayLimits(max_calls=0)))
    response = await post({**TEXT, "max_tokens": 50, "relay": {"max_calls": 9}}, service=service)
    assert response.json()["usage"]["relay"]["num_calls"] == 0


async def test_a_completion_has_sixteen_tokens_and_a_chat_what_the_file_says() -> None:
    service = make_service(RuleEngine(lambda _: "x" * 200), relay=RelayFile(limits=RelayLimits(max_response_tokens=40)))
    assert (await post(TEXT, service=service)).json()["usage"]["completion_tokens"] == 16
    assert (await post(CHAT, service=service)).json()["usage"]["completion_tokens"] == 40


@pytest.mark.parametrize("policy", ["random_0.5", "router_0.5", "teacher_alone"])
async def test_calls_that_come_by_themselves_need_a_teacher(policy: str) -> None:
    asked = await post({**TEXT, "relay": {"policy": policy}}, service=make_service(teacher=False))
    trained = await post(TEXT, service=make_service(teacher=False, relay=RelayFile(policy=policy)))
    for response in (asked, trained):
        assert (response.status_code, response.json()["error"]["param"]) == (400, "relay.policy")


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"relay": {"policy": "random_0.5", "max_calls": 2}}, "relay.max_calls"),
        ({"relay": {"policy": "router_0.5", "max_calls": 0}}, "relay.max_calls"),
        ({"model": "pair:teacher", "relay": {"max_calls": 0}}, "relay.max_calls"),
        ({"relay": {"policy": "random_0.5"}, "presence_penalty": 1.0}, "presence_penalty"),
    ],
)
async def test_what_does_not_bind_calls_that_come_by_themselves_is_refused(extra: dict[str, Any], param: str) -> None:
    response = await post({**TEXT, **extra})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    never = asyncio.Event()

    async def pieces() -> Any:
        yield b"{"
        await never.wait()

    async with client_of(make_app(request_timeout_s=0.05)) as client:
        response = await client.post("/v1/completions", content=pieces(), headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (408, "timeout")


async def test_the_clients_own_name_does_not_break_its_stream() -> None:
    body = {**TEXT, "stream": True, "request_id": 'a"\x00text\x00'}
    response = await post(body)
    chunks = [json.loads(each) for each in events_of(response.text)[:-1]]
    assert {chunk["id"] for chunk in chunks} == {'cmpl-a"\x00text\x00'}
