"""A GGUF file of a model as a Hugging Face folder: weights dequantized one tensor at a time, tokenizer, configs.

Invariant: the folder's model has one matrix for embedding and output, as the original has. Some GGUF files hold two,
each quantized its own way; the output's, which is quantized less, becomes both.

transformers reads GGUF files too. It keeps both matrices, takes all weights into memory as 32-bit numbers, and names
`<|endoftext|>` as the end of a response, whatever the file says: remove this module when it does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor, dequantize
from safetensors.torch import save_file
from transformers import AddedToken, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from relay_verl.errors import UserError, as_user_error
from relay_verl.jobs.progress import show_progress
from relay_verl.weights.families import FAMILIES

SHARD_BYTES = 1 << 30
"""Bytes of weights after which a new file begins, which is also about what is in memory at a time."""

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # GGUF's types of tokens; 5 pads the vocabulary and has no text
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_OUTPUT = "output.weight"
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GgufModel:
    """A GGUF file, of which only what is asked for is read.

    Raises:
        UserError: the file is damaged, or of another architecture.
    """

    def __init__(self, file: Path):
        self.file = file
        with as_user_error((OSError, ValueError, KeyError, IndexError), f"{file} is not a readable GGUF file"):
            self._reader = GGUFReader(file)
        self._architecture: str = self._field("general.architecture")
        if self._architecture not in FAMILIES:
            allowed = ", ".join(map(repr, FAMILIES))
            raise UserError(f"{file}: general.architecture is {self._architecture!r}; allowed: {allowed}")
        self._family = FAMILIES[self._architecture]
        cut = self._field("tokenizer.ggml.pre")
        if cut != self._family.pre_tokenizer:
            raise UserError(f"{file}: tokenizer.ggml.pre is {cut!r}; allowed: {self._family.pre_tokenizer!r}")

    def _field(self, key: str) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            raise UserError(f"{self.file} has no {key}")
        return field.contents()

    def _size(self, key: str) -> Any:
        return self._field(f"{self._architecture}.{key}")

    def config(self, dtype: torch.dtype) -> PreTrainedConfig:
        """The architecture, for weights of this type."""
        of = self._size
        config: PreTrainedConfig = self._family.config(
            architectures=[self._family.model],
            vocab_size=len(self._field("tokenizer.ggml.tokens")),
            hidden_size=of("embedding_length"),
            intermediate_size=of("feed_forward_length"),
            num_hidden_layers=of("block_count"),
            num_attention_heads=of("attention.head_count"),
            num_key_value_heads=of("attention.head_count_kv"),
            max_position_embeddings=of("context_length"),
            rope_theta=of("rope.freq_base"),
            # written as a 32-bit number: 1e-6 comes back as 9.99999997e-07
            rms_norm_eps=float(np.format_float_positional(np.float32(of("attention.layer_norm_rms_epsilon")))),
            tie_word_embeddings=True,
            bos_token_id=self._field("tokenizer.ggml.bos_token_id"),
            eos_token_id=self._field("tokenizer.ggml.eos_token_id"),
            dtype=dtype,
        )
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer with the file's own chat template and end-of-sequence token.

        Ids above its last token are rows of the embedding without a text: the tokenizer does not know them.
        """
        tokens: list[str] = self._field("tokenizer.ggml.tokens")
        types: list[int] = self._field("tokenizer.ggml.token_type")
        pairs = [tuple(merge.split(" ")) for merge in self._field("tokenizer.ggml.merges")]
        with_text = (_NORMAL, _CONTROL, _USER_DEFINED)
        tokenizer: PreTrainedTokenizerBase = self._family.tokenizer(
            # with the added tokens, which keep their ids then
            vocab={token: index for index, token in enumerate(tokens) if types[index] in with_text},
            merges=pairs,
            eos_token=tokens[self._field("tokenizer.ggml.eos_token_id")],
            pad_token=tokens[self._field("tokenizer.ggml.padding_token_id")],
            model_max_length=self._size("context_length"),
        )
        for type_, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
            added = [token for index, token in enumerate(tokens) if types[index] == type_]
            tokenizer.add_tokens(
                [AddedToken(token, normalized=False, special=is_special) for token in added], special_tokens=is_special
            )
        tokenizer.chat_template = self._field("tokenizer.chat_template")
        return tokenizer

    def generation_config(self) -> GenerationConfig:
        """Where a response ends; how to sample is left to whoever samples."""
        end, pad = self._field("tokenizer.ggml.eos_token_id"), self._field("tokenizer.ggml.padding_token_id")
        return GenerationConfig(
            eos_token_id=[end, pad], pad_token_id=pad, bos_token_id=self._field("tokenizer.ggml.bos_token_id")
        )

    def weights(self, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        """Each weight under the name that transformers gives it, dequantized."""
        names = {tensor.name for tensor in self._reader.tensors}
        heads, kv_heads = self._size("attention.head_count"), self._size("attention.head_count_kv")
        bar = show_progress(
            total=int(sum(t.n_bytes for t in self._reader.tensors)), desc=self.file.stem, unit="B", unit_scale=True
        )
        with bar:
            for tensor in self._reader.tensors:
                is_embedding = tensor.name == "token_embd.weight"
                if not (is_embedding and _OUTPUT in names):
                    weight = self._family.in_order(tensor.name, _dequantized(tensor, dtype), heads, kv_heads)
                    yield self._name_of(tensor), weight
                bar.update(int(tensor.n_bytes))

    def _name_of(self, tensor: ReaderTensor) -> str:
        if tensor.name == _OUTPUT:
            return _TOP["token_embd.weight"]
        if tensor.name in _TOP:
            return _TOP[tensor.name]
        match tensor.name.split("."):
            case ["blk", layer, part, kind] if part in _IN_LAYER:
                return f"model.layers.{layer}.{_IN_LAYER[part]}.{kind}"
        raise UserError(f"{self.file}: tensor {tensor.name!r} is not part of a {self._architecture} model")

    def save(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write config, tokenizer and weights into `folder`, which is whole when the index of the weights is there.

        Args:
            folder: where to.
            dtype: of the weights.

        Raises:
            UserError: the file holds what such a model does not have.
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.config(dtype).save_pretrained(folder)
        self.generation_config().save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)
        place: dict[str, str] = {}
        total = 0
        for number, shard in enumerate(_shards(self.weights(dtype)), start=1):
            file = f"model-{number:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            place.update(dict.fromkeys(shard, file))
            total += sum(weight.nbytes for weight in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": place}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True))


def _shards(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """The weights in groups of about SHARD_BYTES."""
    shard: dict[str, torch.Tensor] = {}
    for name, weight in weights:
        shard[name] = weight
        if sum(each.nbytes for each in shard.values()) >= SHARD_BYTES:
            yield shard
            shard = {}
    if shard:
        yield shard


def _dequantized(tensor: ReaderTensor, dtype: torch.dtype) -> torch.Tensor:
    values = dequantize(tensor.data, tensor.tensor_type)  # [rows, columns], or [size], float32
    return torch.from_numpy(np.array(values)).to(dtype)  # a copy: an unquantized tensor is a view of the file
