"""Replicas that fail what they are asked: who is dropped for it, and what that costs the trajectories."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.engines.failure_share import MIN_COUNT
from relay_verl.errors import EngineError
from relay_verl.models import replica
from relay_verl.models.replica import MAX_SILENT, ReplicaCounts
from relay_verl.models.replica_client import ReplicaClient
from tests.helpers.replicas import Actor, EngineDeadError, Server, ask, make, without_vllm
from tests.helpers.virtual_clock import run_virtually

BROKEN = RuntimeError("CUDA error: out of memory")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    without_vllm(monkeypatch)


def names_at(client: ReplicaClient, server: Server, num: int) -> list[str]:
    """Trajectories whose first choice is this replica."""
    names = (str(number) for number in range(10_000))
    at_home = (name for name in names if client._choose(name).name == server.name)  # type: ignore[union-attr]
    return [next(at_home) for _ in range(num)]


async def fail(client: ReplicaClient, names: list[str]) -> None:
    for name in names:
        with pytest.raises((EngineError, RuntimeError), match="out of memory"):
            await ask(client, name)


@pytest.mark.parametrize("node", ["here", "there"])
async def test_a_replica_that_fails_too_many_requests_is_dropped_with_one_warning(
    node: str, caplog: pytest.LogCaptureFixture
) -> None:
    servers = [Server("broken"), Server("well")]
    client = ReplicaClient({each.name: Actor(each, node) for each in servers}, max_failed_share=0.5)
    names = names_at(client, servers[0], 2 * MIN_COUNT)
    servers[0].fails = BROKEN
    await fail(client, names[:MIN_COUNT])
    answers = [await ask(client, name) for name in names]
    assert all(answer.token_ids == [3, 3] for answer in answers), "they are answered by the other one"
    assert len(servers[0].asked) == MIN_COUNT
    assert client.counts() == {"broken": ReplicaCounts(MIN_COUNT, 1), "well": ReplicaCounts()}
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"replica broken: {MIN_COUNT} of {MIN_COUNT} requests failed (100%), the latest: " in warning.message


async def test_a_replica_that_was_dropped_for_its_failures_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "RETRY_S", 0.05)
    client, servers = make(2, max_failed_share=0.5)
    [*names, last] = names_at(client, servers[0], MIN_COUNT + 1)
    servers[0].fails = BROKEN
    await fail(client, names)
    servers[0].fails = None
    await asyncio.sleep(0.06)
    assert (await ask(client, last)).token_ids
    assert len(servers[0].asked) == MIN_COUNT + 1


NOT_DROPPED: list[tuple[float, int, Exception, int, str]] = [
    # limit, replicas, what it raises, requests, why it stays
    (1.0, 2, BROKEN, 2 * MIN_COUNT, "1 drops none"),
    (0.5, 2, BROKEN, MIN_COUNT - 1, "too few to tell"),
    (0.5, 1, BROKEN, 2 * MIN_COUNT, "there is nowhere else to go"),
    (0.5, 2, ValueError("out of memory: prompt too long"), 2 * MIN_COUNT, "a refusal says nothing against it"),
]


@pytest.mark.parametrize(
    ("limit", "num", "error", "num_requests", "why"), NOT_DROPPED, ids=[c[-1] for c in NOT_DROPPED]
)
async def test_a_replica_that_stays(limit: float, num: int, error: Exception, num_requests: int, why: str) -> None:
    client, servers = make(num, max_failed_share=limit)
    names = names_at(client, servers[0], num_requests)
    servers[0].fails = error
    for name in names:
        with pytest.raises((EngineError, ValueError), match="out of memory"):
            await ask(client, name)
    assert len(servers[0].asked) == num_requests, why


async def test_a_share_at_the_limit_is_not_too_many() -> None:
    client, servers = make(2, max_failed_share=0.5)
    names = names_at(client, servers[0], MIN_COUNT)
    for index, name in enumerate(names):
        servers[0].fails = BROKEN if index % 2 else None
        await asyncio.wait([asyncio.ensure_future(ask(client, name))])
    assert client.counts()[servers[0].name] == ReplicaCounts(MIN_COUNT // 2, 0)


async def test_what_a_hanging_replica_was_asked_is_asked_elsewhere_once_it_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica, "SILENT_S", 0.01)
    client, servers = make(2)
    [*names, patient] = names_at(client, servers[0], MAX_SILENT + 1)
    servers[0].seconds = 1e9
    waiting = asyncio.create_task(ask(client, patient))
    for name in names:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(client, name), 0.03)
    assert (await asyncio.wait_for(waiting, 30)).token_ids == [3, 3]
    while len(servers[0].cancelled) <= MAX_SILENT:  # its engine is told
        await asyncio.sleep(0.001)


@dataclass(frozen=True)
class Fate:
    """What becomes of a replica."""

    kind: str
    at: float
    """Seconds."""

    async def befall(self, server: Server) -> None:
        await asyncio.sleep(self.at)
        if self.kind == "hangs":
            server.seconds = 1e9
        elif self.kind != "well":
            server.fails = EngineDeadError("gone") if self.kind == "dies" else BROKEN


FATES = st.builds(Fate, st.sampled_from(["well", "dies", "hangs", "fails"]), st.floats(0, 0.3))
NUM_TRAJECTORIES, NUM_TURNS, DEADLINE_S = 8, 80, 20.0


@settings(max_examples=30, deadline=None)
@given(fates=st.lists(FATES, min_size=1, max_size=4))
def test_no_replica_takes_more_than_its_share_of_the_requests_with_it(fates: list[Fate]) -> None:
    """Invariant 6 of the design, over replicas that die, hang and answer with errors at any moment: nothing hangs, each
    request is answered or fails, and while one replica is well, the others cost a bounded number of requests."""

    async def run() -> list[list[Any]]:
        client, servers = make(len(fates), 0.02, max_failed_share=0.5)
        for server in client.replicas:
            assert server.is_up
        events = [asyncio.create_task(fate.befall(server)) for fate, server in zip(fates, servers, strict=True)]
        rounds = []
        for _ in range(NUM_TURNS):
            turn = [asyncio.wait_for(ask(client, f"{name}", 1), DEADLINE_S) for name in range(NUM_TRAJECTORIES)]
            rounds.append(await asyncio.gather(*turn, return_exceptions=True))
        for event in events:
            event.cancel()
        return rounds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica, "RETRY_S", 1e9)
        rounds = run_virtually(run())
    failures = [result for results in rounds for result in results if isinstance(result, BaseException)]
    assert all(isinstance(failure, (EngineError, TimeoutError)) for failure in failures)
    if any(fate.kind == "well" for fate in fates):
        # a window of requests may be half over when the failures begin, and all others may be under way by then
        assert len(failures) <= len(fates) * (1.5 * MIN_COUNT + NUM_TRAJECTORIES)
        assert all(result.token_ids == [3] for result in rounds[-1])
