"""A response as its reader gets it while it is written: pieces of text, each with its author and its tokens. Pure.

Invariants:
1. However the response is cut into segments, the texts joined are the same, and each token is in one delta, in order.
2. A reader who did not ask for commands sees no character of one: text that may be the beginning of a command is held
   back until it cannot be, and dropped if the response is cut off there. Taking a command out may bring two halves of
   another one together, and then that one goes, too.
3. Stop strings are looked for in the text without commands, of both authors together, so showing commands does not
   change where a response ends.
4. No character is given before all its bytes are there, and none that never was.

A worked example, with tokens of more than a character::

    tokens       | So | <c | all>2 | </call>. | Th | en |
    deltas       'So' [So]      '' [<c, all>2]      '.' [</call>.]      'Th' [Th]      'en' [en]
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from relay_verl.protocol import OPEN, find_beginning_in_bytes, find_calls_in_bytes
from relay_verl.tokenization import TokenBytes
from relay_verl.types import Segment

Source = Literal["student", "teacher"]
Kind = Literal["text", "command"]


@dataclass(frozen=True)
class Delta:
    """What a reader gets next."""

    source: Source
    """Who wrote it."""
    text: str
    """What to append to the text; may be empty."""
    token_ids: list[int]
    """The tokens that are read with it, [length]: those whose text is now out, or never will be."""
    logprobs: list[float] | None = None
    """Log-probability of each token, [length]; None if the engine was not asked."""
    kind: Kind = "text"
    """'command' for a command: its tokens, and its text where the reader asked for commands."""


class _Token(NamedTuple):
    """A token that is in no delta yet."""

    token_id: int
    logprob: float | None
    source: Source


class _Run(NamedTuple):
    """Text that is out."""

    source: Source
    kind: Kind
    text: str
    owner: int  # the number of the token that holds its last byte


class _Command(NamedTuple):
    """A command to be shown, between bytes of the text that is still held."""

    position: int
    text: str
    owner: int


class _Bytes:
    """Bytes that wait, each with the number of its token."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.owners: list[int] = []

    def take(self, num_bytes: int) -> tuple[bytes, list[int]]:
        """The first ones, which wait no longer."""
        data, owners = bytes(self.data[:num_bytes]), self.owners[:num_bytes]
        self.remove(0, num_bytes)
        return data, owners

    def remove(self, start: int, end: int) -> None:
        """Drop those of a range."""
        del self.data[start:end], self.owners[start:end]


class DeltaReader:
    """Turns the segments of one response into deltas.

    Args:
        tokens: the tokenizer's view of its ids as bytes.
        show_commands: give the text of the student's commands, in deltas of their own.
        stop: strings that end the response once both authors together have written them.
        include_stop: leave the stop string in the text.
        skip_end: leave out the text of special tokens, such as the end of the response.
        stop_ids: further ids that end the response; as a stop string, they are text only with `include_stop`.
    """

    def __init__(
        self,
        tokens: TokenBytes,
        *,
        show_commands: bool = False,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        skip_end: bool = True,
        stop_ids: frozenset[int] = frozenset(),
    ):
        self.is_stopped = False
        """Whether a stop string is written: what is fed from now on adds tokens, and no text."""
        self.stop_reason: str | None = None
        """The stop string that ended the text."""
        self._tokens = tokens
        self._shows_commands = show_commands
        self._stops = [(string.encode(), string) for string in stop if string]
        self._includes_stop = include_stop
        self._hidden_ids = tokens.special_ids if skip_end else frozenset()
        self._hidden_ids |= frozenset() if include_stop else stop_ids
        self._end_ids = tokens.special_ids | stop_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._has_ended = False  # whether the last token is one that ends responses
        # Tokens that are in no delta yet, the first of which has the number `_num_out`.
        self._waiting: list[_Token] = []
        self._num_out = 0
        # Bytes go through two stages: those that may be of a command, then those that may be of a stop string.
        self._unread = _Bytes()
        self._held = _Bytes()
        self._commands: list[_Command] = []
        self._runs: list[_Run] = []
        # Of the tokens that wait: those with bytes in a command, and those with bytes in the text.
        self._in_command: set[int] = set()
        self._in_text: set[int] = set()

    def feed(self, segment: Segment) -> list[Delta]:
        """What a reader gets for the next piece of the response; often nothing, or the text of earlier pieces."""
        ids, logprobs = segment.token_ids, segment.logprobs
        pieces = [self._bytes_of(token_id) for token_id in ids]
        if ids:
            self._has_ended = ids[-1] in self._end_ids
        data = b"".join(pieces)
        if not self._waiting and not self._stops and b"<" not in data:
            # nearly all pieces: nothing waits, and nothing will
            self._num_out += len(ids)
            return [Delta(segment.source, self._decoder.decode(data), list(ids), logprobs)] if ids else []
        if self._shows_commands and self._waiting and self._waiting[-1].source != segment.source:
            self._read(is_turn_over=True)  # a command is one author's
        for number, (token_id, piece) in enumerate(zip(ids, pieces, strict=True)):
            if not self.is_stopped:
                self._unread.data += piece
                self._unread.owners += [self._num_seen] * len(piece)
            self._waiting.append(_Token(token_id, None if logprobs is None else logprobs[number], segment.source))
        self._read()
        self._look_for_stop()
        return self._deliver()

    def end(self) -> list[Delta]:
        """What is left when no segment follows."""
        # A beginning of a command that the response was cut off in is not text, and neither is a whole `<call>`. Where
        # the student itself ended the response, a `<` is a `<`.
        is_text = self._shows_commands or (self._has_ended and OPEN.encode() not in self._unread.data)
        if is_text:
            self._read(is_turn_over=True)
        self._unread = _Bytes()
        self._look_for_stop(is_end=True)
        return self._deliver()

    @property
    def _num_seen(self) -> int:
        return self._num_out + len(self._waiting)

    def _bytes_of(self, token_id: int) -> bytes:
        is_hidden = self.is_stopped or token_id in self._hidden_ids
        return b"" if is_hidden else self._tokens.to_bytes(token_id)

    # ---- commands ----

    def _read(self, *, is_turn_over: bool = False) -> None:
        """Hold what is not of a command, and what cannot become one; `is_turn_over` says that nothing can."""
        unread = self._unread
        if self._shows_commands:
            position = 0
            for call in find_calls_in_bytes(bytes(unread.data)):
                self._hold(call.start - position)
                data, owners = unread.take(call.end - call.start)
                self._in_command.update(owners)
                self._commands.append(_Command(len(self._held.data), data.decode("ascii"), owners[-1]))
                position = call.end
        else:
            # what a command leaves may be another one
            while calls := find_calls_in_bytes(bytes(unread.data)):
                for call in reversed(calls):
                    self._in_command.update(unread.owners[call.start : call.end])
                    unread.remove(call.start, call.end)
        num_read = len(unread.data)
        if not is_turn_over:
            num_read = find_beginning_in_bytes(bytes(unread.data), is_nested=not self._shows_commands)
        self._hold(num_read)

    def _hold(self, num_bytes: int) -> None:
        data, owners = self._unread.take(num_bytes)
        self._held.data += data
        self._held.owners += owners

    # ---- stop strings ----

    def _look_for_stop(self, *, is_end: bool = False) -> None:
        """Put out what is held, up to a stop string or the beginning of one."""
        data = self._held.data
        ends = [
            (position + len(stop), order)
            for order, (stop, _) in enumerate(self._stops)
            if (position := data.find(stop)) >= 0
        ]
        if not ends:
            self._put_out(len(data) - (0 if is_end else self._num_beginning()))
            return
        end, order = min(ends)
        stop, self.stop_reason = self._stops[order]
        self._put_out(end if self._includes_stop else end - len(stop))
        self.is_stopped = True
        self._unread, self._held, self._commands = _Bytes(), _Bytes(), []

    def _num_beginning(self) -> int:
        """The longest end of the held text that a stop string begins with."""
        data = self._held.data
        longest = 0
        for stop, _ in self._stops:
            for length in range(min(len(stop) - 1, len(data)), longest, -1):
                if data.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    # ---- what is out ----

    def _put_out(self, num_bytes: int) -> None:
        """Make runs of the first bytes of the held text and of the commands among them."""
        num_out = 0
        while self._commands and self._commands[0].position <= num_bytes:
            command = self._commands.pop(0)
            self._write(command.position - num_out)
            num_out = command.position
            self._runs.append(_Run(self._source_of(command.owner), "command", command.text, command.owner))
        self._write(num_bytes - num_out)
        self._commands = [command._replace(position=command.position - num_bytes) for command in self._commands]

    def _write(self, num_bytes: int) -> None:
        data, owners = self._held.take(num_bytes)
        self._in_text.update(owners)
        start = 0
        for source, run in groupby(owners, key=self._source_of):
            end = start + len(list(run))
            if text := self._decoder.decode(data[start:end]):
                self._runs.append(_Run(source, "text", text, owners[end - 1]))
            start = end

    def _source_of(self, number: int) -> Source:
        return self._waiting[number - self._num_out].source

    def _kind_of(self, number: int) -> Kind:
        return "command" if number in self._in_command and number not in self._in_text else "text"

    def _deliver(self) -> list[Delta]:
        """Deltas of all runs, with the tokens that have no byte left that waits."""
        first_waiting = [*self._held.owners[:1], *self._unread.owners[:1], self._num_seen][0]
        deltas: list[Delta] = []
        for run in self._runs:
            own = list(self._take(min(run.owner + 1, first_waiting)))
            if own and (own[-1].source, own[-1].kind) == (run.source, run.kind):
                last = own.pop()
                own.append(Delta(run.source, run.text, last.token_ids, last.logprobs, run.kind))
            else:
                own.append(Delta(run.source, run.text, [], None, run.kind))
            deltas += own
        self._runs = []
        deltas += self._take(first_waiting)
        self._in_command = {number for number in self._in_command if number >= self._num_out}
        self._in_text = {number for number in self._in_text if number >= self._num_out}
        return deltas

    def _take(self, end: int) -> Iterator[Delta]:
        """Deltas without text of the tokens before number `end`, neighbours of one author and kind together."""
        num_tokens = max(0, end - self._num_out)
        taken, self._waiting = self._waiting[:num_tokens], self._waiting[num_tokens:]
        start, self._num_out = self._num_out, self._num_out + num_tokens
        numbered = enumerate(taken, start=start)
        for (source, kind), group in groupby(numbered, key=lambda item: (item[1].source, self._kind_of(item[0]))):
            tokens = [token for _, token in group]
            known = [token.logprob for token in tokens if token.logprob is not None]
            logprobs = known if len(known) == len(tokens) else None
            yield Delta(source, "", [token.token_id for token in tokens], logprobs, kind)
