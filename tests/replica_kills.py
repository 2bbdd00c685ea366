"""Kill replicas with SIGKILL while they work, and count what becomes of the requests. Not part of the tests.

    python tests/replica_kills.py scripted --kills 100
    VERL_PLATFORM=cpu RELAY_TINY_DIR=outputs/test-pair python tests/replica_kills.py real --kills 5

`scripted` kills processes without an engine, at a random moment; `real` kills vLLM replicas of the tiny teacher, in
turn the process of a server and of its engine. At least one replica is up all the time, so no request may fail.
"""

import argparse
import asyncio
import dataclasses
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence

import psutil
import pytest
from helpers.replicas import processes, without_vllm

from relay_verl.errors import EngineError
from relay_verl.models.replica_client import ReplicaClient

NUM_REPLICAS = 4
DEADLINE_S = 120.0
"""Seconds after which a request counts as hung."""


async def ask(client: ReplicaClient, name: str, prompt_ids: list[int], num_tokens: int) -> str:
    """One request, and what became of it."""
    try:
        sampling = {"max_tokens": num_tokens, "ignore_eos": True, "temperature": 1.0}
        answer = await asyncio.wait_for(
            client.generate(name, prompt_ids=prompt_ids, sampling_params=sampling), DEADLINE_S
        )
    except EngineError:
        return "failed"
    except TimeoutError:
        return "hung"
    return "answered" if len(answer.token_ids) == num_tokens else "cut short"


async def work_and_kill(
    client: ReplicaClient, prompt_ids: list[int], num_tokens: int, kills: Sequence[Callable[[], None]], every_s: float
) -> Counter[str]:
    """Ask without a pause, 24 requests at a time, until all kills are done and a while after the last one."""
    outcomes: Counter[str] = Counter()
    is_over = False

    async def trajectory(number: int) -> None:
        turn = 0
        while not is_over:
            outcomes[await ask(client, f"{number}-{turn // 8}", prompt_ids, num_tokens)] += 1
            turn += 1

    async def kill() -> None:
        nonlocal is_over
        for each in kills:
            await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)
            each()
        await asyncio.sleep(every_s)
        is_over = True

    await asyncio.gather(kill(), *(trajectory(number) for number in range(24)))
    drops = sum(counts.num_drops for counts in client.counts().values())
    return outcomes + Counter(kills=len(kills), drops=drops)


def scripted(num_kills: int) -> Counter[str]:
    """Kill all but one of the replicas, again and again."""
    total: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        without_vllm(patch)
        while total["kills"] < num_kills:
            with processes(NUM_REPLICAS, 0.01) as servers:
                kills = [server.kill for server in servers.values()][
                    : min(NUM_REPLICAS - 1, num_kills - total["kills"])
                ]
                total += asyncio.run(work_and_kill(ReplicaClient(servers), [5, 6, 7], 1, kills, 0.1))
    return total


def real(num_kills: int) -> Counter[str]:
    """The same with vLLM replicas of the tiny teacher."""
    from relay_verl.models.launch import start_models
    from relay_verl.models.ray_session import ray_cluster
    from relay_verl.models.tokenizers import tokenizer_at
    from relay_verl.recipes.compose import compose
    from relay_verl.run_config import RunConfig

    run = RunConfig(compose("relay_tiny", []))
    settings = dataclasses.replace(run.relay.teacher, num_replicas=NUM_REPLICAS)
    tokenizer = tokenizer_at(run.prompts, str(settings.path))

    async def once(num: int) -> Counter[str]:
        engines = await start_models(run, {"teacher": settings}, tokenizer)
        client = engines["teacher"].inner.client  # type: ignore[attr-defined]
        pids = [await actor.__ray_call__.remote(lambda _: os.getpid()) for actor in client.servers.values()]
        kills: list[Callable[[], None]] = []
        for number, pid in enumerate(pids[:num]):
            [engine] = [child for child in psutil.Process(pid).children(recursive=True) if "EngineCore" in child.name()]
            kills.append(lambda pid=engine.pid if number % 2 else pid: os.kill(pid, signal.SIGKILL))  # type: ignore[misc]
        return await work_and_kill(client, tokenizer.encode("7*8="), 24, kills, 3.0)

    total: Counter[str] = Counter()
    while total["kills"] < num_kills:
        with ray_cluster(run, num_gpus=NUM_REPLICAS):
            total += asyncio.run(once(min(NUM_REPLICAS - 1, num_kills - total["kills"])))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", choices=["scripted", "real"])
    parser.add_argument("--kills", type=int, required=True)
    options = parser.parse_args()
    started = time.monotonic()
    counts = {"scripted": scripted, "real": real}[options.engines](options.kills)
    print(", ".join(f"{counts[name]} {name}" for name in ("kills", "drops", "answered", "failed", "hung", "cut short")))
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
