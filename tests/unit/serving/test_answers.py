"""Whole answers and streams: their form, who wrote what, what they cost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.serving.service import RelayService
from tests.helpers.serving import RuleEngine, client_of, events_of, make_app, make_service, text_of, tokenizer

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 60}
TEXT = {"prompt": "hi", "max_tokens": 60}
BASES = pytest.mark.parametrize("base", [CHAT, TEXT], ids=["chat", "text"])


async def ask(body: dict[str, Any], service: RelayService | None = None) -> dict[str, Any]:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    async with client_of(make_app(service or make_service())) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def stream(body: dict[str, Any], service: RelayService | None = None) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends as it should."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    async with client_of(make_app(service or make_service())) as client:
        response = await client.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events_of(response.text)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def text_in(choice: dict[str, Any]) -> str:
    """The text of a choice of either endpoint, whole or a chunk."""
    return str(choice.get("message", choice.get("delta", choice)).get("content") or choice.get("text") or "")


def authors_in(chunks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Author and text of each chunk that has one."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if text_in(choice)]
    relays = [choice.get("delta", choice).get("relay") or {} for choice in choices]
    return [
        (relay.get("kind") or relay.get("source") or "student", text_in(choice))
        for relay, choice in zip(relays, choices, strict=True)
    ]


@BASES
async def test_an_answer_has_the_text_of_both_writers_without_commands(base: dict[str, Any]) -> None:
    answer = await ask(base)
    (choice,) = answer["choices"]
    message = choice.get("message", choice)
    assert text_in(choice) == " soabc end."
    assert (choice["index"], choice["finish_reason"], choice["stop_reason"]) == (0, "stop", None)
    assert [(part["source"], part["text"]) for part in message["relay"]["parts"]] == [
        ("student", " so"),
        ("teacher", "abc"),
        ("student", " end."),
    ]
    usage, relay = answer["usage"], answer["usage"]["relay"]
    assert usage["completion_tokens"] == relay["student_tokens"] + relay["teacher_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    expected = {"teacher_tokens": 3, "num_calls": 1, "num_failed_calls": 0, "requested_tokens": 3}
    assert {name: relay[name] for name in expected} == expected
    assert relay["delivered_tokens"] == 3
    assert relay["call_ratio"] == pytest.approx(3 / usage["completion_tokens"])
    # the engine says that half of the teacher's context was cached
    assert relay["teacher_cached_tokens"] == (usage["prompt_tokens"] + 1) // 2


@BASES
async def test_a_stream_says_the_same_as_a_whole_answer(base: dict[str, Any]) -> None:
    whole = await ask(base)
    chunks = await stream({**base, "stream_options": {"include_usage": True}})
    assert "".join(text_in(choice) for chunk in chunks for choice in chunk["choices"]) == " soabc end."
    *_, end, usage = chunks
    assert (end["choices"][0]["finish_reason"], usage["choices"]) == ("stop", [])
    assert usage["usage"] == whole["usage"]
    assert len({(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks[:-1])
    if "messages" in base:
        roles = [choice["delta"].get("role") for chunk in chunks[:-1] for choice in chunk["choices"]]
        assert (roles[0], set(roles[1:])) == ("assistant", {None})


@BASES
async def test_a_stream_says_who_wrote_and_shows_commands_where_asked(base: dict[str, Any]) -> None:
    assert {author for author, _ in authors_in(await stream(base))} == {"student", "teacher"}
    shown = authors_in(await stream({**base, "relay": {"show_commands": True}}))
    assert [text for author, text in shown if author == "command"] == ["<call>3</call>"]
    assert "".join(text for author, text in shown if author == "teacher") == "abc"
    assert "".join(text for author, text in shown if author == "student") == " so end."


async def test_usage_may_come_with_every_chunk() -> None:
    chunks = await stream({**CHAT, "stream_options": {"include_usage": True, "continuous_usage_stats": True}})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2] == (await ask(CHAT))["usage"]["completion_tokens"]
    assert all("teacher_tokens" in chunk["usage"]["relay"] for chunk in chunks)


@BASES
async def test_several_responses_of_several_prompts(base: dict[str, Any]) -> None:
    body = {**base, "n": 2} | ({"prompt": ["hi", "ho"]} if "prompt" in base else {})
    num = 4 if "prompt" in base else 2
    answer = await ask(body)
    assert [choice["index"] for choice in answer["choices"]] == list(range(num))
    chunks = await stream({**body, "stream_options": {"include_usage": True}})
    texts = dict.fromkeys(range(num), "")
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += text_in(choice)
    assert set(texts.values()) == {" soabc end."}
    # the prompt of a chat is counted once, as OpenAI counts it
    assert chunks[-1]["usage"] == answer["usage"]
    assert answer["usage"]["relay"]["num_calls"] == num


@BASES
async def test_log_probabilities_are_of_each_token(base: dict[str, Any]) -> None:
    is_chat = "messages" in base
    body = {**base, "logprobs": True if is_chat else 0, "return_token_ids": True}
    (choice,) = (await ask(body))["choices"]
    ids = choice["token_ids"]
    assert len(choice["prompt_token_ids"]) > 0
    if is_chat:
        entries = choice["logprobs"]["content"]
        assert [entry["logprob"] for entry in entries] == [-0.5] * len(ids)
        assert sum(entry.get("relay") == {"source": "teacher"} for entry in entries) == 3
        assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == choice["message"]["content"]
    else:
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
        assert choice["logprobs"]["token_logprobs"] == [-0.5] * len(ids)
        assert len(choice["logprobs"]["tokens"]) == len(choice["logprobs"]["text_offset"]) == len(ids)
    chunks = await stream(body)
    assert [i for chunk in chunks for choice in chunk["choices"] for i in choice.get("token_ids", ())] == ids
    if not is_chat:
        parts = [each["logprobs"] for chunk in chunks for each in chunk["choices"] if each["logprobs"]]
        assert [at for part in parts for at in part["text_offset"]] == choice["logprobs"]["text_offset"]


@BASES
@pytest.mark.parametrize("shows", [False, True])
async def test_the_tokens_of_a_command_are_as_visible_as_its_text(base: dict[str, Any], shows: bool) -> None:
    is_chat = "messages" in base
    body = {**base, "logprobs": True if is_chat else 0, "relay": {"show_commands": shows}}
    (whole,) = (await ask(body))["choices"]
    for choices in ([whole], [choice for chunk in await stream(body) for choice in chunk["choices"]]):
        known = [choice["logprobs"] for choice in choices if choice["logprobs"]]
        texts = [text for each in known for text in tokens_in(each)]
        assert "".join(texts) == "".join(map(text_in, choices))
        assert ("call" in "".join(texts)) is shows


def tokens_in(logprobs: dict[str, Any]) -> list[str]:
    """The texts of the tokens, of a chat or a completion."""
    return logprobs["tokens"] if "tokens" in logprobs else [entry["token"] for entry in logprobs["content"]]


@BASES
async def test_stop_strings_run_over_both_writers(base: dict[str, Any]) -> None:
    for body in ({**base, "stop": "oab"}, {**base, "stop": ["zzz", "oab"], "include_stop_str_in_output": True}):
        (choice,) = (await ask(body))["choices"]
        is_included = "include_stop_str_in_output" in body
        assert text_in(choice) == (" soab" if is_included else " s")
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "oab")


async def test_limits_and_ends() -> None:
    engine = RuleEngine(lambda _: "x" * 30)
    service = make_service(engine)
    (choice,) = (await ask({**TEXT, "max_tokens": 7}, service))["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("x" * 7, "length")
    end = tokenizer().eos_token_id
    body = {**TEXT, "max_tokens": 40, "return_token_ids": True}
    (choice,) = (await ask(body, service))["choices"]
    assert (choice["finish_reason"], choice["token_ids"][-1], choice["text"]) == ("stop", end, "x" * 30)
    (choice,) = (await ask({**body, "skip_special_tokens": False}, service))["choices"]
    assert choice["text"] == "x" * 30 + tokenizer().eos_token
    x = tokenizer().encode("x", add_special_tokens=False)[0]
    (choice,) = (await ask({**body, "stop_token_ids": [x]}, service))["choices"]
    # the id is the reason, and its text is left out as a stop string's is
    assert (choice["token_ids"], choice["text"]) == ([x], "")
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", x)
    (choice,) = (await ask({**body, "stop_token_ids": [x], "include_stop_str_in_output": True}, service))["choices"]
    assert (choice["text"], choice["stop_reason"]) == ("x", x)
    for ignores, reason in ((False, None), (True, end)):  # of a sequence's own end the client asked nothing
        (choice,) = (await ask({**body, "stop_token_ids": [end], "ignore_eos": ignores}, service))["choices"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", reason)
    await ask({**body, "ignore_eos": True}, service)
    assert engine.samplings[-1]["ignore_eos"] is True


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("pair", " soabc end."),
        ("pair:student", " so<call>3</call>"),
        ("pair:teacher-free", " so"),
        ("pair:teacher", "abcdef"),
        ("pair:fixed-2", " soab end."),
    ],
)
async def test_aliases(model: str, text: str) -> None:
    student = RuleEngine(lambda ids: " end." if "</call>" in text_of(ids) else " so<call>3</call>")
    service = make_service(student)
    answer = await ask({**CHAT, "model": model, "relay": {"show_commands": model == "pair:student"}}, service)
    assert answer["model"] == model
    assert text_in(answer["choices"][0]) == text
    if model == "pair:teacher-free":
        assert student.samplings[-1]["bad_words"] == ["<call>", "</call>"]
    if model == "pair:teacher":
        assert answer["usage"]["relay"]["student_tokens"] == 0


WORDS = st.lists(st.sampled_from(["<call>3</call>", "<call>", "</call>", "<", "é", "x", ".", " so"]), max_size=8)


@given(turns=st.lists(WORDS.map("".join), min_size=1, max_size=4), piece=st.integers(1, 7), size=st.integers(1, 60))
def test_whatever_is_written_a_stream_and_a_whole_answer_agree(turns: list[str], piece: int, size: int) -> None:
    import asyncio

    def rule(context: list[int]) -> str:
        return turns[min(text_of(context).count("</call>"), len(turns) - 1)]

    async def both() -> None:
        body = {"prompt": "?", "max_tokens": size, "return_token_ids": True}
        service = make_service(RuleEngine(rule, piece=piece), RuleEngine(lambda _: "té<call>", piece=piece))
        whole = await ask(body, service)
        chunks = await stream({**body, "stream_options": {"include_usage": True}}, service)
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert "".join(map(text_in, choices)) == text_in(whole["choices"][0])
        ids = [token_id for choice in choices for token_id in choice.get("token_ids", ())]
        assert ids == whole["choices"][0]["token_ids"]
        assert chunks[-1]["usage"] == whole["usage"]
        assert whole["usage"]["completion_tokens"] == len(ids) <= size

    asyncio.run(both())
