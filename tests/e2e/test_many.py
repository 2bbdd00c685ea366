"""Two of everything: Ray's nodes, the trainer's ranks, the student's replicas, rollout workers, teachers, and each
teacher's replicas, of which one is killed in the middle. The teachers have the same weights, so what is sampled, and
what is learned of it, is what one of each samples and learns."""

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_training import Job, read_log, wait_for_steps
from tests.helpers.local_cluster import running_cluster
from tests.helpers.training import NUM_ROWS, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

NUM_STEPS = 3
SERVER = r"CpuVLLMHttpServer pid=(\d+)[,)]"
"""What Ray puts in front of a line of a replica's server, its node behind the comma if it is another one."""
KILLED_AFTER = 1
"""Steps before one of the teacher's replicas is killed."""
TEACHER = "path: '${relay.teacher.path}', num_replicas: 2, node_resource: teacher, start_timeout_s: 300.0"
TWO_OF_EACH = [
    "+relay=deterministic",
    "trainer.n_gpus_per_node=2",
    "actor_rollout_ref.rollout.agent.num_workers=2",
    f"+actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes={2**27}",  # six engines share the memory
    f"relay.teachers=[{{name: left, {TEACHER}}}, {{name: right, {TEACHER}}}]",
    *(
        f"actor_rollout_ref.{key}_micro_batch_size_per_gpu={NUM_ROWS // 2}"
        for key in ("actor.ppo", "ref.log_prob", "rollout.log_prob")
    ),
    f"trainer.total_training_steps={NUM_STEPS}",
    "trainer.save_freq=-1",
    "trainer.test_freq=-1",
]
SAME = ("critic/rewards/mean", "actor/pg_loss", "actor/kl_loss", "actor/entropy", "actor/grad_norm", "relay/call_ratio")


@dataclass(frozen=True)
class Run:
    """What the training left."""

    folder: Path
    log: str
    metrics: list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("many")
    with running_cluster(num_gpus=4) as cluster:
        # Ray would otherwise print one of two processes' like lines
        variables = {"RAY_DEDUP_LOGS": "0", "RAY_ADDRESS": cluster.address}
        training = start(command(folder, *TWO_OF_EACH), folder, "log", variables)
        try:
            wait_for_steps(training, folder, KILLED_AFTER, "log")
            log = (folder / "log").read_text(errors="replace")
            # the first replica of each teacher says whose it is
            teacher, _ = re.findall(rf"{SERVER}[^\n]* '[^'\n]*/teacher'", log)
            os.kill(int(teacher), signal.SIGKILL)
            code = training.wait(timeout=1200)
        finally:
            training.kill()
    assert code == 0, read_log(folder, "log")
    return Run(folder, (folder / "log").read_text(errors="replace"), read_metrics(folder))


def test_every_step_is_done_without_a_failed_call(run: Run) -> None:
    """What the killed replica was asked, the other one of its teacher answers, and who asked says so."""
    assert len(set(re.findall(SERVER, run.log))) == 2 + 2 * 2
    assert re.search(r"warning: replica \S+: (ActorDiedError|ActorUnavailableError)", run.log)
    assert [step["training/global_step"] for step in run.metrics] == list(range(1, NUM_STEPS + 1))
    assert all(step["relay/status/completed"] == NUM_ROWS for step in run.metrics)
    assert all(step["relay/teacher_failures"] == 0 for step in run.metrics)
    assert all(step["relay/calls/served"] > 0 for step in run.metrics)
    asked = {name for step in run.metrics for name in ("left", "right") if step.get(f"relay/teacher/{name}/calls")}
    assert asked == {"left", "right"}


def test_each_replica_is_in_the_logs(run: Run) -> None:
    seen = {name for step in run.metrics for name in step if name.endswith("/failures") and "/replica/" in name}
    models = ("student", "teacher/left", "teacher/right")
    assert seen == {f"relay/replica/{model}/{index}/failures" for model in models for index in range(2)}
    assert any(step.get("relay/replica/student/0/tokens") for step in run.metrics)


def test_the_first_step_is_that_of_one_of_each(run: Run, job: Job) -> None:
    """The same weights and seeds: the same responses, and so the same loss and gradient but for the order of sums."""
    ours, those_of_one = (
        sorted((row["input"], row["output"], row["score"]) for row in read_rollouts(folder, 1))
        for folder in (run.folder, job.folder)
    )
    assert ours == those_of_one
    first = {name: run.metrics[0][name] for name in SAME}
    assert first == pytest.approx({name: job.metrics[0][name] for name in SAME}, rel=1e-3, abs=1e-6)


def test_both_ranks_send_their_weights_to_their_replica(run: Run) -> None:
    for step in run.metrics:
        assert step["training/rollout_probs_diff_max"] < 1e-3
