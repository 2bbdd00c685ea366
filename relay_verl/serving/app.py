"""create_app: the HTTP application, in the form of OpenAI's API and vLLM's habits.

Invariant: every answer that is not a success is `{"error": {...}}`, and no client sees a traceback.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive

from relay_verl.serving.api_error import ApiError
from relay_verl.serving.chat_form import ChatForm
from relay_verl.serving.chat_page import make_chat_page
from relay_verl.serving.client_watch import ClientGoneError, ClientWatch
from relay_verl.serving.completion_form import CompletionForm
from relay_verl.serving.event_stream import EventStream
from relay_verl.serving.form import Form
from relay_verl.serving.gate import Gate, read_keys
from relay_verl.serving.request_fields import ChatFields, CompletionFields
from relay_verl.serving.service import RelayService
from relay_verl.serving.settings import ServerState, ServeSettings
from relay_verl.serving.tokenizer_routes import tokenizer_routes
from relay_verl.serving.writing import write_stream, write_whole
from relay_verl.versions import find_version

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 600
"""Longest message about a body that is not what it should be."""


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    """What is wrong and what is allowed."""
    type: str
    """Its kind, as OpenAI names them."""
    param: str | None
    """The field of the request that it is about."""
    code: str | None
    """A name that programs can test."""


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail
    """What is wrong."""


_VERSION = find_version("relay-verl") or "0.0.0"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 404, 405, 408, 413, 422, 429, 500, 503, 504)
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer, or its stream."}
}


def answer_error(error: ApiError) -> Response:
    """The response for an error."""
    return JSONResponse(error.body, error.status, headers=dict(error.headers))


def create_app(service: RelayService, settings: ServeSettings, *, state: Callable[[], ServerState]) -> FastAPI:
    """The application over one pair.

    Args:
        service: answers requests.
        settings: the operator's; keys are read from the environment here.
        state: how the server is.
    """
    app = FastAPI(title="relay-verl serve", version=_VERSION, responses=_ERRORS)
    _handle_errors(app, service)

    async def check_ready() -> None:  # FastAPI would run a plain function in a thread
        now = state()
        if not now.takes_requests:
            message = f"the server is {now.value.replace('_', ' ')}; try again in a moment"
            raise ApiError(503, message, code=now.value, retry_after_s=settings.retry_after_s)

    def watch(receive: Receive) -> ClientWatch:
        return ClientWatch(receive, settings.request_timeout_s, settings.write_timeout_s)

    def note_error(error: ApiError) -> None:
        service.metrics.errors.labels(error.code).inc()

    async def answer(form: Form, is_stream: bool, request: Request, started_at: float) -> Response:
        if is_stream:
            return EventStream(write_stream(service, form, started_at), watch, answer_noted, note_error)
        try:
            async with watch(request.receive).while_client_waits():
                body = await write_whole(service, form, started_at)
        except ClientGoneError:
            return Response(status_code=499)  # there is no one to read it
        return Response(body, media_type="application/json")

    def answer_noted(error: ApiError) -> Response:
        note_error(error)
        return answer_error(error)

    ready = [Depends(check_ready)]
    as_answer: dict[str, Any] = {
        "response_class": Response,
        "responses": _ANSWERS,
        "dependencies": ready,
        "tags": ["relay"],
    }

    @app.post("/v1/chat/completions", **as_answer)
    async def chat_completions(fields: ChatFields, request: Request) -> Response:
        """Answer a chat."""
        started_at = time.monotonic()
        asked = await service.reader.chat(fields, request.headers, request.state.request_id)
        form = ChatForm(asked, int(time.time()), service.tokens)
        return await answer(form, bool(fields.stream), request, started_at)

    @app.post("/v1/completions", **as_answer)
    async def completions(fields: CompletionFields, request: Request) -> Response:
        """Continue texts or token ids."""
        started_at = time.monotonic()
        asked = await service.reader.completion(fields, request.headers, request.state.request_id)
        form = CompletionForm(asked, int(time.time()), service.tokens)
        return await answer(form, bool(fields.stream), request, started_at)

    def card(name: str) -> dict[str, Any]:
        known = {"created": service.created_at, "owned_by": "relay-verl", "max_model_len": service.max_model_len}
        return {"id": name, "object": "model", "root": service.name, "parent": None, **known}

    @app.get("/v1/models", tags=["models"])
    async def models() -> dict[str, Any]:
        """The pair, under its name and its aliases."""
        return {"object": "list", "data": [card(name) for name in service.reader.model_names]}

    @app.get("/v1/models/{model:path}", tags=["models"])
    async def model(model: str) -> dict[str, Any]:
        """One of them."""
        service.reader.check_model(model)
        return card(model)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(make_chat_page())

    @app.get("/health", tags=["server"], response_class=Response)
    async def health() -> Response:
        """200 while requests are taken, else 503; `/metrics` names the state."""
        now = state()
        return Response(status_code=200 if now.takes_requests else 503, headers={"X-Relay-State": now.value})

    @app.api_route("/ping", methods=["GET", "POST"], tags=["server"], response_class=Response, include_in_schema=False)
    async def ping() -> Response:
        return await health()

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """What Prometheus reads."""
        return Response(service.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/version", tags=["server"])
    async def version() -> dict[str, str]:
        """The version of relay_verl."""
        return {"version": _VERSION}

    app.include_router(tokenizer_routes(service))
    app.add_middleware(
        Gate,
        key_hashes=read_keys(settings.api_key_env),
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.request_timeout_s,
        answer_error=answer_noted,
    )
    if settings.allow_origins:  # around the gate, so that a page can read its refusals
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.allow_origins), allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _handle_errors(app: FastAPI, service: RelayService) -> None:
    """Every error in OpenAI's form."""

    def answered(error: ApiError) -> Response:
        service.metrics.errors.labels(error.code).inc()
        return answer_error(error)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return answered(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answered(explain_invalid(request.headers.get("content-type", ""), error))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"{request.method} {request.url.path[:128]}: {message}"
        return answered(ApiError(error.status_code, message))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # uvicorn logs the traceback; the client gets the name to ask for
        return answered(ApiError(500, f"unexpected error; the log has it as request {request.state.request_id}"))


def explain_invalid(content_type: str, error: RequestValidationError) -> ApiError:
    """The 400 for a body that is not JSON or has a value of a wrong type: its first problem."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return ApiError(400, f"the body is not JSON: {reason}", code="invalid_json")
    if not place or first["type"] == "model_attributes_type":
        hint = "" if "json" in content_type else "; send Content-Type: application/json"
        return ApiError(400, f"the body: expected a JSON object{hint}", code="invalid_json")
    others = {each["msg"] for each in error.errors()[1:] if each["loc"][:2] == first["loc"][:2]}
    message = "; or ".join([first["msg"], *sorted(others)])
    return ApiError(400, f"{'.'.join(place)[:128]}: {message}"[:MAX_MESSAGE_CHARS], param=place[0][:64])
