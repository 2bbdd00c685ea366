"""Whom a rollout worker asks: the student's replicas and the teachers' engines, as the manager sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl.workers.rollout.llm_server import LLMServerClient

from relay_verl.engines.base import TokenEngine
from relay_verl.models.replica_client import ReplicaClient, servers_of
from relay_verl.run_config import VerlConfig


@dataclass(frozen=True)
class Clients:
    """What the manager hands to its workers."""

    student: ReplicaClient | None = None
    """Of the student's replicas; None where verl's own client is needed."""
    teachers: Mapping[str, TokenEngine] = field(default_factory=dict)
    """The teachers' engines, by label."""


async def student_client(client: Any, config: VerlConfig) -> ReplicaClient | None:
    """A client of the replicas behind verl's `client`; None in verl's asynchronous modes, whose own client resumes what
    they pause."""
    if type(client) is not LLMServerClient:
        return None
    is_deterministic = bool(config.actor_rollout_ref.rollout.full_determinism)
    return ReplicaClient(await servers_of(client), is_deterministic=is_deterministic)
