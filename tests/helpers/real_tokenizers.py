"""Tokenizers of real models (`data/tokenizers`, whose README has sources and licences), each loaded once a session."""

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

from relay_verl.tokenization import TokenBytes
from tests.helpers.tokenizers import bpe

FOLDER = Path(__file__).parents[1] / "data" / "tokenizers"
EOS = {"qwen3": "<|im_end|>", "smollm2": "<|im_end|>", "cl100k": "<|endoftext|>", "mistral": "</s>"}

BYTE_LEVEL = ("qwen3", "smollm2", "cl100k")
SENTENCEPIECE = ("mistral", "mistral_metaspace")
"""One vocabulary, read as its file says and as transformers' class for Llama does."""
REAL = (*BYTE_LEVEL, *SENTENCEPIECE, "mistral_common")
ALL = ("bpe", *REAL)


@cache
def tokenizer_called(name: str) -> Any:
    """The small BPE of these tests, or a real one."""
    if name == "bpe":
        return bpe()
    if name == "mistral_common":
        return _mistral_common()
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    if name == "mistral_metaspace":
        model = json.loads(_read("mistral"))["model"]
        return LlamaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    from tokenizers import Tokenizer

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_read(name)), eos_token=EOS[name], clean_up_tokenization_spaces=False
    )


@cache
def tokens_of(name: str) -> TokenBytes:
    """Its ids as bytes."""
    return TokenBytes(tokenizer_called(name))


@cache
def ids_by_bytes(name: str) -> dict[bytes, list[int]]:
    """All ordinary tokens by their bytes, for cutting a text anyhow."""
    special = set(tokenizer_called(name).all_special_ids)
    ids: dict[bytes, list[int]] = {}
    for token_id in range(len(tokenizer_called(name))):
        if token_id not in special:
            ids.setdefault(tokens_of(name).to_bytes(token_id), []).append(token_id)
    return ids


def cut_anyhow(name: str, data: bytes, choices: list[int]) -> list[int]:
    """`data` as tokens, cut as `choices` say: a model need not cut as the tokenizer would."""
    table, ids, position = ids_by_bytes(name), [], 0
    while position < len(data):
        longest = min(len(data) - position, 16)
        fitting = [i for size in range(1, longest + 1) for i in table.get(data[position : position + size], ())]
        ids.append(fitting[choices[len(ids) % len(choices)] % len(fitting)])
        position += len(tokens_of(name).to_bytes(ids[-1]))
    return ids


def _read(name: str) -> str:
    return lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()).decode("utf-8")


def _mistral_common() -> Any:
    """Tekken as transformers loads it where a model brings `tekken.json`: the file is one of mistral-common's own."""
    import mistral_common
    from transformers.tokenization_mistral_common import MistralCommonBackend

    data = Path(mistral_common.__file__).parent / "data"
    return MistralCommonBackend(tokenizer_path=str(data / "tekken_240911.json"))
