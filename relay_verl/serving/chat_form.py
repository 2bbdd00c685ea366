"""The answers of `/v1/chat/completions`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay_verl.serving.answer import Answer
from relay_verl.serving.form import Form, Written


class ChatForm(Form):
    """Choices with a message; `delta.relay` says who wrote a piece that the student did not write as plain text."""

    prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def choice(self, answer: Answer, piece: Written, *, is_first: bool) -> dict[str, Any]:
        delta: dict[str, Any] = {"role": "assistant"} if is_first else {}
        delta["content"] = piece.text
        if (author := piece.relay) is not None:
            delta["relay"] = author
        return {
            "index": answer.index,
            "delta": delta,
            "logprobs": self._logprobs([piece]),
            "finish_reason": None,
            **self._details(answer, piece, is_first=is_first),
        }

    def end_of_choice(self, answer: Answer) -> dict[str, Any]:
        return {"index": answer.index, "delta": {}, "logprobs": None, **_reason_of(answer)}

    def whole_choice(self, answer: Answer, pieces: Sequence[Written]) -> dict[str, Any]:
        content = "".join(piece.text for piece in pieces)
        everything = Written("student", token_ids=[token_id for piece in pieces for token_id in piece.token_ids])
        return {
            "index": answer.index,
            "message": {"role": "assistant", "content": content, "relay": parts_of(pieces)},
            "logprobs": self._logprobs(pieces),
            **_reason_of(answer),
            **self._details(answer, everything, is_first=True),
        }

    def _logprobs(self, pieces: Sequence[Written]) -> dict[str, Any] | None:
        if not self.request.has_logprobs:
            return None
        entries = []
        for piece in pieces:
            for text, logprob in zip(self._texts(piece), piece.logprobs, strict=True):
                entry = {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []}
                entries.append(entry | ({"relay": {"source": "teacher"}} if piece.source == "teacher" else {}))
        return {"content": entries}


def _reason_of(answer: Answer) -> dict[str, Any]:
    return {"finish_reason": answer.finish_reason, "stop_reason": answer.stop_reason}


def parts_of(pieces: Sequence[Written]) -> dict[str, Any]:
    """Who wrote what of a whole text: its parts in order, joined they are the text."""
    parts = [{**(piece.relay or {"source": "student"}), "text": piece.text} for piece in pieces if piece.text]
    return {"parts": parts}
