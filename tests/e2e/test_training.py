"""verl's own trainer on CPU with a recipe of ours: metrics, weights that reach the engine, a teacher that dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NUM_STEPS = 5
KILL_AFTER = 2
NUM_ROWS = 8 * 4
OVERRIDES = [
    "relay.on_teacher_failure=continue",
    "relay.teacher.timeout_s=20",
    "relay.teacher.breaker_threshold=3",
    "relay.teacher.breaker_reset_s=600",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.rollout.n=4",
    f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={NUM_ROWS}",
    f"actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu={NUM_ROWS}",
    f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={NUM_ROWS}",
    f"trainer.total_training_steps={NUM_STEPS}",
    f"trainer.test_freq={NUM_STEPS}",
]


def read_metrics(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    return [json.loads(line)["data"] for line in path.read_text().splitlines() if line.endswith("}")]


def teacher_server(driver: int) -> psutil.Process:
    """The process of the teacher's vLLM server: of the two that the driver's cluster runs, the younger."""
    family = psutil.Process(driver).children(recursive=True)
    servers = [p for p in family if p.is_running() and "CpuVLLMHttpServer" in " ".join(p.cmdline())]
    assert len(servers) == 2, servers
    return max(servers, key=lambda process: process.create_time())


@pytest.fixture(scope="module")
def run(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """One training run whose teacher's server is killed with SIGKILL after two steps."""
    folder = tmp_path_factory.mktemp("training")
    metrics = folder / "metrics.jsonl"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=relay_tiny", *OVERRIDES]
    command += [f"trainer.default_local_dir={folder}/checkpoints", f"trainer.rollout_data_dir={folder}/rollouts"]
    environment = os.environ | {"VERL_FILE_LOGGER_PATH": str(metrics)}
    with (folder / "log").open("w") as log:
        driver = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            while len(read_metrics(metrics)) < KILL_AFTER and driver.poll() is None:
                time.sleep(0.2)
            assert driver.poll() is None, (folder / "log").read_text()[-5000:]
            os.kill(teacher_server(driver.pid).pid, signal.SIGKILL)
            code = driver.wait(timeout=500)
        finally:
            driver.kill()
    assert code == 0, (folder / "log").read_text()[-5000:]
    return {"metrics": read_metrics(metrics), "folder": folder}


def test_every_step_is_done_though_the_teacher_died(run: dict) -> None:
    assert [m["training/global_step"] for m in run["metrics"]] == list(range(1, NUM_STEPS + 1))


def test_before_it_died_calls_were_served(run: dict) -> None:
    first = run["metrics"][0]
    assert first["relay/calls/served"] > 0, "the warmed-up student calls in a quarter of its responses"
    assert first["relay/teacher_failures"] == 0
    assert first["relay/delivered_tokens"] > 0
    assert 0 < first["relay/teacher_latency_s/p50"] <= first["relay/teacher_latency_s/p95"]


def test_failures_are_in_the_metrics_and_no_row_is_lost(run: dict) -> None:
    assert sum(m["relay/teacher_failures"] for m in run["metrics"]) > 0
    last = run["metrics"][-1]
    assert last["relay/calls/served"] == 0
    assert last["relay/call_ratio"] == 0
    assert all(m["relay/status/completed"] == NUM_ROWS for m in run["metrics"])


def test_no_row_in_any_batch_that_was_not_sampled(run: dict) -> None:
    for step in range(1, NUM_STEPS + 1):
        rows = [json.loads(line) for line in (run["folder"] / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        assert len(rows) == NUM_ROWS
        assert len({row["uid"] for row in rows}) == NUM_ROWS
        assert all(row["output"] for row in rows)


def test_weight_updates_reach_the_engine(run: dict) -> None:
    """The student's embeddings are tied; a stale lm_head would show here from the second step on."""
    for metrics in run["metrics"]:
        assert metrics["training/rollout_probs_diff_valid"] == 1
        assert metrics["training/rollout_probs_diff_mean"] < 1e-3
    assert any(metrics["actor/grad_norm"] > 0 for metrics in run["metrics"])


def test_every_metric_of_a_step_is_logged(run: dict) -> None:
    names = {"accuracy", "call_rate", "call_ratio", "num_calls", "requested_tokens", "delivered_tokens"}
    names |= {"malformed_calls", "teacher_failures", "status/completed", "status/teacher_failed", "calls/malformed"}
    first = run["metrics"][0]
    assert {f"relay/{name}" for name in names} <= first.keys()
    scenarios = ("student_solvable", "teacher_dependent", "teacher_unsolvable")
    assert sum(first.get(f"relay/scenario/{scenario}", 0) for scenario in scenarios) == pytest.approx(1)


def test_validation_scores_accuracy_and_logs_call_statistics(run: dict) -> None:
    last = run["metrics"][-1]
    assert "val-core/tiny/add/acc/mean@1" in last
    assert any(key.startswith("val-aux/tiny/mul/call_rate") for key in last)


def test_the_trained_student_becomes_a_hugging_face_folder(run: dict) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from relay_verl.checkpoints.export import export

    folder = run["folder"] / "student"
    assert export(run["folder"] / "checkpoints", folder).name == f"global_step_{NUM_STEPS}"
    assert "recipe: `relay_tiny`" in (folder / "README.md").read_text()
    assert AutoModelForCausalLM.from_pretrained(folder).config.tie_word_embeddings
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"
