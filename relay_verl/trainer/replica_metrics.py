"""Each replica's numbers of a step, as metrics for verl's logger.

The manager starts the watch over its replicas (`relay_verl.models.replica_watch`) in the trainer's process, and the
replay buffer takes its numbers when a step's batch is sampled: a step's numbers reach from the sampling of the batch
before to that of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relay_verl.models.replica_client import names_of
from relay_verl.models.replica_restart import ReplicaKeeper
from relay_verl.models.replica_watch import ReplicaUse, ReplicaWatch
from relay_verl.models.teacher_group import TeacherGroup
from relay_verl.trainer.clients import Clients

MAX_LOGGED = 32
"""Most replicas of a model whose numbers are logged one by one; of more, only the means are."""

_watch: ReplicaWatch | None = None


async def start_watch(
    clients: Clients, verls_client: Any, workers: Sequence[Any], teachers: Mapping[str, TeacherGroup]
) -> None:
    """Watch the replicas of this training, and start those of its teachers again that die.

    Args:
        clients: whom the workers ask.
        verls_client: over the student's replicas.
        workers: the rollout workers' actors.
        teachers: the running ones, by label.
    """
    global _watch
    replicas = {replica: group.start_timeout_s for group in teachers.values() for replica in group.replicas}
    keeper = ReplicaKeeper(replicas)
    keeper.start()
    servers = {"student": await names_of(verls_client)}
    servers |= {model: list(client.servers) for model, client in clients.by_model().items()}
    _watch = ReplicaWatch(servers, [worker.replica_counts.remote for worker in workers], address_of=keeper.address_of)
    _watch.start()


def take_replica_metrics() -> dict[str, float]:
    """The numbers since the last call; none where no watch was started."""
    return {} if _watch is None else replica_metrics(_watch.take())


def replica_metrics(uses: Mapping[str, Sequence[ReplicaUse]]) -> dict[str, float]:
    """Metrics of the replicas, by model ('student', 'teacher', or 'teacher/NAME' of several).

    relay/replica/MODEL/INDEX/...: running and waiting: mean number of requests. tokens: tokens written. failures:
    requests that failed. drops: times that it was dropped. cached: share of the prompts' tokens that its prefix cache
    held. idle: share of the step without a request. relay/student_idle and relay/teacher_idle: mean over replicas. What
    a replica did not tell is left out.

    >>> from relay_verl.models.replica import ReplicaCounts
    >>> use = ReplicaUse(2.0, 0.5, 0.25, 100, None, ReplicaCounts())
    >>> replica_metrics({"student": [use]})["relay/replica/student/0/waiting"]
    0.5
    """
    metrics: dict[str, float] = {}
    idle: dict[str, list[float]] = {"relay/student_idle": [], "relay/teacher_idle": []}
    for model, replicas in uses.items():
        summary = "relay/student_idle" if model == "student" else "relay/teacher_idle"
        idle[summary] += [use.idle for use in replicas if use.idle is not None]
        if len(replicas) > MAX_LOGGED:
            continue
        for index, use in enumerate(replicas):
            values = {
                "running": use.running,
                "waiting": use.waiting,
                "tokens": use.num_tokens,
                "failures": use.counts.num_failed,
                "drops": use.counts.num_drops,
                "cached": use.cached,
                "idle": use.idle,
            }
            metrics |= {
                f"relay/replica/{model}/{index}/{name}": float(value)
                for name, value in values.items()
                if value is not None
            }
    return metrics | {name: sum(shares) / len(shares) for name, shares in idle.items() if shares}
