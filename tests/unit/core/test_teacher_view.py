"""What the teacher scores of a response: the student's own tokens, commands apart, each where it stands."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.engines import Generation
from relay_verl.protocol import strip_with_sources
from relay_verl.teacher_view import view_response
from relay_verl.tokenization import TokenBytes
from relay_verl.transcript import Transcript
from relay_verl.types import RelayStatus, RelayTrajectory, Segment
from tests.helpers.tokenizers import COMMAND, ByteTokenizer, bpe, bpe_ids, cut, fragments

PROMPT = [9, 8, 7]
BYTES = TokenBytes(ByteTokenizer())
EOS = ByteTokenizer.eos_token_id
BEGUN = re.compile(rb"(?:<c?|<ca|<cal|<call|<call>\s*|<call>\s*\d+\s*(?:<|</|</c|</ca|</cal|</call)?)\Z")
"""A text that ends with the beginning of a command."""


def trajectory(*segments: Segment) -> RelayTrajectory:
    return RelayTrajectory(PROMPT, list(segments), RelayStatus.COMPLETED)


def student(text: str, **options: Any) -> Segment:
    return Segment("student", list(text.encode()), **options)


def test_commands_and_the_teachers_tokens_have_no_place() -> None:
    response = trajectory(
        student("ab<call>3</call>"), Segment("teacher", list(b"xyz")), Segment("student", [*b"c", EOS])
    )
    view = view_response(response, BYTES, has_commands=True)
    assert view.token_ids == [*PROMPT, *b"abxyzc", EOS]
    assert view.places == [3, 4, *[None] * 14, *[None] * 3, 8, 9]
    assert view.num_scored == 4


def test_what_follows_the_last_scored_token_is_not_read() -> None:
    response = trajectory(student("a<call>3</call>"), Segment("teacher", [*b"xyz", EOS]))
    assert view_response(response, BYTES, has_commands=True).token_ids == [*PROMPT, *b"a"]
    alone = trajectory(student("<call>3</call>"), Segment("teacher", [*b"xyz", EOS]))
    assert (view_response(alone, BYTES, has_commands=True).token_ids, len(alone.response_ids)) == ([], 18)


def test_forced_tokens_have_no_place() -> None:
    response = trajectory(student("ab", is_forced=[False, True]))
    assert view_response(response, BYTES, has_commands=True).places == [3, None]


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        ("ab<call8c", "ab<c"),  # '<' stands behind text, '8' breaks the command off, and 'c' is text again
        ("a<call>x", "a<"),
        ("a<call>12x", "a<"),
        ("a<call>1</call8c", "a<c"),
        ("1 < 2", "1 <2"),
    ],
)
def test_what_follows_the_beginning_of_a_command_has_no_place(text: str, placed: str) -> None:
    """Scored, the teacher's tokens behind it would teach the student to break its commands off."""
    places = view_response(trajectory(student(text)), BYTES, has_commands=True).places
    assert "".join(char for char, place in zip(text, places, strict=True) if place is not None) == placed


def test_without_calls_a_command_is_text_like_any_other() -> None:
    response = trajectory(student("a<call>3</call>b"))
    view = view_response(response, BYTES, has_commands=False)
    assert view.token_ids == PROMPT + response.response_ids
    assert view.places == list(range(3, 3 + len(response.response_ids)))


def test_a_token_that_a_command_touches_has_no_place() -> None:
    tokens = TokenBytes(bpe())
    ids = bpe_ids(b" so", b" <call", b">2", b"</call>\n", b" so")
    view = view_response(trajectory(Segment("student", ids)), tokens, has_commands=True)
    assert view.places == [3, None, None, None, len(view.token_ids) - 1]
    assert tokens.join(view.token_ids[3:]) == b" so \n so", "the blank and the line break are encoded anew"


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(fragments(), min_size=1, max_size=5),
    choices=st.lists(st.integers(0, 9), min_size=1, max_size=7),
)
def test_the_view_is_what_the_teacher_is_called_with(texts: list[bytes], choices: list[int]) -> None:
    tokens = TokenBytes(bpe())
    pieces = [cut(text, choices) for text in texts]
    pieces = [piece for piece in pieces if piece]
    written = Transcript(PROMPT, 10**6, tokens)
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            written.append_student(Generation(list(piece), None, "stop"))
        else:
            written.close_turn()
            written.append_teacher(Generation(list(piece), None, "length"))
    response = trajectory(*written.segments)
    view = view_response(response, tokens, has_commands=True)
    assert written.teacher_context()[: len(view.token_ids)] == view.token_ids

    ids = response.response_ids
    assert len(view.places) == len(ids)
    placed = [(token_id, place) for token_id, place in zip(ids, view.places, strict=True) if place is not None]
    assert [view.token_ids[place] for _, place in placed] == [token_id for token_id, _ in placed]
    assert [place for _, place in placed] == sorted({place for _, place in placed})
    assert not placed or placed[-1][1] == len(view.token_ids) - 1

    untouched = sum(_untouched(segment.token_ids, tokens) for segment in response.segments if segment.source[0] == "s")
    assert view.num_scored == untouched


def _untouched(token_ids: list[int], tokens: TokenBytes) -> int:
    """Tokens of a turn that no command touches and none can hold, by a grammar that is written a second time."""
    data, end, num = tokens.join(token_ids), 0, 0
    inside = [span for match in COMMAND.finditer(data) for span in range(*match.span())]
    for token_id in token_ids:
        start, end = end, end + len(tokens.to_bytes(token_id))
        num += not set(range(start, end)) & set(inside) and not BEGUN.search(data[:start])
    return num


def test_sources_are_where_the_tokens_stood() -> None:
    ids = list(b"a<call>5</call>b")
    assert strip_with_sources(ids, BYTES) == [(ids[0], 0), (ids[-1], len(ids) - 1)]
