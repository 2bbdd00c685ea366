"""Token ids as bytes, for each kind of tokenizer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.tokenization import TokenBytes
from tests.helpers.tokenizers import (
    BPE_WORDS,
    EOS,
    ByteTokenizer,
    bpe,
    bpe_id,
    bpe_ids,
    byte_alphabet,
    make_bpe,
    sentencepiece,
)

STYLES = ["replace", "metaspace"]

# ---- byte-level BPE ----


def test_every_byte_level_token_is_its_bytes() -> None:
    tokens = TokenBytes(bpe())
    byte_of = {character: byte for byte, character in byte_alphabet().items()}
    for token, token_id in bpe().get_vocab().items():
        if token != EOS:
            assert tokens.to_bytes(token_id) == bytes(byte_of[c] for c in token)


def test_the_bpe_of_these_tests_really_crosses_borders() -> None:
    tokens = TokenBytes(bpe())
    for word in BPE_WORDS:
        assert tokens.to_bytes(bpe_id(word)) == word
    assert bpe().encode("</call>", add_special_tokens=False) == bpe_ids(b"</call>")
    assert bpe().encode("so.<call>", add_special_tokens=False)[-1] != bpe_id(b"<call>"), "'.<' merges before '<call>'"


@given(st.text(max_size=40))
def test_byte_level_ids_joined_are_the_text(text: str) -> None:
    assert TokenBytes(bpe()).join(bpe().encode(text, add_special_tokens=False)) == text.encode()


@given(st.binary(max_size=30))
def test_byte_level_encode_writes_any_bytes(data: bytes) -> None:
    tokens = TokenBytes(bpe())
    assert tokens.join(tokens.encode(data)) == data


BPE_ENCODE_CASES = [
    # bytes, tokens, why
    (b"", [], "nothing"),
    (b".", [b"."], "one byte"),
    (b" <", [b" <"], "the tokenizer's own encoding, merges included"),
    (b"\xc3\xa9", [b"\xc3\xa9"], "a whole character"),
    (b"\xa9", [b"\xa9"], "half a character"),
    (b"\xa9<", [b"\xa9", b"<"], "cut inside a character: byte by byte, though a merge exists"),
]


@pytest.mark.parametrize(("data", "pieces", "why"), BPE_ENCODE_CASES)
def test_byte_level_encode(data: bytes, pieces: list[bytes], why: str) -> None:
    assert TokenBytes(bpe()).encode(data) == bpe_ids(*pieces), why


def test_special_and_added_tokens_are_their_text() -> None:
    tokenizer = make_bpe([b"so"], added=("</think>", "é ü"))
    tokens = TokenBytes(tokenizer)
    assert tokens.to_bytes(tokenizer.eos_token_id) == EOS.encode()
    for text in ("</think>", "é ü"):
        [token_id] = tokenizer.encode(text, add_special_tokens=False)
        assert tokens.to_bytes(token_id) == text.encode(), "no byte alphabet here"


def test_a_token_with_characters_outside_the_byte_table_is_its_own_text() -> None:
    """As its own decoder has it (guidance#782)."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    model = json.loads(make_bpe(BPE_WORDS).backend_tokenizer.to_str())
    ids = {token: max(model["model"]["vocab"].values()) + 100 + i for i, token in enumerate(("你好", "a你", "🙂"))}
    model["model"]["vocab"] |= ids
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(model)))
    tokens = TokenBytes(tokenizer)
    for token, token_id in ids.items():
        assert tokens.to_bytes(token_id) == token.encode() == tokenizer.decode([token_id]).encode()
    assert tokens.join([*b"x", ids["你好"], *b"y"]) == "x你好y".encode()


def test_an_id_without_a_name_has_no_text() -> None:
    assert TokenBytes(bpe()).to_bytes(len(bpe()) + 100) == b""


# ---- SentencePiece's way ----


@pytest.mark.parametrize("style", STYLES)
def test_sentencepiece_tokens(style: str) -> None:
    tokenizer = sentencepiece(style)
    tokens = TokenBytes(tokenizer)
    vocab = tokenizer.get_vocab()
    cases = [
        ("▁so", b" so", "the mark is a blank"),
        ("▁<call>", b" <call>", "also before a command"),
        ("▁", b" ", "alone too"),
        ("<0x0A>", b"\n", "a byte token"),
        ("<0xC3>", b"\xc3", "half a character"),
        ("é", "é".encode(), "a character outside ASCII"),
        ("</call>", b"</call>", "plain"),
        ("</s>", b"</s>", "a special token is its text"),
    ]
    for token, data, why in cases:
        assert tokens.to_bytes(vocab[token]) == data, why


@pytest.mark.parametrize("style", STYLES)
@given(text=st.text(alphabet="abc0 .<>/é中\n", max_size=20))
def test_sentencepiece_ids_joined_are_the_text(style: str, text: str) -> None:
    tokenizer = sentencepiece(style)
    joined = TokenBytes(tokenizer).join(tokenizer.encode(text, add_special_tokens=False))
    added = b" " if style == "replace" and text else b""  # the blank such tokenizers put in front
    assert joined == added + text.encode()


@pytest.mark.parametrize("style", STYLES)
@given(data=st.one_of(st.binary(max_size=12), st.text(alphabet="ab .<é", max_size=12).map(str.encode)))
def test_sentencepiece_encode_writes_any_bytes(style: str, data: bytes) -> None:
    tokens = TokenBytes(sentencepiece(style))
    assert tokens.join(tokens.encode(data)) == data, "no blank is put in front, no byte is lost"


# ---- others ----


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=20))
def test_a_plain_tokenizer_encodes_and_joins(text: str) -> None:
    tokenizer = ByteTokenizer()
    tokens = TokenBytes(tokenizer)
    assert tokens.encode(text.encode()) == tokenizer.encode(text)
    assert tokens.to_bytes(tokenizer.eos_token_id) == b""


class Letters:
    """A vocabulary of three tokens: 'a', 'b' and '.<'."""

    eos_token_id = None
    texts = ("a", "b", ".<")

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return [self.texts.index(c) for c in text if c in self.texts]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        return "".join(self.texts[i] for i in token_ids)

    def get_vocab(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.texts)}


def test_bytes_that_the_vocabulary_cannot_write_are_named() -> None:
    tokens: Any = TokenBytes(Letters())
    assert tokens.encode(b"ab") == [0, 1]
    with pytest.raises(ValueError, match=r"no token for the byte b'\.'"):
        tokens.encode(b".")


def test_the_text_of_a_special_token_is_asked_for_once() -> None:
    asked = []

    class Counting(ByteTokenizer):
        def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
            asked.append(token_ids)
            return super().decode(token_ids)

    tokens = TokenBytes(Counting())
    assert tokens.join([97, 97, 97]) == b"aaa"
    assert asked == [[97]]


@pytest.mark.parametrize("cleans_up", [True, False])
@pytest.mark.parametrize("text", ["x != y", "\\boxed{3 .5}", "for 'manual', do n't", "a , b ? c !"])
def test_what_is_graded_is_the_text_as_it_was_written(text: str, cleans_up: bool) -> None:
    """Llama 3's tokenizer files ask for a clean-up that takes blanks out in front of marks (transformers#32575,
    sglang#1510); the transformers of this project leaves a BPE's text alone."""
    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.clean_up_tokenization_spaces = cleans_up
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text == TokenBytes(tokenizer).join(ids).decode()
