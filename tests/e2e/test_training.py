"""verl's own trainer on CPU with a recipe of ours, deterministic: uninterrupted, and killed and resumed."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from .training_for_tests import NUM_ROWS, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NUM_STEPS = 4
SAVE_FREQ = 2
KILL_AFTER = 3
OVERRIDES = [
    "+relay=deterministic",
    f"trainer.total_training_steps={NUM_STEPS}",
    f"trainer.save_freq={SAVE_FREQ}",
    f"trainer.test_freq={NUM_STEPS}",
]


def read_log(folder: Path, name: str) -> str:
    return (folder / name).read_text(errors="replace")[-5000:]


@pytest.fixture(scope="module")
def whole(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    driver = start(command(folder, *OVERRIDES), folder, "log")
    try:
        assert driver.wait(timeout=500) == 0, read_log(folder, "log")
    finally:
        driver.kill()
    return folder


@pytest.fixture(scope="module")
def resumed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, whose driver is killed with SIGKILL; then the same command again."""
    folder = tmp_path_factory.mktemp("resumed")
    driver = start(command(folder, *OVERRIDES), folder, "first.log")
    try:
        while len(read_metrics(folder)) < KILL_AFTER and driver.poll() is None:
            time.sleep(0.1)
        assert driver.poll() is None, read_log(folder, "first.log")
    finally:
        driver.kill()
        driver.wait(timeout=30)
    driver = start(command(folder, *OVERRIDES), folder, "second.log")
    try:
        assert driver.wait(timeout=500) == 0, read_log(folder, "second.log")
    finally:
        driver.kill()
    return folder


@pytest.fixture(scope="module")
def metrics(whole: Path) -> list[dict[str, Any]]:
    return read_metrics(whole)


def test_every_step_is_done_and_calls_are_served(metrics: list) -> None:
    assert [step["training/global_step"] for step in metrics] == list(range(1, NUM_STEPS + 1))
    assert all(step["relay/status/completed"] == NUM_ROWS for step in metrics)
    first = metrics[0]
    assert first["relay/calls/served"] > 0, "the warmed-up student calls in a quarter of its responses"
    assert first["relay/teacher_failures"] == 0
    assert first["relay/delivered_tokens"] > 0
    assert 0 < first["relay/teacher_latency_s/p50"] <= first["relay/teacher_latency_s/p95"]


def test_weight_updates_reach_the_engine(metrics: list) -> None:
    """The student's embeddings are tied; a stale lm_head would show here from the second step on."""
    for step in metrics:
        assert step["training/rollout_probs_diff_valid"] == 1
        assert step["training/rollout_probs_diff_mean"] < 1e-3
    assert any(step["actor/grad_norm"] > 0 for step in metrics)


def test_every_metric_of_a_step_is_logged(metrics: list) -> None:
    names = {"accuracy", "call_rate", "call_ratio", "num_calls", "requested_tokens", "delivered_tokens"}
    names |= {"malformed_calls", "teacher_failures", "status/completed", "status/teacher_failed", "calls/malformed"}
    assert {f"relay/{name}" for name in names} <= metrics[0].keys()
    scenarios = ("student_solvable", "teacher_dependent", "teacher_unsolvable")
    assert sum(metrics[0].get(f"relay/scenario/{scenario}", 0) for scenario in scenarios) == pytest.approx(1)


def test_validation_scores_accuracy_and_logs_call_statistics(metrics: list) -> None:
    assert "val-core/tiny/add/acc/mean@1" in metrics[-1]
    assert any(key.startswith("val-aux/tiny/mul/call_rate") for key in metrics[-1])


def test_tensorboard_has_the_metrics_and_sample_responses(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("relay/accuracy")] == list(range(1, NUM_STEPS + 1))
    assert any("generations" in tag for tag in events.Tags()["tensors"])


def test_samples_are_kept_to_be_read(whole: Path) -> None:
    from relay_verl.evaluation.trace import read_responses

    records = read_responses([whole / "checkpoints" / "samples"])
    assert {record.condition for record in records} <= {f"step {step}" for step in range(1, NUM_STEPS + 1)}
    assert all(record.benchmark.startswith("tiny/") and record.segments for record in records)


def test_killed_and_resumed_it_has_the_weights_of_the_uninterrupted_run(whole: Path, resumed: Path) -> None:
    """Weights, Adam's moments and every sampled response, bit by bit."""
    last = f"checkpoints/global_step_{NUM_STEPS}/actor"
    for kind in ("model", "optim"):
        one, other = (load(folder / last / f"{kind}_world_size_1_rank_0.pt") for folder in (whole, resumed))
        assert one.keys() == other.keys()
        assert one
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    for step in range(1, NUM_STEPS + 1):
        one_rows, other_rows = (
            sorted((row["input"], row["output"], row["score"]) for row in read_rollouts(folder, step))
            for folder in (whole, resumed)
        )
        assert one_rows == other_rows, f"step {step}"


def test_no_step_is_missing_in_the_log_of_a_resumed_run(resumed: Path) -> None:
    """It goes on at the last checkpoint, and what was logged before is kept."""
    steps = [step["training/global_step"] for step in read_metrics(resumed)]
    assert steps == [*range(1, KILL_AFTER + 1), *range(SAVE_FREQ + 1, NUM_STEPS + 1)]


@pytest.mark.parametrize(
    ("recipe", "override", "line"),
    [
        ("relay_tiny_simple", "data.seed=1", "is of recipe relay_tiny, not relay_tiny_simple"),
        ("relay_tiny", "data.seed=7", "data.seed=7, but"),
    ],
)
def test_another_runs_checkpoint_is_refused_with_one_line(
    resumed: Path, tmp_path: Path, recipe: str, override: str, line: str
) -> None:
    arguments = command(resumed, *OVERRIDES, override, f"hydra.run.dir={tmp_path}", recipe=recipe)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("relay_verl: ")
    assert line in last
    assert "Traceback" not in done.stderr


def test_no_row_in_any_batch_that_was_not_sampled(whole: Path) -> None:
    for step in range(1, NUM_STEPS + 1):
        rows = read_rollouts(whole, step)
        assert len({row["uid"] for row in rows}) == len(rows) == NUM_ROWS
        assert all(row["output"] for row in rows)


def test_the_trained_student_becomes_a_hugging_face_folder(whole: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from relay_verl.checkpoints.export import export

    folder = whole / "student"
    assert export(whole / "checkpoints", folder).name == f"global_step_{NUM_STEPS}"
    assert "recipe: `relay_tiny`" in (folder / "README.md").read_text()
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
