"""Real vLLM replicas of a teacher that are killed, in their server and in their engine, and started again."""

import asyncio
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from relay_verl.models import replica, replica_restart
from relay_verl.models.launch import start_teacher
from relay_verl.models.ray_session import ray_cluster
from relay_verl.models.replica_restart import Health, ReplicaKeeper, health_of
from relay_verl.models.tokenizers import tokenizer_at
from relay_verl.recipes.compose import compose
from relay_verl.run_config import RunConfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

PROMPT = "7*8="
NUM_NAMES = 16
"""Trajectories, so many that each replica is the first choice of some."""


async def kill_and_start_again(run: RunConfig) -> dict[str, Any]:
    settings = dataclasses.replace(run.relay.teacher, num_replicas=2)
    tokenizer = tokenizer_at(run.prompts, str(settings.path))
    group = await start_teacher(run, settings, tokenizer)
    assert group is not None
    client = group.engine.inner.client  # type: ignore[attr-defined]
    keeper = ReplicaKeeper(dict.fromkeys(group.replicas, group.start_timeout_s))
    prompt_ids = tokenizer.encode(PROMPT)

    async def write() -> list[list[int]]:
        sampling = {"max_tokens": 4, "temperature": 0.0}
        requests = (client.generate(str(i), prompt_ids=prompt_ids, sampling_params=sampling) for i in range(NUM_NAMES))
        return [list(answer.token_ids) for answer in await asyncio.gather(*requests)]

    before = await write()
    engines = []
    for name in client.servers:
        assert await keeper.look(name), "all are well"
        pid = await client.servers[name].__ray_call__.remote(lambda _: os.getpid())
        children = psutil.Process(pid).children(recursive=True)
        engines += [(pid, child.pid) for child in children if "EngineCore" in child.name()]
    assert len(engines) == 2
    os.kill(engines[0][0], signal.SIGKILL)  # the server of the one ...
    os.kill(engines[1][1], signal.SIGKILL)  # ... and the engine of the other
    down = [health.is_well if isinstance(health, Health) else None for health in await healths(group)]
    for name in client.servers:
        assert await keeper.look(name)
    left = [psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pids in engines for pid in pids]
    moved = [keeper.address_of(name) != name for name in client.servers]
    after: list[Any] = []
    for _ in range(3):  # the requests that meet a dead server go elsewhere, and the names are looked up again later
        try:
            after.append(await write())
        except Exception as error:
            after.append(error)
        await asyncio.sleep(replica.RETRY_S + 0.5)
    well = [await each.server_handle.__ray_call__.remote(health_of) for each in group.replicas]
    running = [each.is_up for each in client.replicas]
    return {"before": before, "after": after, "down": down, "left": left, "moved": moved, "well": well, "up": running}


async def healths(group: Any) -> list[Any]:
    """What the servers say once their ends are known to those who ask."""
    async with asyncio.timeout(120):
        while True:
            calls = (each.server_handle.__ray_call__.remote(health_of) for each in group.replicas)
            answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            if all(isinstance(answer, Exception) or not answer[0] for answer in answers):
                return [answer if isinstance(answer, Exception) else Health(*answer) for answer in answers]
            await asyncio.sleep(0.5)


def test_both_are_started_again_and_asked_again(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "RETRY_S", 1.0)
    monkeypatch.setattr(replica_restart, "ANSWER_S", 120.0)
    run = RunConfig(compose("relay_tiny", []))
    with ray_cluster(run, num_gpus=2):
        told = asyncio.run(kill_and_start_again(run))
    assert told["down"] == [None, False], "a dead server says nothing, a server without an engine says so"
    assert told["left"] == [False] * 4, "an engine without its server would keep its GPU's memory"
    assert told["moved"] == [True, True]
    assert [answer[0] for answer in told["well"]] == [True, True]
    assert told["after"][-1] == told["before"]
    assert told["up"] == [True, True]
