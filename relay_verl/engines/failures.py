"""Why a request to an endpoint failed, in words that say what to do, and whether asking again can help. Pure.

A client wraps what went wrong several times: openai's `Connection error.` holds httpx's `All connection attempts
failed`, which holds the operating system's `Connection refused`. `explain` walks down to the cause.

A refusal is permanent: HTTP 4xx, but for the statuses of a moment's trouble (408, 409, 425, 429), and whatever says
that the prompt is too long for the model, or that the quota is spent. 400, 413 and 422 concern the one request;
401, 403, 404 and others concern every request to this address with this key.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relay_verl.errors import EngineError, PermanentError

MAX_MESSAGE_CHARS = 1 << 16
"""Longest part of an endpoint's own words that is looked at. A message repeats far less of it, but a key has to be
taken out before words are cut, or its beginning would be left."""

_PASSING = (408, 409, 425, 429)
_OF_ONE_REQUEST = (400, 413, 422)
_TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum model length|prompt is too long|input is too long|request too large",
    re.IGNORECASE,
)
_NO_MONEY = "insufficient_quota"
_WITHOUT_WORDS = ("", "Connection error.", "All connection attempts failed", "Request timed out.")


class RetriedError(EngineError):
    """The endpoint failed, and the client has used up its own retries.

    Args:
        message: the cause, without line breaks.
        status_code: the HTTP status of the last answer; None if there was none.
    """

    def __init__(self, message: str, status_code: int | None = None):
        super().__init__(message)
        self.status_code = status_code


@dataclass(frozen=True)
class Refusal:
    """An HTTP answer that is an error."""

    status: int
    """HTTP status."""
    message: str
    """The endpoint's words, without line breaks; empty if it has none."""
    param: str | None = None
    """The parameter that it names as the cause."""
    code: str | None = None
    """Its own code of the error, such as context_length_exceeded."""

    @classmethod
    def read(cls, status: int, body: bytes) -> Refusal:
        """An error as OpenAI, vLLM and FastAPI write it, or any text."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = body.decode("utf-8", "replace")
        details = value.get("error", value) if isinstance(value, Mapping) else value
        if not isinstance(details, Mapping):
            return cls(status, _on_one_line(details))
        message = details.get("message") or details.get("detail") or details.get("msg") or ""
        param, code = details.get("param"), details.get("code") or details.get("type")
        if isinstance(message, list):  # FastAPI's: one item for each field that is wrong
            fields = [item for item in message if isinstance(item, Mapping)]
            message = "; ".join(f"{'.'.join(map(str, f.get('loc') or ()))}: {f.get('msg', '')}" for f in fields)
            code = code or next((f.get("type") for f in fields), None)
        return cls(status, _on_one_line(message), _text_or_none(param), _text_or_none(code))

    @property
    def is_permanent(self) -> bool:
        """Whether the same request would be refused again."""
        is_final_status = 400 <= self.status < 500 and self.status not in _PASSING
        return is_final_status or self.code == _NO_MONEY or self._is_too_long

    @property
    def concerns_all(self) -> bool:
        """Whether every other request would be refused, too."""
        return self.is_permanent and self.status not in _OF_ONE_REQUEST and not self._is_too_long

    @property
    def _is_too_long(self) -> bool:
        return _TOO_LONG.search(f"{self.message} {(self.code or '').replace('_', ' ')}") is not None

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.message}" if self.message else f"HTTP {self.status}"

    def to_error(self, text: str) -> EngineError:
        """The error that says `text`."""
        if self.is_permanent:
            return PermanentError(text, concerns_all=self.concerns_all)
        return RetriedError(text, self.status)


def explain_endpoint_error(error: BaseException, url: str, proxy: str | None) -> str:
    """Why `url` could not be asked, without line breaks and uncut; a key in the text is still in it.

    Args:
        error: what the client raised.
        url: whom it asked.
        proxy: through which proxy.
    """
    chain = list(_causes(error))
    text = _kind(chain, url) or _deepest(chain)
    if proxy is not None and not any(isinstance(cause, ssl.SSLError) for cause in chain):
        text += f" (through the proxy {proxy} of the environment; NO_PROXY names hosts that are reached without it)"
    return text


def _kind(chain: list[BaseException], url: str) -> str | None:
    """The failures that users meet, each with its remedy; None for others."""
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: {cause.verify_message or _on_one_line(cause)}; SSL_CERT_FILE names certificates to trust"
        if isinstance(cause, ssl.SSLError):
            is_plain = "WRONG_VERSION_NUMBER" in str(cause) or "RECORD_LAYER" in str(cause)
            return f"TLS: {_on_one_line(cause)}" + ("; the server speaks plain http://" if is_plain else "")
        if isinstance(cause, socket.gaierror):
            return f"DNS: {cause.strerror or _on_one_line(cause)}"
        if isinstance(cause, ConnectionRefusedError):
            return "Connection refused: no server listens there"
    reason = _deepest(chain)
    is_cut = any(isinstance(cause, ConnectionResetError) for cause in chain) or reason.endswith("ReadError")
    if url.startswith("http:") and (is_cut or "without sending a response" in reason):
        return f"{reason}; a server that expects TLS (https://) closes connections so, too"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, from outside to inside. httpcore drops `__cause__` on the way, but keeps the cause
    as the error's argument."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        inner = [item for item in cause.args if isinstance(item, BaseException)]
        if isinstance(cause, BaseExceptionGroup):
            inner += cause.exceptions
        context = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or (inner[0] if inner else context)


def _deepest(chain: list[BaseException]) -> str:
    """The innermost error that has words, or else the name of the outermost one's cause."""
    for cause in reversed(chain):
        if (text := _on_one_line(cause)) not in _WITHOUT_WORDS:
            return f"{type(cause).__name__}: {text}"
    return type(chain[1] if len(chain) > 1 else chain[0]).__name__


def _on_one_line(value: Any) -> str:
    return f"{' '.join(str(value).split()):.{MAX_MESSAGE_CHARS}}"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
