"""An engine: answers every call with the same hint, without a model. What a call is worth shows against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from relay_verl.engines import Generation
from relay_verl.engines.factory import EngineOptions


class Hint:
    """`relay.teacher.path=null relay.teacher.engine=hint`, or `relay_extend.engine:Hint`; `--teacher engine:hint`.

    Args:
        options: the recipe's `relay.teacher`; `model` is the hint.
        tokenizer: what the student reads.
    """

    def __init__(self, options: EngineOptions, tokenizer: Any):
        self.token_ids: list[int] = tokenizer.encode(options.model or "think again. ", add_special_tokens=False)

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """The hint, repeated up to `max_tokens`."""
        return Generation(list(islice(cycle(self.token_ids), max_tokens)), None, "length")
