"""What a reader gets of a response while it is written: no character of a command, none too early, each token once."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.deltas import Delta, DeltaReader
from relay_verl.protocol import find_beginning_in_bytes, find_calls, strip_calls
from relay_verl.tokenization import TokenBytes
from relay_verl.types import Segment
from tests.helpers.real_tokenizers import tokenizer_called, tokens_of
from tests.helpers.tokenizers import COMMAND, bpe_ids, cut, fragments

BYTES = tokens_of("bpe")  # the ids of its single bytes are the bytes
EOS = tokenizer_called("bpe").eos_token_id
EXAMPLE = "<call>0</call>"
CHOICES = st.lists(st.integers(0, 5), min_size=1, max_size=6)
STOPS = st.lists(st.sampled_from(["x", ". ", " so x", "é", "<", ">", "\n\n", "xx", "<call>", "5"]), max_size=3)


def segments_of(*pieces: tuple[str, str]) -> list[Segment]:
    """(first letter of the author, text) in single-byte tokens, '$' for the EOS."""
    ids = [[EOS if byte == ord("$") else byte for byte in text.encode()] for _, text in pieces]
    authors: dict[str, Any] = {"s": "student", "t": "teacher"}
    return [Segment(authors[who], own, [-0.5] * len(own)) for (who, _), own in zip(pieces, ids, strict=True)]


def read(segments: list[Segment], tokens: TokenBytes = BYTES, **options: Any) -> tuple[list[Delta], DeltaReader]:
    reader = DeltaReader(tokens, **options)
    deltas = [delta for segment in segments for delta in reader.feed(segment)]
    return deltas + reader.end(), reader


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def tokens_in(deltas: list[Delta]) -> list[tuple[str, int]]:
    return [(delta.source, token_id) for delta in deltas for token_id in delta.token_ids]


def rechunk(segments: list[Segment], sizes: list[int]) -> list[Segment]:
    """The same tokens in other pieces."""
    pieces: list[Segment] = []
    for segment in segments:
        ids = segment.token_ids
        logprobs = segment.logprobs or [0.0] * len(ids)
        while ids:
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(Segment(segment.source, ids[:size], logprobs[:size]))
            ids, logprobs = ids[size:], logprobs[size:]
    return pieces


# ---- tables ----

TEXT_CASES = [
    # segments, text without commands, why
    ([("s", "a<call>2</call>"), ("t", "xy"), ("s", "b$")], "axyb", "a call"),
    ([("s", "a <call> 20\n</call>"), ("t", "x")], "a x", "blanks"),
    ([("s", "a<call>0</call>b$")], "ab", "not served, and a command"),
    ([("s", "a<call>x</call>b$")], "a<call>x</call>b", "malformed: not a command"),
    ([("s", "1 < 2 <c> </call> <$")], "1 < 2 <c> </call> <", "text that looks like a beginning"),
    ([("s", "a<ca$")], "a<ca", "the student ended it there"),
    ([("s", "a<call>2$")], "a", "a whole opening tag is never text at the end"),
    ([("s", "a<ca")], "a", "cut off in what may be a command"),
    ([("s", "a<call>20</call")], "a", "cut off before its last character"),
    ([("s", "<ca<call>2</call>"), ("t", "ll>3</call>b$")], "b", "halves of another one come together"),
    ([("s", "<call>2</call>"), ("t", "<call>5</call>x$")], "x", "a command of the teacher's is not shown, either"),
    ([("s", "a\xe9<call>2</call>\u20ac$")], "a\xe9\u20ac", "characters of several bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "text", "why"), TEXT_CASES, ids=[why for *_, why in TEXT_CASES])
@pytest.mark.parametrize("size", [1, 2, 3, 99])
def test_text_without_commands(pieces: list, text: str, why: str, size: int) -> None:
    deltas, _ = read(rechunk(segments_of(*pieces), [size]))
    assert text_of(deltas) == text, why


def test_a_bracket_is_held_back_and_no_longer_than_it_has_to_be() -> None:
    reader = DeltaReader(BYTES)
    shown = [text_of(reader.feed(segment)) for segment in rechunk(segments_of(("s", "a<b<call>2</call>c<")), [1])]
    assert shown == ["a", "", "<b", *[""] * 14, "c", ""]


def test_commands_are_shown_in_deltas_of_their_own() -> None:
    segments = segments_of(("s", "a<call>2</call>"), ("t", "x<call>7</call>"), ("s", "b<call>x</call>$"))
    for size in (1, 4, 99):
        deltas, _ = read(rechunk(segments, [size]), show_commands=True)
        assert text_of(deltas) == "a<call>2</call>x<call>7</call>b<call>x</call>"
        commands = [(delta.source, delta.text) for delta in deltas if delta.kind == "command" and delta.text]
        assert commands[0] == ("student", "<call>2</call>")
        assert tokens_in(deltas) == [(s.source, i) for s in segments for i in s.token_ids]


def test_tokens_of_a_command_are_marked_also_where_it_is_not_shown() -> None:
    segments = [
        Segment("student", bpe_ids(b" so", b"<call>", b"20", b"</call>\n", b"x"), [-1.0, -2.0, -3.0, -4.0, -5.0])
    ]
    deltas, _ = read(rechunk(segments, [1]), BYTES)
    got = [(delta.kind, delta.text, delta.token_ids, delta.logprobs) for delta in deltas]
    assert got == [
        ("text", " so", bpe_ids(b" so"), [-1.0]),
        ("command", "", bpe_ids(b"<call>", b"20"), [-2.0, -3.0]),
        ("text", "\n", bpe_ids(b"</call>\n"), [-4.0]),
        ("text", "x", bpe_ids(b"x"), [-5.0]),
    ], "a token that holds text is text"


STOP_CASES = [
    # segments, stop, text, reason, why
    ([("s", "abcd$")], ["c"], "ab", "c", "one author"),
    ([("s", "ab<call>2</call>"), ("t", "cd")], ["bc"], "a", "bc", "over both authors and the command between them"),
    ([("s", "a<call>2</call>"), ("t", "b"), ("s", "c$")], ["abc"], "", "abc", "over three turns"),
    ([("s", "abab$")], ["abc"], "abab", None, "only a beginning of it"),
    ([("s", "abcd$")], ["cd", "bc"], "a", "bc", "the one that is complete first"),
    ([("s", "abcd$")], ["d", "cd"], "abc", "d", "the first named of two that end together"),
    ([("s", "a<call>2</call>b$")], ["<call>"], "ab", None, "commands are not text"),
    ([("s", "1<2$")], ["<"], "1", "<", "what is held back and then is text"),
    ([("s", "1<$")], ["<"], "1", "<", "at the end"),
    ([("s", "1<")], ["<"], "1", None, "cut off there it is not text"),
    ([("s", "a\u20acb$")], ["\u20ac"], "a", "\u20ac", "a character of several bytes"),
    ([("s", "ab$")], [""], "ab", None, "an empty one"),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "stop", "text", "reason", "why"), STOP_CASES, ids=[c[-1] for c in STOP_CASES])
@pytest.mark.parametrize("size", [1, 2, 99])
@pytest.mark.parametrize("shows", [False, True])
def test_stop_strings(pieces: list, stop: list, text: str, reason: Any, why: str, size: int, shows: bool) -> None:
    segments = rechunk(segments_of(*pieces), [size])
    deltas, reader = read(segments, stop=stop, show_commands=shows)
    if why == "cut off there it is not text" and shows:
        text, reason = "1", "<"
    shown = "".join(delta.text for delta in deltas if delta.kind == "text")
    assert (shown, reader.stop_reason, reader.is_stopped) == (text, reason, reason is not None), why
    included, _ = read(segments, stop=stop, include_stop=True, show_commands=shows)
    assert "".join(delta.text for delta in included if delta.kind == "text") == text + (reason or "")
    assert tokens_in(deltas) == [(s.source, i) for s in segments for i in s.token_ids], "all of them are paid for"


def test_special_tokens_are_left_out_unless_asked_for() -> None:
    segments = [Segment("student", [*bpe_ids(b"x"), EOS])]
    assert text_of(read(segments, BYTES)[0]) == "x"
    assert text_of(read(segments, BYTES, skip_end=False)[0]) == "x<|end|>"


def test_half_a_character_is_never_given() -> None:
    reader = DeltaReader(BYTES)
    student, teacher = "é".encode()[:1], "é".encode()[1:]
    assert text_of(reader.feed(Segment("student", [*b"a", *student, *b"<call>2</call>"]))) == "a"
    [delta] = reader.feed(Segment("teacher", [*teacher, *b"b"]))
    assert (delta.text, delta.source) == ("éb", "teacher")
    assert text_of(reader.feed(Segment("student", [*student]))) == ""
    assert reader.end() == [], "cut off in a character"


# ---- all of it, over random responses ----


def strip_all(data: bytes) -> bytes:
    """Commands taken out until none is left."""
    while COMMAND.search(data):
        data = COMMAND.sub(b"", data, count=1)
    return data


def is_beginning(data: bytes) -> bool:
    """Whether this is the beginning of a command, said another way than the package says it."""
    tails = [EXAMPLE.encode()[start:] for start in range(1, len(EXAMPLE))]
    return any(COMMAND.fullmatch(data + tail) for tail in tails)


def beginning_of(data: bytes) -> int:
    """The first offset from which on everything is beginnings of commands."""
    is_good = [False] * len(data) + [True]
    for start in range(len(data) - 1, -1, -1):
        is_good[start] = any(is_good[end] and is_beginning(data[start:end]) for end in range(start + 1, len(data) + 1))
    return is_good.index(True)


@settings(max_examples=120)
@given(fragments(max_size=6))
def test_the_beginning_of_a_command(data: bytes) -> None:
    stripped = strip_all(data)
    assert find_beginning_in_bytes(stripped, is_nested=True) == beginning_of(stripped)
    flat = find_beginning_in_bytes(stripped, is_nested=False)
    longest = next((start for start in range(len(stripped)) if is_beginning(stripped[start:])), len(stripped))
    assert flat == longest


@st.composite
def responses(draw: st.DrawFn) -> list[Segment]:
    """Turns of both authors in BPE tokens cut anyhow."""
    segments: list[Segment] = []
    for number in range(draw(st.integers(1, 4))):
        ids = cut(draw(fragments(max_size=6)), draw(CHOICES))
        segments.append(Segment("teacher" if number % 2 else "student", ids, [-float(i) for i in ids]))
    if draw(st.booleans()):
        segments[-1] = Segment(segments[-1].source, [*segments[-1].token_ids, EOS], None)
    return segments


def check_shown(segments: list[Segment], text: str) -> None:
    """Assert that `text` is what a reader who did not ask for commands has to see in the end."""
    ids = [i for segment in segments for i in segment.token_ids]
    data = strip_all(BYTES.join([i for i in ids if i != EOS]))
    start = beginning_of(data)
    has_ended = bool(ids) and ids[-1] == EOS
    if not (has_ended and b"<call>" not in data[start:]):
        data = data[:start]
    whole = data.decode(errors="replace")
    # half a character at the end is not given
    assert text == whole or (whole.startswith(text) and set(whole[len(text) :]) == {"\ufffd"})


@settings(max_examples=120)
@given(responses(), st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_no_reader_sees_a_character_of_a_command(segments: list[Segment], sizes: list[int]) -> None:
    reader = DeltaReader(BYTES)
    shown = [text_of(reader.feed(piece)) for piece in rechunk(segments, sizes)]
    shown.append(text_of(reader.end()))
    text = "".join(shown)
    check_shown(segments, text)
    assert find_calls(text) == []
    # nothing is taken back, so no reader ever had more than a part of this
    assert not re.search(r"<call>[ \t\n\r\f\v]*[0-9]+[ \t\n\r\f\v]*(<(/(c(a(l(l)?)?)?)?)?)?\Z", text)


@settings(max_examples=120)
@given(responses(), STOPS, st.lists(st.integers(1, 5), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_deltas_do_not_depend_on_the_pieces(
    segments: list[Segment], stop: list[str], sizes: list[int], shows: bool, includes: bool
) -> None:
    options: dict[str, Any] = {"stop": stop, "show_commands": shows, "include_stop": includes}
    whole, whole_reader = read(segments, BYTES, **options)
    pieces = rechunk(segments, sizes)
    deltas, reader = read(pieces, BYTES, **options)
    assert text_of(deltas) == text_of(whole)
    by_author = [
        {who: "".join(d.text for d in each if d.source == who) for who in ("student", "teacher")}
        for each in (deltas, whole)
    ]
    assert by_author[0] == by_author[1]
    assert (reader.is_stopped, reader.stop_reason) == (whole_reader.is_stopped, whole_reader.stop_reason)
    assert tokens_in(deltas) == tokens_in(whole) == [(s.source, i) for s in segments for i in s.token_ids]
    assert all(d.logprobs is None or len(d.logprobs) == len(d.token_ids) for d in deltas)


@settings(max_examples=120)
@given(responses(), STOPS)
def test_the_text_ends_before_the_first_stop_string(segments: list[Segment], stop: list[str]) -> None:
    plain, _ = read(segments, BYTES)
    deltas, reader = read(segments, BYTES, stop=stop)
    text, whole = text_of(deltas), text_of(plain)
    ends = [whole.index(string) + len(string) for string in stop if string in whole]
    if not ends:
        assert (text, reader.is_stopped) == (whole, False)
        return
    assert reader.stop_reason is not None
    assert whole.startswith(text + reader.stop_reason)
    assert len(text) + len(reader.stop_reason) == min(ends)


@settings(max_examples=100)
@given(responses())
def test_shown_commands_are_the_students_text(segments: list[Segment]) -> None:
    deltas, _ = read(segments, BYTES, show_commands=True)
    commands = [delta for delta in deltas if delta.kind == "command" and delta.text]
    assert all(find_calls(delta.text) and strip_calls(delta.text) == "" for delta in commands)
    texts = [BYTES.join(s.token_ids) for s in segments]
    assert len(commands) == sum(len(COMMAND.findall(text)) for text in texts)
