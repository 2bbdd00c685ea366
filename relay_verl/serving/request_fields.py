"""The bodies of requests, as OpenAI's API and vLLM's additions to it name their fields. Pure.

Invariant: a field is honoured, harmless, or refused (`relay_verl.serving.refusals`); a value of the wrong type is
refused, never converted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay_verl.relay_config import OnTeacherFailure

MAX_STOP = 16
"""Most stop strings of a request."""
MAX_SEED = 2**62
"""Largest seed: each turn of a response adds the number of its tokens to it."""
MAX_TOKEN_ID = 2**31 - 1
"""Largest token id."""

StopString = Annotated[str, Field(min_length=1, max_length=1024)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Count = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class RelayOptions(BaseModel):
    """How this request relays; what it leaves out is as the model's `relay.json` says."""

    model_config = _STRICT

    policy: Annotated[str, Field(max_length=64)] | None = None
    """Who calls and for how long: learned, teacher_free, fixed_20, student_alone, teacher_alone ..."""
    max_calls: Count | None = None
    """Most calls in a response; 0 turns them off."""
    max_teacher_tokens: Count | None = None
    """Most tokens that the teacher writes in a response."""
    on_teacher_failure: OnTeacherFailure | None = None
    """'continue': the student continues alone; 'drop' and 'fail': the request ends with an error."""
    show_commands: bool = False
    """Whether the text shows the student's commands."""


class StreamOptions(BaseModel):
    """What a stream has besides its text."""

    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = None
    """Whether a last chunk without choices has the usage."""
    continuous_usage_stats: bool | None = None
    """Whether every chunk has the usage so far."""


class RequestFields(BaseModel):
    """What chats and completions have in common."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: Annotated[str, Field(max_length=512)] | None = None
    """NAME, or one of its aliases; None takes NAME."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events."""
    stream_options: StreamOptions | None = None
    """What a stream has besides its text."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)] | None = None
    """Most tokens of a response: both writers, commands included."""
    n: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Responses a prompt."""
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP)] | None = None
    """Strings that end a response, whoever writes them; commands are not part of the text they are looked for in."""
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    """Token ids that end a response."""
    include_stop_str_in_output: bool | None = None
    """Whether the text holds the stop string."""
    seed: Annotated[int, Field(ge=-1, le=MAX_SEED)] | None = None
    """Of both writers; -1 and null draw one."""
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """Of both writers; by default as each was trained."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of both writers."""
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None = None
    """Of both writers; -1 and 0 for all tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of both writers."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """Of both writers; it counts prompt and response."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Taken where no call can be served, since an engine counts the tokens of one turn."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """The same."""
    min_tokens: Count | None = None
    """The same."""
    ignore_eos: bool | None = None
    """Whether a response continues past an end-of-sequence token."""
    skip_special_tokens: bool | None = None
    """Whether the text leaves out special tokens; true by default."""
    return_token_ids: bool | None = None
    """Whether choices have `token_ids`, and the first one of a prompt `prompt_token_ids`."""
    relay: RelayOptions | None = None
    """How this request relays."""
    request_id: Annotated[str, Field(max_length=128)] | None = None
    """Names the answer; the header X-Request-Id does so, too."""
    user: str | None = None
    """Taken and not used."""


class ChatMessage(BaseModel):
    """One message of a chat; further keys go to the chat template."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    """Who says it; a developer is a system."""
    content: str | list[dict[str, Any]] | None = None
    """A text, or a list of text parts."""


class ChatFields(RequestFields):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The chat so far."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)] | None = None
    """`max_tokens` by its newer name."""
    logprobs: bool | None = None
    """Whether choices have the log-probability of each token, as its writer sampled it."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Only 0: alternatives are not known."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template, added to those of the training."""
    add_generation_prompt: bool | None = None
    """Whether the prompt ends where an answer begins; true by default."""
    continue_final_message: bool | None = None
    """Whether the response continues the last message."""


class CompletionFields(RequestFields):
    """The body of `/v1/completions`."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    )
    """A text, several, token ids, or several lists of them."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """0: choices have the log-probability of each token; alternatives are not known."""
    add_special_tokens: bool | None = None
    """Whether the tokenizer adds its special tokens to a text; true by default."""
