"""What the process of a client and that of an engine say to each other on one node: frames of msgpack over a Unix
socket, each with all that was said in one turn of an event loop. Nothing in them can be code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

LENGTH_BYTES = 4
"""Of a frame's length, in front of it."""


class Request(msgspec.Struct, array_like=True, tag="request"):
    """Tokens that a client wants."""

    number: int
    """The client's name of it."""
    request_id: str
    """The engine's name of it."""
    prompt_ids: list[int]
    sampling: dict[str, Any]
    """vLLM's sampling parameters, by name."""


class Cancel(msgspec.Struct, array_like=True, tag="cancel"):
    """The client no longer wants an answer."""

    number: int


class Answer(msgspec.Struct, array_like=True, tag="answer"):
    """What became of a request; the names of its tokens are those of verl's `TokenOutput`."""

    number: int
    token_ids: list[int] = []
    log_probs: list[float] | None = None
    stop_reason: str | None = None
    extra_fields: dict[str, Any] = {}
    error: str | None = None
    """Why there are no tokens; None if there are."""
    is_refusal: bool = False
    """Whether asking again cannot help."""
    is_dead: bool = False
    """Whether this engine will never answer again."""


Message = Request | Cancel | Answer


def _plain(value: Any) -> Any:
    """What msgpack has no form for: a number of numpy or torch, a list of OmegaConf."""
    return value.item() if hasattr(value, "item") else list(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder = msgspec.msgpack.Decoder(list[Message])


class Sender:
    """Writes messages to a stream, all of one turn of the event loop in one frame."""

    def __init__(self, writer: asyncio.StreamWriter):
        self._writer = writer
        self._waiting: list[Message] = []

    def send(self, message: Message) -> None:
        """Send a message at the end of this turn of the event loop."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(message)

    def _flush(self) -> None:
        messages, self._waiting = self._waiting, []
        if not self._writer.is_closing():
            self._writer.writelines(to_frame(messages))


def to_frame(messages: Sequence[Message]) -> tuple[bytes, bytes]:
    """The length and the body of a frame."""
    body = _encoder.encode(messages)
    return len(body).to_bytes(LENGTH_BYTES, "big"), body


async def read_frame(reader: asyncio.StreamReader) -> list[Message]:
    """The messages of the next frame.

    Raises:
        EOFError: the other side is gone.
    """
    try:
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        return _decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError from error
