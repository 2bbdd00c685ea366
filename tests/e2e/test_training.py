"""verl's own trainer on CPU, deterministic: as a submitted job on two nodes, of which the teacher's dies; and on this
machine, killed and resumed."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.cluster_training import (
    DETERMINISTIC,
    NUM_COMPARED,
    NUM_STEPS,
    SAVE_FREQ,
    Job,
    read_log,
    wait_for_steps,
)
from tests.helpers.training import NUM_ROWS, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

KILL_DRIVER_AFTER = 3
ON_THIS_MACHINE = [*DETERMINISTIC, f"trainer.total_training_steps={NUM_COMPARED}"]


@pytest.fixture(scope="module")
def resumed(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose driver is killed with SIGKILL, and of the same command again."""
    folder = tmp_path_factory.mktemp("resumed")
    driver = start(command(folder, *ON_THIS_MACHINE), folder, "first.log")
    try:
        wait_for_steps(driver, folder, KILL_DRIVER_AFTER, "first.log")
    finally:
        driver.kill()
        driver.wait(timeout=120)
    driver = start(command(folder, *ON_THIS_MACHINE), folder, "second.log")
    try:
        assert driver.wait(timeout=1200) == 0, read_log(folder, "second.log")
    finally:
        driver.kill()
    return folder


def test_a_cluster_without_the_plugin_is_one_line(job: Job) -> None:
    """The driver has it, the workers do not; nothing is trained."""
    assert job.without_plugin.returncode == 1
    last = job.without_plugin.stderr.strip().splitlines()[-1]
    assert last.startswith("relay_verl: Ray node "), job.without_plugin.stderr[-3000:]
    assert "plugin" in last
    assert "Traceback" not in job.without_plugin.stderr


def test_students_and_teachers_groups_are_on_different_nodes(job: Job) -> None:
    trainers, teachers = job.actors["trainer"], job.actors["teacher"]
    assert any("WorkerDict" in name for name in trainers), "the actor's group"
    assert not any("WorkerDict" in name for name in teachers)
    assert trainers.count("CpuVLLMHttpServer") == teachers.count("CpuVLLMHttpServer") == 1
    assert "GpuHolder" in teachers, "the replica's own group"
    for name in ("TaskRunnerV1", "SimpleStorageUnit", "TransferQueueController", "AgentLoopWorkerTQ"):
        assert any(name in there for there in trainers), "what the training cannot do without"


def test_before_the_node_died_calls_were_served(job: Job) -> None:
    first = job.metrics[0]
    assert first["relay/calls/served"] > 0, "the warmed-up student calls in a quarter of its responses"
    assert first["relay/delivered_tokens"] > 0
    assert 0 < first["relay/teacher_latency_s/p50"] <= first["relay/teacher_latency_s/p95"]
    assert all(step["relay/teacher_failures"] == 0 for step in job.metrics[:NUM_COMPARED])


def test_the_training_goes_on_without_its_teacher(job: Job) -> None:
    """Every step is done, no row is lost, and the failures are in the metrics."""
    assert [step["training/global_step"] for step in job.metrics] == list(range(1, NUM_STEPS + 1))
    assert all(step["relay/status/completed"] == NUM_ROWS for step in job.metrics)
    assert sum(step["relay/teacher_failures"] for step in job.metrics) > 0
    assert job.metrics[-1]["relay/calls/served"] == job.metrics[-1]["relay/call_ratio"] == 0


def test_weight_updates_reach_the_engine(job: Job) -> None:
    """The student's embeddings are tied; a stale lm_head would show here from the second step on."""
    for step in job.metrics:
        assert step["training/rollout_probs_diff_valid"] == 1
        assert step["training/rollout_probs_diff_mean"] < 1e-3
    assert any(step["actor/grad_norm"] > 0 for step in job.metrics)


def test_every_metric_of_a_step_is_logged(job: Job) -> None:
    names = {"accuracy", "call_rate", "call_ratio", "num_calls", "requested_tokens", "delivered_tokens"}
    names |= {"malformed_calls", "teacher_failures", "status/completed", "status/teacher_failed", "calls/malformed"}
    assert {f"relay/{name}" for name in names} <= job.metrics[0].keys()
    scenarios = ("student_solvable", "teacher_dependent", "teacher_unsolvable")
    assert sum(job.metrics[0].get(f"relay/scenario/{scenario}", 0) for scenario in scenarios) == pytest.approx(1)


def test_validation_scores_accuracy_and_logs_call_statistics(job: Job) -> None:
    assert "val-core/tiny/add/acc/mean@1" in job.metrics[-1]
    assert any(key.startswith("val-aux/tiny/mul/call_rate") for key in job.metrics[-1])


def test_tensorboard_has_the_metrics_and_sample_responses(job: Job) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(job.folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("relay/accuracy")] == list(range(1, NUM_STEPS + 1))
    assert any("generations" in tag for tag in events.Tags()["tensors"])


def test_samples_are_kept_to_be_read(job: Job) -> None:
    from relay_verl.pages.collect import read_responses

    records = read_responses([job.folder / "checkpoints" / "samples"])
    assert {record.condition for record in records} <= {f"step {step}" for step in range(1, NUM_STEPS + 1)}
    assert all(record.benchmark.startswith("tiny/") and record.segments for record in records)


def test_killed_and_resumed_it_has_the_weights_of_the_uninterrupted_run(job: Job, resumed: Path) -> None:
    """Weights, Adam's moments and every sampled response, bit by bit, and though one ran on two nodes."""
    last = f"checkpoints/global_step_{NUM_COMPARED}/actor"
    for kind in ("model", "optim"):
        one, other = (load(folder / last / f"{kind}_world_size_1_rank_0.pt") for folder in (job.folder, resumed))
        assert one.keys() == other.keys()
        assert one
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    for step in range(1, NUM_COMPARED + 1):
        one_rows, other_rows = (
            sorted((row["input"], row["output"], row["score"]) for row in read_rollouts(folder, step))
            for folder in (job.folder, resumed)
        )
        assert one_rows == other_rows, f"step {step}"


def test_no_step_is_missing_in_the_log_of_a_resumed_run(resumed: Path) -> None:
    """It continues at the last checkpoint, and what was logged before is kept."""
    steps = [step["training/global_step"] for step in read_metrics(resumed)]
    assert steps == [*range(1, KILL_DRIVER_AFTER + 1), *range(SAVE_FREQ + 1, NUM_COMPARED + 1)]


def test_another_runs_checkpoint_is_refused_on_the_last_line(resumed: Path, tmp_path: Path) -> None:
    """Every other difference that is refused: tests/unit/checkpoints."""
    arguments = command(resumed, *ON_THIS_MACHINE, f"hydra.run.dir={tmp_path}", recipe="relay_tiny_simple")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("relay_verl: ")
    assert str(resumed) in last
    assert "relay_tiny_simple" in last
    assert "Traceback" not in done.stderr


def test_no_row_in_any_batch_that_was_not_sampled(job: Job) -> None:
    for step in range(1, NUM_STEPS + 1):
        rows = read_rollouts(job.folder, step)
        assert len({row["uid"] for row in rows}) == len(rows) == NUM_ROWS
        assert all(row["output"] for row in rows)


def test_the_trained_student_becomes_a_hugging_face_folder(job: Job) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from relay_verl.checkpoints.export import export

    folder = job.folder / "student"
    assert export(job.folder / "checkpoints", folder).name == f"global_step_{NUM_STEPS}"
    assert "by the recipe `relay_tiny`" in (folder / "README.md").read_text()
    assert AutoModelForCausalLM.from_pretrained(folder).config.tie_word_embeddings
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"


def load(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file of verl's, by their place in it."""

    def flat(node: Any, place: str = "") -> Any:
        if isinstance(node, dict):
            for key, value in node.items():
                yield from flat(value, f"{place}.{key}")
        elif isinstance(node, torch.Tensor):
            yield place, node.to_local() if hasattr(node, "to_local") else node

    return dict(flat(torch.load(path, weights_only=False)))
