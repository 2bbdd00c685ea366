"""Replicas that died are started again where they were, and clients find them by their name in Ray."""

import asyncio
import logging
import multiprocessing
import os
import signal
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from relay_verl.errors import EngineError
from relay_verl.models import replica, replica_restart
from relay_verl.models.processes import ProcessId, descendants, end
from relay_verl.models.replica_client import ReplicaClient
from relay_verl.models.replica_restart import MAX_STARTS, ReplicaKeeper, health_of
from tests.helpers.replicas import ServerProcess, ask, processes, without_vllm

NAME = "10.0.0.0:8000"


class Handle:
    """A server's handle in Ray, which says how it is or raises."""

    def __init__(self, says: Any):
        self.says = says
        self.__ray_call__ = SimpleNamespace(remote=self._call)

    async def _call(self, _: Any) -> Any:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Holder:
    """Holds a GPU, and ends what it is told to."""

    def __init__(self) -> None:
        self.ended: list[Any] = []
        self.end = SimpleNamespace(remote=self._end)

    async def _end(self, left: list[Any]) -> None:
        self.ended += left


class Kept:
    """A replica of verl's, whose next servers are what `starts` says: a handle, or why there is none."""

    def __init__(self, *starts: Any):
        self.starts = list(starts)
        self.holder = Holder()
        self.workers = [SimpleNamespace(holder=self.holder, node_id="here")]
        self.servers: list[Any] = [WELL]
        self.server_handle = WELL
        self.server_address = NAME

    async def launch_servers(self) -> None:
        assert self.servers == [], "verl adds to this list, and takes its first one"
        start = self.starts.pop(0)
        if isinstance(start, Exception):
            self.servers.append("half a server")
            raise start
        self.servers.append(start)
        self.server_handle = start
        self.server_address = f"10.0.0.0:{9000 - len(self.starts)}"


LEFT = ProcessId(17, 1.0)
WELL = Handle((True, [LEFT]))


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was killed through Ray, on a cluster of one node."""
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(replica_restart, "alive_nodes", lambda: {"here"})
    monkeypatch.setattr(replica_restart, "NAME_S", 0.0)
    return killed


@pytest.mark.parametrize("says", [(True, []), (1, []), ActorUnavailableError("for a moment", None), ValueError("odd")])
async def test_a_replica_that_is_well_busy_or_out_of_reach_is_left_alone(says: Any, killed: list[Any]) -> None:
    kept = Kept()
    kept.server_handle = Handle(says)
    assert await ReplicaKeeper({kept: 1.0}).look(NAME)
    assert killed == kept.holder.ended == []


@pytest.mark.parametrize("says", [ActorDiedError(), (False, [LEFT])], ids=["its server", "its engine"])
async def test_what_died_is_started_again_after_its_remains_have_ended(
    says: Any, killed: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(WELL)
    keeper = ReplicaKeeper({kept: 1.0})
    await keeper.look(NAME)  # from now on the keeper knows its processes
    kept.server_handle = Handle(says)
    assert keeper.address_of(NAME) == NAME
    assert await keeper.look(NAME)
    assert killed == [WELL]
    assert kept.holder.ended == [LEFT]
    assert kept.servers == [WELL]
    assert keeper.address_of(NAME) == kept.server_address != NAME
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert keeper.address_of("of another model") == "of another model"


async def test_a_replica_over_two_nodes_is_dead_when_one_of_its_servers_is(killed: list[Any]) -> None:
    other = Handle((True, [LEFT._replace(pid=18)]))
    kept = Kept(WELL)
    kept.servers = [WELL, other]
    keeper = ReplicaKeeper({kept: 1.0})
    await keeper.look(NAME)
    assert killed == []
    other.says = ActorDiedError()
    await keeper.look(NAME)
    assert killed == [WELL, other]
    assert [process.pid for process in kept.holder.ended] == [17, 18]


async def test_a_name_that_is_not_free_yet_is_tried_again() -> None:
    kept = Kept(ValueError("the name is taken"), ValueError("the name is taken"), WELL)
    kept.server_handle = Handle(ActorDiedError())
    await ReplicaKeeper({kept: 5.0}).look(NAME)
    assert kept.servers == [WELL]


async def test_a_start_that_fails_is_a_warning_and_tried_at_the_next_look(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(RuntimeError("CUDA error: out of memory"), WELL)
    kept.server_handle = Handle(ActorDiedError())
    keeper = ReplicaKeeper({kept: 1.0})
    assert await keeper.look(NAME)
    assert f"replica {NAME}" in caplog.text
    assert "CUDA error: out of memory" in caplog.text
    assert await keeper.look(NAME)
    assert kept.servers == [WELL]


async def test_a_start_without_end_has_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    kept.server_handle = Handle(ActorDiedError())
    kept.launch_servers = asyncio.Event().wait  # type: ignore[assignment,method-assign]
    assert await ReplicaKeeper({kept: 0.01}).look(NAME)
    assert "TimeoutError" in caplog.text


async def test_a_replica_that_dies_again_and_again_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_restart, "LOOK_S", 0.0)
    kept = Kept(*[Handle(ActorDiedError())] * (MAX_STARTS + 2))
    kept.server_handle = Handle(ActorDiedError())
    await ReplicaKeeper({kept: 1.0})._keep_all()
    assert len(kept.starts) == 2


async def test_on_a_node_that_has_left_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replica_restart, "alive_nodes", lambda: {"there"})
    kept = Kept(WELL)
    kept.server_handle = Handle(ActorDiedError())
    assert not await ReplicaKeeper({kept: 1.0}).look(NAME)
    assert len(kept.starts) == 1
    assert "its node has left" in caplog.text


def test_a_server_says_whether_its_engine_runs_and_what_it_has_started() -> None:
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    try:
        for is_dead in (False, True):
            health = health_of(SimpleNamespace(engine=SimpleNamespace(errored=is_dead)))
            assert health.is_well is not is_dead
            assert child.pid in [process.pid for process in health.processes]
        [process] = [process for process in descendants() if process.pid == child.pid]
        end([process._replace(created_at=process.created_at - 1)])
        assert psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE, "another process with its number is not it"
        end([process, process])
        child.join()
        assert child.exitcode == -signal.SIGKILL
        end([process])
    finally:
        child.kill()


async def test_a_client_asks_the_server_that_has_the_name_of_the_one_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes: the first is killed, and once another one has its name it is asked instead."""
    without_vllm(monkeypatch)
    monkeypatch.setattr(replica, "RETRY_S", 0.05)
    with processes(1, 0.0) as servers, processes(1, 0.0) as others:
        in_ray: dict[str, ServerProcess] = {}
        monkeypatch.setattr(replica, "find_actor", lambda name: in_ray[name])
        client = ReplicaClient(servers, ray_names=dict.fromkeys(servers, "server_0"))
        assert (await ask(client, "a")).token_ids == [3, 3]
        servers[NAME].kill()
        for _ in range(2):
            with pytest.raises(EngineError, match="none of 1 replica"):
                await ask(client, "a")
            await asyncio.sleep(0.06)
        in_ray["server_0"] = others[NAME]
        assert (await ask(client, "a")).token_ids == [3, 3]
        assert client.counts()[NAME].num_drops >= 1


def test_this_process_is_not_its_own_descendant() -> None:
    assert os.getpid() not in [process.pid for process in descendants()]
