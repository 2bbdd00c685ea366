"""A checkpoint of a student under LoRA: exported merged into its base, or as an adapter that PEFT loads onto it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from relay_verl.checkpoints.export import export
from relay_verl.checkpoints.resume import check_resume
from relay_verl.cli.main import app
from relay_verl.errors import UserError
from tests.helpers.checkpoints import fake_mesh, finish_run, make_config, save_shards
from tests.helpers.tokenizers import bpe

WORLD_SIZE = 2
RANK, ALPHA = 2, 6
IDS = torch.arange(40, 60)[None]  # [1, length]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    with fake_mesh(WORLD_SIZE) as mesh:
        yield mesh


def tiny_model(is_tied: bool) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": len(bpe()), "hidden_size": 16, "intermediate_size": 24, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "architectures": ["Qwen3ForCausalLM"]}
    return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=2, tie_word_embeddings=is_tied, **sizes, **heads)).eval()


def adapt(model: Any) -> Any:
    """The model under LoRA as verl builds it, with an adapter that was trained."""
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    adapted = get_peft_model(model, config).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # zero before training
            torch.nn.init.normal_(weight, std=0.3)
    return adapted


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


class Run:
    """A run's folder with one checkpoint, and what its model says."""

    def __init__(self, folder: Path, mesh: Any, *, is_tied: bool = True, adapter_alone: bool = False):
        self.student = folder / "student"
        model = tiny_model(is_tied)
        model.save_pretrained(self.student)
        bpe().save_pretrained(self.student)
        self.base_logits = logits(model)
        self.config = make_config(folder, **{"actor_rollout_ref.model.path": str(self.student)})
        model.save_pretrained(self.student)  # over the two lines that `make_config` leaves there
        self.config.actor_rollout_ref.model.lora_rank, self.config.actor_rollout_ref.model.lora_alpha = RANK, ALPHA
        self.folder = Path(self.config.trainer.default_local_dir)
        self.actor = self.folder / "global_step_5" / "actor"
        model.config.save_pretrained(self.actor / "huggingface")
        bpe().save_pretrained(self.actor / "huggingface")
        adapted = adapt(model)
        self.logits = logits(adapted)
        state = {name: weight for name, weight in adapted.state_dict().items() if "lora_" in name or not adapter_alone}
        save_shards(state, mesh, self.actor)
        meta = {"r": RANK, "lora_alpha": ALPHA, "task_type": "CAUSAL_LM"}
        (self.actor / "lora_train_meta.json").write_text(json.dumps(meta))
        finish_run(self.config, self.actor.parent, 5, {"relay/call_ratio": 0.03})


@pytest.fixture
def run(mesh: Any, tmp_path: Path) -> Run:
    return Run(tmp_path / "run", mesh)


KINDS = [
    # how the checkpoint is, why
    ({}, "tied"),
    ({"is_tied": False}, "a head of its own"),
    ({"adapter_alone": True}, "checkpoint.save_lora_only"),
]


@pytest.mark.parametrize(("kind", "why"), KINDS, ids=[why for _, why in KINDS])
def test_the_merged_model_says_what_the_trained_one_says(mesh: Any, tmp_path: Path, kind: dict, why: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, out = Run(tmp_path / "run", mesh, **kind), tmp_path / "student"
    assert (run.logits - run.base_logits).abs().max() > 0.1, "the adapter matters"
    export(run.folder, out)
    loaded = AutoModelForCausalLM.from_pretrained(out).eval()
    assert loaded.dtype == torch.float32
    assert loaded.config.tie_word_embeddings == kind.get("is_tied", True)
    torch.testing.assert_close(logits(loaded), run.logits, atol=1e-5, rtol=1e-5)
    assert AutoTokenizer.from_pretrained(out).get_vocab() == bpe().get_vocab()
    assert not (out / "adapter_config.json").exists()
    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, "lora" in card.data.tags) == ("transformers", True)
    assert f"rank {RANK}, alpha {ALPHA}" in card.text


@pytest.mark.parametrize(("kind", "why"), KINDS, ids=[why for _, why in KINDS])
def test_the_adapter_on_its_base_says_what_the_trained_model_says(
    mesh: Any, tmp_path: Path, kind: dict, why: str
) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, out = Run(tmp_path / "run", mesh, **kind), tmp_path / "adapter"
    export(run.folder, out, keep_adapter=True)
    base = AutoModelForCausalLM.from_pretrained(run.student, dtype=torch.float32)
    for loaded in (PeftModel.from_pretrained(base, out), AutoPeftModelForCausalLM.from_pretrained(out)):
        torch.testing.assert_close(logits(loaded.eval()), run.logits, atol=1e-5, rtol=1e-5)
    facts = json.loads((out / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == str(run.student)
    assert (facts["r"], facts["lora_alpha"]) == (RANK, ALPHA)
    names = {path.name for path in out.iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not {"config.json", "model.safetensors"} & names
    assert AutoTokenizer.from_pretrained(out).get_vocab() == bpe().get_vocab()
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "peft"
    assert "`student`" in card.text, "its base"
    assert str(tmp_path) not in card.text


def test_the_type_is_chosen_after_the_sum(run: Run, tmp_path: Path) -> None:
    """Rounded before, what an adapter adds would be lost in part."""
    from safetensors.torch import load_file

    export(run.folder, tmp_path / "exact")
    export(run.folder, tmp_path / "rounded", dtype="bfloat16")
    exact, rounded = (load_file(tmp_path / name / "model.safetensors") for name in ("exact", "rounded"))
    assert exact.keys() == rounded.keys()
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)


def test_the_same_export_again_and_the_other_one(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "student"
    for _ in range(2):
        export(run.folder, out, keep_adapter=True)
    with pytest.raises(UserError, match="is there already"):
        export(run.folder, out)
    assert (out / "adapter_config.json").is_file(), "left as it was"


MISTAKES = [
    # what happens to the run, beginning of the error after the actor's folder
    (lambda run: (run.actor / "lora_train_meta.json").unlink(), " holds an adapter, but no lora_train_meta.json"),
    (lambda run: meta(run, r=RANK), "/lora_train_meta.json does not say r and lora_alpha"),
    (lambda run: meta(run, r=RANK, lora_alpha=0), "/lora_train_meta.json: r=2 and lora_alpha=0"),
    (lambda run: meta(run, r=RANK + 1, lora_alpha=ALPHA), ": base_model.model.model.layers.0."),
    (
        lambda run: drop(run, "layers.1.mlp.up_proj.lora_B"),
        " has no base_model.model.model.layers.1.mlp.up_proj.lora_B",
    ),
    (lambda run: drop(run, "norm.weight"), " has no base_model.model.model."),
]


def meta(run: Run, **values: int) -> None:
    (run.actor / "lora_train_meta.json").write_text(json.dumps(values))


def drop(run: Run, part: str) -> None:
    from torch.distributed.tensor import DTensor  # noqa: F401  registers what a shard is made of

    for file in run.actor.glob("model_*.pt"):
        state = torch.load(file, weights_only=True)
        torch.save({name: weight for name, weight in state.items() if part not in name}, file)


@pytest.mark.parametrize(("mistake", "line"), MISTAKES, ids=[line.strip()[:40] for _, line in MISTAKES])
def test_an_adapter_that_cannot_be_exported(run: Run, tmp_path: Path, mistake: Any, line: str) -> None:
    mistake(run)
    (run.actor.parent / "relay_checkpoint.json").unlink()  # else the guard of the files' sizes says it first
    for keep_adapter in (False, True):
        with pytest.raises(UserError) as error:
            export(run.folder, tmp_path / "student", keep_adapter=keep_adapter)
        assert str(error.value).startswith(f"{run.actor}{line}")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "student").exists()


BASES = [
    # what happens to the base, end of the error
    (lambda student: shutil.rmtree(student), "student is not there"),
    (lambda student: (student / "config.json").write_text("{}"), "student has other files now"),
]


@pytest.mark.parametrize(("mistake", "end"), BASES, ids=[end for _, end in BASES])
def test_an_adapter_alone_needs_the_base_it_was_trained_on(mesh: Any, tmp_path: Path, mistake: Any, end: str) -> None:
    run = Run(tmp_path / "run", mesh, adapter_alone=True)
    mistake(run.student)
    with pytest.raises(UserError) as error:
        export(run.folder, tmp_path / "student")
    assert str(error.value).startswith(f"{run.actor} holds an adapter alone")
    assert str(error.value).endswith(end)


CHANGES = [
    # key of actor_rollout_ref.model, value, whether it may change
    ("lora_rank", 4, False),
    ("lora_rank", 0, False),
    ("lora_alpha", 32, False),
    ("target_modules", ["q_proj"], False),
    ("lora_adapter_path", "elsewhere", False),
    ("lora.merge", True, True),
]


@pytest.mark.parametrize(("key", "value", "may_change"), CHANGES)
def test_a_run_resumes_with_the_adapter_it_has(run: Run, key: str, value: Any, may_change: bool) -> None:
    from omegaconf import OmegaConf

    key = f"actor_rollout_ref.model.{key}"
    check_resume(run.config)
    OmegaConf.update(run.config, key, value, force_add=True)
    if may_change:
        check_resume(run.config)
        return
    with pytest.raises(UserError) as error:
        check_resume(run.config)
    assert str(error.value).startswith(f"{key}={value}, but {run.actor.parent} was trained with ")


def test_the_command_keeps_the_adapter_where_there_is_one(run: Run, tmp_path: Path, mesh: Any) -> None:
    out = tmp_path / "adapter"
    done = CliRunner().invoke(app, ["export", str(run.folder), str(out), "--keep-adapter"])
    assert done.exit_code == 0, done.output
    assert (out / "adapter_model.safetensors").is_file()
    state = tiny_model(True).state_dict()
    save_shards(state, mesh, run.actor)
    (run.actor / "lora_train_meta.json").unlink()
    (run.actor.parent / "relay_checkpoint.json").unlink()
    done = CliRunner().invoke(app, ["export", str(run.folder), str(tmp_path / "other"), "--keep-adapter"])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"{run.actor} was trained without LoRA")
