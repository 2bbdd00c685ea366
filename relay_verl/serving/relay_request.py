"""A request as the pair answers it: prompts as token ids, limits, sampling, and how it relays. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relay_verl.relay_config import OnTeacherFailure
from relay_verl.serving.api_error import refuse
from relay_verl.serving.request_fields import ChatFields, CompletionFields, RequestFields

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
_OF_ONE_TURN: Mapping[str, float] = {"presence_penalty": 0, "frequency_penalty": 0, "min_tokens": 0}
"""What an engine counts over the tokens of one turn, with the value that is off."""
MAX_CALLS_HEADER = "x-relay-max-calls"
MAX_TEACHER_TOKENS_HEADER = "x-relay-max-teacher-tokens"


@dataclass(frozen=True)
class RelayRequest:
    """What a client asked for."""

    request_id: str
    """Names it in the answer, in logs and in the header X-Request-Id."""
    model: str
    """The model's name as the client gave it."""
    prompts: list[list[int]]
    """Token ids, [num_prompts][prompt_length]."""
    limits: list[int]
    """Most tokens of a response to each prompt, [num_prompts]."""
    policy: str
    """Who calls and for how long."""
    n: int = 1
    """Responses a prompt."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Both writers' sampling parameters that the request gives, under vLLM's names."""
    seed: int | None = None
    """Of the first response; the others' follow from it."""
    stop: tuple[str, ...] = ()
    """Strings that end a response."""
    stop_token_ids: frozenset[int] = frozenset()
    """Ids that end a response."""
    include_stop: bool = False
    """Whether the text holds the stop string."""
    ignore_eos: bool = False
    """Whether a response continues past its end-of-sequence token."""
    skip_special_tokens: bool = True
    """Whether the text leaves out special tokens."""
    has_logprobs: bool = False
    """Whether choices have log-probabilities."""
    has_token_ids: bool = False
    """Whether choices have token ids."""
    max_calls: int | None = None
    """Most calls of a response; None as the model's file says."""
    max_teacher_tokens: int | None = None
    """Most tokens that the teacher writes in a response; None for no limit of the request's."""
    on_teacher_failure: OnTeacherFailure | None = None
    """What a failed call does; None as the model's file says."""
    shows_commands: bool = False
    """Whether the text shows commands."""
    has_usage: bool = False
    """Whether a stream ends with the usage."""
    has_usage_always: bool = False
    """Whether each chunk of a stream has the usage so far."""

    @property
    def num_responses(self) -> int:
        """Responses to all prompts."""
        return self.n * len(self.prompts)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(map(len, self.prompts))


def common_options(fields: RequestFields, headers: Mapping[str, str], *, may_call: bool) -> dict[str, Any]:
    """The fields of `RelayRequest` that chats and completions share.

    Args:
        fields: the body.
        headers: of the request, by their names in lower case.
        may_call: whether a call may be served, so that a response may have several turns.

    Raises:
        ApiError: 400; names the field.
    """
    for name, neutral in _OF_ONE_TURN.items():
        if getattr(fields, name) not in (None, neutral) and may_call:
            raise refuse(name, "an engine counts one turn's tokens; ask without calls (relay.policy=student_alone)")
    sampling = {name: getattr(fields, name) for name in _SAMPLING if getattr(fields, name) is not None}
    sampling |= {"top_k": -1} if sampling.get("top_k") == 0 else {}
    sampling |= {"min_tokens": fields.min_tokens} if fields.min_tokens else {}
    relay, stream = fields.relay, fields.stream_options
    stop = [fields.stop] if isinstance(fields.stop, str) else fields.stop or []
    return {
        "n": fields.n or 1,
        "sampling": sampling,
        "seed": None if fields.seed == -1 else fields.seed,
        "stop": tuple(stop),
        "stop_token_ids": frozenset(fields.stop_token_ids or ()),
        "include_stop": bool(fields.include_stop_str_in_output),
        "ignore_eos": bool(fields.ignore_eos),
        "skip_special_tokens": fields.skip_special_tokens is not False,
        "has_logprobs": _has_logprobs(fields),
        "has_token_ids": bool(fields.return_token_ids),
        "max_calls": _least(relay.max_calls if relay else None, _count_in(headers, MAX_CALLS_HEADER)),
        "max_teacher_tokens": _least(
            relay.max_teacher_tokens if relay else None, _count_in(headers, MAX_TEACHER_TOKENS_HEADER)
        ),
        "on_teacher_failure": relay.on_teacher_failure if relay else None,
        "shows_commands": bool(relay and relay.show_commands),
        "has_usage": bool(stream and stream.include_usage),
        "has_usage_always": bool(stream and stream.include_usage and stream.continuous_usage_stats),
    }


def _has_logprobs(fields: RequestFields) -> bool:
    if isinstance(fields, ChatFields):
        return bool(fields.logprobs)
    return isinstance(fields, CompletionFields) and fields.logprobs is not None


def _least(*limits: int | None) -> int | None:
    """The strictest of them: a gateway's header and a client's body both hold."""
    return min((limit for limit in limits if limit is not None), default=None)


def _count_in(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise refuse(name, f"expected a number of at most 9 digits, got {text[:32]!r}")
    return int(text)
