"""RequestReader: from the body of a request to what the pair is asked for.

Invariant: a request is checked whole before an engine is asked, and what a client decides never imports code or reads a
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.policies import needs_student
from relay_verl.serving.aliases import check_calls, check_policy, may_ask_in_turns, names_of, policy_of_model
from relay_verl.serving.api_error import refuse
from relay_verl.serving.prompting import Prompter, response_limits
from relay_verl.serving.refusals import check_fields
from relay_verl.serving.relay_request import RelayRequest, common_options
from relay_verl.serving.request_fields import ChatFields, CompletionFields, RequestFields

DEFAULT_COMPLETION_TOKENS = 16
"""`max_tokens` of a completion that does not say it, as in OpenAI's API."""


class RequestReader:
    """Reads requests to one pair.

    Args:
        name: the model's name to clients.
        relay: how the pair is to be used, as it was trained.
        prompter: turns prompts into token ids.
        has_teacher: whether anyone answers calls.
        has_head: whether the student has a defer head.
        context: tokens of the student's context.
        teacher_context: tokens of the teacher's.
        max_responses: most responses of one request.
    """

    def __init__(
        self,
        name: str,
        relay: RelayFile,
        prompter: Prompter,
        *,
        has_teacher: bool,
        has_head: bool = False,
        context: int,
        teacher_context: int,
        max_responses: int,
    ):
        self._name = name
        self._relay = relay
        self._prompter = prompter
        self._has_teacher = has_teacher
        self._has_head = has_head
        self._context = context
        self._teacher_context = teacher_context
        self._max_responses = max_responses

    @property
    def model_names(self) -> list[str]:
        """NAME and its aliases."""
        return names_of(self._name, has_teacher=self._has_teacher, has_head=self._has_head)

    def check_model(self, model: str) -> None:
        """Whether `model` is served.

        Raises:
            ApiError: 404; lists what there is.
        """
        self._policy_of(model)

    async def prompt_of(self, fields: ChatFields) -> list[int]:
        """The prompt of a chat, [prompt_length].

        Raises:
            ApiError: it is refused.
        """
        check_fields(fields)
        return await self._prompter.chat(fields)

    async def chat(self, fields: ChatFields, headers: Mapping[str, str], request_id: str) -> RelayRequest:
        """The request of a chat.

        Args:
            fields: the body.
            headers: of the request, by their names in lower case.
            request_id: names it, unless the body does.

        Raises:
            ApiError: it is refused.
        """
        policy, options = self._options(fields, headers)
        self._check_number(options["n"])
        prompts = [await self._prompter.chat(fields)]
        asked = fields.max_completion_tokens or fields.max_tokens
        limits = self._limits(policy, prompts, asked, self._relay.limits.max_response_tokens)
        return self._request(fields, policy, options, prompts, limits, request_id)

    async def completion(self, fields: CompletionFields, headers: Mapping[str, str], request_id: str) -> RelayRequest:
        """The request of a completion; arguments and errors are those of `chat`."""
        policy, options = self._options(fields, headers)
        is_one = isinstance(fields.prompt, str) or isinstance(fields.prompt[0], int)
        self._check_number(options["n"] * (1 if is_one else len(fields.prompt)))
        prompts = await self._prompter.completion(fields)
        limits = self._limits(policy, prompts, fields.max_tokens, DEFAULT_COMPLETION_TOKENS)
        return self._request(fields, policy, options, prompts, limits, request_id)

    def _options(self, fields: RequestFields, headers: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """The policy and what else chats and completions share."""
        check_fields(fields)
        alias = self._policy_of(fields.model)
        policy = fields.relay.policy if fields.relay else None
        if policy is not None:
            policy = check_policy(policy, has_head=self._has_head)
            if alias not in (None, policy):
                raise refuse("relay.policy", f"{policy!r} is not what the model {fields.model!r} stands for")
        name = policy or alias or self._relay.policy
        options = common_options(fields, headers, may_call=self._has_teacher and may_ask_in_turns(name))
        check_calls(name, options["max_calls"], has_teacher=self._has_teacher)
        return name, options

    def _policy_of(self, model: str | None) -> str | None:
        """See `policy_of_model`."""
        return policy_of_model(model, self._name, has_teacher=self._has_teacher, has_head=self._has_head)

    def _check_number(self, num_responses: int) -> None:
        if num_responses > self._max_responses:
            message = f"{num_responses} responses are more than the {self._max_responses} of a request"
            raise refuse("n", f"n times the number of prompts: {message}")

    def _limits(self, policy: str, prompts: list[list[int]], asked: int | None, default: int) -> list[int]:
        context = self._context if needs_student(policy) else self._teacher_context
        return response_limits(prompts, asked, default, context)

    def _request(
        self,
        fields: RequestFields,
        policy: str,
        options: Mapping[str, Any],
        prompts: list[list[int]],
        limits: list[int],
        request_id: str,
    ) -> RelayRequest:
        model = fields.model or self._name
        return RelayRequest(fields.request_id or request_id, model, prompts, limits, policy, **options)
