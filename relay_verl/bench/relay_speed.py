"""Rollout speed, side by side on the same prompts: relay, relay with a barrier, verl's single turn, and the limit.

Four variants to do the same work, in turn, round after round:

- relay: every trajectory continues by itself (`RelayAgentLoop`).
- barrier: the same trajectories in lock-step: all wait for all at each turn, as the authors' release does.
- single turn: verl's `SingleTurnAgentLoop` writes as many tokens as the relayed responses have, without a teacher.
- offline: vLLM's offline engine gets all prompts in one batch and writes as many tokens, with log-probabilities and the
  threads that the student's engine has: the limit.

A request's seed is the same in all rounds and variants, so the work is too. Ratios are of wall-clock seconds, by round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relay_verl.bench.offline import offline_engine, set_engine_environment
from relay_verl.bench.timing import time_rounds, timings_to_markdown
from relay_verl.decoder import Relay, RelayDecoder
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.models.replica_client import ReplicaClient
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.policies import make_policy
from relay_verl.run_config import RunConfig, VerlConfig
from relay_verl.tokenization import chat_ids
from relay_verl.types import RelayTrajectory


async def run_in_lockstep(relays: Sequence[Relay]) -> list[RelayTrajectory]:
    """Advance all relays by one turn at a time; no one starts the next turn before all have ended this one."""
    live = [aiter(relay) for relay in relays]
    while live:
        turns = await asyncio.gather(*(anext(turn, None) for turn in live))
        live = [iterator for iterator, turn in zip(live, turns, strict=True) if turn is not None]
    return [relay.trajectory() for relay in relays]


def bench_rollout(
    run: RunConfig, student: str, teacher: str, rows: Sequence[Mapping[str, Any]], rounds: int, policy: str = "learned"
) -> str:
    """Start both models and time the variants on `rows`; gives the table and what the rounds did.

    Args:
        run: the recipe.
        student: folder or hub id.
        teacher: folder, hub id or endpoint.
        rows: questions with the columns of training data, one for each response.
        rounds: that are counted.
        policy: who calls in the relayed responses.
    """
    from relay_verl.models.address import as_student, model_at
    from relay_verl.models.launch import start_models
    from relay_verl.models.ray_session import ray_cluster
    from relay_verl.models.tokenizers import tokenizer_at
    from relay_verl.preflight.commands import check_bench

    tokenizer_path = run.prompts.tokenizer_of(student)
    tokenizer = tokenizer_at(run.prompts, tokenizer_path)
    check_bench(rows, tokenizer, tokenizer_path, run.prompts.template)
    vocabulary = read_vocabulary(student, tokenizer)

    async def time_variants() -> str:
        settings = run.relay
        models = {student: as_student(settings.teacher, student), teacher: model_at(teacher, settings.teacher)}
        engines = await start_models(run, models, tokenizer)
        decoder = RelayDecoder(
            engines[student],
            engines[teacher],
            tokenizer,
            settings.decoder_config(
                run.lengths.max_response,
                greedy=True,
                vocab_size=vocabulary.size,
                end_ids=vocabulary.end_ids,
            ),
        )
        single_turn = single_turn_loop(run.verl, engines[student], tokenizer)
        template = run.prompts.template
        prompts = [chat_ids(tokenizer, row["prompt"], template) for row in rows]
        samplings = [{"temperature": 1.0, "seed": seed} for seed in range(len(prompts))]

        def options(seed: int) -> dict[str, Any]:
            return {"sampling": samplings[seed], "policy": make_policy(policy, seed)}

        last: list[RelayTrajectory] = []

        async def relay() -> list[int]:
            last[:] = await asyncio.gather(
                *(decoder.run(prompt, **options(seed)) for seed, prompt in enumerate(prompts))
            )
            return [len(trajectory.response_ids) for trajectory in last]

        async def barrier() -> list[int]:
            relays = [decoder.stream(prompt, **options(seed)) for seed, prompt in enumerate(prompts)]
            return [len(trajectory.response_ids) for trajectory in await run_in_lockstep(relays)]

        async def single() -> list[int]:
            outputs = await asyncio.gather(
                *(
                    single_turn.run(
                        {**s, "max_tokens": len(trajectory.response_ids), "ignore_eos": True},
                        raw_prompt=[dict(message) for message in row["prompt"]],
                    )
                    for row, s, trajectory in zip(rows, samplings, last, strict=True)
                )
            )
            return [len(output.response_ids) for output in outputs]

        async def offline() -> list[int]:
            return await asyncio.to_thread(
                write_offline, prompts, [len(trajectory.response_ids) for trajectory in last]
            )

        ways = {"relay": relay, "barrier": barrier, "single turn": single, "offline": offline}
        timings = await time_rounds(ways, rounds)
        num_calls = sum(trajectory.num_calls for trajectory in last)
        num_teacher_tokens = sum(trajectory.num_teacher_tokens for trajectory in last)
        return (
            f"{timings_to_markdown(timings)}\n\n{rounds} rounds of {len(rows)} responses with {num_calls} calls and "
            f"{num_teacher_tokens} teacher tokens."
        )

    write_offline = _offline_writer(run, student)
    with ray_cluster(run, num_gpus=2):
        return asyncio.run(time_variants())


def _offline_writer(run: RunConfig, student: str) -> Callable[[list[list[int]], list[int]], list[int]]:
    """vLLM's offline engine as a function of prompts and lengths; gives the lengths."""
    from vllm import SamplingParams

    from relay_verl.models.address import as_student

    set_engine_environment(run)
    llm = offline_engine(run, as_student(run.relay.teacher, student), student)

    def write(prompts: list[list[int]], lengths: list[int]) -> list[int]:
        samplings = [
            SamplingParams(max_tokens=length, ignore_eos=True, temperature=1.0, logprobs=0, seed=seed)
            for seed, length in enumerate(lengths)
        ]
        answers = llm.generate([{"prompt_token_ids": ids} for ids in prompts], samplings, use_tqdm=False)
        return [len(answer.outputs[0].token_ids) for answer in answers]

    return write


def single_turn_loop(config: VerlConfig, engine: TokenEngine, tokenizer: Any) -> Any:
    """verl's own loop on verl's client over the replicas of `engine`, which `relay_verl.models.launch.start_models`
    gave."""
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
    from verl.utils.dataset.rl_dataset import get_dataset_class

    served = engine.inner if isinstance(engine, GuardedEngine) else engine
    assert isinstance(served, VerlServerEngine)
    return SingleTurnAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=verls_client(config, served.client),
        tokenizer=tokenizer,
        processor=None,
        dataset_cls=get_dataset_class(config.data),
        data_config=DictConfigWrap(config.data),
    )


def verls_client(config: VerlConfig, client: ReplicaClient) -> Any:
    """verl's own client, with a balancer of its own, over the replicas that `client` asks."""
    from verl.workers.rollout.llm_server import LLMServerClient
    from verl.workers.rollout.router import get_router_handle

    return LLMServerClient(config, get_router_handle(servers=client.servers))
