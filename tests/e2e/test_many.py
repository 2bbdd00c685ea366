"""Two of everything: Ray nodes, ranks of the trainer, replicas of the student, rollout workers, and teachers of two
replicas each, of which one is killed in the middle. What is sampled is what one of each samples on the same seeds."""

import os
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from relay_verl.pages.collect import read_responses
from relay_verl.recipes.grammar import quote
from relay_verl.traces.records import ResponseRecord
from tests.helpers.cluster_training import Job, read_log, wait_for_steps
from tests.helpers.local_cluster import running_cluster
from tests.helpers.training import NUM_QUERIES, NUM_ROWS, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

NUM_STEPS = 3
KILLED_AFTER = 1
"""Steps before one of a teacher's replicas is killed."""
TEACHERS = {"one": "trainer", "other": "teacher"}
"""Each has the weights of the pair's teacher, and its replicas on one of the nodes: so a node has one GPU left, for a
rank of the trainer."""
KILLED = "vllm_server_teacher_0_0"
"""verl's name of the actor of the first teacher's first replica."""
TWO_OF_EACH = [
    "+relay=deterministic",
    "trainer.nnodes=2",
    "actor_rollout_ref.rollout.agent.num_workers=2",
    *(
        f"actor_rollout_ref.{key}_micro_batch_size_per_gpu={NUM_ROWS // 2}"
        for key in ("actor.ppo", "ref.log_prob", "rollout.log_prob")
    ),
    f"trainer.total_training_steps={NUM_STEPS}",
    "trainer.save_freq=-1",
    "trainer.test_freq=-1",
    f"relay.num_logged_groups={NUM_QUERIES}",
]
SAME = ("critic/rewards/mean", "actor/pg_loss", "actor/kl_loss", "actor/entropy", "actor/grad_norm", "relay/call_ratio")


@dataclass(frozen=True)
class Run:
    """What the training left."""

    folder: Path
    log: str
    metrics: list[dict[str, Any]]
    actors: dict[str, list[dict[str, Any]]]
    """Those that were alive after the first step, by the name of their node."""


def teachers(path: Path) -> str:
    entries = (
        f"{{name: {name}, path: {quote(str(path))}, num_replicas: 2, node_resource: {node}, timeout_s: 60}}"
        for name, node in TEACHERS.items()
    )
    return f"relay.teachers=[{', '.join(entries)}]"


@pytest.fixture(scope="module")
def run(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("many")
    with running_cluster(num_gpus=3) as cluster:
        # Ray would otherwise print one of two processes' like lines
        variables = {"RAY_DEDUP_LOGS": "0", "RAY_ADDRESS": cluster.address}
        training = start(command(folder, *TWO_OF_EACH, teachers(pair / "teacher")), folder, "log", variables)
        try:
            wait_for_steps(training, folder, KILLED_AFTER, "log")
            actors = cluster.actors()
            [teacher] = [actor for actor in actors if actor["name"] == KILLED]
            os.kill(teacher["pid"], signal.SIGKILL)
            code = training.wait(timeout=1200)
        finally:
            training.kill()
    assert code == 0, read_log(folder, "log")
    by_node = {name: [one for one in actors if one["node_id"] == node] for name, node in cluster.nodes.items()}
    return Run(folder, (folder / "log").read_text(errors="replace"), read_metrics(folder), by_node)


def test_each_node_has_one_of_each(run: Run) -> None:
    for node, actors in run.actors.items():
        classes = [actor["class_name"] for actor in actors]
        assert classes.count("CpuVLLMHttpServer") == 3, f"two of a teacher's replicas and one of the student's: {node}"
        assert classes.count("AgentLoopWorkerTQ") == 1, node
        assert sum("WorkerDict" in name for name in classes) == 1, node


def test_every_step_is_done_without_a_failed_call(run: Run) -> None:
    """What the killed replica was asked, the other one answers, and who asked says so."""
    assert re.search(r"warning: replica \S+: (ActorDiedError|its process has ended)", run.log)
    assert [step["training/global_step"] for step in run.metrics] == list(range(1, NUM_STEPS + 1))
    assert all(step["relay/status/completed"] == NUM_ROWS for step in run.metrics)
    assert all(step["relay/teacher_failures"] == 0 for step in run.metrics)
    assert all(step["relay/calls/served"] > 0 for step in run.metrics)


def test_the_first_step_is_that_of_one_of_each(run: Run, job: Job) -> None:
    """The same weights and seeds: the same responses, and so the same loss and gradient but for the order of sums."""
    first = {name: run.metrics[0][name] for name in SAME}
    assert first == pytest.approx({name: job.metrics[0][name] for name in SAME}, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_every_step_samples_what_one_of_each_does(run: Run, job: Job, step: int) -> None:
    """Responses, scores and groups: in one of them a replica dies, and the other one writes the same."""
    ours, those_of_one = (
        sorted((row["input"], row["output"], row["score"]) for row in read_rollouts(folder, step))
        for folder in (run.folder, job.folder)
    )
    assert ours == those_of_one


def test_the_same_tokens_are_the_teachers(run: Run, job: Job) -> None:
    """Who wrote what in each response, and what it was worth; which of the two teachers did is in the metrics."""
    ours, those_of_one = (samples(folder) for folder in (run.folder, job.folder))
    assert those_of_one, "it logs some of the groups"
    assert all(record in ours for record in those_of_one)
    assert any(record.num_teacher_tokens for record in ours)


def test_both_ranks_send_their_weights_to_their_replica(run: Run) -> None:
    for step in run.metrics:
        assert step["training/rollout_probs_diff_max"] < 1e-3


def samples(folder: Path) -> list[ResponseRecord]:
    """The logged responses of these steps, without what depends on the clock."""
    records = read_responses([folder / "checkpoints" / "samples"])
    steps = {f"step {step}" for step in range(1, NUM_STEPS + 1)}
    return [
        replace(record, started_at=0.0, latency_s=0.0, calls=[{**call, "latency_s": 0.0} for call in record.calls])
        for record in records
        if record.condition in steps
    ]
