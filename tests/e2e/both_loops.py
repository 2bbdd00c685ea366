"""Writes as JSON what verl's single-turn loop, the relay loop and an endpoint answer on one replica of the student.

    VERL_PLATFORM=cpu RELAY_TINY_DIR=PAIR python tests/e2e/both_loops.py PAIR OUT.json

A program of its own: verl reads its platform as it is imported, and other tests have imported it without one.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

NUM_PROMPTS = 24
GREEDY = {"temperature": 0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}


async def answers(pair: Path) -> dict[str, Any]:
    from omegaconf import open_dict
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
    from verl.utils import hf_tokenizer
    from verl.utils.dataset.rl_dataset import get_dataset_class

    from relay_verl.bench.relay_speed import verls_client
    from relay_verl.config import TeacherSettings
    from relay_verl.engines import EndpointEngine
    from relay_verl.models.launch import start_replicas
    from relay_verl.recipes.compose import compose
    from relay_verl.run_config import RunConfig
    from relay_verl.trainer.agent_loop import RelayAgentLoop

    config = compose("relay_tiny")
    path = str(pair / "student_warm")
    tokenizer = hf_tokenizer(path)
    engine, replicas = await start_replicas(RunConfig(config), TeacherSettings(), path, tokenizer, is_teacher=False)

    verls = verls_client(config, engine.client)

    def loop(kind: Any, max_calls: int = 0, policy: str = "learned") -> Any:
        with open_dict(config):
            config.relay.max_calls, config.relay.policy = max_calls, policy
        return kind(
            trainer_config=DictConfigWrap(config.copy()),
            server_manager=verls if kind is SingleTurnAgentLoop else engine.client,
            tokenizer=tokenizer,
            processor=None,
            dataset_cls=get_dataset_class(config.data),
            data_config=DictConfigWrap(config.data),
            teachers={},
        )

    prompts = [[dict(m) for m in row] for row in pd.read_parquet(pair / "train.parquet")["prompt"][:NUM_PROMPTS]]

    async def run(agent: Any, **sampling: Any) -> list[dict[str, Any]]:
        samplings = [
            GREEDY | sampling | ({"seed": i} if sampling.get("temperature") else {}) for i in range(NUM_PROMPTS)
        ]
        outputs = await asyncio.gather(
            *(agent.run(params, raw_prompt=prompt) for params, prompt in zip(samplings, prompts, strict=True))
        )
        names = ("prompt_ids", "response_ids", "response_mask", "response_logprobs")
        return [{name: getattr(output, name) for name in names} for output in outputs]

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
    prompt_ids = results["single"][0]["prompt_ids"]
    text = "What is <call>20</call>?"
    generations = {
        "by a replica": await engine.generate(prompt_ids, max_tokens=24, sampling={"temperature": 0}),
        "by http": await endpoint.generate(prompt_ids, max_tokens=24, sampling={"temperature": 0}),
        "eos by http": await endpoint.generate(prompt_ids, max_tokens=64, sampling={"temperature": 0}),
        "stop by http": await endpoint.generate(
            prompt_ids, max_tokens=64, stop=["="], sampling={"temperature": 0, "logprobs": True}
        ),
    }
    return {
        **results,
        **{name: asdict(generation) for name, generation in generations.items()},
        "tokens by http": (await endpoint.tokenize(text), tokenizer.encode(text, add_special_tokens=False)),
    }


def main(pair: Path, out: Path) -> None:
    from relay_verl.models.ray_session import ray_cluster
    from relay_verl.recipes.compose import compose
    from relay_verl.run_config import RunConfig

    with ray_cluster(RunConfig(compose("relay_tiny")), num_gpus=1):
        out.write_text(json.dumps(asyncio.run(answers(pair))))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
