"""RelayService: from a request to the responses that answer it, over one pair of engines.

Invariant: one decoder serves all requests, so that deadlines follow the load of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from dataclasses import replace
from typing import Any
from uuid import uuid4

from relay_verl.allowance import MINUTE_S, Allowance, MeteredTeacher, WithinAllowance
from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.decoder import RelayDecoder
from relay_verl.deferral import Deferral
from relay_verl.deltas import DeltaReader
from relay_verl.engines.base import TokenEngine, check_reads_ids
from relay_verl.errors import UserError
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.policies import make_policy
from relay_verl.policy_base import Policy
from relay_verl.seeds import derive_seed
from relay_verl.serving.admission import Admission
from relay_verl.serving.answer import Answer
from relay_verl.serving.api_error import ApiError, refuse
from relay_verl.serving.prompting import Prompter
from relay_verl.serving.relay_request import RelayRequest
from relay_verl.serving.request_reader import RequestReader
from relay_verl.serving.serve_metrics import ServeMetrics
from relay_verl.serving.settings import ServerState, ServeSettings


class RelayService:
    """Answers requests with one pair.

    Args:
        student: writes.
        teacher: answers calls; None leaves every command unserved.
        tokenizer: both models'.
        relay: how the pair is to be used, as it was trained.
        name: the model's name to clients.
        max_model_len: tokens of the student's context.
        teacher_max_model_len: tokens of the teacher's; None for as many.
        settings: the operator's.
        vocabulary: of the student; of unknown size if None.
        deferral: how the student's engine asks for the teacher, where it has a defer head.
        state: how the server is, for metrics.
    """

    def __init__(
        self,
        student: TokenEngine,
        teacher: TokenEngine | None,
        tokenizer: Any,
        relay: RelayFile,
        name: str,
        max_model_len: int,
        teacher_max_model_len: int | None,
        settings: ServeSettings,
        *,
        vocabulary: Vocabulary | None = None,
        deferral: Deferral | None = None,
        state: Callable[[], ServerState] = lambda: ServerState.READY,
    ):
        check_reads_ids("student", student)
        check_reads_ids("teacher", teacher)
        if deferral is None and make_policy(relay.policy).defer_threshold(0.0) is not None:
            raise UserError(f"relay.json: policy: {relay.policy}: the student has no defer head; give --defer-head")
        self.name = name
        self.relay = relay
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        self.created_at = int(time.time())
        vocabulary = vocabulary or read_vocabulary(None, tokenizer)
        config = relay.decoder_config(
            max_response_tokens=max_model_len,
            vocab_size=vocabulary.size,
            end_ids=vocabulary.end_ids,
            deferral=deferral,
            student_timeout_s=settings.student_timeout_s,
            teacher_timeout_s=settings.teacher_timeout_s,
        )
        self._decoder = RelayDecoder(student, teacher, tokenizer, config)
        self.tokens = self._decoder.tokens
        template = relay.template
        self.prompter = Prompter(
            tokenizer, template.chat_template_kwargs, template.system, vocabulary.size or len(tokenizer)
        )
        self.reader = RequestReader(
            name,
            relay,
            self.prompter,
            has_teacher=teacher is not None,
            has_head=deferral is not None,
            context=max_model_len,
            teacher_context=min(teacher_max_model_len or max_model_len, max_model_len),
            max_responses=min(settings.max_choices, settings.max_concurrency),  # each has a place of its own
        )
        self._minute: Allowance | None = None
        if settings.teacher_tokens_per_minute is not None:
            self._minute = Allowance(settings.teacher_tokens_per_minute, MINUTE_S)
        self._admission = Admission(settings.max_concurrency, settings.max_queue, settings.retry_after_s)
        minute = self._minute
        self.metrics = ServeMetrics(
            state,
            lambda: self._admission.num_running,
            lambda: self._admission.num_waiting,
            None if minute is None else lambda: minute.num_left,
        )

    def place(self, request: RelayRequest) -> AbstractAsyncContextManager[None]:
        """Hold places for a request's responses while they are written.

        Raises:
            ApiError: 429; too many wait.
        """
        return self._admission.place(request.num_responses)

    def answers(self, request: RelayRequest, started_at: float) -> list[Answer]:
        """The responses of a request, in the order of their choices; iterating one writes it.

        Args:
            request: what was asked.
            started_at: when it came, by `time.monotonic`.

        Raises:
            ApiError: the teacher was asked to write alone and its budget is spent.
        """
        decoder = self._decoder_for(request)
        answers = []
        for number, (prompt, limit) in enumerate(zip(request.prompts, request.limits, strict=True)):
            for sample in range(request.n):
                index = number * request.n + sample
                answers.append(self._answer(request, decoder, index, prompt, limit, started_at))
        self.metrics.prompt_tokens.inc(request.num_prompt_tokens)  # a refused request has no usage either
        return answers

    def _decoder_for(self, request: RelayRequest) -> RelayDecoder:
        """The decoder with a request's own limits: a copy, which shares all that depends on the engines' load."""
        config = self._decoder.config
        changes: dict[str, Any] = {}
        if request.max_calls is not None:
            changes["max_calls"] = request.max_calls
            if config.max_calls is not None:  # what the model's file allows is not for a client to raise
                changes["max_calls"] = min(request.max_calls, config.max_calls)
        if request.on_teacher_failure is not None:
            changes["on_teacher_failure"] = request.on_teacher_failure
        decoder = copy(self._decoder)
        decoder.note_failed_call = self._decoder.note_failed_call  # type: ignore[method-assign]  # which warns once
        decoder.config = replace(config, **changes)
        decoder.end_ids = frozenset() if request.ignore_eos else decoder.end_ids
        decoder.end_ids |= request.stop_token_ids
        return decoder

    def _answer(
        self,
        request: RelayRequest,
        decoder: RelayDecoder,
        index: int,
        prompt: list[int],
        limit: int,
        started_at: float,
    ) -> Answer:
        seed = request.seed if request.seed is None or index == 0 else derive_seed(request.seed, index)
        policy = make_policy(request.policy, derive_seed(uuid4().int if seed is None else seed, "policy"))
        is_alone = not type(policy).needs_student
        sampling = self._sampling(request, self.relay.sampling.student.parameters(), seed)
        teacher_sampling = sampling if is_alone else self._sampling(request, {}, seed)
        metered, limited = self._bounded(request, policy) if type(policy).needs_teacher else (None, None)
        if is_alone:
            # who writes the whole response has to write it: a failure is an error, and a spent budget, too
            decoder = copy(decoder)
            decoder.config = replace(decoder.config, on_teacher_failure="fail", teacher_sampling={})
            limit = min(limit, self._whole_budget(request))
        relay = decoder.stream(
            prompt,
            sampling=sampling,
            teacher_sampling=teacher_sampling,
            policy=policy if limited is None or is_alone else limited,
            max_response_tokens=limit,
            teacher=metered,
        )
        reader = DeltaReader(
            self.tokens,
            show_commands=request.shows_commands,
            stop=request.stop,
            include_stop=request.include_stop,
            skip_end=request.skip_special_tokens,
            stop_ids=request.stop_token_ids,
        )
        # the end of a sequence is not the client's reason, unless it asked for more behind it
        stop_ids = request.stop_token_ids if request.ignore_eos else request.stop_token_ids - self._decoder.end_ids
        return Answer(index, prompt, relay, reader, decoder.end_ids, stop_ids, self.metrics, started_at, limited)

    def _sampling(self, request: RelayRequest, trained: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
        """Sampling parameters of one writer: those of the training, and over them the request's."""
        sampling = {**trained, **request.sampling}
        if seed is not None:
            sampling["seed"] = seed
        if request.has_logprobs:
            sampling["logprobs"] = True
        if request.ignore_eos:
            sampling["ignore_eos"] = True
        if request.stop_token_ids:
            sampling["stop_token_ids"] = sorted(request.stop_token_ids)
        return sampling

    def _bounded(
        self, request: RelayRequest, policy: Policy
    ) -> tuple[MeteredTeacher, WithinAllowance] | tuple[None, None]:
        """The teacher and the policy within the budgets; None where there are none, which costs nothing."""
        allowances = [] if self._minute is None else [self._minute]
        if request.max_teacher_tokens is not None:
            allowances.append(Allowance(request.max_teacher_tokens))
        teacher = self._decoder.teacher
        if not allowances or teacher is None:
            return None, None
        metered = MeteredTeacher(teacher, self._decoder.teacher_pulse, allowances)
        return metered, WithinAllowance(policy, metered)

    def _whole_budget(self, request: RelayRequest) -> int:
        """Tokens that a teacher may write that writes alone.

        Raises:
            ApiError: none.
        """
        own = self.max_model_len if request.max_teacher_tokens is None else request.max_teacher_tokens
        if own < 1:
            raise refuse("relay.max_teacher_tokens", "0 leaves the teacher alone nothing to write")
        left = own if self._minute is None else self._minute.num_left
        if left < 1:
            message = "the teacher's tokens of this minute are spent"
            raise ApiError(429, message, code="teacher_budget_spent", retry_after_s=int(MINUTE_S))
        return min(own, left)
