"""A teacher with another tokenizer: it reads the chat and the response as text, and what it writes is encoded once.

Invariants: the student's ids are never encoded again; the teacher's text is encoded once, by the student's tokenizer,
and those ids are what the student reads and what training sees. At most n of them come back. The teacher's end of
sequence becomes the student's.

What the student's tokenizer cannot give a teacher of another vocabulary:
1. The teacher's context is the same text, not the same ids: it is encoded anew for each call, so the teacher's earlier
   words may be split otherwise, and its prefix cache ends where they are.
2. n counts the student's tokens, as rho does; the teacher is asked for a few more of its own, and the rest is cut off.
3. The teacher's log-probabilities are of other tokens: None. So is what its cache held. What it read and wrote in its
   own tokens, the rest that is cut off included, is what it bills.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from relay_verl.engines.base import Billed, FinishReason, Generation, TokenEngine
from relay_verl.engines.deadlines import pulse_of
from relay_verl.tokenization import TokenBytes, chat_ids, end_ids_of


class TextBridge:
    """Opens a teacher for one response after another.

    Args:
        engine: the teacher, over ids of `theirs`.
        theirs: the teacher's tokenizer; it has a chat template.
        ours: the student's tokenizer.
        template: further arguments of the chat template.
        end_ids: what else than the end-of-sequence token of `theirs` ends the teacher's text.
    """

    def __init__(
        self,
        engine: TokenEngine,
        theirs: Any,
        ours: Any,
        template: Mapping[str, Any] = {},
        end_ids: frozenset[int] = frozenset(),
    ):
        self.engine = engine
        self.end_ids = end_ids_of(theirs, end_ids)
        self.pulse = pulse_of(engine)
        self.theirs = _Text(theirs)
        self.ours = _Text(ours)
        self.template = template

    def open(self, messages: Iterable[Mapping[str, Any]], num_prompt_tokens: int) -> BridgedTeacher:
        """The teacher for one response.

        Args:
            messages: the chat that the response answers.
            num_prompt_tokens: how many of the student's ids stand for it in a context.
        """
        return BridgedTeacher(self, messages, num_prompt_tokens)


class BridgedTeacher:
    """A TokenEngine over the student's ids, for one response; the teacher behind it has its own."""

    def __init__(self, bridge: TextBridge, messages: Iterable[Mapping[str, Any]], num_prompt_tokens: int):
        self._bridge = bridge
        self.pulse = bridge.pulse  # one engine answers all responses
        self._messages = messages
        self._num_prompt_tokens = num_prompt_tokens

    @cached_property
    def _prompt_ids(self) -> list[int]:
        """The chat by the teacher's own template."""
        return chat_ids(self._bridge.theirs.tokenizer, self._messages, self._bridge.template)

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """See `TokenEngine.generate`; `max_tokens` counts the student's."""
        theirs, ours = self._bridge.theirs, self._bridge.ours
        written = theirs.encode(ours.decode(prompt_ids[self._num_prompt_tokens :]))
        answer = await self._bridge.engine.generate(
            self._prompt_ids + written,
            max_tokens=max_tokens + max_tokens // 4 + 8,  # their tokens may be shorter, or end inside a character
            stop=stop,
            sampling=sampling,
            request_id=request_id,
        )
        ids, reason = answer.token_ids, answer.finish_reason
        ends = [position for position, token_id in enumerate(ids) if token_id in self._bridge.end_ids]
        if ends:
            ids, reason = ids[: ends[0]], "eos"
        delivered = ours.encode(theirs.decode([i for i in ids if i not in theirs.special]))
        if reason == "eos":
            delivered.append(ours.eos_token_id)
        billed = answer.billed or Billed(len(self._prompt_ids) + len(written), len(answer.token_ids))
        return cut_text(delivered, max_tokens, reason, billed)


def cut_text(
    token_ids: list[int],
    max_tokens: int,
    reason: FinishReason | None,
    billed: Billed | None,
    num_cached: int | None = None,
) -> Generation:
    """At most `max_tokens` ids of a text that was encoded; what is cut off is billed all the same."""
    is_whole = len(token_ids) <= max_tokens
    return Generation(token_ids[:max_tokens], None, reason if is_whole else "length", num_cached, billed=billed)


class _Text:
    """One tokenizer between ids and the text of a response."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.eos_token_id: int = tokenizer.eos_token_id
        self.special = frozenset(tokenizer.all_special_ids)
        self._tokens = TokenBytes(tokenizer)
        puts_blank_in_front = self._tokens.join(self._ids("a")) != b"a"
        self._front = "\n" if puts_blank_in_front else ""

    def decode(self, token_ids: list[int]) -> str:
        """See `TokenBytes.text`."""
        return self._tokens.text(token_ids)

    def encode(self, text: str) -> list[int]:
        """Ids of text that continues after other text: without the blank that SentencePiece puts in front."""
        front = self._ids(self._front)
        ids = self._ids(self._front + text)
        return ids[len(front) :] if ids[: len(front)] == front else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        """No text becomes a special token, such as the end of the response."""
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
