"""verl's agent loop around the decoder, with several teachers: who is asked, and by which prompt."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import verl  # noqa: F401  isort: skip  (loads the plugin)
from verl.experimental.agent_loop.agent_loop import DictConfigWrap

from relay_verl.engines import ScriptedEngine
from relay_verl.errors import EngineError
from relay_verl.models.launch import start_teachers
from relay_verl.policies import POLICIES
from relay_verl.policy_base import Policy
from relay_verl.protocol import Call
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import TokenBytes
from relay_verl.trainer.agent_loop import RelayAgentLoop, RolloutError
from relay_verl.types import CallOutcome
from tests.helpers.fake_vllm import chat_route
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

CHAT = [{"role": "user", "content": "7*8?"}]


def tokenizer(words: list[bytes], mark: str) -> Any:
    made = make_bpe(words)
    made.chat_template = "{% for m in messages %}" + mark + "{{ m.content }}{% endfor %}" + mark
    return made


class Client:
    """verl's client over a scripted student."""

    def __init__(self, engine: ScriptedEngine):
        self.engine = engine

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        stop = sampling_params.get("stop", ())
        wrote = await self.engine.generate(prompt_ids, max_tokens=sampling_params["max_tokens"], stop=stop)
        return SimpleNamespace(token_ids=wrote.token_ids, log_probs=None, stop_reason="completed", extra_fields={})


def make_loop(teachers: dict[str, Any], ours: Any, *overrides: str) -> RelayAgentLoop:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+recipe=relay_tiny", *overrides])
    student = ScriptedEngine(ours, lambda context: "so <call>4</call>" if "call" not in ours.decode(context) else "ok")
    return RelayAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=Client(student),
        tokenizer=ours,
        processor=None,
        dataset_cls=None,
        data_config=DictConfigWrap(config.data),
        teachers=teachers,
    )


def test_each_query_is_answered_by_its_teacher_which_reads_its_own_prompt(tmp_path: Any) -> None:
    ours, theirs = tokenizer(BPE_WORDS, "<U>"), tokenizer([b"abc"], "<T>")
    theirs.save_pretrained(tmp_path / "far")
    (tmp_path / "far" / "config.json").write_text("{}")
    engines = {
        "near": ScriptedEngine(ours, lambda context: "near"),
        "far": ScriptedEngine(theirs, lambda context: "farther"),
    }
    teachers = f"[{{path:near,temperature:0.1}},{{path:{tmp_path}/far,text_bridge:true,data_sources:[law]}}]"
    loop = make_loop(engines, ours, f"relay.teachers={teachers}")

    async def run(data_source: str | None) -> str:
        prompt_ids = ours.encode("<U>7*8?<U>", add_special_tokens=False)
        trajectory, _ = await loop.relay(prompt_ids, {"temperature": 1.0}, messages=CHAT, data_source=data_source)
        assert {call.teacher for call in trajectory.calls} == {"far" if data_source == "law" else "near"}
        [theirs_text] = [s.token_ids for s in trajectory.segments if s.source == "teacher"]
        return TokenBytes(ours).join(theirs_text).decode()

    async def all_of_it() -> list[str]:
        return [await run(source) for source in ("math", "law", None)]

    assert asyncio.run(all_of_it()) == ["near", "fart", "near"]
    assert TokenBytes(theirs).join(engines["far"].requests[0]).decode() == "<T>7*8?<T>so "
    assert TokenBytes(ours).join(engines["near"].requests[0]).decode() == "<U>7*8?<U>so "


def test_a_chat_api_reads_the_querys_chat_and_its_tokens_are_masked(fake_vllm: Any) -> None:
    ours = tokenizer(BPE_WORDS, "<U>")
    fake_vllm.routes["/v1/chat/completions"] = chat_route("so 56, ok")
    node = f"{{base_url:'{fake_vllm.url}',api:chat,name:far}}"
    overrides = (f"relay.teachers=[{node}]", "relay.teacher.path=null")
    with initialize_config_module("verl.trainer.config", version_base=None):
        run = RunConfig(compose("ppo_trainer", overrides=["+recipe=relay_tiny", *overrides]))
    teachers = {name: group.engine for name, group in asyncio.run(start_teachers(run, ours)).items()}
    loop = make_loop(teachers, ours, *overrides)
    prompt_ids = ours.encode("<U>7*8?<U>", add_special_tokens=False)
    trajectory, output = asyncio.run(loop.relay(prompt_ids, {"temperature": 1.0}, messages=CHAT, data_source="math"))
    [written] = [segment.token_ids for segment in trajectory.segments if segment.source == "teacher"]
    assert TokenBytes(ours).join(written).decode() == "56, "
    (body,) = [body for path, _, body in fake_vllm.requests if path.endswith("/chat/completions")]
    assert body["messages"] == [*CHAT, {"role": "assistant", "content": "so "}]
    start = len(trajectory.segments[0].token_ids)
    mask = output.response_mask
    assert mask[start : start + len(written)] == [0] * len(written) and sum(mask) == len(mask) - len(written)


def test_a_query_without_a_teacher_is_an_error_and_not_a_response() -> None:
    ours = tokenizer(BPE_WORDS, "<U>")
    only_law = "relay.teachers=[{path:near,data_sources:[law]}]"
    engines = {"near": ScriptedEngine(ours, ["near"])}
    asked = {"prompt_ids": [1], "sampling": {}, "messages": CHAT, "data_source": "math"}
    with pytest.raises(EngineError, match="no teacher answers data_source='math'"):
        asyncio.run(_relay(make_loop(engines, ours, only_law), **asked))
    alone = asyncio.run(_relay(make_loop({}, ours, only_law, "relay.max_calls=0"), **asked))
    assert alone.num_calls == 0, "without calls no one is looked for"


async def _relay(loop: RelayAgentLoop, prompt_ids: list[int], sampling: dict[str, Any], **values: Any) -> Any:
    return (await loop.relay(prompt_ids, sampling, **values))[0]


def test_an_empty_response_is_not_a_row_of_verls_own_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine without room for a token ends at once: completed, and nothing to train on."""
    ours = tokenizer(BPE_WORDS, "<U>")
    loop = make_loop({}, ours, "relay.max_calls=0")

    async def write_nothing(request_id: str, **asked: Any) -> Any:
        return SimpleNamespace(token_ids=[], log_probs=None, stop_reason="length", extra_fields={})

    async def prompt(messages: Any) -> list[int]:
        return [1]

    monkeypatch.setattr(loop.student.client, "generate", write_nothing)
    monkeypatch.setattr(loop, "build_prompt", prompt)
    empty = asyncio.run(_relay(loop, [1], {}, messages=CHAT))
    assert (str(empty.status), empty.num_tokens, empty.is_whole) == ("completed", 0, False)
    with pytest.raises(RolloutError, match="empty"):
        asyncio.run(loop.run({}, raw_prompt=CHAT))


class Drawn(Policy):
    """A policy of one response: its seed decides how much a call asks for."""

    is_trainable, is_stateless = True, False

    def __init__(self, seed: int):
        self.seed = seed

    @classmethod
    def make(cls, number: str, seed: int) -> Policy:
        return cls(seed)

    def num_tokens(self, call: Call) -> int:
        return 1 + self.seed % 4


def test_a_policy_that_draws_is_made_for_each_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "drawn", Drawn)
    ours = tokenizer(BPE_WORDS, "<U>")
    loop = make_loop({"teacher": ScriptedEngine(ours, lambda context: "nearer")}, ours, "relay.policy=drawn")

    def delivered() -> list[int]:
        asked = {"prompt_ids": [1], "sampling": {"temperature": 1.0}, "messages": CHAT}
        return [asyncio.run(_relay(loop, **asked, seed=seed)).num_teacher_tokens for seed in range(12)]

    assert len(set(delivered())) > 1, "each response has draws of its own"
    assert delivered() == delivered(), "a response's seed decides"


@pytest.mark.parametrize("trains_on_teacher_tokens", [False, True])
def test_forced_tokens_are_in_the_row_and_not_trained_on(trains_on_teacher_tokens: bool) -> None:
    """Also with the released code's option, which trains on what the teacher sampled: no model sampled these."""
    ours = tokenizer(BPE_WORDS, "<U>")
    overrides = ["relay.policy=fixed_3", f"relay.train_on_teacher_tokens={str(trains_on_teacher_tokens).lower()}"]
    loop = make_loop({"teacher": ScriptedEngine(ours, lambda context: "near")}, ours, *overrides)
    asked = {"prompt_ids": [1], "sampling": {"temperature": 1.0}, "messages": CHAT}

    async def run() -> Any:
        return await loop.relay(**asked)

    trajectory, output = asyncio.run(run())
    pieces = TokenBytes(ours)
    text = pieces.join(output.response_ids)
    assert text == b"so <call>3</call>neaok<|end|>", "the student would have written 4"
    assert output.response_ids == trajectory.response_ids
    trained = b"".join(pieces.to_bytes(i) for i, m in zip(output.response_ids, output.response_mask, strict=True) if m)
    assert trained == (b"so <call>neaok<|end|>" if trains_on_teacher_tokens else b"so <call>ok<|end|>")
    assert output.num_turns == 1 + 3, "a forced piece does not count as a turn"


def test_several_endpoints_start_by_name(fake_vllm: Any) -> None:
    teachers = [{"base_url": fake_vllm.url, "name": name, "num_retries": 0} for name in ("a", "b")]
    off = {"base_url": fake_vllm.url, "name": "off", "weight": 0}
    config = OmegaConf.create({"relay": {"teachers": [*teachers, off]}})
    groups = asyncio.run(start_teachers(RunConfig(config), None))
    assert list(groups) == ["a", "b"]
    assert groups["a"].engine is not groups["b"].engine, "each has its own breaker"


PADDING = 7
"""Rows of the model's embedding without a token; the tokenizer has fewer ids."""


@pytest.mark.parametrize(
    ("row", "delivered", "why"),
    [
        (PADDING - 1, True, "the last row of the embedding, which the student can read"),
        (PADDING, False, "past the embedding: the trainer would look up a row that is not there"),
    ],
)
def test_the_bound_on_an_id_is_the_students_embedding(row: int, delivered: bool, why: str, tmp_path: Any) -> None:
    ours = tokenizer(BPE_WORDS, "<U>")
    facts = {"model_type": "qwen2", "vocab_size": len(ours) + PADDING, "eos_token_id": 0}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    end = ours.convert_tokens_to_ids("!")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, ours.eos_token_id]}))
    answer = [*ours.encode("56"), len(ours) + row]
    teacher = ScriptedEngine(ours, lambda context: answer)
    loop = make_loop({"teacher": teacher}, ours, f"actor_rollout_ref.model.path={tmp_path}")

    async def run() -> Any:
        return await loop.relay(ours.encode("<U>7*8?<U>"), {"temperature": 1.0}, messages=CHAT)

    trajectory, output = asyncio.run(run())
    calls = {call.outcome for call in trajectory.calls}
    assert calls == {CallOutcome.SERVED if delivered else CallOutcome.FAILED}, why
    assert (len(ours) + row in output.response_ids) == delivered
    assert max(output.response_ids) < facts["vocab_size"]
    assert loop.vocabulary.end_ids == {end, ours.eos_token_id}
