"""Token ids as bytes: what a token really contributes to the text, also when it holds part of a character.

Byte-level BPE (Qwen, SmolLM2, Llama 3), SentencePiece with byte fallback (Llama 2, Mistral), mistral-common's own
tokenizers and plain ones are told apart by the tokenizer's own decoder. Pure: needs a tokenizer object, imports none.

Invariant: for text that the tokenizer encoded, the bytes of its ids joined are that text in UTF-8; `TokenBytes.encode`
turns bytes that stand in the middle of a text into ids with exactly these bytes, the ones that models write.
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any, Protocol

from relay_verl.messages import plain_messages

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_FRONTS = ("", "\n", "x")
"""What a text follows while it is encoded: SentencePiece puts a blank before a first word; "\\n" may merge with it."""


class Tokenizer(Protocol):
    """What the project needs of a tokenizer; every Hugging Face tokenizer has it."""

    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = ...) -> str: ...


def chat_ids(tokenizer: Any, messages: Iterable[Mapping[str, Any]], template: Mapping[str, Any]) -> list[int]:
    """The prompt of a chat as the chat template writes it, up to where the response begins, [prompt_length].

    Args:
        tokenizer: has the template.
        messages: with `role` and `content`, a text or a list of text parts.
        template: further arguments of the template, such as {"enable_thinking": False}.
    """
    ids = tokenizer.apply_chat_template(
        plain_messages(messages),
        tokenize=True,
        return_dict=False,
        **{"add_generation_prompt": True, **template},
    )
    return list(ids)


def end_ids_of(tokenizer: Tokenizer, others: Iterable[int] = ()) -> frozenset[int]:
    """The ids that end a response: the tokenizer's end-of-sequence token and others, such as those that the model's
    generation config lists."""
    own = tokenizer.eos_token_id
    return frozenset([*others, *(() if own is None else (own,))])


class Kind(StrEnum):
    """How a vocabulary writes bytes."""

    BYTE_LEVEL = "byte_level"
    """Each byte is a printable character (GPT-2's table)."""
    SENTENCEPIECE = "sentencepiece"
    """Characters, '▁' for a blank, and `<0x0A>` for a byte of a character that is not in the vocabulary."""
    MISTRAL_COMMON = "mistral_common"
    """mistral-common's tokenizers, which say the bytes of a token themselves."""
    PLAIN = "plain"
    """Each token is whole characters, as the tokenizer decodes it."""


class TokenBytes:
    """The bytes of each token id of one tokenizer, remembered as they are met."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._kind = kind_of(tokenizer)
        self._added: dict[int, Any] = {}
        if self._kind in (Kind.BYTE_LEVEL, Kind.SENTENCEPIECE):
            self._added = dict(tokenizer.added_tokens_decoder)
        self._known: dict[int, bytes] = {}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that are not text, such as the end of a response."""
        return end_ids_of(self._tokenizer, getattr(self._tokenizer, "all_special_ids", ()))

    def to_bytes(self, token_id: int) -> bytes:
        """The bytes of one token; none for an id that the tokenizer does not name, such as a padding row of the model's
        embedding."""
        piece = self._known.get(token_id)
        if piece is None:
            piece = self._known[token_id] = self._read(token_id)
        return piece

    def pieces(self, token_ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token of a sequence, [length]."""
        try:
            return list(map(self._known.__getitem__, token_ids))
        except KeyError:  # one is met for the first time
            return list(map(self.to_bytes, token_ids))

    def join(self, token_ids: Sequence[int]) -> bytes:
        """The bytes of a sequence of tokens."""
        return b"".join(self.pieces(token_ids))

    def text(self, token_ids: list[int]) -> str:
        """The text of a sequence of tokens, without a character at its end that is not whole yet."""
        return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(self.join(token_ids))

    def count_up_to(self, token_ids: list[int], num_bytes: int) -> int:
        """How many of the tokens it takes to write `num_bytes` bytes; all of them if they have fewer."""
        ends = list(accumulate(map(len, self.pieces(token_ids))))
        return min(len(ends), 1 + bisect_left(ends, num_bytes))

    def encode(self, data: bytes) -> list[int]:
        """Token ids whose bytes are exactly `data`, which stands in the middle of a text: the tokenizer's own encoding
        of its characters, and single bytes where `data` is cut inside one. No text becomes a special token.

        Raises:
            ValueError: the vocabulary cannot write these bytes.
        """
        ids: list[int] = []
        text = data.decode("utf-8", errors="surrogateescape")  # a byte that is not of a whole character: a surrogate
        for is_cut, run in groupby(text, key=lambda character: "\udc80" <= character <= "\udcff"):
            if is_cut:
                ids += map(self._id_of, "".join(run).encode("utf-8", errors="surrogateescape"))
            else:
                ids += self._encode_text("".join(run))
        return ids

    def _encode_text(self, text: str) -> list[int]:
        """The tokenizer's encoding where it keeps the bytes, else character by character: a tokenizer may put a blank
        in front, or normalize what it reads."""
        data = text.encode("utf-8")
        for front in _FRONTS:
            before, ids = self._tokenize(front), self._tokenize(front + text)
            if ids[: len(before)] == before and self.join(ids[len(before) :]) == data:
                return ids[len(before) :]
        if len(text) > 1:
            return [token_id for character in text for token_id in self._encode_text(character)]
        if data in self._ids_by_bytes:
            return [self._ids_by_bytes[data]]
        return [self._id_of(byte) for byte in data]

    def _tokenize(self, text: str) -> list[int]:
        if not text:
            return []
        if self._kind in (Kind.BYTE_LEVEL, Kind.SENTENCEPIECE):
            return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _id_of(self, byte: int) -> int:
        data = bytes([byte])
        if data not in self._ids_by_bytes:
            raise ValueError(f"tokenizer: no token for the byte {data!r}, so a command cannot be taken out of its ids")
        return self._ids_by_bytes[data]

    @cached_property
    def _ids_by_bytes(self) -> dict[bytes, int]:
        """The token of each byte and of each character that has one. Where a character has a token of its own and a
        byte token, it is the first: models read '.', not '<0x2E>'."""
        if self._kind is Kind.MISTRAL_COMMON:
            vocab = dict.fromkeys(range(len(self._tokenizer)), "")  # its get_vocab() gives many bytes one name
        else:
            vocab = {token_id: token for token, token_id in self._tokenizer.get_vocab().items()}
        ids: dict[bytes, int] = {}
        for token_id in sorted(vocab, key=lambda i: (_BYTE_TOKEN.fullmatch(vocab[i]) is not None, i)):
            piece = self.to_bytes(token_id)
            if token_id not in self.special_ids and len(piece.decode("utf-8", errors="replace")) == 1:
                ids.setdefault(piece, token_id)
        return ids

    def _read(self, token_id: int) -> bytes:
        try:
            return self._read_named(token_id)
        except (IndexError, KeyError, OverflowError):  # how tokenizers answer to an id that they do not have
            return b""

    def _read_named(self, token_id: int) -> bytes:
        if self._kind is Kind.PLAIN:
            text: str | None = self._tokenizer.decode([token_id], skip_special_tokens=False)
            return (text or "").encode("utf-8")
        if self._kind is Kind.MISTRAL_COMMON:
            if not 0 <= token_id < len(self._tokenizer):
                return b""
            piece: bytes = self._tokenizer.tokenizer.instruct_tokenizer.tokenizer.id_to_byte_piece(token_id)
            return piece or str(self._tokenizer.convert_ids_to_tokens(token_id)).encode("utf-8")
        added = self._added.get(token_id)
        if added is not None:
            # Gemma's vocabulary adds runs of blanks as ordinary tokens; a special token's '▁' is a character of it.
            is_words = self._kind is Kind.SENTENCEPIECE and not added.special
            return str(added).replace("▁", " " if is_words else "▁").encode("utf-8")
        token: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:  # a padded row of the model's vocabulary that the tokenizer does not name
            return b""
        if self._kind is Kind.SENTENCEPIECE:
            if match := _BYTE_TOKEN.fullmatch(token):
                return bytes([int(match[1], 16)])
            return token.replace("▁", " ").encode("utf-8")
        if not set(token) <= _BYTE_OF.keys():
            return token.encode("utf-8")
        return bytes(_BYTE_OF[character] for character in token)


def encode_within(tokenizer: Any, text: str) -> list[int]:
    """Ids of `text` where other text stands before it: without the blank that SentencePiece puts in front of a text.

    Args:
        tokenizer: needs no more than `encode` if it is not one of transformers'.
        text: is not empty.
    """
    if kind_of(tokenizer) is Kind.SENTENCEPIECE:
        return TokenBytes(tokenizer).encode(text.encode("utf-8"))
    return list(tokenizer.encode(text, add_special_tokens=False))


def kind_of(tokenizer: Any) -> Kind:
    """How the tokenizer's vocabulary writes bytes, from the decoder that the tokenizer itself uses."""
    if hasattr(getattr(tokenizer, "tokenizer", None), "instruct_tokenizer"):
        return Kind.MISTRAL_COMMON
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return Kind.PLAIN
    decoder = json.dumps(json.loads(backend.decoder.__getstate__()), ensure_ascii=False)
    if '"ByteLevel"' in decoder:
        return Kind.BYTE_LEVEL
    if "▁" in decoder or '"Metaspace"' in decoder:
        return Kind.SENTENCEPIECE
    return Kind.PLAIN


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level BPE vocabulary, inverted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
