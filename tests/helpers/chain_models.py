"""Models whose next token depends on the last one alone, so that a real server's answers are known beforehand.

One layer that adds nothing to the residual stream, one-hot embeddings, and a head that is the table of moves. The
tokenizer is bytes and the two halves of a command.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.helpers.tokenizers import EOS, make_bpe

MAX_MODEL_LEN = 2048
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
STUDENT = {"a": "<call>", "<call>": "3", "3": "</call>", "</call>": "z", "t": "z", "z": EOS, "l": "l"}
"""Writes `<call>3</call>` behind `a`, `z` and the end behind what the teacher wrote, and `l` for ever behind `l`."""
TEACHER: Mapping[str, str] = {}
"""Writes `t` behind anything."""


def make_tokenizer(others: list[bytes] | None = None) -> Any:
    """The tokenizer of both; with `others` it has more tokens, so that it is another one."""
    tokenizer = make_bpe(others or [], added=("<call>", "</call>"))
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_chain(folder: Path, moves: Mapping[str, str], otherwise: str, *, num_spare_rows: int = 0) -> Path:
    """Write a model and its tokenizer to `folder`.

    Args:
        folder: where.
        moves: the token that follows each.
        otherwise: what follows the others.
        num_spare_rows: rows of the embedding that the tokenizer has no token for, such as for a defer head.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer()
    size = len(tokenizer)
    config = Qwen3Config(
        vocab_size=size + num_spare_rows,
        hidden_size=-(-size // 32) * 32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,  # the least that vLLM's CPU attention takes
        max_position_embeddings=MAX_MODEL_LEN,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = Qwen3ForCausalLM(config)

    def id_of(token: str) -> int:
        (token_id,) = tokenizer.encode(token, add_special_tokens=False)
        return int(token_id)

    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0.0 if weight.ndim == 2 else 1.0)
        model.model.embed_tokens.weight[:size, :size] = torch.eye(size)
        follows = {token_id: id_of(otherwise) for token_id in range(size)}
        follows |= {id_of(token): id_of(then) for token, then in moves.items()}
        for token_id, then in follows.items():
            model.lm_head.weight[then, token_id] = 4.0  # times the norm of a one-hot vector: certain when sampled, too
    model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_pair(folder: Path) -> tuple[Path, Path]:
    """A student and its teacher in `folder`."""
    return save_chain(folder / "student", STUDENT, "a"), save_chain(folder / "teacher", TEACHER, "t")


def save_head_behind(folder: Path, student: Path, token: str) -> Path:
    """A defer head that asks behind one token, at a score of almost 0, and nowhere else.

    Args:
        folder: of the head.
        student: the folder of its student, whose hidden state is the last token's own.
        token: what it asks behind.
    """
    import torch

    from relay_verl.defer.head_folder import save_head
    from relay_verl.defer.head_info import HeadInfo, HeadKind
    from relay_verl.defer.heads import CollmHead

    (token_id,) = make_tokenizer().encode(token, add_special_tokens=False)
    hidden_size = json.loads((student / "config.json").read_text())["hidden_size"]
    head = CollmHead(hidden_size)
    with torch.no_grad():
        weight = torch.full((1, hidden_size), 9.0)
        weight[0, token_id] = -9.0
        head.load_state_dict({"layers.weight": weight, "layers.bias": torch.zeros(1)})
    save_head(folder, head, HeadInfo(HeadKind.COLLM, hidden_size=hidden_size, threshold=0.5))
    return folder


def save_deferring(folder: Path) -> tuple[Path, Path, Path]:
    """A student that writes `l` for ever behind `l` and behind the teacher's `t`, its teacher, and a head that asks
    behind `l`."""
    student = save_chain(folder / "student", STUDENT | {"t": "l"}, "a", num_spare_rows=2)
    teacher = save_chain(folder / "teacher", TEACHER, "t")
    return student, teacher, save_head_behind(folder / "head", student, "l")
