"""Engines that stream what another engine answers, cut anyhow, and that fail, hang or are left on the way."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from relay_verl.engines import Generation

HANG = "hang"


class Streaming:
    """Streams the answers of `engine`, in pieces of the sizes that `chunks` says, over and over.

    Args:
        engine: answers whole.
        chunks: tokens of each piece; 0 gives an empty one.
        trouble_after: pieces, over all answers, before it is in trouble; None for never.
        trouble: an error to raise, or HANG.
        ends_alone: the last piece has a finish reason and no token.
    """

    def __init__(
        self,
        engine: Any,
        chunks: Sequence[int] = (1,),
        *,
        trouble_after: int | None = None,
        trouble: Exception | str = HANG,
        ends_alone: bool = False,
    ):
        self.engine = engine
        self.chunks = list(chunks)
        self.pieces_left = trouble_after
        self.trouble = trouble
        self.ends_alone = ends_alone
        self.num_open = 0
        self.num_opened = 0
        self.num_pieces = 0
        self.num_cancelled = 0

    async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
        """The whole answer."""
        answer: Generation = await self.engine.generate(prompt_ids, **options)
        return answer

    async def stream(self, prompt_ids: list[int], **options: Any) -> AsyncGenerator[Generation, None]:
        """The same in pieces."""
        self.num_open += 1
        self.num_opened += 1
        try:
            await self._meet_trouble()
            answer = await self.engine.generate(prompt_ids, **options)
            for piece in self._cut(answer):
                await self._meet_trouble()
                await asyncio.sleep(0)
                self.num_pieces += 1
                yield piece
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_open -= 1

    async def _meet_trouble(self) -> None:
        if self.pieces_left is None:
            return
        if self.pieces_left == 0 and isinstance(self.trouble, Exception):
            raise self.trouble
        if self.pieces_left == 0:
            await asyncio.Event().wait()
        self.pieces_left -= 1

    def _cut(self, answer: Generation) -> list[Generation]:
        ids, logprobs = answer.token_ids, answer.logprobs
        pieces, start = [], 0
        while start < len(ids):
            size = self.chunks[self.num_pieces % len(self.chunks)]
            self.num_pieces += 1
            end = start + size
            pieces.append(Generation(ids[start:end], None if logprobs is None else logprobs[start:end], None))
            start = end
        if self.ends_alone or not pieces:
            return [*pieces, replace(answer, token_ids=[], logprobs=None if logprobs is None else [])]
        last = pieces[-1]
        return [*pieces[:-1], replace(answer, token_ids=last.token_ids, logprobs=last.logprobs)]
