"""On real vLLM engines: without calls the relay loop is verl's single turn; an endpoint is as good as a replica."""

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NUM_PROMPTS = 24
GREEDY = {"temperature": 0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}


async def answers(pair: Path) -> dict[str, Any]:
    from omegaconf import open_dict
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
    from verl.utils import hf_tokenizer
    from verl.utils.dataset.rl_dataset import get_dataset_class

    from relay_verl.agent_loop import RelayAgentLoop
    from relay_verl.config import TeacherSettings
    from relay_verl.engines import EndpointEngine
    from relay_verl.evaluation.runner import compose
    from relay_verl.teacher import start_replicas

    config = compose("relay_tiny")
    path = str(pair / "student_warm")
    tokenizer = hf_tokenizer(path)
    engine, replicas = await start_replicas(config, TeacherSettings(), path, tokenizer, is_teacher=False)

    def loop(kind: Any, max_calls: int = 0, policy: str = "learned") -> Any:
        with open_dict(config):
            config.relay.max_calls, config.relay.policy = max_calls, policy
        return kind(
            trainer_config=DictConfigWrap(config.copy()),
            server_manager=engine.client,
            tokenizer=tokenizer,
            processor=None,
            dataset_cls=get_dataset_class(config.data),
            data_config=DictConfigWrap(config.data),
            teacher=None,
        )

    prompts = [[dict(m) for m in row] for row in pd.read_parquet(pair / "train.parquet")["prompt"][:NUM_PROMPTS]]

    async def run(agent: Any, **sampling: Any) -> list[Any]:
        samplings = [
            GREEDY | sampling | ({"seed": i} if sampling.get("temperature") else {}) for i in range(NUM_PROMPTS)
        ]
        return await asyncio.gather(
            *(agent.run(params, raw_prompt=prompt) for params, prompt in zip(samplings, prompts, strict=True))
        )

    banned = {"bad_words": ["<call>", "</call>"]}
    seeded = {"temperature": 1.0}
    results = {
        "single": await run(loop(SingleTurnAgentLoop)),
        "relay": await run(loop(RelayAgentLoop)),
        "single seeded": await run(loop(SingleTurnAgentLoop), **seeded),
        "relay seeded": await run(loop(RelayAgentLoop), **seeded),
        "single banned": await run(loop(SingleTurnAgentLoop), **banned),
        "relay banned": await run(loop(RelayAgentLoop, max_calls=3, policy="teacher_free")),
    }
    endpoint = EndpointEngine(f"http://{replicas[0].server_address}/v1")
    prompt_ids = results["single"][0].prompt_ids
    text = "What is <call>20</call>?"
    return results | {
        "by ray": await engine.generate(prompt_ids, max_tokens=24, sampling={"temperature": 0}),
        "by http": await endpoint.generate(prompt_ids, max_tokens=24, sampling={"temperature": 0}),
        "eos by http": await endpoint.generate(prompt_ids, max_tokens=64, sampling={"temperature": 0}),
        "stop by http": await endpoint.generate(
            prompt_ids, max_tokens=64, stop=["="], sampling={"temperature": 0, "logprobs": True}
        ),
        "tokens by http": (await endpoint.tokenize(text), tokenizer.encode(text, add_special_tokens=False)),
        "eos": tokenizer.eos_token_id,
        "decode": tokenizer.decode,
    }


@pytest.fixture(scope="module")
def found(pair: Path) -> dict[str, Any]:
    from relay_verl.evaluation.runner import compose, ray_cluster

    with ray_cluster(compose("relay_tiny"), num_gpus=1):
        return asyncio.run(answers(pair))


@pytest.mark.parametrize("kind", ["", " seeded", " banned"])
def test_without_calls_the_relay_loop_is_verls_single_turn(found: dict[str, Any], kind: str) -> None:
    for single, relay in zip(found[f"single{kind}"], found[f"relay{kind}"], strict=True):
        assert relay.prompt_ids == single.prompt_ids
        assert relay.response_ids == single.response_ids
        assert relay.response_mask == single.response_mask
        assert relay.response_logprobs == pytest.approx(single.response_logprobs, abs=1e-4)


def test_the_warmed_up_student_writes_commands_when_sampled_and_none_when_banned(found: dict[str, Any]) -> None:
    sampled = "".join(found["decode"](output.response_ids) for output in found["relay seeded"])
    assert "<call>" in sampled
    banned = "".join(found["decode"](output.response_ids) for output in found["relay banned"])
    assert "<call>" not in banned
    assert "</call>" not in banned


def test_an_endpoint_answers_as_the_replica_does(found: dict[str, Any]) -> None:
    assert found["by http"].token_ids == found["by ray"].token_ids
    assert found["by http"].finish_reason == found["by ray"].finish_reason


def test_an_endpoint_tells_why_it_stopped(found: dict[str, Any]) -> None:
    assert found["eos by http"].finish_reason == "eos"
    assert found["eos by http"].token_ids[-1] == found["eos"]
    stopped = found["stop by http"]
    assert stopped.finish_reason == "stop"
    assert "=" in found["decode"](stopped.token_ids[-1:])
    assert len(stopped.logprobs) == len(stopped.token_ids)


def test_an_endpoints_tokenizer_can_be_compared(found: dict[str, Any]) -> None:
    theirs, ours = found["tokens by http"]
    assert theirs == ours
