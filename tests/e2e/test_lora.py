"""LoRA in verl's own trainer on CPU: vLLM gets base plus adapter, the reference is the base, and a run resumes.

That these tests can fail is part of them: what they allow is far less than what the adapter changes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.training import command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

NUM_STEPS = 2
"""Of the first run; the second resumes for one more."""
LORA = [
    "actor_rollout_ref.model.lora_rank=8",
    "actor_rollout_ref.model.lora_alpha=16",
    "actor_rollout_ref.actor.optim.lr=1e-2",  # large, so that an update that went astray shows
    "trainer.save_freq=1",
    "trainer.max_actor_ckpt_to_keep=null",
]
ALLOWED = 1e-3
"""Between a token's probability in the engine and in the trainer."""


@dataclass(frozen=True)
class Run:
    """What both runs left."""

    folder: Path
    student: Path
    metrics: list[dict[str, Any]]
    logs: list[str]

    def shards(self, step: int) -> dict[str, torch.Tensor]:
        """The weights of a checkpoint, by their names in PEFT."""
        file = self.folder / "checkpoints" / f"global_step_{step}" / "actor" / "model_world_size_1_rank_0.pt"
        from torch.distributed.tensor import DTensor  # noqa: F401  registers what a shard is made of

        return {name: weight.to_local() for name, weight in torch.load(file, weights_only=True).items()}

    def export(self, step: int) -> Any:
        """The model of a checkpoint, as the command writes it."""
        from transformers import AutoModelForCausalLM

        from relay_verl.checkpoints.export import export

        out = self.folder / f"student_{step}"
        export(self.folder / "checkpoints" / f"global_step_{step}", out)
        return AutoModelForCausalLM.from_pretrained(out).eval()


@pytest.fixture(scope="module")
def run(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two steps with merged weights, and one more that serves the adapter: the same model, served in another way."""
    folder = tmp_path_factory.mktemp("lora")
    for log, overrides in (
        ("first.log", [f"trainer.total_training_steps={NUM_STEPS}"]),
        ("second.log", [f"trainer.total_training_steps={NUM_STEPS + 1}", "actor_rollout_ref.model.lora.merge=false"]),
    ):
        driver = start(command(folder, *LORA, *overrides), folder, log)
        try:
            assert driver.wait(timeout=800) == 0, (folder / log).read_text(errors="replace")[-5000:]
        finally:
            driver.kill()
    logs = [(folder / name).read_text(errors="replace") for name in ("first.log", "second.log")]
    return Run(folder, pair / "student_warm", read_metrics(folder), logs)


def test_every_step_is_done_once(run: Run) -> None:
    """The second run resumes from the checkpoint of the first, though it serves the adapter in another way."""
    assert [step["training/global_step"] for step in run.metrics] == [1, 2, 3]


def test_the_engine_and_the_trainer_give_the_same_probabilities(run: Run) -> None:
    for step in run.metrics:
        assert step["training/rollout_probs_diff_valid"] == 1
        assert step["training/rollout_probs_diff_max"] < ALLOWED, step["training/global_step"]


@pytest.mark.parametrize("step", [2, 3])
def test_without_the_adapter_they_would_not(run: Run, step: int) -> None:
    """The model that a step's responses were sampled from, against the base and against the one a step before."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.student)
    base = AutoModelForCausalLM.from_pretrained(run.student, dtype=torch.float32).eval()
    others = [base] + [run.export(number) for number in range(1, step - 1)]
    model = run.export(step - 1)
    ids = [
        tokenizer(row["input"] + row["output"], return_tensors="pt").input_ids
        for row in read_rollouts(run.folder, step)
    ]
    for other in others:
        difference = max(float((probabilities(model, row) - probabilities(other, row)).abs().max()) for row in ids)
        assert difference > 50 * ALLOWED


@torch.no_grad()
def probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Of each token after those before it, [length - 1]."""
    logits = model(ids).logits[0, :-1]  # [length - 1, vocabulary]
    return logits.softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]


def test_the_adapter_is_trained_and_nothing_else(run: Run) -> None:
    from safetensors.torch import load_file

    first, second, third = (run.shards(step) for step in (1, 2, 3))
    adapter = [name for name in first if "lora_" in name]
    assert len(adapter) == 2 * 7 * len({re.search(r"layers\.(\d+)", name)[1] for name in adapter}), "all linear layers"  # type: ignore[index]
    for before, after in ((first, second), (second, third)):
        assert any(not torch.equal(before[name], after[name]) for name in adapter)
    original = load_file(run.student / "model.safetensors")
    for name, weight in third.items():
        if "lora_" not in name:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            plain = "model.embed_tokens.weight" if plain == "lm_head.weight" else plain  # tied
            assert torch.equal(weight, original[plain]), name


def test_the_reference_is_the_base_and_no_copy_of_it(run: Run) -> None:
    """At the first step the adapter adds nothing, and later KL is that to the model without it."""
    first, *later = run.metrics
    assert first["actor/kl_loss"] == pytest.approx(0, abs=1e-6)
    assert all(step["actor/kl_loss"] > 1e-3 for step in later)
    for log in run.logs:
        built = re.findall(r"(\w+) contains [\d.]+\w? parameters", log)
        assert built == ["PeftModelForCausalLM"], "the actor; a reference of its own would be another"


def test_the_checkpoints_know_their_adapter(run: Run) -> None:
    facts = json.loads((run.folder / "checkpoints/global_step_3/relay_checkpoint.json").read_text())
    assert facts["run"]["config"]["actor_rollout_ref.model.lora_rank"] == 8
    assert "actor/lora_train_meta.json" in facts["files"]


def test_the_adapter_exported_apart_is_the_merged_model(run: Run) -> None:
    from peft import AutoPeftModelForCausalLM

    from relay_verl.checkpoints.export import export

    folder = run.folder / "adapter"
    export(run.folder / "checkpoints", folder, keep_adapter=True)
    apart = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(4, 24)[None] % apart.config.vocab_size
    torch.testing.assert_close(probabilities(apart, ids), probabilities(run.export(3), ids), atol=1e-5, rtol=1e-4)
