"""`NAME:deferred` over a student whose engine asks by itself: names, budgets, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.deferral import THRESHOLD_ARG, Deferral
from relay_verl.engines import Generation
from relay_verl.errors import UserError
from relay_verl.serving.pair_options import ModelOptions, PairOptions, with_head
from relay_verl.serving.service import RelayService
from relay_verl.serving.settings import ServeSettings
from tests.helpers.serving import RuleEngine, client_of, make_app, tokenizer

RESERVED = 399
TEXT = {"prompt": "hi", "max_tokens": 6, "model": "pair:deferred-0.9"}


class AskingEngine(RuleEngine):
    """Writes `s`, and asks at each position if its request's threshold is above .7; a token a piece."""

    async def stream(self, prompt_ids: list[int], **options: Any) -> AsyncIterator[Generation]:
        threshold = (options["sampling"].get("extra_args") or {}).get(THRESHOLD_ARG)
        if threshold is not None and threshold > 0.7:
            assert options["sampling"]["stop_token_ids"] == [RESERVED]
            yield Generation([RESERVED], [0.0], "eos")
            return
        async for piece in super().stream(prompt_ids, **options):
            yield piece


def service_of(*, has_head: bool = True, policy: str = "learned") -> RelayService:
    return RelayService(
        AskingEngine(lambda _: "s" * 20),
        RuleEngine(lambda _: "t" * 20),
        tokenizer(),
        RelayFile(policy=policy),
        "pair",
        4096,
        None,
        ServeSettings(),
        deferral=Deferral(RESERVED, 0.5) if has_head else None,
    )


async def ask(service: RelayService, **body: Any) -> Any:
    async with client_of(make_app(service)) as client:
        return await client.post("/v1/completions", json={**TEXT, **body})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "text"), [("pair:deferred-0.9", "tttttt"), ("pair:deferred", "ssssss"), ("pair:deferred-0.6", "ssssss")]
)
async def test_who_writes(model: str, text: str, stream: bool) -> None:
    answer = await ask(service_of(), model=model, stream=stream)
    assert answer.status_code == 200, answer.text
    if stream:
        assert answer.text.count(f'"text":"{text[0]}') + answer.text.count(f'"text": "{text[0]}') > 0
    else:
        assert answer.json()["choices"][0]["text"] == text


async def test_a_budget_leaves_the_rest_to_the_student() -> None:
    answer = (await ask(service_of(), relay={"max_teacher_tokens": 2})).json()
    assert answer["choices"][0]["text"] == "ttssss"
    assert answer["usage"]["relay"]["num_calls"] >= 1
    assert answer["usage"]["relay"]["teacher_tokens"] == 2


async def test_what_is_refused() -> None:
    assert (await ask(service_of(), relay={"max_calls": 3})).status_code == 400
    assert (await ask(service_of(), model="pair:deferred-x")).status_code == 404
    assert (await ask(service_of(has_head=False))).status_code == 404
    refused = await ask(service_of(has_head=False), model="pair", relay={"policy": "deferred_0.9"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "relay.policy")
    with pytest.raises(UserError, match="deferred"):
        service_of(has_head=False, policy="deferred")
    async with client_of(make_app(service_of())) as client:
        names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
    assert names[-1] == "pair:deferred"


@pytest.mark.parametrize(
    ("student", "teacher", "option"),
    [
        (ModelOptions("student", url="http://127.0.0.1:1/v1"), ModelOptions("teacher", "t"), "--defer-head"),
        (ModelOptions("student", "s"), None, "--defer-head"),
        (ModelOptions("student", "s", more=("--spec-method", "ngram")), ModelOptions("teacher", "t"), "--spec-method"),
        (ModelOptions("student", "s", more=("-sc={}",)), ModelOptions("teacher", "t"), "-sc"),
    ],
)
def test_pairs_without_room_for_a_head(student: ModelOptions, teacher: ModelOptions | None, option: str) -> None:
    from relay_verl.config import DeferSettings

    with pytest.raises(UserError, match=option):
        with_head(PairOptions(student, teacher, "s"), DeferSettings("head"), tokenizer())
