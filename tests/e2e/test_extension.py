"""The tiny recipe trains with the reward of examples/extend, which its workers load by name."""

import os
from pathlib import Path

import pytest

from relay_verl.traces.records import read_records
from tests.helpers.extension import install_example
from tests.helpers.training import NUM_QUERIES, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

NUM_STEPS = 2


@pytest.mark.parametrize("kind", ["relay_extend.reward:quadratic"])
def test_two_steps_with_the_reward_of_another_package(
    kind: str, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install_example(tmp_path / "extend")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
    overrides = [f"relay.reward.kind={kind}", "relay.policy=capped_3", f"relay.num_logged_groups={NUM_QUERIES}"]
    overrides += [f"trainer.total_training_steps={NUM_STEPS}", "trainer.save_freq=-1", "trainer.test_freq=-1"]
    training = start(command(tmp_path, *overrides), tmp_path, "log")
    try:
        code = training.wait(timeout=500)
    finally:
        training.kill()
    log = (tmp_path / "log").read_text(errors="replace")
    assert code == 0, log[-5000:]
    assert [line["training/global_step"] for line in read_metrics(tmp_path)] == list(range(1, NUM_STEPS + 1))
    for step in range(1, NUM_STEPS + 1):
        files = (tmp_path / "checkpoints" / "samples").glob(f"step_{step:06d}_*.jsonl")
        records = [record for file in files for record in read_records(file)]
        expected = [float(record.is_correct) - record.call_ratio**2 for record in records]
        scores = [row["score"] for row in read_rollouts(tmp_path, step)]
        assert sorted(scores) == pytest.approx(sorted(expected), abs=1e-5), "1[correct] - rho^2 of each response"
        assert max(call["num_delivered"] for record in records for call in record.calls) <= 3, "a call is capped"
