"""A TokenEngine over a model that transformers runs in this process: a pair on a laptop, without a server.

It writes one token of one response at a time, in a thread of its own, so that responses take turns and whoever asks is
not held up. For speed, use vLLM. What it keeps from one turn of a trajectory to the next is the model's past (its key
and value cache), so that a turn reads only what is new.

Invariant: what is kept belongs to a prefix of the next context, token by token; where the model's past cannot be cut
back to that prefix, as with a sliding window, it is read anew.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from relay_verl.deferral import THRESHOLD_ARG
from relay_verl.engines.base import NEUTRAL_SAMPLING, FinishReason, Generation
from relay_verl.engines.prompt_scores import PARAMETER, PromptScores
from relay_verl.engines.sampler import Sampler
from relay_verl.errors import PermanentError, as_user_error
from relay_verl.tokenization import TokenBytes, end_ids_of


@dataclass
class _Past:
    """What a model has read of a trajectory."""

    ids: list[int] = field(default_factory=list)
    """The tokens, [length]."""
    cache: Any = None
    """The model's keys and values of them."""


class Head(Protocol):
    """A defer head: `relay_verl.defer.loaded_head.LoadedHead` is one."""

    @property
    def token_id(self) -> int: ...
    def is_deferred(self, threshold: float, hidden: Any, logits: Any, context: Sequence[int]) -> bool: ...


class TransformersEngine:
    """Writes with a causal language model.

    Args:
        model: of transformers, in evaluation mode.
        tokenizer: the model's.
        num_kept: trajectories whose past is kept; the one that was not asked for longest goes first.
        end_ids: what else than the tokenizer's and the model's end-of-sequence tokens ends a response.
        head: by which it asks for the teacher (`relay_verl.deferral`).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        num_kept: int = 4,
        end_ids: frozenset[int] = frozenset(),
        head: Head | None = None,
    ):
        self._model = model
        self._head = head
        self._tokenizer = tokenizer
        self._tokens = TokenBytes(tokenizer)
        self._num_kept = num_kept
        listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        listed = listed if isinstance(listed, list) else [] if listed is None else [listed]
        self._end_ids = end_ids_of(tokenizer, [*end_ids, *listed])
        config = model.config.get_text_config()
        self.max_model_len: int | None = getattr(config, "max_position_embeddings", None)
        """Tokens of the model's context; None if it has no limit."""
        takes = inspect.signature(model.forward).parameters
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self._kept: OrderedDict[str, _Past] = OrderedDict()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="relay_verl-transformers")

    @classmethod
    def load(
        cls, path: str, tokenizer: Any, *, device: str | None = None, trust_remote_code: bool = False, **options: Any
    ) -> TransformersEngine:
        """The model at a folder or hub id, in its own format of weights.

        Args:
            path: of the model; its weights have to be safetensors.
            tokenizer: the model's.
            device: as torch names it; None takes a GPU where there is one.
            trust_remote_code: run code in the model's folder.
            options: those of the class.

        Raises:
            UserError: it does not load.
        """
        from transformers import AutoModelForCausalLM

        with as_user_error((OSError, ValueError, RuntimeError), path):
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype="auto", use_safetensors=True, trust_remote_code=trust_remote_code
            ).to(device or own_device())
        return cls(model.eval(), tokenizer, **options)

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
            PermanentError: the prompt fills the context, or the sampling has a parameter that is not known here.
        """
        asked, sampling = (
            sampling.get(PARAMETER),
            {name: value for name, value in sampling.items() if name != PARAMETER},
        )
        answer = self.stream(prompt_ids, max_tokens=max_tokens, stop=stop, sampling=sampling, request_id=request_id)
        ids: list[int] = []
        logprobs: list[float] = []
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                ids += piece.token_ids
                logprobs += piece.logprobs or []
        scores: PromptScores | None = None
        if asked is not None:
            scores = await asyncio.get_running_loop().run_in_executor(self._thread, self._score, prompt_ids)
        asked_logprobs = logprobs if sampling.get("logprobs") else None
        return Generation(ids, asked_logprobs, piece.finish_reason, piece.num_cached, prompt=scores)

    async def stream(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> AsyncGenerator[Generation, None]:
        """See `StreamingEngine.stream`; a piece is a token."""
        room = max_tokens if self.max_model_len is None else min(max_tokens, self.max_model_len - len(prompt_ids))
        if room < 1 or not prompt_ids:
            raise PermanentError(
                f"the prompt has {len(prompt_ids)} tokens; the model's context has {self.max_model_len}"
            )
        threshold = (sampling.get("extra_args") or {}).get(THRESHOLD_ARG)
        if threshold is not None and self._head is None:
            raise PermanentError(f"sampling: {THRESHOLD_ARG}: this engine has no defer head")
        plain = {name: value for name, value in sampling.items() if threshold is None or name != "extra_args"}
        sampler = Sampler(self._tokenizer, {**NEUTRAL_SAMPLING, **plain}, prompt_ids, self._model.device)
        ends = frozenset() if sampling.get("ignore_eos") else self._end_ids
        ends |= frozenset(sampling.get("stop_token_ids") or ())
        stops = [string.encode() for string in stop]
        tail, longest = b"", max(map(len, stops), default=0)
        past = self._kept.pop(request_id, None) if request_id is not None else None
        past, num_cached = _cut_back(past, prompt_ids)
        unread = prompt_ids[num_cached:]
        run = partial(asyncio.get_running_loop().run_in_executor, self._thread)
        num_written = 0
        reason: FinishReason | None = None
        while reason is None:
            # Cancelled here, the thread may still write into the past: then it is not kept.
            token_id, logprob = await run(self._step, past, unread, sampler, threshold)
            unread = [token_id]
            num_written += 1
            piece = self._tokens.to_bytes(token_id)
            # a stop string is looked for where this token can have completed one
            tail = tail[max(0, len(tail) - longest + 1) :] + piece
            if token_id in ends:
                reason = "eos"
            elif any(string in tail for string in stops):
                reason = "stop"
            elif num_written == room:
                reason = "length"
            if reason is not None:
                self._keep(request_id, past)
            yield Generation([token_id], [logprob] if sampling.get("logprobs") else None, reason, num_cached)

    def close(self) -> None:
        """Free the model's past and the thread."""
        self._kept.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _step(self, past: _Past, unread: list[int], sampler: Sampler, threshold: float | None) -> tuple[int, float]:
        """The next token and its log-probability; the model has read `unread` then. Below `threshold`, if one is given,
        the head's reserved id."""
        import torch

        with torch.inference_mode():
            ids = torch.tensor([unread], device=self._model.device)  # [1, unread_length]
            options = self._only_last if threshold is None else {**self._only_last, "output_hidden_states": True}
            output = self._model(input_ids=ids, past_key_values=past.cache, use_cache=True, **options)
            past.cache = output.past_key_values
            past.ids += unread
            logits = output.logits[:, -1, :]
            if self._head is not None:
                if threshold is not None:
                    hidden = output.hidden_states[-1][:, -1, :]  # behind the final norm
                    if self._head.is_deferred(threshold, hidden, logits, past.ids):
                        return self._head.token_id, 0.0
                logits[:, self._head.token_id] = -torch.inf
            return sampler.draw(logits)

    def _score(self, token_ids: list[int]) -> PromptScores:
        """The greedy token and the log-probability of the own one behind each token but the last."""
        import torch

        with torch.inference_mode():
            ids = torch.tensor([token_ids], device=self._model.device)  # [1, length]
            laws = torch.log_softmax(self._model(input_ids=ids).logits[0, :-1].float(), dim=-1)  # [length - 1, vocab]
            own = laws.gather(1, ids[0, 1:, None])[:, 0]
        return PromptScores(laws.argmax(dim=-1).tolist(), own.tolist())

    def _keep(self, request_id: str | None, past: _Past) -> None:
        if request_id is None:
            return
        self._kept[request_id] = past
        while len(self._kept) > self._num_kept:
            self._kept.popitem(last=False)


def own_device() -> str:
    """What this machine computes with: a GPU where there is one."""
    import torch

    is_mps = torch.backends.mps.is_available()
    return "cuda" if torch.cuda.is_available() else "mps" if is_mps else "cpu"


def _cut_back(past: _Past | None, context: list[int]) -> tuple[_Past, int]:
    """The part of `past` that is a prefix of `context`, and its length; a new one where there is none."""
    if past is None:
        return _Past(), 0
    # the last token of the context is read in any case, since its output is what the next one is drawn from
    most = min(len(past.ids), len(context) - 1)
    num_common = next((i for i in range(most) if past.ids[i] != context[i]), most)
    if num_common == 0:
        return _Past(), 0
    if num_common < len(past.ids):
        is_cut = all(type(layer).__name__ == "DynamicLayer" for layer in getattr(past.cache, "layers", [None]))
        if not is_cut:
            return _Past(), 0
        past.cache.crop(num_common)
        del past.ids[num_common:]
    return past, num_common
