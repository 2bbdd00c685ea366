"""Replicas of a training's teachers that died, started again where they were while the training runs.

Ray does not restart verl's servers: their actors have `max_restarts=0`, and verl starts the engine by a second call,
which Ray would not repeat. The replica that verl made of them can start new ones on the GPUs that it still holds, under
the same names in Ray; clients look a name up again once its actor was lost (`relay_verl.models.replica`).

Invariants: of a replica there is one server at a time, since what is left of the old one's processes, which hold its
GPUs' memory, is ended before the new one starts. Nothing waits for a start and no failure of one ends the run. Where a
node has left, or after `MAX_STARTS`, the replica stays away.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from relay_verl.engines.boundary import describe
from relay_verl.models.processes import ProcessId, descendants

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks at a replica."""
ANSWER_S = 30.0
"""Seconds that a server may take to say how it is; one that takes longer is busy, or hangs, and is left alone."""
END_S = 30.0
"""Seconds that the end of a dead server's processes may take."""
NAME_S = 1.0
"""Seconds until a name in Ray is tried again which the old server still has."""
MAX_STARTS = 3
"""Times that a replica is started again in a run; one that dies again and again has a cause that a start does not
take away."""


class Health(NamedTuple):
    """What a server says of itself."""

    is_well: bool
    """Whether its engine runs."""
    processes: list[ProcessId]
    """Those that it has started."""


def health_of(server: Any) -> Health:
    """Runs in the server's process, as `handle.__ray_call__.remote(health_of)`."""
    engine = getattr(server, "engine", None)  # of a replica that spans nodes the first server alone has one
    return Health(not getattr(engine, "errored", False), descendants())


def ray_name_of(_: Any) -> str:
    """The server's name in Ray; runs in its process."""
    import ray

    return ray.get_runtime_context().get_actor_name() or ""


class ReplicaKeeper:
    """Looks after replicas from a thread of its own, which ends with the process.

    Args:
        replicas: verl's, started by `relay_verl.models.reservation.start_in`, each with the seconds that a start of it
            may take.
    """

    def __init__(self, replicas: Mapping[Any, float]):
        self._replicas = {replica.server_address: replica for replica in replicas}
        self._timeouts_s = {replica.server_address: timeout_s for replica, timeout_s in replicas.items()}
        self._processes: dict[str, list[ProcessId]] = {}
        self._num_starts: Counter[str] = Counter()

    def address_of(self, name: str) -> str:
        """HOST:PORT where the replica answers that had the address `name` when it was started first."""
        replica = self._replicas.get(name)
        return name if replica is None else str(replica.server_address)

    def start(self) -> None:
        """Look after them from now on."""
        if self._replicas:
            threading.Thread(target=lambda: asyncio.run(self._keep_all()), name="relay restarts", daemon=True).start()

    async def _keep_all(self) -> None:
        await asyncio.gather(*map(self._keep, self._replicas))

    async def _keep(self, name: str) -> None:
        while self._num_starts[name] < MAX_STARTS and await self.look(name):
            await asyncio.sleep(LOOK_S)

    async def look(self, name: str) -> bool:
        """One look at a replica, and its start if it is dead; gives whether it can be looked after any longer."""
        replica = self._replicas[name]
        if not await self._is_dead(name, replica):
            return True
        self._num_starts[name] += 1
        count = f"start {self._num_starts[name]} of at most {MAX_STARTS}"
        try:
            nodes = await asyncio.to_thread(alive_nodes)
            if any(gpu.node_id not in nodes for gpu in replica.workers):
                logger.warning("relay_verl: warning: replica %s is not started again: its node has left", name)
                return False
            await self._restart(name, replica)
        except Exception as error:  # whatever verl, vLLM or Ray raise: the run does without this replica
            logger.warning("relay_verl: warning: replica %s did not start again (%s): %s", name, count, describe(error))
        else:
            logger.warning("relay_verl: replica %s is up again at %s (%s)", name, replica.server_address, count)
        return True

    async def _is_dead(self, name: str, replica: Any) -> bool:
        """Whether its engine is, or one of the servers that it spans nodes with."""
        others = [server for server in replica.servers if server is not replica.server_handle]
        healths = await asyncio.gather(*map(_ask, (replica.server_handle, *others)))
        well = [health for health in healths if health is not None and health.is_well]
        if len(well) == len(healths):
            self._processes[name] = [process for health in well for process in health.processes]
        return any(health is not None and not health.is_well for health in healths)

    async def _restart(self, name: str, replica: Any) -> None:
        import ray

        for server in replica.servers:  # an engine may be dead while its server is not
            ray.kill(server)
        async with asyncio.timeout(END_S):
            left = self._processes.get(name, [])
            await asyncio.gather(*(gpu.holder.end.remote(left) for gpu in replica.workers))
        async with asyncio.timeout(self._timeouts_s[name]):
            # Ray frees the name of an actor a moment after its end, and refuses a second one until then
            async for attempt in AsyncRetrying(retry=retry_if_exception_type(ValueError), wait=wait_fixed(NAME_S)):
                with attempt:
                    replica.servers = []
                    await replica.launch_servers()


async def _ask(server: Any) -> Health | None:
    """How a server is; None if it does not say."""
    import ray

    try:
        async with asyncio.timeout(ANSWER_S):
            return Health(*await server.__ray_call__.remote(health_of))
    except ray.exceptions.ActorDiedError:
        return Health(False, [])
    except Exception:  # busy, out of reach for a moment, or in a state that this code does not know
        return None


def alive_nodes() -> set[str]:
    """Ids of the cluster's nodes that are alive."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
