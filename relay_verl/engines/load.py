"""What a running vLLM server has done so far, from the metrics that it publishes at `/metrics`.

The counters belong to the server: they move for whoever asks it, and while a response is still being written.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

METRICS_TIMEOUT_S = 5.0
"""Seconds that a server may take to publish its metrics; later ones count as none."""

_NAMES = {
    "vllm:generation_tokens_total": "num_written",
    "vllm:prompt_tokens_total": "num_read",
    "vllm:num_requests_running": "num_running",
    "vllm:num_requests_waiting": "num_waiting",
    "vllm:prefix_cache_queries_total": "num_looked_up",
    "vllm:prefix_cache_hits_total": "num_cached",
}


@dataclass(frozen=True)
class EngineLoad:
    """An engine's counters, over all its replicas or those of one."""

    num_written: int
    """Tokens generated since it started, those of unfinished responses included."""
    num_read: int
    """Prompt tokens since it started."""
    num_running: int = 0
    """Requests that it is writing now."""
    num_waiting: int = 0
    """Requests that wait in its queue now."""
    num_looked_up: int = 0
    """Prompt tokens that were looked up in its prefix cache since it started ..."""
    num_cached: int = 0
    """... and those of them that it held."""

    @property
    def num_tokens(self) -> int:
        """A number that grows while the engine works."""
        return self.num_written + self.num_read


async def read_load(servers: Sequence[str], *, uses_proxy: bool = False) -> EngineLoad | None:
    """The sum over servers; None if one of them does not publish these metrics in time.

    Args:
        servers: such as http://127.0.0.1:8000, without /v1.
        uses_proxy: reach them as the environment says (`HTTP_PROXY`), which replicas in Ray are not meant to be.
    """
    loads = await read_loads(servers, uses_proxy=uses_proxy)
    known = [load for load in loads if load is not None]
    if not servers or len(known) < len(servers):
        return None
    return EngineLoad(*(sum(getattr(load, name) for load in known) for name in _NAMES.values()))


async def read_loads(servers: Sequence[str], *, uses_proxy: bool = False) -> list[EngineLoad | None]:
    """Each server's counters, [len(servers)]; None for one that does not publish them in time. See `read_load`."""
    import httpx

    async def read(client: httpx.AsyncClient, server: str) -> EngineLoad | None:
        try:
            page = await client.get(f"{server}/metrics")
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        return _parse(page.text) if page.status_code == 200 else None

    async with httpx.AsyncClient(timeout=METRICS_TIMEOUT_S, trust_env=uses_proxy) as client:
        return list(await asyncio.gather(*(read(client, server) for server in servers)))


def _parse(page: str) -> EngineLoad | None:
    """One server's page; None if it lacks the counter of tokens, as with `disable_log_stats`."""
    from prometheus_client.parser import text_string_to_metric_families

    # of a page of a thousand lines these few are read: it is asked for again and again while the engine works
    lines = [line for line in page.splitlines() if line.startswith(tuple(_NAMES))]
    totals: Counter[str] = Counter()
    try:
        for family in text_string_to_metric_families("\n".join([*lines, ""])):
            for sample in family.samples:
                if sample.name in _NAMES:  # one for each data-parallel engine behind the server
                    totals[_NAMES[sample.name]] += int(sample.value)
    except ValueError:  # a web page, or a value that is not a number
        return None
    return EngineLoad(**{name: totals[name] for name in _NAMES.values()}) if "num_written" in totals else None
