"""The events of a streamed answer (server-sent events) as OpenAI-compatible servers write them: `data:` lines. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from relay_verl.errors import EngineError

_DATA = b"data:"
_DONE = b"[DONE]"


async def read_events(response: Any, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The data of each event, up to the one that says that it is the last. The body is read to its end, since a
    connection whose body is not read serves no other request.

    Args:
        response: has `iter_bytes`.
        max_bytes: longest body that is read.

    Raises:
        EngineError: the body is longer.
    """
    num_bytes = 0
    begun: list[bytes] = []  # of a line that has not ended yet
    is_done = False
    async for chunk in response.iter_bytes():
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise EngineError(f"the reply is longer than {max_bytes} bytes")
        # Comments, names of events and empty lines are of no interest; an event of these servers is a line of JSON.
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = end
            if begun:
                line = b"".join([*begun, end])
                begun = []
            if not line.startswith(_DATA) or is_done:
                continue
            data = line[len(_DATA) :].strip()
            is_done = data == _DONE
            if not is_done:
                yield data
        if rest:
            begun.append(rest)
