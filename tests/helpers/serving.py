"""A served pair without models: engines that stream by a rule, an application over them, a real HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import httpx
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.engines.base import Generation
from relay_verl.errors import EngineError
from relay_verl.serving.app import create_app
from relay_verl.serving.service import RelayService
from relay_verl.serving.settings import ServerState, ServeSettings
from relay_verl.serving.web_server import WebServer, listen
from relay_verl.tokenization import TokenBytes

from .tokenizers import BPE_WORDS, make_bpe

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@cache
def tokenizer() -> Any:
    """The byte-level BPE with a chat template."""
    with_template = make_bpe(BPE_WORDS)
    with_template.chat_template = TEMPLATE
    return with_template


class RuleEngine:
    """Writes what a rule says of the context, in pieces, as an engine does: it stops at stop strings and at
    `max_tokens`, and ends with the end-of-sequence token.

    Args:
        rule: the text that a context is continued with.
        piece: tokens of a piece.
        delay_s: seconds before each piece.
    """

    def __init__(self, rule: Callable[[list[int]], str], *, piece: int = 2, delay_s: float = 0.0):
        self._rule = rule
        self._piece = piece
        self._delay_s = delay_s
        self._tokens = TokenBytes(tokenizer())
        self.is_dead = False
        self.num_running = 0
        """Requests that it works on."""
        self.num_written = 0
        """Tokens that it handed out."""
        self.samplings: list[Mapping[str, Any]] = []
        """Parameters of each request."""

    async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
        """See `TokenEngine.generate`."""
        pieces = [piece async for piece in self.stream(prompt_ids, **options)]
        ids = [token_id for piece in pieces for token_id in piece.token_ids]
        return Generation(ids, [-0.5] * len(ids), pieces[-1].finish_reason, pieces[-1].num_cached)

    async def stream(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> AsyncIterator[Generation]:
        """See `StreamingEngine.stream`."""
        self.samplings.append(sampling)
        ids, reason = self._answer(prompt_ids, max_tokens, stop)
        self.num_running += 1
        try:
            for start in range(0, len(ids), self._piece):
                await asyncio.sleep(self._delay_s)
                if self.is_dead:
                    raise EngineError("the server is gone")
                part = ids[start : start + self._piece]
                is_last = start + self._piece >= len(ids)
                self.num_written += len(part)
                yield Generation(part, [-0.5] * len(part), reason if is_last else None, len(prompt_ids) // 2)  # type: ignore[arg-type]
        finally:
            self.num_running -= 1

    def _answer(self, prompt_ids: list[int], max_tokens: int, stop: Sequence[str]) -> tuple[list[int], str]:
        end = tokenizer().eos_token_id
        ids: list[int] = [*tokenizer().encode(self._rule(prompt_ids), add_special_tokens=False), end]
        text = b""
        for count, token_id in enumerate(ids[:max_tokens], start=1):
            text = text[-64:] + self._tokens.to_bytes(token_id)
            if token_id == end:
                return ids[:count], "eos"
            if any(string.encode() in text for string in stop):
                return ids[:count], "stop"
        return ids[:max_tokens], "length"


def text_of(token_ids: Sequence[int]) -> str:
    """What a context says."""
    return TokenBytes(tokenizer()).join(list(token_ids)).decode(errors="replace")


def asks_once(token_ids: list[int]) -> str:
    """A student that asks for three tokens once, and then ends."""
    return " end." if "</call>" in text_of(token_ids) else " so<call>3</call>"


def make_service(
    student: Any = None, teacher: Any = None, relay: RelayFile | None = None, **options: Any
) -> RelayService:
    """A pair called `pair`; by default its student asks once and its teacher writes `abcdef`.

    Args:
        student, teacher: engines; a teacher of False for none.
        relay: how the pair is used.
        options: fields of `ServeSettings`, and `max_model_len`.
    """
    student = student or RuleEngine(asks_once)
    teacher = None if teacher is False else teacher or RuleEngine(lambda _: "abcdef")
    max_model_len = options.pop("max_model_len", 4096)
    settings = ServeSettings(**options)
    return RelayService(student, teacher, tokenizer(), relay or RelayFile(), "pair", max_model_len, None, settings)


def make_app(service: RelayService | None = None, state: ServerState = ServerState.READY, **options: Any) -> FastAPI:
    """An application over a pair; `options` are fields of `ServeSettings`."""
    service = service or make_service(**options)
    return create_app(service, ServeSettings(**options), state=lambda: state)


def text_app(engine: RuleEngine, block_size: int = 4) -> FastAPI:
    """A bare server of one model, as vLLM answers whole completions of a text."""
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "bare", "object": "model", "created": 0, "owned_by": "test"}]}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(f'vllm:cache_config_info{{block_size="{block_size}"}} 1.0\n')

    @app.post("/v1/completions")
    async def completions(body: dict[str, Any]) -> dict[str, Any]:
        prompt = tokenizer().encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
        stop = body["stop"]
        written = await engine.generate(prompt, max_tokens=body["max_tokens"], stop=stop)
        is_end = written.finish_reason == "eos"
        reasons = {
            "finish_reason": "stop" if is_end else written.finish_reason,
            "stop_reason": stop[0] if written.finish_reason == "stop" else None,
        }
        text = text_of(written.token_ids[:-1] if is_end else written.token_ids)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(written.token_ids)}
        return {"object": "text_completion", "choices": [{"index": 0, "text": text, **reasons}], "usage": usage}

    return app


def client_of(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    """A client of an application in this process."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://pair", headers=headers)


@asynccontextmanager
async def running(app: FastAPI, port: int = 0, settings: ServeSettings | None = None) -> AsyncIterator[str]:
    """The application behind the real HTTP server on loopback, on a free port for 0; gives its address."""
    listening = listen("127.0.0.1", port)
    server = WebServer(app, settings or ServeSettings(shutdown_timeout_s=5))
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The same for a test without an event loop: the server runs in a thread."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running(app)) as url:
        yield url


def events_of(text: str) -> list[str]:
    """The data of each server-sent event."""
    return [line.removeprefix("data: ") for line in text.split("\n\n") if line]
