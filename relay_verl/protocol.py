"""The command's grammar, on text and on token ids (paper 2.1).

The student asks for help by writing ``<call>n</call>`` as plain text. This module says which texts are commands and
what a sequence of token ids looks like once they are taken out (paper 2.2). Pure: no torch, no Ray, no verl.

Invariant: `strip_call_tokens` keeps the id of every token that no command touches; only the characters that a token
shares with a command's border are encoded again.

A worked example, with a tokenizer that has a token for ``>.``::

    token ids    | So | < | call | > | 20 | </ | call | >. | Then |
    characters   | So   <call>20</call>                 .    Then
    stripped     | So |                                 | . | Then |     '>.' is encoded again as '.'; 'So', 'Then' stay

Departure from the released code: it decodes the whole context, strips white space and encodes it again, so that ids
drift from those that were sampled.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from relay_verl.tokenization import TokenBytes

OPEN = "<call>"
CLOSE = "</call>"

MAX_NUM_TOKENS = 10**15
"""What records and metrics count of a larger n: no model writes so much, and sums still fit an int64."""

_MAX_DIGITS = 4299  # Python converts one more; a longer number is read as 10 to this power

_MAX_MALFORMED_CHARS = 32
"""Longest text between two tags that is taken for a malformed command's content, not for the response's own words."""

_COMMAND = re.compile(r"<call>[ \t\n\r\f\v]*([0-9]+)[ \t\n\r\f\v]*</call>")
_BEGINNING = re.compile(
    rb"<(?:c(?:a(?:l(?:l(?:>[ \t\n\r\f\v]*(?:[0-9]+[ \t\n\r\f\v]*(?:<(?!c)(?:/(?:c(?:a(?:ll?)?)?)?)?)?)?)?)?)?)?)?"
)
"""Every beginning of a command. A `<` behind the number is not the closing tag's if another command begins with it."""
_BLANKS, _MARKUP = " \t\n\r\f\v", frozenset("<>{}\\")
_UP_TO_TAG_END = re.compile(r"[^>]*>|[^>]+")
_CLOSE_CHARS = list(CLOSE)
_WINDOW = len(OPEN) + 64
"""Characters before a closing tag that are searched for its opening one."""


@dataclass(frozen=True)
class Call:
    """A well-formed command in a text."""

    start: int
    """Offset of its first character."""
    end: int
    """Offset one past its last character."""
    num_tokens: int
    """Teacher tokens asked for; may be 0."""


def format_call(num_tokens: int) -> str:
    """The command that asks for `num_tokens` teacher tokens.

    >>> format_call(20)
    '<call>20</call>'
    """
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or num_tokens < 0:
        raise ValueError(f"num_tokens: {num_tokens!r} is not a non-negative int")
    return f"{OPEN}{num_tokens}{CLOSE}"


def find_calls(text: str) -> list[Call]:
    """All well-formed commands, in order: ``<call>``, blanks, ASCII digits, blanks, ``</call>``.

    >>> find_calls("a<call>20</call>b<call>x</call>")
    [Call(start=1, end=16, num_tokens=20)]
    """
    return [Call(m.start(), m.end(), _parse_int(m.group(1))) for m in _COMMAND.finditer(text)]


def strip_calls(text: str) -> str:
    """`text` without its well-formed commands, all else untouched; one pass.

    >>> strip_calls("a <call>20</call> b")
    'a  b'
    """
    return _COMMAND.sub("", text)


def strip_attempted_calls(text: str) -> str:
    r"""`text` without its commands, well-formed or not: what a reader who judges the answer sees.

    Unlike `strip_calls`, a command that only appears once another one is taken out goes too, so that any number of
    commands inserted anywhere leave no trace. A malformed command goes with its content if that is short and holds
    none of the characters ``<>{}\``; otherwise, and where a tag has no partner, only the tags go. Linear in the text.

    >>> strip_attempted_calls(r"\boxed{4<call>20</call>2<call>x</call>}")
    '\\boxed{42}'
    """
    if OPEN not in text and CLOSE not in text:
        return text
    kept: list[str] = []  # one character each, so that taking off an end costs its own length only
    for piece in _UP_TO_TAG_END.findall(strip_calls(text)):
        kept += piece
        # Only a `>` can complete a tag, and removing a command restores what stood before it. So a tag that two pieces
        # form around a command is seen here like any other.
        if kept[-len(CLOSE) :] == _CLOSE_CHARS:
            del kept[-len(CLOSE) :]
            window = "".join(kept[-_WINDOW:])
            opening = window.rfind(OPEN)
            if opening >= 0 and _is_command_content(window[opening + len(OPEN) :]):
                del kept[len(kept) - len(window) + opening :]
    return "".join(kept).replace(OPEN, "")


def count_malformed_calls(text: str) -> int:
    """How many ``</call>`` close no well-formed command.

    >>> count_malformed_calls("<call>x</call> <call>3</call> </call>")
    2
    """
    return text.count(CLOSE) - len(find_calls(text))


def strip_call_tokens(token_ids: Sequence[int], tokens: TokenBytes) -> list[int]:
    """`token_ids` without the characters of their well-formed commands.

    Args:
        token_ids: what one model wrote in a row, [length].
        tokens: the tokenizer's view of its ids as bytes.

    Returns:
        Token ids; those that no command touches are the same objects in the same order.
    """
    kept: list[int] = []
    for ids, _ in _left(token_ids, tokens):
        kept += ids
    return kept


def strip_with_sources(token_ids: Sequence[int], tokens: TokenBytes) -> list[tuple[int, int | None]]:
    """The tokens of `strip_call_tokens`, each with its index in `token_ids`; None for one that was encoded again."""
    kept: list[tuple[int, int | None]] = []
    for ids, first in _left(token_ids, tokens):
        kept += ((each, None if first is None else first + offset) for offset, each in enumerate(ids))
    return kept


def _left(token_ids: Sequence[int], tokens: TokenBytes) -> Iterator[tuple[Sequence[int], int | None]]:
    """What `strip_call_tokens` leaves, in parts: tokens in a row with the index of the first one, and tokens that were
    encoded again with None."""
    pieces = tokens.pieces(token_ids)
    data = b"".join(pieces)
    if CLOSE.encode() not in data:
        yield token_ids, 0
        return
    # Nearly all tokens are touched by no command and are kept in slices; those of a command are looked at one by one,
    # together with those of the next one if no token lies between.
    ends = list(accumulate(map(len, pieces)))
    position = 0  # of the first token that is not kept or looked at yet
    calls = find_calls_in_bytes(data)
    while calls:
        first, past, num = bisect_right(ends, calls[0].start), 0, 0
        for call in calls:
            if num and bisect_right(ends, call.start) > past:
                break
            past, num = 1 + bisect_left(ends, call.end), num + 1
        yield token_ids[position:first], position
        start = ends[first - 1] if first else 0
        run = pieces[first:past]
        # a command whose borders are those of tokens leaves nothing, as it mostly is; an id without text would stay
        is_whole = num == 1 and start == calls[0].start and ends[past - 1] == calls[0].end
        if not (is_whole and all(run)):
            for ids, offset in _left_of_run(token_ids[first:past], run, start, calls[:num], tokens):
                yield ids, None if offset is None else first + offset
        position, calls = past, calls[num:]
    yield token_ids[position:], position


def _left_of_run(
    token_ids: Sequence[int], pieces: Sequence[bytes], start: int, calls: Sequence[Call], tokens: TokenBytes
) -> Iterator[tuple[Sequence[int], int | None]]:
    """`_left` of a run of tokens that begins at byte `start`; indices are in the run."""
    residue = b""  # bytes of touched tokens that lie outside every command, waiting to be encoded as one piece
    next_call = 0
    for offset, (token_id, piece) in enumerate(zip(token_ids, pieces, strict=True)):
        end = start + len(piece)
        while next_call < len(calls) and calls[next_call].end <= start:
            next_call += 1
        touching = []
        for call in calls[next_call:]:
            if call.start >= end:
                break
            touching.append(call)
        if touching and piece:
            residue += _outside(piece, start, touching)
        else:
            yield tokens.encode(residue), None
            residue = b""
            yield (token_id,), offset
        start = end
    yield tokens.encode(residue), None


def find_calls_in_bytes(data: bytes) -> list[Call]:
    """`find_calls` on UTF-8 bytes that may be cut inside a character; offsets are in bytes."""
    return find_calls(data.decode("latin-1"))  # one character a byte, and the grammar is ASCII


def find_beginning_in_bytes(data: bytes, *, is_nested: bool) -> int:
    """The offset at which the end of a text begins that may become a command with what follows; the length of `data`
    without one. `data` holds no whole command.

    Args:
        data: UTF-8 bytes that may be cut inside a character.
        is_nested: whether commands are taken out of the text, so that a beginning may be completed behind another one.

    >>> find_beginning_in_bytes(b"a < b <call>2</c", is_nested=False)
    6
    >>> [find_beginning_in_bytes(b"a <ca<call>2", is_nested=is_nested) for is_nested in (False, True)]
    [5, 2]
    """
    start = end = -1
    for match in _BEGINNING.finditer(data):
        if match.start() != end or not is_nested:
            start = match.start()
        end = match.end()
    return start if end == len(data) else len(data)


def _outside(piece: bytes, start: int, calls: Iterable[Call]) -> bytes:
    """The bytes of `piece`, which begins at offset `start`, that lie in none of `calls`."""
    outside, position = b"", 0
    for call in calls:
        outside += piece[position : max(position, call.start - start)]
        position = max(position, call.end - start)
    return outside + piece[position:]


def _is_command_content(content: str) -> bool:
    """Whether this between two tags is a command's: a number of any length, or a short text without markup."""
    digits = content.strip(_BLANKS)
    is_number = digits.isascii() and digits.isdigit()
    return is_number or (len(content) <= _MAX_MALFORMED_CHARS and not set(content) & _MARKUP)


def _parse_int(digits: str) -> int:
    significant = digits.lstrip("0")
    return 10**_MAX_DIGITS if len(significant) > _MAX_DIGITS else int(significant or "0")


def draw_num_tokens(rng: np.random.Generator, max_exponent: int = 3) -> int:
    """Draw a delegation length d * 10^k, d uniform in 1..9 and k uniform in 0..max_exponent."""
    if max_exponent < 0:
        raise ValueError(f"max_exponent must be 0 or more, got {max_exponent}")
    digit = int(rng.integers(1, 10))
    exponent = int(rng.integers(0, max_exponent + 1))
    return digit * 10**exponent
