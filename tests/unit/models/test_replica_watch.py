"""How busy replicas are, from pages as vLLM publishes them: nothing waits, and what is not known is left out."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from relay_verl.models import replica_watch
from relay_verl.models.replica import ReplicaCounts
from relay_verl.models.replica_watch import ReplicaUse, ReplicaWatch
from tests.helpers.fake_vllm import FakeVllm

UNKNOWN = ReplicaUse(None, None, None, None, None, ReplicaCounts())


def page(written: int = 0, running: int = 0, waiting: int = 0, looked_up: int = 0, cached: int = 0) -> bytes:
    values = {
        "generation_tokens_total": written,
        "num_requests_running": running,
        "num_requests_waiting": waiting,
        "prefix_cache_queries_total": looked_up,
        "prefix_cache_hits_total": cached,
    }
    text = "# HELP vllm:num_requests_running Number\n# TYPE vllm:num_requests_running gauge\n"
    return (text + "".join(f'vllm:{name}{{engine="0"}} {value}.0\n' for name, value in values.items())).encode()


@pytest.fixture
def servers() -> Iterator[list[FakeVllm]]:
    fakes = [FakeVllm(), FakeVllm()]
    yield fakes
    for fake in fakes:
        fake.stop()


def address(fake: FakeVllm) -> str:
    return fake.url.removesuffix("/v1").removeprefix("http://")


async def look(watch: ReplicaWatch, fake: FakeVllm, *pages: bytes) -> None:
    for each in pages:
        fake.routes["/metrics"] = each
        await watch.look()


async def test_means_over_the_looks_and_counts_since_the_last_step(servers: list[FakeVllm]) -> None:
    fake, other = servers
    other.stop()
    watch = ReplicaWatch({"student": [address(fake)], "teacher": [address(other)]})
    await look(watch, fake, page(100, 4, 2, 1000, 0), page(150, 2, 0, 1200, 150), page(150, 0, 0, 1200, 150))
    assert watch.take() == {
        "student": [ReplicaUse(2.0, 2 / 3, 1 / 3, 50, 0.75, ReplicaCounts())],
        "teacher": [UNKNOWN],
    }
    assert watch.take()["student"] == [UNKNOWN], "no look since"
    await look(watch, fake, page(250, 1, 0, 1200, 150))
    assert watch.take()["student"] == [ReplicaUse(1.0, 0.0, 0.0, 100, None, ReplicaCounts())]
    await look(watch, fake, page(7, 0, 0, 10, 5))
    assert watch.take()["student"] == [ReplicaUse(0.0, 0.0, 1.0, 7, 0.5, ReplicaCounts())], "it was started anew"


async def test_a_replica_that_moved_is_looked_at_where_it_is(servers: list[FakeVllm]) -> None:
    watch = ReplicaWatch({"teacher": ["10.0.0.0:1"]}, address_of=lambda name: {"10.0.0.0:1": address(servers[0])}[name])
    await look(watch, servers[0], page(5, 1), page(8, 1))
    assert watch.take()["teacher"][0].num_tokens == 3


async def test_what_the_workers_count_is_added_up_and_one_that_is_gone_keeps_its_numbers(
    servers: list[FakeVllm],
) -> None:
    name = address(servers[0])
    answers: list[Any] = [{"teacher": {name: ReplicaCounts(3, 1)}}, {"teacher": {name: ReplicaCounts(2, 0)}}, {}]

    def asker(index: int) -> Any:
        async def ask() -> Any:
            if isinstance(answers[index], Exception):
                raise answers[index]
            return answers[index]

        return ask

    watch = ReplicaWatch({"teacher": [name]}, [asker(index) for index in range(3)])
    await look(watch, servers[0], page())
    assert watch.take()["teacher"][0].counts == ReplicaCounts(5, 1)
    answers[:2] = [RuntimeError("the worker died"), {"teacher": {name: ReplicaCounts(4, 1)}}]
    await look(watch, servers[0], page())
    assert watch.take()["teacher"][0].counts == ReplicaCounts(2, 1)


async def test_a_worker_that_hangs_is_passed_over(monkeypatch: pytest.MonkeyPatch, servers: list[FakeVllm]) -> None:
    monkeypatch.setattr(replica_watch, "METRICS_TIMEOUT_S", 0.01)
    watch = ReplicaWatch({"student": [address(servers[0])]}, [asyncio.Event().wait])  # type: ignore[list-item]
    await look(watch, servers[0], page(5, 1))
    assert watch.take()["student"][0].running == 1.0
