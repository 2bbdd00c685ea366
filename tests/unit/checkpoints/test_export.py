"""A checkpoint of two GPUs, as FSDP writes it, becomes a Hugging Face folder with the same weights and a model card."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

from relay_verl.checkpoints.export import export
from relay_verl.checkpoints.record import CheckpointRecord, RunRecord
from relay_verl.checkpoints.relay_file import (
    PairSampling,
    RelayFile,
    RelayLimits,
    RelayTemplate,
    TrainedTeacher,
    WriterSampling,
    read_relay_file,
)
from relay_verl.checkpoints.trained_relay import relay_of
from relay_verl.cli.main import app
from relay_verl.errors import UserError
from relay_verl.files import sha256_of
from relay_verl.models.tokenizers import tokenizer_sha256
from tests.helpers.checkpoints import fake_mesh, finish_run, make_config, save_shards
from tests.helpers.errors import one_line
from tests.helpers.hub import running_hub
from tests.helpers.tokenizers import bpe

WORLD_SIZE = 2


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base model on the hub is asked for its licence."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": len(bpe()), "hidden_size": 16, "intermediate_size": 24, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "architectures": ["Qwen3ForCausalLM"]}
    return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=1, tie_word_embeddings=True, **sizes, **heads))


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    """Two ranks that this process plays."""
    with fake_mesh(WORLD_SIZE) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def saved(model: Any, mesh: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with one whole checkpoint, step 5."""
    config = make_config(tmp_path_factory.mktemp("run"), **{"actor_rollout_ref.model.path": "Qwen/Qwen3-0.6B"})
    run = Path(config.trainer.default_local_dir)
    folder = run / "global_step_5"
    actor = folder / "actor"
    model.config.save_pretrained(actor / "huggingface")
    bpe().save_pretrained(actor / "huggingface")
    save_shards(model.state_dict(), mesh, actor)
    finish_run(config, folder, 5, {"relay/call_ratio": 0.03})
    return run


@pytest.mark.parametrize("part", ["", "global_step_5", "global_step_5/actor"], ids=["run", "checkpoint", "actor"])
def test_the_exported_weights_are_the_trained_ones(saved: Path, model: Any, tmp_path: Path, part: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "student"
    assert export(saved / part, out) == saved / "global_step_5"
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == torch.float32, "the rollout engine's, by the record"
    weights, wanted = loaded.state_dict(), model.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert AutoTokenizer.from_pretrained(out).get_vocab() == bpe().get_vocab()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"], "nothing is left next to it"


def test_the_type_can_be_chosen(saved: Path, model: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    export(saved, tmp_path / "student", dtype="bfloat16")
    weights = load_file(tmp_path / "student" / "model.safetensors")
    assert weights
    assert all(torch.equal(weights[name], model.state_dict()[name].bfloat16()) for name in weights)
    assert json.loads((tmp_path / "student" / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_card_says_where_it_comes_from(saved: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 4, "data": {"relay/accuracy": 0.1}},
        {"step": 5, "data": {"relay/accuracy": 0.25, "val-core/math/acc/mean@1": 0.75, "actor/lr": 1e-6}},
    ]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    export(saved, tmp_path / "student", metrics=metrics)
    card = ModelCard.load(tmp_path / "student" / "README.md")
    assert card.data.base_model == "Qwen/Qwen3-0.6B"
    assert card.data.library_name == "transformers"
    assert card.data.license is None
    for wanted in (
        "# student: a student of the recipe relay_1.7b",
        "main_ppo trainer.save_freq=5",
        "Step 5, weights in float32, from `Qwen/Qwen3-0.6B`",
        "- a response may call up to 3 times",
        "its teacher\n`teacher` writes",
        "relay-verl serve student --teacher teacher",
        "| the teacher's share of the tokens, training questions of this step | 3% |",
        "| right answers, training questions of this step | 25% |",
        "| right answers, validation on math | 75% |",
        "relay-verl eval --student student --teacher teacher",
        "arxiv.org/abs/2601.05167",
        f"torch {torch.__version__}",
    ):
        assert wanted in card.text, wanted
    assert "actor/lr" not in card.text
    assert str(saved.parent) not in card.text, "no path of this machine"


def test_the_same_export_again_is_no_mistake_and_another_is(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    export(saved, out)
    export(saved, out)
    with pytest.raises(UserError, match="is there already and is not this export"):
        export(saved, out, dtype="bfloat16")
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32", "left as it was"
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine is there already"):
        export(saved, tmp_path / "mine")


MISTAKES = [
    # what happens to the run's folder, beginning of the line after it
    (lambda run: shutil.rmtree(run), " does not exist"),
    (lambda run: (run / "global_step_5" / "data.pt").unlink(), "/global_step_5/data.pt is missing"),
    (lambda run: (run / "global_step_5" / "actor" / "fsdp_config.json").unlink(), "/global_step_5/actor/fsdp_config"),
    (lambda run: shutil.rmtree(run / "global_step_5"), "/global_step_5 does not exist"),
    (lambda run: [shutil.rmtree(path) if path.is_dir() else path.unlink() for path in run.iterdir()], " has no"),
]


@pytest.mark.parametrize(("mistake", "line"), MISTAKES, ids=[line for _, line in MISTAKES])
def test_a_checkpoint_that_cannot_be_exported(saved: Path, tmp_path: Path, mistake: Any, line: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    mistake(run)
    with pytest.raises(UserError) as error:
        export(run, tmp_path / "student")
    assert str(error.value).startswith(f"{run}{line}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "student").exists()


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_checkpoint_is_not_run(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    (run / "global_step_5" / "relay_checkpoint.json").unlink()
    file = run / "global_step_5" / "actor" / f"model_world_size_{WORLD_SIZE}_rank_1.pt"
    torch.save({"w": Evil(tmp_path / "was_run")}, file)
    with pytest.raises(UserError, match=r"rank_1\.pt holds more than tensors"):
        export(run, tmp_path / "student")
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "student").exists()


def test_the_command(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    done = CliRunner().invoke(app, ["export", str(saved), str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"{out} is {saved / 'global_step_5'}"
    wrong = CliRunner().invoke(app, ["export", str(saved), str(out), "--dtype", "int8"])
    assert str(wrong.exception) == "--dtype int8: allowed: auto, bfloat16, float32"


def test_relay_json_is_what_the_student_was_trained_with(saved: Path, tmp_path: Path) -> None:
    export(saved, tmp_path / "student")
    relay = read_relay_file(tmp_path / "student")
    assert relay.policy == "learned"
    assert relay.limits == RelayLimits(max_calls=3)
    assert relay.teacher == TrainedTeacher("teacher", tokenizer_sha256(bpe()))


def test_an_export_is_pushed(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "student"
    with running_hub(monkeypatch, tmp_path / "cache") as hub:
        command = ["export", str(saved), str(out), "--push", "me/relay", "--private", "--license", "apache-2.0"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[-1] == f"{hub.url}/me/relay"
        assert hub.files["me/relay"] == {file.name: file.read_bytes() for file in out.iterdir()}
        assert hub.private == {"me/relay": True}
        text = hub.files["me/relay"]["README.md"].decode()
        assert "relay-verl serve me/relay --teacher" in text and ModelCard(text).data.license == "apache-2.0"
        refused = CliRunner().invoke(app, [*command[:2], str(tmp_path / "other"), "--push", "they/relay"])
        assert "they/relay" in str(refused.exception) and not (tmp_path / "other").exists(), "before it is merged"


def test_private_is_for_push(saved: Path, tmp_path: Path) -> None:
    wrong = CliRunner().invoke(app, ["export", str(saved), str(tmp_path / "student"), "--private"])
    assert str(wrong.exception).startswith("--private: ")


def record_of_run(files: list[str] | None = None, **config: Any) -> CheckpointRecord:
    hashes = [sha256_of(Path(file)) for file in files or []]
    settings = {key.replace("__", "."): value for key, value in config.items()} | {"data.train_files": files or []}
    return CheckpointRecord(RunRecord(None, [], settings, {}, hashes), 5, {})


def test_what_a_record_says_is_in_relay_json(tmp_path: Path) -> None:
    bpe().save_pretrained(tmp_path)
    rows = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}] for text in "ab"]
    pq.write_table(pa.table({"prompt": rows}), tmp_path / "train.parquet")
    config = {
        "relay__policy": "fixed_20",
        "relay__max_calls": None,
        "relay__max_tokens_per_call": 64,
        "relay__on_teacher_failure": "drop",
        "relay__fixed_command": "delivered",
        "relay__teacher__path": str(tmp_path / "Big-8B"),
        "relay__teacher__temperature": 0.5,
        "relay__teacher__top_k": 20,
        "data__max_response_length": 2048,
        "data__apply_chat_template_kwargs__enable_thinking": False,
        "data__apply_chat_template_kwargs__nested__key": "x",
        "actor_rollout_ref__rollout__temperature": 1.0,
        "actor_rollout_ref__rollout__top_p": 1.0,
        "actor_rollout_ref__rollout__top_k": -1,
    }
    relay = relay_of(record_of_run([str(tmp_path / "train.parquet")], **config), tmp_path)
    assert relay == RelayFile(
        policy="fixed_20",
        limits=RelayLimits(2048, None, 64, "drop", "delivered"),
        teacher=TrainedTeacher("Big-8B", tokenizer_sha256(bpe())),
        template=RelayTemplate({"enable_thinking": False, "nested": {"key": "x"}}, "Be brief."),
        sampling=PairSampling(WriterSampling(1.0, 1.0, -1), WriterSampling(0.5, 1.0, 20)),
    )
    (tmp_path / "train.parquet").write_bytes(b"another file by now")
    other = record_of_run(None, **config)
    assert relay_of(other, tmp_path).template.system is None


def test_what_a_record_does_not_say_is_the_default(tmp_path: Path) -> None:
    bpe().save_pretrained(tmp_path)
    assert relay_of(None, tmp_path) == RelayFile()
    assert relay_of(record_of_run(), tmp_path) == RelayFile()
    assert relay_of(record_of_run(relay__max_calls=0), tmp_path) == RelayFile(limits=RelayLimits(max_calls=0))
    several = record_of_run(
        relay__teachers=[{"path": "a", "weight": 0}, {"base_url": "http://10.0.0.7/v1", "model": "b"}]
    )
    assert relay_of(several, tmp_path).teacher.name == "b"
    bridged = record_of_run(relay__teacher__path="x/y", relay__teacher__text_bridge=True)
    assert relay_of(bridged, tmp_path).teacher == TrainedTeacher("x/y", None)


def test_a_policy_of_code_has_no_relay_json(tmp_path: Path) -> None:
    line = one_line(relay_of, record_of_run(relay__policy="my_policies:Patient"), tmp_path)
    assert "policy" in line and "my_policies:Patient" in line
