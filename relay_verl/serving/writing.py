"""Writing the responses of a request: one, or several at a time. Pure.

Invariant: the responses of a request are written at the same time, and where one fails the others end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from relay_verl.deltas import Delta
from relay_verl.serving.answer import Answer
from relay_verl.serving.form import Form
from relay_verl.serving.service import RelayService

Piece = tuple[Answer, list[Delta] | None]
"""What came of a response; None once it is over."""


async def write_stream(service: RelayService, form: Form, started_at: float) -> AsyncIterator[bytes]:
    """The events of a stream.

    Raises:
        ApiError: too many requests wait, or a model failed.
    """
    async with service.place(form.request):
        answers = service.answers(form.request, started_at)
        pieces = _pieces_of(answers[0]) if len(answers) == 1 else _merged(answers)
        try:
            async for answer, deltas in pieces:
                events = form.end(answer) if deltas is None else form.chunk(answer, deltas)
                if events:
                    yield events
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
        yield form.ending(answers)


async def write_whole(service: RelayService, form: Form, started_at: float) -> bytes:
    """The answer as JSON.

    Raises:
        ApiError: too many requests wait, or a model failed.
    """
    async with service.place(form.request):
        answers = service.answers(form.request, started_at)
        deltas: dict[int, list[Delta]] = {answer.index: [] for answer in answers}
        pieces = _pieces_of(answers[0]) if len(answers) == 1 else _merged(answers)
        try:
            async for answer, new in pieces:
                deltas[answer.index] += new or ()
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
        return form.whole(answers, deltas)


async def _pieces_of(answer: Answer) -> AsyncIterator[Piece]:
    deltas = aiter(answer)
    try:
        async for new in deltas:
            yield answer, new
        yield answer, None
    finally:
        await deltas.aclose()  # type: ignore[attr-defined]


async def _merged(answers: Sequence[Answer]) -> AsyncIterator[Piece]:
    """The pieces of several responses as they come."""
    # one place: no response gets ahead of the others. A client that reads slowly does not slow the engines down: what
    # they write meanwhile waits in memory, at most `max_tokens` tokens, until it is read or its request is ended
    queue: asyncio.Queue[Piece | Exception] = asyncio.Queue(maxsize=1)

    async def write(answer: Answer) -> None:
        pieces = _pieces_of(answer)
        try:
            async for piece in pieces:
                await queue.put(piece)
        except Exception as error:
            await queue.put(error)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    tasks = [asyncio.create_task(write(answer)) for answer in answers]
    num_left = len(tasks)
    try:
        while num_left:
            piece = await queue.get()
            if isinstance(piece, Exception):
                raise piece
            num_left -= piece[1] is None
            yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
