"""Whom a rollout worker asks: the student's replicas and the teachers' engines, as the manager sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl.workers.rollout.llm_server import LLMServerClient

from relay_verl.engines.base import TokenEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.models.replica_client import ReplicaClient, servers_of
from relay_verl.run_config import RunConfig


@dataclass(frozen=True)
class Clients:
    """What the manager hands to its workers."""

    student: ReplicaClient | None = None
    """Of the student's replicas; None where verl's own client is needed."""
    teachers: Mapping[str, TokenEngine] = field(default_factory=dict)
    """The teachers' engines, by label."""

    def by_model(self) -> dict[str, ReplicaClient]:
        """The clients over replicas of our own, by what metrics call their model."""
        clients = {} if self.student is None else {"student": self.student}
        for label, engine in self.teachers.items():
            asked = engine.inner if isinstance(engine, GuardedEngine) else engine
            if isinstance(asked, VerlServerEngine) and isinstance(asked.client, ReplicaClient):
                clients["teacher" if len(self.teachers) == 1 else f"teacher/{label}"] = asked.client
        return clients


async def student_client(client: Any, run: RunConfig) -> ReplicaClient | None:
    """A client of the replicas behind verl's `client`; None in verl's asynchronous modes, whose own client resumes what
    they pause."""
    if type(client) is not LLMServerClient:
        return None
    return ReplicaClient(
        await servers_of(client),
        is_deterministic=bool(run.verl.actor_rollout_ref.rollout.full_determinism),
        max_failed_share=run.relay.max_failed_call_share,
    )
