"""The command's grammar on text, on bytes and on token ids."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.protocol import (
    MAX_NUM_TOKENS,
    Call,
    count_malformed_calls,
    find_calls,
    find_calls_in_bytes,
    format_call,
    strip_call_tokens,
    strip_calls,
)
from relay_verl.tokenization import TokenBytes
from tests.helpers.tokenizers import ByteTokenizer, bpe, bpe_id, bpe_ids, check_stripped, cut, fragments

BLANKS = " \t\n\r\f\v"

# ---- text ----

FIND_CASES = [
    # text, commands, why
    ("", [], "nothing"),
    ("<call>20</call>", [Call(0, 15, 20)], "the plain case"),
    ("a<call>5</call>b<call>6</call>", [Call(1, 15, 5), Call(16, 30, 6)], "two, in order"),
    ("<call>5</call><call>6</call>", [Call(0, 14, 5), Call(14, 28, 6)], "side by side"),
    ("é<call>5</call>", [Call(1, 15, 5)], "offsets are characters, not bytes"),
    (f"<call>{BLANKS}5{BLANKS}</call>", [Call(0, 26, 5)], "all six ASCII blanks, before and after"),
    ("<call>0</call>", [Call(0, 14, 0)], "zero is well-formed"),
    ("<call>007</call>", [Call(0, 16, 7)], "leading zeros are digits"),
    ("<call><call>5</call>", [Call(6, 20, 5)], "the inner one"),
    ("<call>5</call></call>", [Call(0, 14, 5)], "a second close is text"),
    ("<call>5<call>6</call>", [Call(7, 21, 6)], "the first never closes"),
    ("<call></call>", [], "no number"),
    ("<call> </call>", [], "blanks are not a number"),
    ("<call>5 5</call>", [], "two numbers"),
    ("<call>-5</call>", [], "a sign"),
    ("<call>+5</call>", [], "a sign"),
    ("<call>5.0</call>", [], "a point"),
    ("<call>1_000</call>", [], "Python's digit groups"),
    ("<call>1e3</call>", [], "an exponent"),
    ("<call>0x5</call>", [], "hexadecimal"),
    ("<call>five</call>", [], "a word"),
    ("<call>٣</call>", [], "an Arabic-Indic digit is not an ASCII digit"),
    ("<call>５</call>", [], "a full-width digit"),
    ("<call>²</call>", [], "a superscript"),
    ("<call>5\u00a0</call>", [], "a no-break space is not an ASCII blank"),
    ("<call>\u20035</call>", [], "an em space"),
    ("<call>5\x1c</call>", [], "a separator that str.isspace() takes for a blank"),
    ("<call>5\x85</call>", [], "NEL"),
    ("<CALL>5</CALL>", [], "upper case"),
    ("< call>5</call>", [], "a blank inside the opening"),
    ("<call>5</ call>", [], "a blank inside the close"),
    ("<call>5</call", [], "not closed"),
    ("call>5</call>", [], "not opened"),
    ("<call>5<call>", [], "closed with an opening"),
    ("<call>5\n</call>\n", [Call(0, 15, 5)], "'$' and line ends play no part"),
]


@pytest.mark.parametrize(("text", "calls", "why"), FIND_CASES)
def test_find_calls(text: str, calls: list[Call], why: str) -> None:
    assert find_calls(text) == calls, why


STRIP_CASES = [
    # text, stripped, why
    ("a <call>20</call> b", "a  b", "no blank is added or taken"),
    ("  <call>20</call>\n", "  \n", "no strip at the ends"),
    ("<call>x</call>", "<call>x</call>", "malformed ones stay"),
    ("<ca<call>1</call>ll>2</call>", "<call>2</call>", "one pass: what it joins is not looked at again"),
    ("<call><call>5</call>5</call>", "<call>5</call>", "the same, nested"),
    ("<call>5</call></call>", "</call>", "the second close stays"),
]


@pytest.mark.parametrize(("text", "stripped", "why"), STRIP_CASES)
def test_strip_calls(text: str, stripped: str, why: str) -> None:
    assert strip_calls(text) == stripped, why


MALFORMED_CASES = [
    # text, count, why
    ("", 0, "nothing"),
    ("<call>3</call>", 0, "well-formed"),
    ("<call>x</call>", 1, "no number"),
    ("</call>", 1, "a close alone"),
    ("<call>3</call></call>", 1, "one is well-formed, one is not"),
    ("<call>", 0, "nothing was closed: the student may still be writing"),
    ("<call>x</call> <call>3</call> </call>", 2, "mixed"),
]


@pytest.mark.parametrize(("text", "count", "why"), MALFORMED_CASES)
def test_count_malformed_calls(text: str, count: int, why: str) -> None:
    assert count_malformed_calls(text) == count, why


def calls_by_hand(text: str) -> list[tuple[int, int, str]]:
    """The grammar read character by character: start, end and digits of each command."""
    calls, i = [], 0
    while i < len(text):
        j = i + len("<call>")
        if text[i:j] != "<call>":
            i += 1
            continue
        while text[j : j + 1] and text[j] in BLANKS:
            j += 1
        first = j
        while text[j : j + 1] and text[j] in "0123456789":
            j += 1
        digits = text[first:j]
        while text[j : j + 1] and text[j] in BLANKS:
            j += 1
        if digits and text[j : j + len("</call>")] == "</call>":
            calls.append((i, j + len("</call>"), digits))
            i = j + len("</call>")
        else:
            i += 1
    return calls


TEXTS = st.one_of(
    st.lists(
        st.sampled_from(["<call>", "</call>", "5", "0", "12", " ", "\n", "\u00a0", "٣", "a", "é", "<", ">", "/call>"]),
        max_size=14,
    ).map("".join),
    st.text(max_size=30),
)


@given(TEXTS)
def test_find_and_strip_agree_with_a_parser_by_hand(text: str) -> None:
    expected = calls_by_hand(text)
    assert [(c.start, c.end, c.num_tokens) for c in find_calls(text)] == [(s, e, int(d)) for s, e, d in expected]
    kept = [c for i, c in enumerate(text) if not any(start <= i < end for start, end, _ in expected)]
    assert strip_calls(text) == "".join(kept)
    assert count_malformed_calls(text) == text.count("</call>") - len(expected)


@given(st.integers(0, MAX_NUM_TOKENS), TEXTS, TEXTS)
def test_format_then_find(num_tokens: int, before: str, after: str) -> None:
    command = format_call(num_tokens)
    assert find_calls(command) == [Call(0, len(command), num_tokens)]
    assert strip_calls(command) == ""
    if "<" not in before:
        assert find_calls(before + command + after)[0] == Call(len(before), len(before + command), num_tokens)


@given(st.integers(0, 10**40))
def test_numbers_are_read_exactly_also_those_no_model_means(num_tokens: int) -> None:
    assert find_calls(format_call(num_tokens))[0].num_tokens == num_tokens


@pytest.mark.parametrize("bad", [-1, True, False, 1.0, "3", None, [3]])
def test_format_call_takes_counts_alone(bad: Any) -> None:
    with pytest.raises(ValueError, match="num_tokens"):
        format_call(bad)


MILLION = 10**6
LONG_CASES = [
    # text, numbers, why
    (f"<call>{'9' * MILLION}</call>", [10**4299], "past Python's limit of 4300 digits for int()"),
    (f"<call>{'0' * MILLION}7</call>", [7], "leading zeros add nothing"),
    (f"<call>{'0' * MILLION}</call>", [0], "a long zero"),
    (f"<call>{'9' * MILLION}", [], "digits that are never closed"),
    (f"<call>{' ' * MILLION}5", [], "blanks that lead nowhere"),
    (f"<call>5{' ' * MILLION}", [], "blanks that are never closed"),
    ("<call>" * (MILLION // 6), [], "openings alone"),
    ("<call>5" * (MILLION // 7) + "</call>", [5], "the last one closes"),
]


@pytest.mark.parametrize(("text", "numbers", "why"), LONG_CASES, ids=[why for _, _, why in LONG_CASES])
def test_long_texts_take_linear_time(text: str, numbers: list[int], why: str) -> None:
    started = time.process_time()
    assert [call.num_tokens for call in find_calls(text)] == numbers, why
    assert len(strip_calls(text)) == len(text) - sum(call.end - call.start for call in find_calls(text))
    assert time.process_time() - started < 5.0, why


def test_find_calls_in_bytes_counts_bytes_and_bears_cut_characters() -> None:
    assert find_calls_in_bytes("é<call>5</call>".encode()) == [Call(2, 16, 5)]
    assert find_calls_in_bytes(b"\xa9<call>5</call>\xc3") == [Call(1, 15, 5)]
    assert find_calls_in_bytes("<call>٣</call>".encode()) == []
    assert find_calls_in_bytes(b"<call>5\x85</call>") == [], "a continuation byte that latin-1 reads as NEL"
    assert find_calls_in_bytes(b"<call>\xa05</call>") == [], "one that latin-1 reads as a no-break space"
    assert find_calls_in_bytes(b"<call>\xb2</call>") == [], "one that latin-1 reads as a superscript two"


# ---- token ids ----

STRIP_TOKEN_CASES = [
    # tokens the student wrote, tokens the teacher sees, why
    ([b" so", b"<call>", b"20", b"</call>", b" so"], [b" so", b" so"], "borders between tokens: nothing is encoded"),
    ([b"<call>", b"20", b"</call"], [b"<call>", b"20", b"</call"], "no command: the same ids"),
    ([b"<call>", b"x", b"</call>"], [b"<call>", b"x", b"</call>"], "malformed: the same ids"),
    ([b"x", b".<", b"c", b"a", b"l", b"l", b">2", b"0<", b"/", b"c", b"a", b"l", b"l", b">.", b"x"],
     [b"x", b".", b".", b"x"], "every border inside a token; '..' has no token of its own"),
    ([b"<call>", b"0<", b"/", b"c", b"a", b"l", b"l", b">\xc3\xa9"], [b"\xc3\xa9"], "a whole character hangs on"),
    ([b"<call>", b"0<", b"/", b"c", b"a", b"l", b"l", b">\xc3", b"\xa9"], [b"\xc3", b"\xa9"], "half a character does"),
    ([b"\xc3", b"\xa9<", b"c", b"a", b"l", b"l", b">2", b"</call>"], [b"\xc3", b"\xa9"], "the other half does"),
    ([b"<call>", b"20", b"</call", b"><", b"c", b"a", b"l", b"l", b">2", b"</call>"], [], "two commands share a token"),
    ([b"<call>", b"20", b"</call>\n"], [b"\n"], "the close ends inside a token"),
    ([b"x<call>", b"20", b"</call>\n", b"\n"], [b"x", b"\n", b"\n"], "residues join, the next token is kept"),
    ([b"x", b" <call", b">2", b"0<", b"/", b"c", b"a", b"l", b"l", b"><", b"x"], [b"x", b" <", b"x"], "' <' is one"),
    ([b"\n", b"\n", b"<call>", b"20", b"</call>"], [b"\n", b"\n"], "what would merge if encoded again does not"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "seen", "why"), STRIP_TOKEN_CASES)
def test_strip_call_tokens(written: list[bytes], seen: list[bytes], why: str) -> None:
    tokens = TokenBytes(bpe())
    ids = bpe_ids(*written)
    assert strip_call_tokens(ids, tokens) == bpe_ids(*seen), why
    check_stripped(ids, strip_call_tokens(ids, tokens), tokens)


def test_a_residue_is_encoded_as_one_piece() -> None:
    ids = bpe_ids(b" <call", b">2", b"0<", b"/", b"c", b"a", b"l", b"l", b"><")
    assert strip_call_tokens(ids, TokenBytes(bpe())) == bpe_ids(b" <"), "' ' before and '<' after have a token together"


def test_strip_call_tokens_copies_when_there_is_nothing_to_strip() -> None:
    ids = bpe_ids(b"x", b".")
    stripped = strip_call_tokens(ids, TokenBytes(bpe()))
    assert stripped == ids
    assert stripped is not ids


def test_tokens_without_text_stay_where_they_are() -> None:
    nameless = 10**6  # a padded row of the model's vocabulary
    ids = [nameless, *bpe_ids(b"<call>", b"20"), nameless, *bpe_ids(b"</call>\n"), nameless]
    assert strip_call_tokens(ids, TokenBytes(bpe())) == [nameless, nameless, bpe_id(b"\n"), nameless]


def test_an_eos_inside_a_command_breaks_it() -> None:
    ids = [*bpe_ids(b"<call>", b"20"), bpe().eos_token_id, *bpe_ids(b"</call>")]
    assert strip_call_tokens(ids, TokenBytes(bpe())) == ids


@settings(max_examples=150)
@given(fragments(), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_strip_call_tokens_touches_only_what_a_command_touches(data: bytes, choices: list[int]) -> None:
    tokens = TokenBytes(bpe())
    ids = cut(data, choices)
    assert tokens.join(ids) == data
    check_stripped(ids, strip_call_tokens(ids, tokens), tokens)


@given(fragments().map(lambda data: data.decode("utf-8", errors="replace")))
def test_with_single_byte_tokens_stripping_ids_is_stripping_text(text: str) -> None:
    tokenizer = ByteTokenizer()
    stripped = strip_call_tokens(tokenizer.encode(text), TokenBytes(tokenizer))
    assert tokenizer.decode(stripped) == strip_calls(text)
