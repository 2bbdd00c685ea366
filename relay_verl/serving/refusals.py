"""What a relay cannot honour, each with the sentence that helps. Pure.

Invariant: no field is ignored that would change the answer. A field with the value that means "off" is taken, since
clients send whole forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay_verl.serving.api_error import refuse
from relay_verl.serving.request_fields import ChatFields, CompletionFields, RequestFields

_TEXT_ONLY = "a relay writes plain text"
_NO_FORMAT = f"{_TEXT_ONLY}; a format cannot be enforced across two models"
_TOKENS = "both models sample without it"
_REASONS: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), f"{_TEXT_ONLY}; tools are not called"),
    "tool_choice": (("none", "auto"), f"{_TEXT_ONLY}; tools are not called"),
    "functions": (([],), f"{_TEXT_ONLY}; functions are not called"),
    "function_call": (("none", "auto"), f"{_TEXT_ONLY}; functions are not called"),
    "parallel_tool_calls": ((True, False), ""),
    "response_format": (({"type": "text"},), _NO_FORMAT),
    "structured_outputs": (({},), _NO_FORMAT),
    "guided_json": ((), _NO_FORMAT),
    "guided_regex": ((), _NO_FORMAT),
    "guided_choice": ((), _NO_FORMAT),
    "guided_grammar": ((), _NO_FORMAT),
    "logit_bias": (({},), _TOKENS),
    "bad_words": (([],), f"{_TOKENS}; to ban commands, use relay.policy=teacher_free"),
    "allowed_token_ids": (([],), _TOKENS),
    "logits_processors": (([],), _TOKENS),
    "use_beam_search": ((False,), "a relay samples"),
    "best_of": ((1,), "a relay does not rank its responses; use n"),
    "suffix": (("",), "a relay only continues text"),
    "echo": ((False,), "no relay can be in the prompt's log-probabilities; ask the student's own server"),
    "prompt_logprobs": ((), "no relay can be in the prompt's log-probabilities; ask the student's own server"),
    "truncate_prompt_tokens": ((), "prompts are not cut; shorten the prompt"),
    "length_penalty": ((1, 1.0), "a relay samples"),
    "modalities": ((["text"],), _TEXT_ONLY),
    "audio": ((), _TEXT_ONLY),
    "prediction": ((), "a relay does not take predicted outputs"),
    "web_search_options": ((), "a relay does not search"),
    "reasoning_effort": ((), "set the chat template's own switch in chat_template_kwargs"),
    "documents": (([],), "put documents into the messages"),
    "chat_template": ((), "the model's own chat template is used"),
    "prompt_embeds": ((), "a prompt is a text or token ids"),
    "spaces_between_special_tokens": ((True, False), ""),
    "detokenize": ((True,), "answers have text"),
    "return_tokens_as_token_ids": ((False,), "use return_token_ids"),
}
"""What a field may be and still be taken, and why not else; null always may."""
HARMLESS = frozenset(
    {
        *("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("priority", "cache_salt"),
    }
)
"""Fields that do not change an answer."""
TEMPLATE_KEYS = frozenset(
    {
        *("chat_template", "tokenize", "return_dict", "return_tensors", "padding", "truncation", "max_length"),
        *("add_generation_prompt", "continue_final_message", "conversation", "messages", "tools", "documents"),
        *("tokenizer_kwargs", "return_assistant_tokens_mask"),
    }
)
"""Arguments of the tokenizer that a client does not decide in `chat_template_kwargs`."""


def check_fields(fields: RequestFields) -> None:
    """Refuse what a relay cannot honour.

    Raises:
        ApiError: 400; names the field.
    """
    check_others(fields.model_extra or {})
    if isinstance(fields, ChatFields):
        _check_chat(fields)
    if isinstance(fields, CompletionFields) and fields.logprobs:
        raise refuse("logprobs", "0 gives the log-probability of each token; alternatives to it are not known")
    if fields.stream_options is not None and not fields.stream:
        raise refuse("stream_options", "only with stream=true")


def check_others(extra: Mapping[str, Any]) -> None:
    """Refuse fields that no model of a body has, unless they change nothing.

    Raises:
        ApiError: 400; names the field.
    """
    for name, value in extra.items():
        if value is None or name in HARMLESS:
            continue
        if name not in _REASONS:
            raise refuse(f"{name:.64}", "not a field of this request")  # long names come from fuzzers
        neutral, reason = _REASONS[name]
        if not any(value == each and type(value) is type(each) for each in neutral):
            raise refuse(name, f"not possible here: {reason}")


def _check_chat(fields: ChatFields) -> None:
    if fields.top_logprobs:
        raise refuse("top_logprobs", "0 gives the log-probability of each token; alternatives to it are not known")
    if fields.top_logprobs is not None and not fields.logprobs:
        raise refuse("top_logprobs", "only with logprobs=true")
    counts = {fields.max_tokens, fields.max_completion_tokens} - {None}
    if len(counts) > 1:
        raise refuse("max_completion_tokens", f"differs from max_tokens: {sorted(counts)}")  # type: ignore[type-var]
    for key in fields.chat_template_kwargs or {}:
        if key in TEMPLATE_KEYS:
            raise refuse("chat_template_kwargs", f"{key} is not an argument of the chat template")
    if fields.continue_final_message:
        if fields.add_generation_prompt:
            raise refuse("continue_final_message", "not with add_generation_prompt=true")
        if fields.messages[-1].role != "assistant":
            raise refuse("continue_final_message", "the last message has to be the assistant's")
    for message in fields.messages:
        further = message.model_extra or {}
        if any(further.get(key) for key in ("tool_calls", "function_call", "audio")):
            raise refuse("messages", f"not possible here: {_TEXT_ONLY}; tools are not called")
