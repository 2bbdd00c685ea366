"""The answers of `/v1/completions`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay_verl.serving.answer import Answer
from relay_verl.serving.chat_form import parts_of
from relay_verl.serving.form import Form, Written
from relay_verl.serving.relay_request import RelayRequest
from relay_verl.tokenization import TokenBytes


class CompletionForm(Form):
    """Choices with a text; `relay` of a choice says who wrote it."""

    prefix = "cmpl"
    object = chunk_object = "text_completion"

    def __init__(self, request: RelayRequest, created_at: int, tokens: TokenBytes):
        super().__init__(request, created_at, tokens)
        self._offsets: dict[int, int] = {}
        """Characters of each response whose tokens are out."""

    def choice(self, answer: Answer, piece: Written, *, is_first: bool) -> dict[str, Any]:
        author = piece.relay
        return {
            "index": answer.index,
            "text": piece.text,
            "logprobs": self._logprobs(answer, [piece]),
            "finish_reason": None,
            "stop_reason": None,
            **({} if author is None else {"relay": author}),
            **self._details(answer, piece, is_first=is_first),
        }

    def end_of_choice(self, answer: Answer) -> dict[str, Any]:
        reasons = {"finish_reason": answer.finish_reason, "stop_reason": answer.stop_reason}
        return {"index": answer.index, "text": "", "logprobs": None, **reasons}

    def whole_choice(self, answer: Answer, pieces: Sequence[Written]) -> dict[str, Any]:
        everything = Written("student", token_ids=[token_id for piece in pieces for token_id in piece.token_ids])
        return {
            "index": answer.index,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": self._logprobs(answer, pieces),
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
            "relay": parts_of(pieces),
            **self._details(answer, everything, is_first=True),
        }

    def _logprobs(self, answer: Answer, pieces: Sequence[Written]) -> dict[str, Any] | None:
        """Of each token of the pieces; `text_offset` counts from the beginning of the response's text."""
        if not self.request.has_logprobs:
            return None
        tokens, logprobs, offsets, offset = [], [], [], self._offsets.get(answer.index, 0)
        for piece in pieces:
            texts = self._texts(piece)
            tokens += texts
            logprobs += piece.logprobs
            for text in texts:
                offsets.append(offset)
                offset += len(text)
        self._offsets[answer.index] = offset
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": None, "text_offset": offsets}
