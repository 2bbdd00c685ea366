"""The relay that needs no relay server: a client over two text APIs, which decodes, encodes again and waits for whole
turns, as other projects relay between two models.

The student writes up to the end of a command. Its text without commands is the teacher's prompt, the teacher's text is
appended, and the student is asked again with all of the text, which its server encodes again: what either had written
comes back as other tokens wherever its text has a shorter spelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relay_verl.bench.running_server import RunningServer
from relay_verl.protocol import CLOSE, find_calls, strip_calls

ENDS_BY_ITSELF = "stop"


@dataclass(frozen=True)
class NaiveAnswer:
    """What it wrote."""

    text: str
    """The response with its commands."""
    num_tokens: int
    """Tokens that both servers wrote."""
    num_calls: int
    """Turns of the teacher."""


@dataclass(frozen=True)
class NaiveProxy:
    """Relays between two bare servers."""

    student: RunningServer
    """Writes the commands."""
    teacher: RunningServer
    """Answers them."""
    max_tokens: int
    """Most tokens of a response."""
    max_calls: int | None
    """Most calls of a response; None for no limit."""
    max_tokens_per_call: int
    """Most tokens that a call delivers."""
    temperature: float = 0.0
    """Of both writers; 0 for greedy."""

    async def answer(self, prompt: str) -> NaiveAnswer:
        """The response to a prompt.

        Args:
            prompt: text behind which the response begins, special tokens included.

        Raises:
            EngineError: a server does not answer.
        """
        text, num_tokens, num_calls = "", 0, 0
        while num_tokens < self.max_tokens:
            # past the last call commands are text
            stop = [CLOSE] if self.max_calls is None or num_calls < self.max_calls else []
            left = self.max_tokens - num_tokens
            choice, num_new = await self._complete(self.student, prompt + text, left, stop)
            text, num_tokens = text + choice["text"], num_tokens + num_new
            if choice["finish_reason"] != ENDS_BY_ITSELF or choice.get("stop_reason") != CLOSE:
                break
            calls = find_calls(text)
            if not calls or calls[-1].end != len(text) or not calls[-1].num_tokens:
                continue  # a command that is none, or asks for nothing
            num_asked = min(calls[-1].num_tokens, self.max_tokens_per_call, self.max_tokens - num_tokens)
            if not num_asked:
                break
            choice, num_new = await self._complete(self.teacher, prompt + strip_calls(text), num_asked, [])
            text, num_tokens, num_calls = text + choice["text"], num_tokens + num_new, num_calls + 1
            if choice["finish_reason"] == ENDS_BY_ITSELF:
                break
        return NaiveAnswer(text, num_tokens, num_calls)

    async def _complete(
        self, server: RunningServer, prompt: str, max_tokens: int, stop: list[str]
    ) -> tuple[dict[str, Any], int]:
        """A choice, and its tokens."""
        body = {
            "model": server.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "stop": stop,
            "include_stop_str_in_output": True,
            "add_special_tokens": False,  # the prompt has them
        }
        answer = await server.post("/v1/completions", body)
        choice: dict[str, Any] = answer["choices"][0]
        return choice, int(answer["usage"]["completion_tokens"])
