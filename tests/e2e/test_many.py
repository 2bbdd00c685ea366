"""Two of everything: the trainer's ranks, the student's replicas, rollout workers, and the teacher's replicas, of which
one is killed in the middle. What is sampled, and what is learned of it, is what one of each samples and learns."""

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_training import Job, read_log, wait_for_steps
from tests.helpers.training import NUM_ROWS, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

NUM_STEPS = 3
KILLED_AFTER = 1
"""Steps before one of the teacher's replicas is killed."""
TWO_OF_EACH = [
    "+relay=deterministic",
    "trainer.n_gpus_per_node=2",
    "ray_kwargs.ray_init.num_gpus=4",
    "actor_rollout_ref.rollout.agent.num_workers=2",
    "relay.teacher.num_replicas=2",
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
    # Ray would otherwise print one of two processes' like lines
    training = start(command(folder, *TWO_OF_EACH), folder, "log", {"RAY_DEDUP_LOGS": "0"})
    try:
        wait_for_steps(training, folder, KILLED_AFTER, "log")
        log = (folder / "log").read_text(errors="replace")
        [teacher] = re.findall(r"CpuVLLMHttpServer pid=(\d+)\)[^\n]* '[^'\n]*/teacher'", log)  # the first one says it
        os.kill(int(teacher), signal.SIGKILL)
        code = training.wait(timeout=1200)
    finally:
        training.kill()
    assert code == 0, read_log(folder, "log")
    return Run(folder, (folder / "log").read_text(errors="replace"), read_metrics(folder))


def test_every_step_is_done_without_a_failed_call(run: Run) -> None:
    """What the killed replica was asked, the other one answers, and who asked says so."""
    assert len(set(re.findall(r"CpuVLLMHttpServer pid=(\d+)\)", run.log))) == 4
    assert re.search(r"warning: replica \S+: (ActorDiedError|its process has ended)", run.log)
    assert [step["training/global_step"] for step in run.metrics] == list(range(1, NUM_STEPS + 1))
    assert all(step["relay/status/completed"] == NUM_ROWS for step in run.metrics)
    assert all(step["relay/teacher_failures"] == 0 for step in run.metrics)
    assert all(step["relay/calls/served"] > 0 for step in run.metrics)


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
