"""One client over many replicas, through real sockets: where requests go, and what becomes of them when one dies."""

import asyncio
import pickle
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError, ActorUnavailableError

from relay_verl.errors import EngineError
from relay_verl.models import direct_server, replica, replica_client
from relay_verl.models.direct_server import FIELD
from relay_verl.models.replica import MAX_SILENT
from relay_verl.models.replica_client import SLACK, ReplicaClient, names_of, servers_of
from tests.helpers.replicas import Actor, EngineDeadError, Server, ServerProcess, ask, make, processes, without_vllm


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    without_vllm(monkeypatch)


async def test_an_answer_has_what_verls_has() -> None:
    client, [server] = make(1)
    answer = await ask(client, "a")
    assert (answer.token_ids, answer.log_probs, answer.stop_reason) == ([3, 3], [-0.5, -0.5], "completed")
    versions = {"global_steps": 7, "min_global_steps": 7, "max_global_steps": 7}
    assert answer.extra_fields == {**versions, "num_cached_tokens": 3, "cache_block": 16}
    await ask(client, "a")
    assert len(set(server.asked)) == 2, "each turn has a name of its own in the engine"


async def test_a_trajectory_stays_where_its_prefix_is_cached() -> None:
    client, servers = make(4)
    for _ in range(5):
        for name in range(40):
            await ask(client, str(name), name + 1)
    homes = Counter(len(server.asked) for server in servers)
    assert all(count % 5 == 0 for count in homes), "all turns of a trajectory went to one replica"
    assert sum(bool(server.asked) for server in servers) == 4


@settings(max_examples=25, deadline=None)
@given(num_replicas=st.integers(1, 8), num_requests=st.integers(1, 200))
def test_no_replica_gets_more_than_its_share(num_replicas: int, num_requests: int) -> None:
    async def run() -> list[int]:
        client, servers = make(num_replicas, 0.02)
        await asyncio.gather(*(ask(client, f"{number}") for number in range(num_requests)))
        return [server.most_running for server in servers]

    most = asyncio.run(run())
    assert max(most) <= (1 + SLACK) * num_requests / num_replicas + 1 + SLACK


async def test_a_refusal_is_a_value_error_and_says_nothing_against_the_replica() -> None:
    client, [server] = make(1)
    server.fails = ValueError("no room behind the prompt")
    with pytest.raises(ValueError, match="no room behind the prompt"):
        await ask(client, "a")
    server.fails = RuntimeError("out of memory")
    with pytest.raises(EngineError, match="RuntimeError: out of memory"):
        await ask(client, "a")
    server.fails = None
    assert (await ask(client, "a")).token_ids


async def test_what_nobody_waits_for_is_aborted_in_the_engine() -> None:
    client, [server] = make(1, seconds=30.0)
    task = asyncio.create_task(ask(client, "a"))
    while not server.running:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})
    while not server.cancelled:
        await asyncio.sleep(0.001)
    assert server.cancelled == server.asked


async def test_the_requests_of_a_replica_that_dies_go_on_elsewhere() -> None:
    with processes(2, 0.2) as servers:
        client = ReplicaClient(servers)
        tasks = [asyncio.create_task(ask(client, str(number))) for number in range(20)]
        while not all(replica.num_running for replica in client.replicas):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        next(iter(servers.values())).kill()
        answers = await asyncio.gather(*tasks)
        assert all(answer.token_ids == [3, 3] for answer in answers)
        assert [replica.is_up for replica in client.replicas] == [False, True]


async def test_the_requests_of_an_engine_that_dies_go_on_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    client, servers = make(2)
    servers[0].fails = EngineDeadError("the engine core died")
    answers = await asyncio.gather(*(ask(client, str(number)) for number in range(20)))
    assert all(answer.token_ids == [3, 3] for answer in answers)
    before = len(servers[0].asked)
    await asyncio.gather(*(ask(client, str(number)) for number in range(20)))
    assert len(servers[0].asked) == before, "it is not asked again for a while"
    assert "replica 10.0.0.0:8000: EngineDeadError: the engine core died; it is asked again in 30 s" in caplog.text


async def test_where_no_replica_is_up_the_error_says_why() -> None:
    with processes(2, 0.0) as servers:
        client = ReplicaClient(servers)
        for server in servers.values():
            server.kill()
        for _ in range(2):
            with pytest.raises(EngineError, match=r"none of 2 replica\(s\) is up: replica 10.0.0.\d:8000: Runtime"):
                await ask(client, "a")
    with pytest.raises(EngineError, match=r"none of 0 replica\(s\) is up: there is none"):
        await ask(ReplicaClient({}), "a")


async def test_a_replica_that_was_down_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "RETRY_S", 0.05)
    client, [server] = make(1)
    server.fails = EngineDeadError("gone")
    with pytest.raises(EngineError, match="gone"):
        await ask(client, "a")
    server.fails = None
    await asyncio.sleep(0.06)
    assert (await ask(client, "a")).token_ids


async def test_a_replica_that_hangs_is_dropped_by_those_who_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "SILENT_S", 0.01)
    client, servers = make(2)
    hung = servers[0]
    hung.seconds = 60.0
    names = [name for name in map(str, range(100)) if client._choose(name).name == hung.name]  # type: ignore[union-attr]
    for name in names[:MAX_SILENT]:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(client, name), 0.03)
    assert (await asyncio.wait_for(ask(client, names[0]), 5)).token_ids, "the other one answers"


async def test_a_caller_that_gives_up_early_says_nothing_about_a_replica() -> None:
    client, [server] = make(1, seconds=60.0)
    for name in range(2 * MAX_SILENT):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(client, str(name)), 0.01)
    server.seconds = 0.0
    assert (await ask(client, "a")).token_ids


@pytest.mark.parametrize(
    "error",
    [EngineDeadError("the engine core died"), ActorDiedError(), ActorUnavailableError("its node left", None)],
    ids=lambda error: type(error).__name__,
)
async def test_a_replica_on_another_node_is_asked_through_ray(error: Exception) -> None:
    """Its engine may die, its process, or all of its node."""
    near, far = Server("near"), Server("far")
    client = ReplicaClient({"far": Actor(far, node="there"), "near": Actor(near)})
    names = [name for name in map(str, range(100)) if client._choose(name).name == "far"]  # type: ignore[union-attr]
    assert (await ask(client, names[0])).token_ids == [3, 3]
    assert not far.running and not near.asked
    far.fails = error
    for name in names:
        assert (await ask(client, name)).token_ids == [3, 3]
    assert len(far.asked) == 2, "it is asked once more"
    near.fails = EngineDeadError("gone, too")
    with pytest.raises(EngineError, match=r"none of 2 .* is up: replica near: EngineDeadError: gone, too"):
        await ask(client, names[0])


async def test_a_server_of_another_engine_is_asked_through_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'vllm'")

    monkeypatch.setattr(direct_server, "vllm_names", missing)
    client, [server] = make(1)
    assert (await ask(client, "a")).token_ids == [3, 3]
    assert FIELD not in vars(server), "it has no door"


async def test_a_deterministic_run_has_the_same_homes_and_names_each_time() -> None:
    homes = []
    for _ in range(2):
        client, servers = make(3, 0.005, is_deterministic=True)
        await asyncio.gather(*(ask(client, str(number)) for number in range(30)))
        homes.append([sorted(server.asked) for server in servers])
    assert homes[0] == homes[1]
    assert sorted(name for names in homes[0] for name in names) == sorted(map(str, range(30)))


def test_it_can_be_sent_to_another_process_and_used_in_one_event_loop_after_another() -> None:
    client = pickle.loads(pickle.dumps(ReplicaClient({"a": "handle"}, is_deterministic=True)))
    assert client.servers == {"a": "handle"}
    client, [server] = make(1)
    for _ in range(2):
        asyncio.run(ask(client, "a"))
        delattr(server, FIELD)  # a server has one loop


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_with_replicas_killed_at_any_moment_each_request_is_answered_once_or_fails(seed: int) -> None:
    """Invariant 6 of the design, over processes that die by SIGKILL: nothing hangs, and nothing is lost."""
    rng = Random(seed)
    num_servers = rng.randint(1, 4)
    num_killed = rng.randint(0, num_servers)

    async def run(servers: dict[str, ServerProcess]) -> None:
        client = ReplicaClient(servers)

        async def kill() -> None:
            for server in rng.sample(list(servers.values()), num_killed):
                await asyncio.sleep(rng.uniform(0, 0.01))
                server.kill()

        requests = [ask(client, str(number), 1) for number in range(rng.randint(1, 30))]
        results = await asyncio.wait_for(asyncio.gather(*requests, kill(), return_exceptions=True), 60)
        assert results.pop() is None
        for result in results:
            assert isinstance(result, EngineError) or result.token_ids == [3]
        if num_killed < num_servers:
            assert not any(isinstance(result, EngineError) for result in results), "one was up all the time"

    with processes(num_servers, 0.004) as servers:
        asyncio.run(run(servers))


class Balancer:
    """Stands for verl's, whose methods are remote: least loaded, or by a hash of the request."""

    def __init__(self, names: list[str], is_deterministic: bool):
        self.load = dict.fromkeys(names, 0)
        self._is_deterministic = is_deterministic

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        return SimpleNamespace(remote=value) if callable(value) else value

    async def get_all_servers(self) -> list[str]:
        return list(self.load)

    async def acquire_server(self, request_id: str) -> tuple[str, str]:
        names = list(self.load)
        by_load = min(names, key=lambda name: self.load[name])
        name = names[hash(request_id) % len(names)] if self._is_deterministic else by_load
        self.load[name] += 1
        return name, f"handle of {name}"

    async def release_server(self, server_id: str) -> None:
        self.load[server_id] -= 1


@pytest.mark.parametrize("is_deterministic", [False, True])
async def test_the_replicas_behind_verls_own_client(is_deterministic: bool) -> None:
    names = [f"server{number}" for number in range(8)]
    balancer = Balancer(names, is_deterministic)
    servers = await servers_of(SimpleNamespace(_load_balancer=balancer))
    assert servers == {name: f"handle of {name}" for name in names}
    assert await names_of(SimpleNamespace(_load_balancer=balancer)) == names
    assert set(balancer.load.values()) == {0}, "what was taken is given back"


async def test_a_balancer_without_replicas_is_one_line() -> None:
    with pytest.raises(EngineError, match="handed out 0 of its 0 replicas"):
        await servers_of(SimpleNamespace(_load_balancer=Balancer([], False)))


async def test_a_balancer_that_hangs_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_client, "HAND_OUT_S", 0.01)
    hung = SimpleNamespace(get_all_servers=SimpleNamespace(remote=asyncio.Event().wait))
    with pytest.raises(EngineError, match=r"did not hand out its replicas within 0\.01 s"):
        await servers_of(SimpleNamespace(_load_balancer=hung))
