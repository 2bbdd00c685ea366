"""Whom a rollout worker asks: the student's replicas and the teachers' engines, as the manager sends them; and what
scores with the latter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl.workers.rollout.llm_server import LLMServerClient

from relay_verl.engines.base import TokenEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.models.replica_client import ReplicaClient, servers_of
from relay_verl.models.vocabulary import Vocabulary
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import TokenBytes
from relay_verl.trainer.teacher_scores import TeacherScorer


@dataclass(frozen=True)
class Clients:
    """What the manager hands to its workers."""

    student: ReplicaClient | None = None
    """Of the student's replicas; None where verl's own client is needed."""
    teachers: Mapping[str, TokenEngine] = field(default_factory=dict)
    """The teachers' engines, by label."""
    scoring: Mapping[str, LLMServerClient] | None = None
    """verl's own clients of the teacher that it started for its distillation, for its own agents; None without."""

    def by_model(self) -> dict[str, ReplicaClient]:
        """The clients over replicas of our own, by what metrics call their model."""
        clients = {} if self.student is None else {"student": self.student}
        for label, engine in self.teachers.items():
            asked = _innermost(engine)
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


def make_scorer(run: RunConfig, clients: Clients, tokenizer: Any, vocabulary: Vocabulary) -> TeacherScorer | None:
    """What scores the student's tokens; None in a run that does not distil.

    Args:
        run: a composed recipe.
        clients: the engine over the teacher's replicas among them.
        tokenizer: the student's.
        vocabulary: the student's.
    """
    if run.distillation is None:
        return None
    teacher = run.relay.only_teacher
    engine = _innermost(clients.teachers[teacher.label])
    assert isinstance(engine, VerlServerEngine)
    return TeacherScorer(
        engine,
        run.distillation,
        teacher,
        TokenBytes(tokenizer),
        vocabulary.size,
        has_commands=run.relay.needs_teacher,
    )


def _innermost(engine: TokenEngine) -> TokenEngine:
    """An engine without its retries."""
    return engine.inner if isinstance(engine, GuardedEngine) else engine
