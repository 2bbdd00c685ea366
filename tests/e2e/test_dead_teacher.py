"""A teacher that serves a while and then refuses every call: the training says so, ends, and keeps its steps."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.training import command, read_metrics, start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NUM_STEPS = 12
"""More than it takes to count 20 calls."""
NUM_SERVED = 3


@pytest.fixture
def teacher(fake_vllm: Any) -> Any:
    """An endpoint whose key is withdrawn after a few requests."""
    num_asked = 0

    def answer(body: Any) -> Any:
        nonlocal num_asked
        num_asked += 1
        if num_asked > NUM_SERVED:
            return 401, {"error": {"message": "the key was withdrawn"}}
        choice = {"index": 0, "text": "", "finish_reason": "length", "token_ids": [5] * body["max_tokens"]}
        return {"id": "c", "object": "text_completion", "created": 1, "model": "big", "choices": [choice]}

    fake_vllm.routes["/v1/completions"] = answer
    return fake_vllm


def test_a_training_whose_teacher_refuses_every_call_ends_with_a_checkpoint(
    teacher: Any, pair: Path, tmp_path: Path
) -> None:
    overrides = ["relay.teacher.path=null", f"relay.teacher.base_url={teacher.url}", "relay.teacher.model=big"]
    overrides += [f"trainer.total_training_steps={NUM_STEPS}", "trainer.save_freq=100", "trainer.test_freq=-1"]
    training = start(command(tmp_path, *overrides), tmp_path, "log")
    try:
        code = training.wait(timeout=500)
    finally:
        training.kill()
    log = (tmp_path / "log").read_text(errors="replace")
    assert code == 1, log[-5000:]
    last = log.strip().splitlines()[-1]
    assert last.startswith("relay_verl: relay.max_failed_call_share=0.5: "), last
    assert "HTTP 401: the key was withdrawn" in last
    [step] = re.findall(r"step (\d+) is saved", last)
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == step
    assert (tmp_path / "checkpoints" / f"global_step_{step}" / "actor").is_dir()
    assert [line["training/global_step"] for line in read_metrics(tmp_path)[:-1]] == list(range(1, int(step)))
    warnings = re.findall(r"relay_verl: warning: step (\d+): \d+ of \d+ calls to the teacher failed", log)
    assert str(step) in warnings
    assert len(warnings) == len(set(warnings)), "one a step"
