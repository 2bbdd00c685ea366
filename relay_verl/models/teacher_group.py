"""A running teacher: the engine that asks it, and the replicas that this process holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay_verl.config import TeacherSettings
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.run_config import RunConfig


class TeacherGroup:
    """The running teacher. Holds its replicas: they live as long as this object's process.

    Args:
        engine: asks it.
        replicas: verl's; none of a teacher that runs elsewhere.
        start_timeout_s: seconds that one may take to start.
    """

    def __init__(self, engine: TokenEngine, replicas: list[Any], start_timeout_s: float = 0.0):
        self.engine = engine
        self.replicas = replicas
        self.start_timeout_s = start_timeout_s


def open_replicas(
    run: RunConfig, servers: Mapping[str, Any], path: str, tokenizer: Any, *, ray_names: Mapping[str, str] = {}
) -> TokenEngine:
    """A client over running replicas of the model at `path`.

    Args:
        run: a composed recipe.
        servers: the replicas' Ray actors by HOST:PORT.
        path: Hugging Face folder or hub id.
        tokenizer: the model's.
        ray_names: the names that Ray has for the actors, by HOST:PORT, under which a restarted one is asked.
    """
    from relay_verl.engines.verl_server import VerlServerEngine
    from relay_verl.models.replica_client import ReplicaClient

    client = ReplicaClient(
        servers,
        ray_names=ray_names,
        is_deterministic=bool(run.verl.actor_rollout_ref.rollout.full_determinism),
        max_failed_share=run.relay.max_failed_call_share,
    )
    ends = read_vocabulary(path, tokenizer, run.prompts).end_ids
    return VerlServerEngine(client, tokenizer, addresses=list(servers), end_ids=ends)


async def take_teacher(run: RunConfig, clients: Mapping[str, Any], tokenizer: Any) -> dict[str, TeacherGroup]:
    """The teacher that verl started for its distillation, as `start_teachers` gives one.

    Args:
        run: a composed recipe.
        clients: verl's own clients of it: one.
        tokenizer: the student's, which is the teacher's.

    Raises:
        EngineError: verl's balancer does not hand out its replicas.
    """
    from relay_verl.models.replica_client import servers_of

    [client] = clients.values()
    teacher = run.relay.only_teacher
    assert teacher.path is not None
    engine = open_replicas(run, await servers_of(client), teacher.path, tokenizer)
    return {teacher.label: TeacherGroup(guard(engine, teacher), [])}


def guard(engine: TokenEngine, settings: TeacherSettings) -> GuardedEngine:
    """The engine behind the retries and the breaker that the teacher's settings say."""
    return GuardedEngine(
        engine,
        num_retries=settings.num_retries,
        breaker_threshold=settings.breaker_threshold,
        breaker_reset_s=settings.breaker_reset_s,
    )
