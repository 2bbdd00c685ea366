"""Small tokenizers made on the spot: single bytes, byte-level BPE, SentencePiece's way.

The BPE's tokens run over the borders of a command and cut characters in half, as Qwen's do: '>.', '><', '0<', ' <call',
and the last byte of 'é' with '<'.
"""

import re
from functools import cache
from typing import Any

from hypothesis import strategies as st

EOS = "<|end|>"
COMMAND = re.compile(rb"<call>[ \t\n\r\f\v]*([0-9]+)[ \t\n\r\f\v]*</call>")  # the grammar, written a second time

BPE_WORDS = [
    b".<",
    b">.",
    b"><",
    b"0<",
    b">2",
    b"\xc3\xa9",
    b">\xc3\xa9",
    b"\xa9<",
    b"</call>",
    b"<call>",
    b" <call",
    b"20",
    b"</call>\n",
    b"x<call>",
    b"\n\n",
    b" so",
]
"""Tokens of the BPE longer than a byte; so is every beginning of theirs. Earlier ones merge first."""


class ByteTokenizer:
    """One token a byte, and an EOS without text."""

    eos_token_id = 256

    def __len__(self) -> int:
        return 257

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        return bytes(i for i in token_ids if i < 256).decode("utf-8", errors="replace")


@cache
def byte_alphabet() -> dict[int, str]:
    """GPT-2's character for each byte, as the tokenizers library writes it."""
    from tokenizers import pre_tokenizers

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = [c for c in characters if ord(c) < 256]
    others = sorted(c for c in characters if ord(c) >= 256)
    rest = [byte for byte in range(256) if chr(byte) not in plain]
    return {ord(c): c for c in plain} | dict(zip(rest, others, strict=True))


def make_bpe(words: list[bytes], added: tuple[str, ...] = (), eos: str = EOS) -> Any:
    """A byte-level BPE whose tokens are all bytes, `words` and their beginnings."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    character = byte_alphabet()
    vocab = {character[byte]: byte for byte in range(256)}
    merges = []
    for word in words:
        spelled = "".join(character[byte] for byte in word)
        for end in range(2, len(spelled) + 1):
            if spelled[:end] not in vocab:
                vocab[spelled[:end]] = len(vocab)
                merges.append((spelled[: end - 1], spelled[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, clean_up_tokenization_spaces=False)


@cache
def bpe() -> Any:
    """The byte-level BPE whose tokens run over the borders of a command."""
    return make_bpe(BPE_WORDS)


@cache
def bpe_id(piece: bytes) -> int:
    """The id of the token of `bpe()` that is `piece`."""
    character = byte_alphabet()
    return bpe().convert_tokens_to_ids("".join(character[byte] for byte in piece))


def bpe_ids(*pieces: bytes) -> list[int]:
    """Ids of tokens of `bpe()`, cut as told, not as its merges would."""
    return [bpe_id(piece) for piece in pieces]


@cache
def sentencepiece(style: str) -> Any:
    """SentencePiece's way with byte fallback; `style` 'replace' writes blanks as Llama 2 does, 'metaspace' as newer
    conversions do."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges = []
    for word in ["</call>", "<call>", "▁<call>", "▁so", ">.", "20", "><"]:
        for character in word:
            vocab.setdefault(character, len(vocab))
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append((word[: end - 1], word[end - 1]))
    for character in "▁abcdefghijklmnopqrstuvwxyz0123456789<>/.,:=é":
        vocab.setdefault(character, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    if style == "replace":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never", split=False)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def check_stripped(token_ids: list[int], stripped: list[int], tokens: Any) -> None:
    """Assert that `stripped` is `token_ids` without its commands: untouched tokens keep id and order, and what the
    touched ones hold outside the commands is there byte by byte."""
    data = tokens.join(token_ids)
    inside = [False] * len(data)
    for command in COMMAND.finditer(data):
        inside[command.start() : command.end()] = [True] * (command.end() - command.start())
    rest = list(stripped)
    start, residue = 0, b""

    def take_residue() -> None:
        got = b""
        while len(got) < len(residue):
            got += tokens.to_bytes(rest.pop(0))
        assert got == residue, f"{got!r} stands where {residue!r} should"

    for token_id in token_ids:
        end = start + len(tokens.to_bytes(token_id))
        if any(inside[start:end]):
            residue += bytes(data[i] for i in range(start, end) if not inside[i])
        else:
            take_residue()
            residue = b""
            assert rest, f"token {token_id} is gone"
            assert rest.pop(0) == token_id, "an untouched token changed"
        start = end
    take_residue()
    assert rest == [], "more tokens than were there"


def commands(digits: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Well-formed commands."""
    blanks = st.sampled_from([b"", b" ", b"\n"])
    return st.builds(lambda *parts: b"<call>" + b"".join(parts) + b"</call>", blanks, st.sampled_from(digits), blanks)


def turns(digits: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Texts that end in a command, a few in a row."""
    turn = st.builds(lambda text, command: text + command, fragments(digits=digits, max_size=3), commands(digits))
    return st.lists(turn, min_size=1, max_size=5).map(b"".join)


def fragments(*, digits: tuple[bytes, ...] = (b"5", b"0", b"20", b"3"), max_size: int = 10) -> st.SearchStrategy[bytes]:
    """Texts full of commands, whole and broken, among words and halves of characters."""
    other = [b"<call>", b"</call>", b" ", b"\n", b".", b"x", b"\xc3\xa9", b"\xc3", b"\xa9", b"<", b">", b" so"]
    piece = st.one_of(st.sampled_from(other), st.sampled_from(digits), commands(digits))
    return st.lists(piece, max_size=max_size).map(b"".join)


@cache
def _tokens_by_first_byte() -> dict[int, list[tuple[bytes, int]]]:
    words = {word[:end] for word in BPE_WORDS for end in range(2, len(word) + 1)} | {bytes([b]) for b in range(256)}
    return {byte: [(w, bpe_id(w)) for w in sorted(words) if w[0] == byte] for byte in range(256)}


def cut(data: bytes, choices: list[int]) -> list[int]:
    """`data` as tokens of `bpe()`, cut as `choices` say: a model need not cut as the tokenizer would."""
    ids: list[int] = []
    position = 0
    while position < len(data):
        words = _tokens_by_first_byte()[data[position]]
        fitting = [(word, token_id) for word, token_id in words if data.startswith(word, position)]
        word, token_id = fitting[choices[len(ids) % len(choices)] % len(fitting)]
        ids.append(token_id)
        position += len(word)
    return ids
