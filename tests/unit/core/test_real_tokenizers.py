"""Tokenizers of real models: ids as bytes, text within a text, and commands taken out of ids.

The invariants of the decoder over the same tokenizers are in test_invariants.py.
"""

import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from relay_verl.data.warmup import insert_calls
from relay_verl.protocol import find_calls_in_bytes, format_call, strip_call_tokens
from relay_verl.tokenization import Kind, TokenBytes, encode_within, kind_of
from tests.helpers.real_tokenizers import (
    BYTE_LEVEL,
    REAL,
    SENTENCEPIECE,
    cut_anyhow,
    ids_by_bytes,
    tokenizer_called,
    tokens_of,
)
from tests.helpers.tokenizers import check_stripped, fragments, make_bpe, sentencepiece

TEXTS = st.text(alphabet=st.characters(include_characters="\n\t", exclude_categories=("C",)), max_size=20)
"""Without control characters and unassigned ones, for some of which SmolLM2 has no bytes."""


@pytest.fixture(scope="module", autouse=True)
def tokenizers_are_loaded() -> None:
    """Their libraries draw random numbers when they are imported, which Hypothesis would take for ours."""
    for name in REAL:
        ids_by_bytes(name)


def is_byte_token(name: str, token_id: int) -> bool:
    token = tokenizer_called(name).convert_ids_to_tokens(token_id)
    return name in SENTENCEPIECE and re.fullmatch(r"<0x[0-9A-F]{2}>", token) is not None


# ---- ids as bytes ----


@pytest.mark.parametrize("name", REAL)
def test_the_kind_is_known(name: str) -> None:
    expected = Kind.BYTE_LEVEL if name in BYTE_LEVEL else Kind.SENTENCEPIECE
    assert kind_of(tokenizer_called(name)) is (Kind.MISTRAL_COMMON if name == "mistral_common" else expected)


@pytest.mark.parametrize("name", REAL)
@given(text=TEXTS)
def test_ids_joined_are_the_text(name: str, text: str) -> None:
    expected = unicodedata.normalize("NFC", text) if name == "qwen3" else text
    joined = tokens_of(name).join(tokenizer_called(name).encode(text, add_special_tokens=False)).decode("utf-8")
    assert joined in (expected, " " + expected), "SentencePiece puts a blank in front"


@pytest.mark.parametrize("name", REAL)
def test_ordinary_tokens_joined_are_what_the_tokenizer_decodes(name: str) -> None:
    """Each token of whole characters, behind one that takes the blank that SentencePiece leaves out."""
    tokenizer, tokens = tokenizer_called(name), tokens_of(name)
    [first, *_] = tokenizer.encode("x", add_special_tokens=False)
    ordinary = sorted(i for ids in ids_by_bytes(name).values() for i in ids)
    for token_id in ordinary[:: max(1, len(ordinary) // 2000)]:
        piece = tokens.to_bytes(token_id)
        if "\ufffd" not in piece.decode("utf-8", errors="replace") and not is_byte_token(name, token_id):
            decoded = tokenizer.decode([first, token_id], skip_special_tokens=False)
            assert decoded == "x" + piece.decode("utf-8"), tokenizer.convert_ids_to_tokens(token_id)


@pytest.mark.parametrize("name", REAL)
def test_special_tokens_are_their_text_and_unnamed_rows_have_none(name: str) -> None:
    tokenizer, tokens = tokenizer_called(name), tokens_of(name)
    assert tokens.to_bytes(tokenizer.eos_token_id) == tokenizer.eos_token.encode("utf-8")
    assert tokens.to_bytes(len(tokenizer) + 1000) == b""


def test_an_added_token_of_characters_that_stand_for_bytes_is_its_text() -> None:
    tokenizer = make_bpe([b"so"], added=("é", "Ġ"))
    for text in ("é", "Ġ"):
        [token_id] = tokenizer.encode(text, add_special_tokens=False)
        assert TokenBytes(tokenizer).to_bytes(token_id) == text.encode("utf-8")


def test_added_tokens_of_sentencepiece_are_blanks_where_they_are_words() -> None:
    tokenizer = sentencepiece.__wrapped__("metaspace")  # one of its own, for it is changed
    tokenizer.add_tokens([AddedToken("\u2581\u2581", normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<a\u2581b>"]})
    tokens = TokenBytes(tokenizer)
    pieces = tokenizer.convert_tokens_to_ids(["\u2581\u2581", "<a\u2581b>"])
    assert [tokens.to_bytes(i) for i in pieces] == [b"  ", "<a\u2581b>".encode()]


# ---- text within a text ----


@pytest.mark.parametrize("name", REAL)
@given(text=TEXTS)
def test_text_within_a_text_keeps_its_bytes(name: str, text: str) -> None:
    tokens = tokens_of(name)
    assert tokens.join(tokens.encode(text.encode("utf-8"))) == text.encode("utf-8")


@pytest.mark.parametrize("name", [name for name in REAL if name != "smollm2"])
@given(data=st.binary(max_size=12))
def test_any_bytes_can_be_written(name: str, data: bytes) -> None:
    assert tokens_of(name).join(tokens_of(name).encode(data)) == data


def test_bytes_that_smollm2_lacks_are_named() -> None:
    with pytest.raises(ValueError, match=r"no token for the byte b'\\xff'"):
        tokens_of("smollm2").encode(b".\xff")


@pytest.mark.parametrize("name", REAL)
def test_a_character_with_a_token_of_its_own_is_that_token(name: str) -> None:
    """Not a byte token, and not single bytes: models read '.', not '<0x2E>'."""
    tokens = tokens_of(name)
    for character in [*map(chr, range(32, 127)), "\n", "é", "中", "…", "→", "\u0301"]:
        data = character.encode("utf-8")
        own = [i for i in ids_by_bytes(name).get(data, ()) if not is_byte_token(name, i)]
        if own:
            assert tokens.encode(data) in [[i] for i in own], character


WITHIN = [
    # bytes, as text or as single bytes, why
    (b" <", [b" <"], "a blank that is there stays, and merges"),
    (b">\n\n", None, "more than one character"),
    (b"\xa9so", [b"\xa9", b"so"], "a cut character, then a word: the word is whole"),
    (b"so\xc3", [b"so", b"\xc3"], "the same at the end"),
    (b"\xa9.\xc3", [b"\xa9", b".", b"\xc3"], "and at both"),
]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("data", "pieces", "why"), WITHIN)
def test_encode_within(name: str, data: bytes, pieces: list[bytes] | None, why: str) -> None:
    tokens = tokens_of(name)
    ids = tokens.encode(data)
    assert tokens.join(ids) == data
    if pieces is not None:
        assert [tokens.to_bytes(i) for i in ids] == pieces, why


@pytest.mark.parametrize("name", REAL)
def test_no_text_becomes_a_special_token(name: str) -> None:
    tokenizer, tokens = tokenizer_called(name), tokens_of(name)
    ids = tokens.encode(tokenizer.eos_token.encode("utf-8"))
    assert tokenizer.eos_token_id not in ids
    assert tokens.join(ids) == tokenizer.eos_token.encode("utf-8")


# ---- commands ----


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=60)
@given(data=fragments(), choices=st.lists(st.integers(0, 7), min_size=1, max_size=8))
def test_strip_call_tokens_touches_only_what_a_command_touches(name: str, data: bytes, choices: list[int]) -> None:
    ids = cut_anyhow(name, data, choices)
    check_stripped(ids, strip_call_tokens(ids, tokens_of(name)), tokens_of(name))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("before", [b"", b".", b"=", b" ", b"so"])
@pytest.mark.parametrize("after", [b"", b".", b"\n\n", b"<", b"so"])
def test_what_hangs_on_a_command_reaches_the_teacher_as_a_model_writes_it(
    name: str, before: bytes, after: bytes
) -> None:
    """The borders lie inside tokens where the vocabulary has such tokens ('.<', '>.', '>\\n\\n')."""
    tokens = tokens_of(name)
    text = b"x" + before + b"<call>20</call>" + after + b"y"
    longest = 7
    ids = cut_anyhow(name, text, [longest, 0])
    stripped = strip_call_tokens(ids, tokens)
    assert tokens.join(stripped) == b"x" + before + after + b"y"
    written_as_bytes = [i for i in stripped if is_byte_token(name, i) and i not in ids]
    has_no_other = all(is_byte_token(name, i) for i in ids_by_bytes(name)[b"\n"])
    assert not [i for i in written_as_bytes if tokens.to_bytes(i) != b"\n" or not has_no_other]


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_sentencepiece_gives_the_teacher_a_full_stop(name: str) -> None:
    tokenizer, tokens = tokenizer_called(name), tokens_of(name)
    ids = tokenizer.convert_tokens_to_ids(["\u2581so", ".<", "call", ">", "5", "</", "call", ">"])
    assert tokenizer.unk_token_id not in ids
    seen = tokenizer.convert_ids_to_tokens(strip_call_tokens(ids, tokens))
    assert seen == ["\u2581so", "."], "not <0x2E>"


@pytest.mark.parametrize("name", REAL)
@given(text=TEXTS.filter(lambda text: "<" not in text), seed=st.integers(0, 99), num_calls=st.integers(0, 3))
def test_commands_of_the_warm_up_add_no_blank(name: str, text: str, seed: int, num_calls: int) -> None:
    tokenizer, tokens = tokenizer_called(name), tokens_of(name)
    ids = tokenizer.encode(text, add_special_tokens=False)
    with_calls = insert_calls(ids, tokenizer, np.random.default_rng(seed), num_calls=min(num_calls, len(ids)))
    data = tokens.join(with_calls)
    assert len(find_calls_in_bytes(data)) == min(num_calls, len(ids))
    assert strip_call_tokens(with_calls, tokens) == ids, "the ids of the student's own response"
    assert re.sub(rb"<call>[0-9]+</call>", b"", data) == tokens.join(ids)


@pytest.mark.parametrize("name", REAL)
def test_a_command_within_a_text_has_no_blank_in_front(name: str) -> None:
    assert tokens_of(name).join(encode_within(tokenizer_called(name), format_call(20))) == b"<call>20</call>"


def test_an_encoder_without_a_decoder_is_asked_directly() -> None:
    class Encoder:
        def encode(self, text: str, *, add_special_tokens: bool) -> list[Any]:
            return [text, add_special_tokens]

    assert encode_within(Encoder(), "<call>1</call>") == ["<call>1</call>", False]
