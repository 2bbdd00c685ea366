"""The one error that a client sees, in OpenAI's form. Pure.

Invariant: a message says what is wrong with the request, or what the client can do; it holds no traceback, no key and
no path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay_verl.errors import RelayError


class ApiError(RelayError):
    """A request that is refused or fails.

    Args:
        status: of HTTP.
        message: what is wrong and what is allowed.
        param: the field of the request that it is about.
        code: a name that programs can test; by default one for the status.
        retry_after_s: seconds after which it is worth another try.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code or _CODES.get(status, "invalid_value")
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that the answer carries besides its type and length."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "service_unavailable"}
_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "service_unavailable",
    504: "timeout",
}


def refuse(param: str, message: str, code: str | None = None) -> ApiError:
    """The 400 for a field of the request."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)
