"""Parameters that an endpoint refuses, learned from its answer and left out from then on. Pure.

OpenAI's newer models refuse `max_tokens` (`max_completion_tokens` is its new name) and any `temperature` but their own;
strict servers refuse what vLLM adds to the API, such as `top_k`. A value that is out of range is not such a refusal: it
is the caller's error and stays one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from relay_verl.engines.failures import Refusal

OPTIONAL = (
    *("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("temperature", "seed", "stream_options", "chat_template_kwargs"),
)
"""What a request can do without, the least important first."""
_RENAMED = {"max_tokens": "max_completion_tokens"}
_REFUSES = re.compile(
    r"not support|n.t support|unsupported|unrecognized|unknown|unexpected|not permitted|not allowed|extra inputs|"
    r"deprecated|cannot both|can't both|only one of|use only one",
    re.IGNORECASE,
)


class RefusedParameters:
    """What one endpoint does not take. Can be sent to another process, with what it has learned."""

    def __init__(self) -> None:
        self._left_out: set[str] = set()
        self._renamed: dict[str, str] = {}

    @property
    def names(self) -> frozenset[str]:
        """What is left out or renamed so far."""
        return frozenset(self._left_out) | self._renamed.keys()

    def apply(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that the endpoint takes, under its names; None values are left out."""
        return {
            self._renamed.get(name, name): value
            for name, value in parameters.items()
            if value is not None and name not in self._left_out
        }

    def learn(self, refusal: Refusal, parameters: Mapping[str, Any], sent: Mapping[str, Any]) -> list[str]:
        """Take from an answer what the endpoint refuses; gives the names that this answer is about, which is empty if
        another request would not help.

        Args:
            refusal: the answer.
            parameters: what the caller asked for.
            sent: what `apply` made of it for this request.
        """
        if refusal.status not in (400, 422) or not (
            _REFUSES.search(refusal.message) or _REFUSES.search((refusal.code or "").replace("_", " "))
        ):
            return []
        for name, new_name in _RENAMED.items():
            if name in sent and (refusal.param == name or new_name in refusal.message):
                self._renamed[name] = new_name
                return [name]
        names = [name for name in OPTIONAL if name in sent and _is_named(name, refusal)]
        if re.search(r"both|only one", refusal.message):  # each is taken alone: give up the less important one
            names = names[:1]
        self._left_out |= set(names)
        return names if self.apply(parameters) != dict(sent) else []


def _is_named(name: str, refusal: Refusal) -> bool:
    if refusal.param in OPTIONAL:
        return refusal.param == name
    words = re.sub(r"(?<=[a-z])[A-Z]", lambda capital: f"_{capital[0].lower()}", refusal.message)  # presencePenalty
    return re.search(rf"\b{name}\b", words) is not None
