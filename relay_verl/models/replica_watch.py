"""How busy each replica of a training is: a thread that looks at the counters of all servers every `LOOK_S`.

Invariants: nothing waits for a look. A replica that does not answer within the deadline has no part in that look; what
is known of it by then stays.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from relay_verl.engines.load import METRICS_TIMEOUT_S, EngineLoad, read_loads
from relay_verl.models.replica import ReplicaCounts

LOOK_S = 2.0
"""Seconds between two looks."""

Counts = Mapping[str, Mapping[str, ReplicaCounts]]
"""What became of the requests of one process, by model and replica."""


@dataclass(frozen=True)
class ReplicaUse:
    """What one replica did since it was asked last."""

    running: float | None
    """Requests that it was writing, mean over the looks; None if no look had an answer, as for the four below."""
    waiting: float | None
    """Requests in its queue, mean over the looks."""
    idle: float | None
    """Share of the looks at which it had no request."""
    num_tokens: int | None
    """Tokens that it wrote."""
    cached: float | None
    """Share of the prompts' tokens that its prefix cache held; None also if it was given no prompt."""
    counts: ReplicaCounts
    """What became of the requests that were sent to it."""


@dataclass
class _Seen:
    """What the looks saw of one replica."""

    looks: list[EngineLoad] = field(default_factory=list)
    """Since the last `take`."""
    before: EngineLoad | None = None
    """The last look before that."""
    counts: dict[int, ReplicaCounts] = field(default_factory=dict)
    """What became of its requests since it started, by the process that sent them."""
    counts_before: ReplicaCounts = field(default_factory=ReplicaCounts)

    def take(self) -> ReplicaUse:
        looks, before = self.looks, self.before
        counts = sum(self.counts.values(), ReplicaCounts())
        since = ReplicaCounts(
            counts.num_failed - self.counts_before.num_failed, counts.num_drops - self.counts_before.num_drops
        )
        self.looks, self.counts_before = [], counts
        if not looks:
            return ReplicaUse(None, None, None, None, None, since)
        self.before = last = looks[-1]
        first = before or looks[0]
        if last.num_tokens < first.num_tokens:  # it was started anew
            first = EngineLoad(0, 0)
        num_looked_up = last.num_looked_up - first.num_looked_up
        return ReplicaUse(
            running=sum(look.num_running for look in looks) / len(looks),
            waiting=sum(look.num_waiting for look in looks) / len(looks),
            idle=sum(look.num_running + look.num_waiting == 0 for look in looks) / len(looks),
            num_tokens=last.num_written - first.num_written,
            cached=(last.num_cached - first.num_cached) / num_looked_up if num_looked_up > 0 else None,
            counts=since,
        )


class ReplicaWatch:
    """Looks at the replicas from a thread of its own, which ends with the process.

    Args:
        servers: HOST:PORT of the replicas, by model.
        askers: one a process that sends requests; gives what became of them.
        every_s: seconds between two looks.
        address_of: where the replica answers that had this address at first.
    """

    def __init__(
        self,
        servers: Mapping[str, Sequence[str]],
        askers: Sequence[Callable[[], Awaitable[Counts]]] = (),
        *,
        address_of: Callable[[str], str] = str,
        every_s: float = LOOK_S,
    ):
        self._names = [(model, name) for model, names in servers.items() for name in names]
        self._askers = list(askers)
        self._address_of = address_of
        self._every_s = every_s
        self._seen = {name: _Seen() for name in self._names}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Look from now on."""
        threading.Thread(target=lambda: asyncio.run(self._look_forever()), name="relay replicas", daemon=True).start()

    def take(self) -> dict[str, list[ReplicaUse]]:
        """What each replica did since the last `take`, by model; never waits."""
        uses: dict[str, list[ReplicaUse]] = {}
        with self._lock:
            for model, name in self._names:
                uses.setdefault(model, []).append(self._seen[model, name].take())
        return uses

    async def _look_forever(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """One look at all of them."""
        asking = asyncio.gather(*(_ask(asker) for asker in self._askers))
        loads = await read_loads([f"http://{self._address_of(name)}" for _, name in self._names])
        counts: list[Counts] = await asking
        with self._lock:
            for each, load in zip(self._names, loads, strict=True):
                if load is not None:
                    self._seen[each].looks.append(load)
            for process, by_model in enumerate(counts):
                for model, name in self._names:
                    if name in by_model.get(model, {}):
                        self._seen[model, name].counts[process] = by_model[model][name]


async def _ask(asker: Callable[[], Awaitable[Counts]]) -> Counts:
    try:
        async with asyncio.timeout(METRICS_TIMEOUT_S):
            return await asker()
    except Exception:  # the process is busy or dead, which others notice: its numbers stay as they were
        return {}
