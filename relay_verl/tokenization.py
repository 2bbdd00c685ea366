"""Token ids as bytes: what a token really contributes to the text, also when it holds part of a character.

Byte-level BPE (Qwen, Llama 3, GPT), SentencePiece with byte fallback, and plain tokenizers are told apart by the
tokenizer's own decoder. Pure: needs a tokenizer object, imports none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class Tokenizer(Protocol):
    """What the project needs of a tokenizer; every Hugging Face tokenizer has it."""

    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = ...) -> str: ...


def chat_ids(tokenizer: Any, messages: Iterable[Mapping[str, Any]], template: Mapping[str, Any]) -> list[int]:
    """The prompt of a chat as the chat template writes it, up to where the response begins, [prompt_length].

    Args:
        tokenizer: has the template.
        messages: with `role` and `content`.
        template: further arguments of the template, such as {"enable_thinking": False}.
    """
    ids = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        **template,
    )
    return list(ids)


class TokenBytes:
    """The bytes of each token id of one tokenizer, remembered as they are met.

    Invariant: for text that the tokenizer wrote, the bytes of its ids joined are the text in UTF-8.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._kind = _decoder_kind(tokenizer)
        self._added = set(getattr(tokenizer, "added_tokens_decoder", None) or {})
        self._known: dict[int, bytes] = {}
        self._single_bytes: dict[bytes, int] | None = None

    def to_bytes(self, token_id: int) -> bytes:
        """The bytes of one token."""
        piece = self._known.get(token_id)
        if piece is None:
            piece = self._known[token_id] = self._read(token_id)
        return piece

    def join(self, token_ids: list[int]) -> bytes:
        """The bytes of a sequence of tokens."""
        return b"".join(map(self.to_bytes, token_ids))

    def encode(self, data: bytes) -> list[int]:
        """Token ids whose bytes are exactly `data`: the tokenizer's own encoding, or byte by byte where `data` is cut
        inside a character.

        Raises:
            ValueError: the vocabulary cannot write these bytes.
        """
        if not data:
            return []
        try:
            ids = list(self._tokenizer.encode(data.decode("utf-8"), add_special_tokens=False))
        except UnicodeDecodeError:
            ids = []
        if self.join(ids) == data:
            return ids
        return [self._byte_id(data[i : i + 1]) for i in range(len(data))]

    def _byte_id(self, byte: bytes) -> int:
        if self._single_bytes is None:
            vocab = sorted(self._tokenizer.get_vocab().values())
            self._single_bytes = {self.to_bytes(i): i for i in reversed(vocab) if len(self.to_bytes(i)) == 1}
        if byte not in self._single_bytes:
            raise ValueError(f"tokenizer: no token for the byte {byte!r}, so a command cannot be taken out of its ids")
        return self._single_bytes[byte]

    def _read(self, token_id: int) -> bytes:
        if self._kind == "plain" or token_id in self._added:
            return self._tokenizer.decode([token_id], skip_special_tokens=False).encode("utf-8")
        token: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:  # a padded row of the model's vocabulary that the tokenizer does not name
            return b""
        if self._kind == "byte_level":
            return bytes(_BYTE_OF[char] for char in token)
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode("utf-8")


def _decoder_kind(tokenizer: Any) -> str:
    """'byte_level', 'sentencepiece' or 'plain', from the decoder that the tokenizer itself uses."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return "plain"
    decoder = json.dumps(json.loads(backend.to_str())["decoder"], ensure_ascii=False)
    if '"ByteLevel"' in decoder:
        return "byte_level"
    if "▁" in decoder or '"Metaspace"' in decoder:
        return "sentencepiece"
    return "plain"


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level BPE vocabulary, inverted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
