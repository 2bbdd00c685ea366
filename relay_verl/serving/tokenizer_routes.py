"""`/tokenize`, `/detokenize` and `/tokenizer_info`, as vLLM answers them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from relay_verl.serving.api_error import refuse
from relay_verl.serving.refusals import check_others
from relay_verl.serving.request_fields import ChatFields, ChatMessage, TokenId
from relay_verl.serving.service import RelayService


class TokenizeFields(BaseModel):
    """A text or a chat."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    """One of the pair's names; all have one tokenizer."""
    prompt: str | None = None
    """The text; null where `messages` has a chat."""
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    """The chat."""
    add_special_tokens: bool | None = None
    """Whether the tokenizer adds its special tokens to a text; true by default."""
    add_generation_prompt: bool = True
    """Whether a chat's prompt ends where an answer begins."""
    continue_final_message: bool = False
    """Whether it ends in the last message, which the response continues."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template."""
    return_token_strs: bool = False
    """Whether the answer has the text of each token."""


class Tokens(BaseModel):
    """A prompt as token ids."""

    count: int
    """How many."""
    max_model_len: int
    """Tokens of the context."""
    tokens: list[int]
    """[count]."""
    token_strs: list[str] | None = None
    """The text of each, [count]."""


class DetokenizeFields(BaseModel):
    """Token ids."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    """One of the pair's names; all have one tokenizer."""

    tokens: list[TokenId]
    """[length]."""


class Text(BaseModel):
    """What token ids say."""

    prompt: str
    """Their text, special tokens included."""


def tokenizer_routes(service: RelayService) -> APIRouter:
    """The three endpoints over the pair's own tokenizer."""
    router = APIRouter(tags=["tokenizer"])

    @router.post("/tokenize")
    async def tokenize(fields: TokenizeFields) -> Tokens:
        """Token ids of a text or of a chat."""
        _check(fields, service)
        if fields.messages is not None:
            chat = ChatFields(
                messages=fields.messages,
                add_generation_prompt=fields.add_generation_prompt,
                continue_final_message=fields.continue_final_message,
                chat_template_kwargs=fields.chat_template_kwargs,
            )
            ids = await service.reader.prompt_of(chat)
        else:
            text, has_special = fields.prompt or "", fields.add_special_tokens is not False
            ids = await service.prompter.encode(text, has_special=has_special) if text else []
        texts = None
        if fields.return_token_strs:
            texts = [service.tokens.to_bytes(each).decode("utf-8", errors="replace") for each in ids]
        return Tokens(
            count=len(ids),
            max_model_len=service.max_model_len,
            tokens=ids,
            token_strs=texts,
        )

    @router.post("/detokenize")
    async def detokenize(fields: DetokenizeFields) -> Text:
        """The text of token ids."""
        check_others(fields.model_extra or {})
        if fields.model is not None:
            service.reader.check_model(fields.model)
        data = service.tokens.join(service.prompter.known_ids(fields.tokens))
        return Text(prompt=data.decode("utf-8", errors="replace"))

    @router.get("/tokenizer_info")
    async def tokenizer_info() -> dict[str, Any]:
        """What clients ask of a tokenizer: its class, its special tokens and its chat template."""
        tokenizer = service.tokenizer
        names = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template", "model_max_length")
        known = {name: getattr(tokenizer, name, None) for name in names}
        return {"tokenizer_class": type(tokenizer).__name__, **known}

    return router


def _check(fields: TokenizeFields, service: RelayService) -> None:
    """Refuse what would be ignored.

    Raises:
        ApiError: 400, a field that would be ignored; 404, an unknown model.
    """
    check_others(fields.model_extra or {})
    if fields.model is not None:
        service.reader.check_model(fields.model)
    if (fields.prompt is None) == (fields.messages is None):
        raise refuse("prompt", "expected either prompt, a text, or messages, a chat")
    if fields.messages is not None:
        if fields.add_special_tokens:
            raise refuse("add_special_tokens", "only with prompt: the chat template writes a chat's special tokens")
        return
    for name in ("chat_template_kwargs", "continue_final_message"):
        if getattr(fields, name):
            raise refuse(name, "only with messages")
