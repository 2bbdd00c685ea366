"""A TokenEngine over verl's rollout servers: sticky, load-balanced, token ids in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from relay_verl.engines.base import NEUTRAL_SAMPLING, FinishReason, Generation
from relay_verl.engines.boundary import describe
from relay_verl.engines.deadlines import Pulse
from relay_verl.engines.load import EngineLoad, read_load
from relay_verl.engines.prompt_scores import PARAMETER, read_verl_scores
from relay_verl.errors import EngineError, PermanentError
from relay_verl.tokenization import TokenBytes, end_ids_of


class VerlServerEngine:
    """Wraps a client of verl's rollout servers: `relay_verl.models.replica_client`, or verl's own.

    verl's servers fold the reasons 'stop' and 'length' into one, so the reason is read off the tokens: fewer than asked
    for and a stop string in the last ones is 'stop', fewer without is 'eos'.

    Args:
        client: has the `generate` of verl's `LLMServerClient`.
        tokenizer: the models' tokenizer.
        tracks_versions: remember which weight versions wrote for each request, until `pop_weight_versions`.
        addresses: HOST:PORT of the replicas, whose metrics tell how far they are; without any they cannot be asked.
        end_ids: what else than the tokenizer's end-of-sequence token ends a response (`relay_verl.models.vocabulary`).
    """

    def __init__(
        self,
        client: Any,
        tokenizer: Any,
        *,
        tracks_versions: bool = False,
        addresses: Sequence[str] = (),
        end_ids: frozenset[int] = frozenset(),
    ):
        self.client = client
        self._end_ids = end_ids_of(tokenizer, end_ids)
        self._tokens = TokenBytes(tokenizer)
        self._tracks_versions = tracks_versions
        self._versions: dict[str, list[int]] = {}
        self._servers = [f"http://{address}" for address in addresses]
        self.pulse = Pulse(self._count_tokens) if addresses else Pulse()

    async def load(self) -> EngineLoad | None:
        """What the replicas have done so far, for all who ask them; None if it cannot be known."""
        return await read_load(self._servers)

    async def _count_tokens(self) -> int | None:
        load = await self.load()
        return None if load is None else load.num_tokens

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """See `TokenEngine.generate`.

        Raises:
            PermanentError: the server refuses the request, such as for a prompt that fills the context.
        """
        params: dict[str, Any] = {**NEUTRAL_SAMPLING, **sampling, "max_tokens": max_tokens}
        if stop:
            params |= {"stop": list(stop), "include_stop_str_in_output": True}
        # A client keeps all requests of one name on one replica, those without a name too.
        name = request_id or uuid4().hex
        try:
            output = await self.client.generate(name, prompt_ids=prompt_ids, sampling_params=params)
        except ValueError as error:
            # verl and vLLM refuse a request so (no room behind the prompt, an id that the model does not have), and
            # Ray's error for it is a ValueError, too; a server that is in trouble raises others
            raise PermanentError(describe(error)) from error
        if output.stop_reason == "aborted":
            raise EngineError("the request was aborted")
        token_ids = list(output.token_ids)
        if request_id is not None and self._tracks_versions:
            versions = (output.extra_fields.get("min_global_steps"), output.extra_fields.get("max_global_steps"))
            self._versions.setdefault(request_id, []).extend(v for v in versions if v is not None)
        reason = self._finish_reason(token_ids, max_tokens, stop)
        cached, block = (output.extra_fields.get(name) for name in ("num_cached_tokens", "cache_block"))
        asked = sampling.get(PARAMETER)
        prompt = None if asked is None else read_verl_scores(output.extra_fields, asked)
        return Generation(token_ids, output.log_probs or None, reason, cached, block, prompt=prompt)

    def pop_weight_versions(self, request_id: str) -> tuple[int | None, int | None]:
        """First and last weight version (verl's global step) that wrote for `request_id`; forgets them."""
        versions = self._versions.pop(request_id, [])
        return (min(versions), max(versions)) if versions else (None, None)

    def _finish_reason(self, token_ids: list[int], max_tokens: int, stop: Sequence[str]) -> FinishReason:
        if token_ids and token_ids[-1] in self._end_ids:
            return "eos"
        longest = max((len(string.encode()) for string in stop), default=0)
        tail = b""
        for token_id in reversed(token_ids):
            piece = self._tokens.to_bytes(token_id)
            if any(string.encode() in piece + tail for string in stop):
                return "stop"
            tail = piece + tail
            if len(tail) - len(self._tokens.to_bytes(token_ids[-1])) > longest:
                break
        return "length" if len(token_ids) >= max_tokens else "eos"
