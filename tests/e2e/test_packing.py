"""verl's packed sequences and dynamic batches, which the recipes for GPUs use, give the step that padded ones give.

Under sdpa, as the recipes run without flash-attn; every sample has its seed, so both runs train on the same responses.
"""

import subprocess
from pathlib import Path

import pytest

from .training_for_tests import command, read_metrics, start

pytestmark = pytest.mark.e2e

PACKED = [
    "actor_rollout_ref.model.use_remove_padding=true",
    "actor_rollout_ref.actor.use_dynamic_bsz=true",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=256",  # a few responses a batch
    "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=true",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true",
]
SAME = ("actor/pg_loss", "actor/kl_loss", "actor/entropy", "actor/grad_norm", "critic/rewards/mean")
DEADLINE_S = 900


def test_packed_and_padded_sequences_train_alike(pair: Path, tmp_path: Path) -> None:
    metrics = {}
    for name, overrides in (("padded", []), ("packed", PACKED)):
        folder = tmp_path / name
        arguments = command(folder, "+relay=deterministic", "trainer.total_training_steps=2", *overrides)
        run = start([*arguments, "trainer.save_freq=-1"], folder, "log.txt")
        try:
            assert run.wait(DEADLINE_S) == 0, (folder / "log.txt").read_text()[-3000:]
        except subprocess.TimeoutExpired:
            run.kill()
            raise
        metrics[name] = read_metrics(folder)
    assert len(metrics["padded"]) == len(metrics["packed"]) == 2
    for padded, packed in zip(metrics["padded"], metrics["packed"], strict=True):
        assert {key: packed[key] for key in SAME} == pytest.approx({key: padded[key] for key in SAME}, abs=1e-5)
        assert packed["training/rollout_probs_diff_max"] < 1e-4, "the engine and the trainer read the same text"
