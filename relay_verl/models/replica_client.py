"""One client over all replicas of a model: each trajectory stays where its prefix is cached, no replica gets more than
its share, and a replica that dies is dropped at once while another one takes over its requests.

Takes the place of verl's `LLMServerClient`, whose balancer is an actor that every request waits for twice, and which
gives a replica that fails fastest the most requests. Where a trajectory goes is computed from its name: the replicas in
the order of a hash of both (rendezvous hashing), of which it takes the first one that is up and has room. A replica has
room for `1 + SLACK` times its share of what this process has under way, so no replica needs to know of the others.

Invariants: a request is answered by one replica, or raises; it never waits for a replica that is known to be down; a
replica that was down is asked again after `relay_verl.models.replica.RETRY_S`. One that answers with errors is dropped
for as long, unless it is the last one that is up: then there is nowhere else to go.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from relay_verl.errors import EngineError
from relay_verl.models.replica import Replica, ReplicaCounts, ReplicaDownError

SLACK = 0.25
"""How much more than its share a replica may have under way."""
HAND_OUT_S = 300.0
"""Seconds that verl's balancer may take to name its replicas: when a run starts, its process is starting, too."""
MOST_ASKED = 100
"""Times its number of replicas that verl's balancer is asked for one."""


class ReplicaClient:
    """Asks the replicas of one model, with the signature of verl's client. Can be sent to a Ray worker.

    Args:
        servers: the replicas' Ray actors by name.
        is_deterministic: a trajectory goes to the same replica in every run, and keeps its name in the engine, as verl
            has it for `full_determinism`.
        max_failed_share: largest share of a replica's requests that its engine may fail, above which it is dropped like
            one that died (`relay.max_failed_call_share`). 1 drops none for that.
        ray_names: the servers' names in Ray, where others are started in the place of those that died
            (`relay_verl.models.replica_restart`).
    """

    def __init__(
        self,
        servers: Mapping[str, Any],
        *,
        is_deterministic: bool = False,
        max_failed_share: float = 1.0,
        ray_names: Mapping[str, str] = {},
    ):
        self.servers = dict(servers)
        self._is_deterministic = is_deterministic
        self._max_failed_share = max_failed_share
        self._ray_names = dict(ray_names)
        self._replicas: list[Replica] = []
        self._loop: Any = None

    def __reduce__(self) -> Any:
        return _make_client, (self.servers, self._is_deterministic, self._max_failed_share, self._ray_names)

    @property
    def replicas(self) -> list[Replica]:
        """The replicas as the running event loop sees them: a connection belongs to one loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            limit, ray_names = self._max_failed_share, self._ray_names
            self._loop = loop
            self._replicas = [Replica(name, actor, limit, ray_names.get(name)) for name, actor in self.servers.items()]
        return self._replicas

    def counts(self) -> dict[str, ReplicaCounts]:
        """What became of the requests of this process, by replica."""
        return {replica.name: replica.counts for replica in self.replicas}

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        """The tokens that follow a prompt; see verl's `LLMServerClient.generate`.

        Args:
            request_id: of the trajectory.
            prompt_ids: [prompt_length].
            sampling_params: vLLM's, by name.

        Returns:
            what has the fields of verl's `TokenOutput`.

        Raises:
            ValueError: the engine refuses the request.
            EngineError: it failed there, or no replica is up.
        """
        downs: list[ReplicaDownError] = []
        replicas = self.replicas
        for _ in replicas:
            replica = self._choose(request_id)
            if replica is None:
                break
            try:
                name = request_id if self._is_deterministic else uuid4().hex
                output = await replica.ask(name, prompt_ids, sampling_params)
                version = output.extra_fields.get("global_steps")
                output.extra_fields |= {"min_global_steps": version, "max_global_steps": version}
                return output
            except ReplicaDownError as error:
                downs.append(error)
            except Exception:
                # the next request of this trajectory, such as another try of this one, goes elsewhere
                if replica.is_failing and any(other.is_up for other in replicas if other is not replica):
                    replica.drop_failing()
                raise
        reason = downs[0] if downs else next((each.reason for each in replicas if each.reason), "there is none")
        raise EngineError(f"none of {len(replicas)} replica(s) is up: {reason}")

    def _choose(self, request_id: str) -> Replica | None:
        up = [replica for replica in self.replicas if replica.is_up]
        if not up:
            return None
        up.sort(key=lambda replica: rendezvous_hash(request_id, replica.name))
        if self._is_deterministic:
            return up[0]
        room = room_of(sum(replica.num_running for replica in up), len(up))
        return next(replica for replica in up if replica.num_running < room)


async def servers_of(client: Any) -> dict[str, Any]:
    """The Ray actors behind verl's own client, by name; its balancer names them all, but hands out one at a time.

    Raises:
        EngineError: the balancer does not answer in time, or does not hand out all of them.
    """
    with _in_time():
        async with asyncio.timeout(HAND_OUT_S):
            return await _take_each(client)


async def names_of(client: Any) -> list[str]:
    """HOST:PORT of each replica behind verl's own client.

    Raises:
        EngineError: the balancer does not answer in time.
    """
    with _in_time():
        async with asyncio.timeout(HAND_OUT_S):
            return list(await client._load_balancer.get_all_servers.remote())


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise EngineError(f"verl's balancer did not hand out its replicas within {HAND_OUT_S:g} s") from None


async def _take_each(client: Any) -> dict[str, Any]:
    balancer = client._load_balancer
    names = await names_of(client)
    servers: dict[str, Any] = {}
    taken = []
    for number in range(MOST_ASKED * len(names)):  # it hands out the least loaded, or one by a hash of the request
        name, actor = await balancer.acquire_server.remote(request_id=f"relay-{number}")
        taken.append(name)
        servers[name] = actor
        if len(servers) == len(names):
            break
    await asyncio.gather(*(balancer.release_server.remote(server_id=name) for name in taken))
    if not servers or len(servers) < len(names):
        raise EngineError(f"verl's balancer handed out {len(servers)} of its {len(names)} replicas")
    return servers


def _make_client(
    servers: Mapping[str, Any], is_deterministic: bool, max_failed_share: float, ray_names: Mapping[str, str]
) -> ReplicaClient:
    return ReplicaClient(
        servers, is_deterministic=is_deterministic, max_failed_share=max_failed_share, ray_names=ray_names
    )


def room_of(num_running: int, num_replicas: int) -> int:
    """Requests that each of the replicas may have under way once one more joins the `num_running` of all of them."""
    return math.ceil((1 + SLACK) * (1 + num_running) / num_replicas)


def rendezvous_hash(request_id: str, name: str) -> bytes:
    """Orders the replicas of a trajectory: it goes to the one of the smallest hash that is up and has room."""
    return hashlib.blake2b(f"{request_id}\n{name}".encode(), digest_size=8).digest()
