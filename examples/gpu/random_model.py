"""A model in the shape of a real one with random weights: what a measurement of speed and memory needs of it.

    python examples/gpu/random_model.py --shape qwen3-0.6b --out outputs/student [--tokenizer FOLDER]

Nothing is downloaded. Without FOLDER the tokenizer is Qwen3's from the tests' data, with a plain chat template.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config, Qwen3Config

QWEN3_TOKENIZER = Path(__file__).parents[2] / "tests" / "data" / "tokenizers" / "qwen3.json.xz"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = {"vocab_size": 151936, "tie_word_embeddings": True}
HEADS = {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "tie_word_embeddings": True,
}
SHAPES = {
    "qwen3-1.7b": Qwen3Config(hidden_size=2048, intermediate_size=6144, **HEADS, **VOCABULARY),
    "qwen3-0.6b": Qwen3Config(hidden_size=1024, intermediate_size=3072, **HEADS, **VOCABULARY),
    "qwen2.5-0.5b": Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        **VOCABULARY,
    ),
    "tiny": Qwen3Config(vocab_size=512, **TINY),
    "tiny-wide": Qwen3Config(vocab_size=151936, **TINY),
}


def write_model(shape: str, tokenizer: Path | None, folder: Path) -> None:
    """A model of that shape with random weights in 16 bits, and the tokenizer's files."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.bfloat16)
    reader = qwen3_tokenizer() if tokenizer is None else AutoTokenizer.from_pretrained(tokenizer)
    # random weights hardly ever write this id, so responses are as long as they may be
    model.config.eos_token_id = reader.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=reader.eos_token_id)
    model.to("cpu").save_pretrained(folder)
    reader.save_pretrained(folder)


def qwen3_tokenizer() -> Any:
    """Qwen3's tokenizer, from the tests' data."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    text = lzma.decompress(QWEN3_TOKENIZER.read_bytes()).decode()
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True, help="of the model")
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer's files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    torch.manual_seed(0)
    write_model(options.shape, options.tokenizer, options.out)


if __name__ == "__main__":
    main()
