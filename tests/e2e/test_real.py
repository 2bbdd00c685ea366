"""Two steps of the real pair's training on CPU, where its models are at hand: RELAY_MODELS_DIR names their folder."""

import json
import os
import sys
from pathlib import Path

import pytest

from relay_verl.data.schema import iter_rows
from relay_verl.pipeline import Run, train

EXAMPLE = Path(__file__).parents[2] / "examples" / "real"
MODELS = Path(os.environ.get("RELAY_MODELS_DIR", "/nowhere"))
STUDENT, TEACHER = "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct"

HAS_MODELS = all((MODELS / name / "relay_model.json").is_file() for name in (STUDENT, TEACHER))
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not HAS_MODELS, reason="RELAY_MODELS_DIR does not hold the real pair (`relay-verl models get`)"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The student before any warm-up, with groups and responses that are short."""
    from relay_verl.data.parquet import write_parquet

    sys.path.insert(0, str(EXAMPLE))
    from questions import TRAINING, write_questions

    folder = tmp_path_factory.mktemp("real")
    write_questions(folder, num_warmup=1, num_training=8)
    counts = {"num_samples": 4, "num_done": 4, "num_correct": 4, "num_tokens": 4}
    rows = [row | {"teacher_pass": counts} for row in iter_rows(folder / TRAINING)]
    write_parquet(folder / "train.parquet", rows)
    overrides = [
        "+relay=real_cpu",
        "trainer.total_training_steps=2",
        "actor_rollout_ref.rollout.n=2",
        "data.max_response_length=160",
        f"actor_rollout_ref.model.path={MODELS / STUDENT}",
    ]
    variables = {"VERL_PLATFORM": "cpu", "RELAY_REAL_DIR": str(folder)}
    return train("relay_real", folder / "train", overrides=overrides, variables=variables)


def test_two_steps_train_and_agree_with_the_engine(run: Run) -> None:
    """The engine's probabilities are those of the trained weights, to what 16-bit arithmetic of the trainer leaves."""
    steps = [json.loads(line)["data"] for line in run.metrics.read_text().splitlines()]
    trained = [step for step in steps if "actor/grad_norm" in step]
    assert len(trained) == 2
    assert all(step["training/rollout_probs_diff_mean"] < 0.02 for step in trained)
    assert trained[0]["actor/kl_loss"] == pytest.approx(0, abs=1e-4), "the reference is the model without its adapter"


def test_the_student_is_exported_whole(run: Run) -> None:
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(run.student).tie_word_embeddings
    assert not (run.student / "adapter_config.json").exists()
