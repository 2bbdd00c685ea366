"""How responses look to a client: what the two endpoints share. Pure.

Invariant: one engine chunk becomes one write. The parts of an event that do not change are encoded once a request;
only text, ids and numbers are encoded again for each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from relay_verl.deltas import Delta, Kind, Source
from relay_verl.serving.answer import Answer
from relay_verl.serving.relay_request import RelayRequest
from relay_verl.serving.usage import tokens_of, usage_of
from relay_verl.tokenization import TokenBytes

encode = msgspec.json.encode
_PLACE = "\x00text\x00"
"""Where an event's text goes."""
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """A value as one server-sent event."""
    return b"data: " + encode(value) + b"\n\n"


@dataclass
class Written:
    """Neighbouring deltas of one author, as one piece of a choice."""

    source: Source
    """Who wrote it."""
    kind: Kind = "text"
    """'command' where it is the student's command."""
    text: str = ""
    """What the reader sees."""
    token_ids: list[int] = field(default_factory=list)
    """[length]; a token whose text is held back is here before its text."""
    logprobs: list[float | None] = field(default_factory=list)
    """Of each token, [length]; None where it is not known."""
    deltas: list[Delta] = field(default_factory=list)
    """What it joins."""

    @property
    def relay(self) -> dict[str, str] | None:
        """What a piece says of its author; None for plain text of the student's."""
        if self.kind == "text":
            return None if self.source == "student" else {"source": self.source}
        return {"source": self.source, "kind": self.kind}


def joined(deltas: Iterable[Delta]) -> list[Written]:
    """Neighbouring deltas of one author and kind as one."""
    pieces: list[Written] = []
    for delta in deltas:
        if not pieces or (pieces[-1].source, pieces[-1].kind) != (delta.source, delta.kind):
            pieces.append(Written(delta.source, delta.kind))
        piece = pieces[-1]
        piece.deltas.append(delta)
        piece.text += delta.text
        piece.token_ids += delta.token_ids
        piece.logprobs += delta.logprobs if delta.logprobs is not None else [None] * len(delta.token_ids)
    return pieces


class Form(ABC):
    """The answers of one request, as its endpoint writes them.

    Args:
        request: what was asked.
        created_at: seconds since 1970.
        tokens: the tokenizer's view of its ids as bytes.
    """

    prefix: ClassVar[str]
    """What an answer's id begins with."""
    object: ClassVar[str]
    """What a whole answer is called."""
    chunk_object: ClassVar[str]
    """What a piece of a stream is called."""

    def __init__(self, request: RelayRequest, created_at: int, tokens: TokenBytes):
        self.request = request
        self._tokens = tokens
        head = {"id": f"{self.prefix}-{request.request_id}", "created": created_at, "model": request.model}
        self._head = {**head, "object": self.object}
        opening = encode({**head, "object": self.chunk_object})
        self._opening = b"data: " + opening[:-1] + b',"choices":['
        self._begun: set[int] = set()
        self._plain: dict[tuple[int, str, str], tuple[bytes, bytes]] = {}
        self._has_details = request.has_logprobs or request.has_token_ids or request.has_usage_always

    @abstractmethod
    def choice(self, answer: Answer, piece: Written, *, is_first: bool) -> dict[str, Any]:
        """A choice of a stream's chunk."""

    @abstractmethod
    def end_of_choice(self, answer: Answer) -> dict[str, Any]:
        """The last choice of a response in a stream: why it ended."""

    @abstractmethod
    def whole_choice(self, answer: Answer, pieces: Sequence[Written]) -> dict[str, Any]:
        """A choice of an answer that comes as a whole."""

    def chunk(self, answer: Answer, deltas: Sequence[Delta]) -> bytes:
        """The events for what came at once; empty where the reader would see nothing new."""
        if not self._has_details and len(deltas) == 1 and answer.index in self._begun:
            (delta,) = deltas
            return self._plain_event(answer, delta) if delta.text else b""
        events = []
        for piece in joined(deltas):
            if piece.text or (self._has_details and piece.token_ids):
                is_first = answer.index not in self._begun
                self._begun.add(answer.index)
                events.append(self._event(self.choice(answer, piece, is_first=is_first), answer))
        return b"".join(events)

    def end(self, answer: Answer) -> bytes:
        """The event that ends a response."""
        if answer.index in self._begun:
            return self._event(self.end_of_choice(answer), answer)
        # clients take a stream without a choice for one that failed
        return self._event(self.choice(answer, Written("student"), is_first=True), answer) + self._event(
            self.end_of_choice(answer), answer
        )

    def ending(self, answers: Sequence[Answer]) -> bytes:
        """The events that end a stream."""
        if not self.request.has_usage:
            return DONE
        return self._opening + b'],"usage":' + encode(self._usage(answers)) + b"}\n\n" + DONE

    def whole(self, answers: Sequence[Answer], deltas: Mapping[int, Sequence[Delta]]) -> bytes:
        """An answer that comes as a whole, as JSON."""
        choices = [self.whole_choice(answer, joined(deltas[answer.index])) for answer in answers]
        return encode({**self._head, "choices": choices, "usage": self._usage(answers)})

    def _event(self, choice: dict[str, Any], answer: Answer) -> bytes:
        if not self.request.has_usage_always:
            return self._opening + encode(choice) + b"]}\n\n"
        count = answer.count
        usage = {**tokens_of(len(answer.prompt_ids), count.num_tokens), "relay": count.relay()}
        return self._opening + encode(choice) + b'],"usage":' + encode(usage) + b"}\n\n"

    def _plain_event(self, answer: Answer, delta: Delta) -> bytes:
        """The event of nearly all tokens: all of it but the text is encoded once for each author."""
        key = (answer.index, delta.source, delta.kind)
        parts = self._plain.get(key)
        if parts is None:
            choice = self.choice(answer, Written(delta.source, delta.kind, _PLACE), is_first=False)
            # the last one: the client's own name of the request stands before it
            before, _, after = (self._opening + encode(choice) + b"]}\n\n").rpartition(encode(_PLACE))
            parts = self._plain[key] = (before, after)
        return parts[0] + encode(delta.text) + parts[1]

    def _usage(self, answers: Sequence[Answer]) -> dict[str, Any]:
        return usage_of(self.request.num_prompt_tokens, [answer.count for answer in answers])

    def _details(self, answer: Answer, piece: Written, *, is_first: bool) -> dict[str, Any]:
        """Token ids, where they are asked for."""
        if not self.request.has_token_ids:
            return {}
        prompt = {"prompt_token_ids": answer.prompt_ids} if is_first else {}
        return {"token_ids": piece.token_ids, **prompt}

    def _texts(self, piece: Written) -> list[str]:
        """The text of each token of a piece, as far as the reader sees it: where some of it is left out (a command, the
        end of the response) or comes later, the last token has what the tokens together show."""
        texts: list[str] = []
        for delta in piece.deltas:
            each = [self._tokens.to_bytes(token_id).decode("utf-8", errors="replace") for token_id in delta.token_ids]
            if "".join(each) != delta.text:
                each = [""] * (len(each) - 1) + [delta.text] if each else []
            texts += each
        return texts
