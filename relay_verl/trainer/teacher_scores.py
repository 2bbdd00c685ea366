"""What the teacher says of the student's own tokens, for verl's distillation loss.

The teacher reads the response as it does when it is called (`relay_verl.teacher_view`), in one prefill: vLLM's
`prompt_logprobs`, which read no prefix cache. Its scores are then put where verl looks for them: row i of
[prompt_length + response_length, k] is about token i + 1.

verl has one mask for its policy loss and its distillation loss. A command is the student's choice and belongs to the
first alone: there the teacher's k likeliest tokens have a log-probability of NO_MASS, so that the loss over them and
its gradient are exactly 0. An estimate from the sampled token (k1, k3) has no such value, and `relay_verl.preflight`
refuses it in a run with calls.

Invariant: a row of scores is what the teacher said of that very token, or says nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import uuid4

import torch

from relay_verl.config import TeacherSettings
from relay_verl.distillation import DistillationSettings
from relay_verl.engines.boundary import describe
from relay_verl.engines.deadlines import DeadlineError
from relay_verl.engines.resilience import retrying
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.errors import EngineError, PermanentError
from relay_verl.teacher_view import TeacherView, view_response
from relay_verl.tokenization import TokenBytes
from relay_verl.types import RelayTrajectory

NO_MASS = -1e4
"""The log-probability of a token that says nothing: its probability is 0 in 32 bits, and unlike that of minus infinity
its product with 0 is 0."""
FIRST_WAIT_S = 0.5
"""Seconds before the first of `relay.teacher.num_retries` further tries."""


@dataclass(frozen=True)
class TeacherScores:
    """A response's scores, in verl's form."""

    ids: torch.Tensor
    """The tokens that are scored, [prompt_length + response_length, k]."""
    logprobs: torch.Tensor
    """Their log-probabilities by the teacher, of the same shape."""
    num_scored: int
    """Tokens of the response that the loss is over."""
    num_read: int
    """Tokens that the teacher read for them."""
    latency_s: float
    """Seconds from asking to answer."""


class TeacherScorer:
    """Scores responses; any number at the same time.

    Args:
        engine: over the teacher's replicas.
        settings: the run's distillation.
        teacher: how long it is waited for, and how often it is asked.
        tokens: the tokenizer's view of its ids as bytes.
        vocab_size: rows of the student's embedding; None if unknown.
        has_commands: whether commands mean anything in this run.
    """

    def __init__(
        self,
        engine: VerlServerEngine,
        settings: DistillationSettings,
        teacher: TeacherSettings,
        tokens: TokenBytes,
        vocab_size: int | None,
        *,
        has_commands: bool,
    ):
        self._engine = engine
        self._settings = settings
        self._teacher = teacher
        self._tokens = tokens
        self._vocab_size = vocab_size
        self._has_commands = has_commands

    async def score(self, trajectory: RelayTrajectory) -> TeacherScores:
        """The teacher's scores of a response.

        Raises:
            EngineError: the teacher failed or is silent, or what it says does not fit what it was asked.
        """
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        view = view_response(trajectory, self._tokens, has_commands=self._has_commands)
        width = max(1, self._settings.num_logprobs)
        if not view.num_scored:  # the student chose nothing but commands
            ids, logprobs = torch.zeros((0, width), dtype=torch.int32), torch.zeros((0, width))
        else:
            try:
                answer = await self._engine.pulse.wait(self._teacher.timeout_s, self._ask(view.token_ids))
            except DeadlineError as error:
                raise EngineError(f"the teacher scored nothing: {error}") from None
            ids, logprobs = _read(answer, len(view.token_ids), width)
        rows = place(view, len(trajectory.prompt_ids), ids, logprobs, fill=NO_MASS if self._settings.is_topk else 0.0)
        if self._settings.is_topk and self._vocab_size is not None:
            # the teacher's embedding may have padding rows that the student's has not
            is_unknown = rows[0] >= self._vocab_size
            rows = rows[0].masked_fill(is_unknown, 0), rows[1].masked_fill(is_unknown, NO_MASS)
        num_read = len(view.token_ids) if view.num_scored else 0
        return TeacherScores(*rows, view.num_scored, num_read, clock() - asked_at)

    async def _ask(self, token_ids: list[int]) -> tuple[list[list[int]], list[list[float]]]:
        """The k likeliest tokens at each position and their log-probabilities, both [length, k]."""
        sampling = {
            "max_tokens": 1,  # vLLM writes at least one
            "temperature": 1.0,
            "prompt_logprobs": self._settings.num_logprobs,
            "detokenize": False,
        }
        async for attempt in retrying(self._teacher.num_retries, FIRST_WAIT_S):
            with attempt:
                try:
                    output = await self._engine.client.generate(
                        uuid4().hex, prompt_ids=token_ids, sampling_params=dict(sampling)
                    )
                except ValueError as error:  # how verl and vLLM refuse a request
                    raise PermanentError(describe(error)) from error
                fields = output.extra_fields
                if "prompt_logprobs" not in fields:
                    raise EngineError("the teacher answered without the log-probabilities it was asked for")
                return fields["prompt_ids"], fields["prompt_logprobs"]
        raise AssertionError("unreachable: the last attempt returns or raises")


def _read(answer: tuple[list[list[int]], list[list[float]]], length: int, width: int) -> tuple[torch.Tensor, ...]:
    """An answer as tensors, [length, width] each.

    Raises:
        EngineError: it is of another shape, or not of numbers.
    """
    try:
        ids, logprobs = torch.tensor(answer[0], dtype=torch.int32), torch.tensor(answer[1], dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EngineError(f"the teacher's scores are not numbers: {describe(error)}") from None
    if ids.shape != (length, width) or logprobs.shape != (length, width):
        raise EngineError(
            f"the teacher scored {list(logprobs.shape)} tokens, expected {length} positions of {width} each"
        )
    if not torch.isfinite(logprobs).all() or (ids < 0).any():
        raise EngineError("the teacher's scores are not all finite")
    return ids, logprobs


def place(
    view: TeacherView, num_prompt: int, ids: torch.Tensor, logprobs: torch.Tensor, *, fill: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the teacher's view as rows of the student's sequence, [prompt_length + response_length, k] each.

    Args:
        view: of the response.
        num_prompt: tokens of the prompt.
        ids: the tokens scored at each position of the view, [view_length, k]; row i is about token i + 1.
        logprobs: their log-probabilities, of the same shape.
        fill: the log-probability where nothing is scored.
    """
    shape = (num_prompt + len(view.places), ids.shape[1])
    all_ids, all_logprobs = ids.new_zeros(shape), logprobs.new_full(shape, fill)
    pairs = [(num_prompt + index - 1, at - 1) for index, at in enumerate(view.places) if at is not None]
    if pairs:
        rows, sources = (torch.tensor(column) for column in zip(*pairs, strict=True))
        all_ids[rows], all_logprobs[rows] = ids[sources], logprobs[sources]
    return all_ids, all_logprobs
