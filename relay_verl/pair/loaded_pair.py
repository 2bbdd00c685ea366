"""A pair of this process, asked as a running server is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from relay_verl.deltas import Delta
from relay_verl.pair.relay_pair import RelayPair
from relay_verl.pair.talk import Piece, PieceKind, Question, Reply
from relay_verl.serving.aliases import names_of, policy_of_model
from relay_verl.serving.usage import tokens_of


class LoadedPair:
    """Asks a `RelayPair`, which it closes.

    Args:
        pair: writes.
        name: what it is called.
        has_teacher: whether anyone answers calls.
    """

    def __init__(self, pair: RelayPair, name: str, *, has_teacher: bool):
        self._pair = pair
        self._name = name
        self._has_teacher = has_teacher

    async def model_names(self) -> list[str]:
        """The name and its aliases."""
        return names_of(self._name, has_teacher=self._has_teacher)

    def ask(self, question: Question) -> Reply:
        """The reply to a question, not yet begun.

        Raises:
            ApiError: the question's model is none of the names.
        """
        policy = policy_of_model(question.model, self._name, has_teacher=self._has_teacher)
        return LoadedReply(question, pair=self._pair, policy=policy)

    async def aclose(self) -> None:
        """Free both models."""
        await asyncio.to_thread(self._pair.close)


@dataclass(kw_only=True)
class LoadedReply(Reply):
    """A reply that two models of this process write."""

    pair: RelayPair
    """Writes it."""
    policy: str | None
    """Who calls; None as the pair was trained."""

    async def _read(self) -> AsyncIterator[Piece]:
        question = self.question
        stream = self.pair.stream(
            list(question.messages),
            policy=self.policy,
            max_tokens=question.max_tokens,
            max_teacher_tokens=question.max_teacher_tokens,
            max_calls=question.max_calls,
            temperature=question.temperature,
            seed=question.seed,
            show_commands=True,
        )
        try:
            async for delta in stream:
                if delta.text:
                    yield Piece(_kind_of(delta), delta.text)
        finally:
            await stream.aclose()
            result = stream.result()
            self.finish_reason = result.finish_reason
            self.usage = _usage_of(result.usage)


def _kind_of(delta: Delta) -> PieceKind:
    return PieceKind.COMMAND if delta.kind == "command" else PieceKind(delta.source)


def _usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """As a server says it: the tokens of both writers, and `relay`."""
    relay = {name: value for name, value in usage.items() if name != "prompt_tokens"}
    return {**tokens_of(usage["prompt_tokens"], relay["student_tokens"] + relay["teacher_tokens"]), "relay": relay}
