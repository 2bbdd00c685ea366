"""A second door of a `vllm serve` process that `relay-verl serve` starts: a Unix socket that streams token ids.

A token through vLLM's HTTP API is a JSON document of some hundred bytes, an event and a chunk of HTTP, for each
request by itself. Here the tokens that all requests got in one step of the engine are one frame of a few bytes each.
What is asked is the same engine with the same parameters. Without the door, or where it cannot be reached, HTTP
serves.

The door is ASGI middleware that `vllm serve` takes by its name (`--middleware`), so it is in the process of the
engine's client. Only the same user can reach the socket, whose folder has mode 0700.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from relay_verl.engines.boundary import describe
from relay_verl.models.frame_server import FrameServer
from relay_verl.models.wire import Answer, Request, Sender

NAME = f"{__name__}.StreamDoor"
"""What `--middleware` is given."""
PATH_VARIABLE = "RELAY_STREAM_DOOR"
"""Environment variable with the path of the socket."""
BACKLOG = 64
"""Connections that may wait to be accepted."""


class StreamDoor:
    """Opens the door with the first request to vLLM's HTTP server, once its engine is there."""

    def __init__(self, app: ASGIApp):
        self._app = app
        self._path = os.environ.get(PATH_VARIABLE, "")
        self._listening: asyncio.Server | None = None
        self._is_open = not self._path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_open and scope["type"] == "http":
            self._is_open = True
            with suppress(FileNotFoundError):  # of a process that was killed
                os.unlink(self._path)
            server = StreamServer(scope["app"].state.engine_client)
            self._listening = await asyncio.start_unix_server(server.serve, self._path, backlog=BACKLOG)
        await self._app(scope, receive, send)


class StreamServer(FrameServer):
    """Streams what an engine writes.

    Args:
        engine: vLLM's asynchronous client of it.
    """

    def __init__(self, engine: Any):
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        self._engine = engine
        self._make_prompt = tokens_input
        self._make_params = SamplingParams
        self._in_pieces = RequestOutputKind.DELTA
        self._dead_error = EngineDeadError

    async def answer(self, request: Request, sender: Sender) -> None:
        """Each piece as it comes; the last one has a `stop_reason`, or an error."""
        number = request.number
        try:
            params = self._make_params(**request.sampling, output_kind=self._in_pieces)
            prompt = self._make_prompt(request.prompt_ids)
            async for output in self._engine.generate(prompt, params, request.request_id):
                sender.send(_piece_of(number, output))
        except (TypeError, ValueError) as error:  # how vLLM refuses a request
            sender.send(Answer(number, error=describe(error), is_refusal=True))
        except Exception as error:  # the client is told: it decides what a server in trouble means
            is_dead = isinstance(error, self._dead_error)
            sender.send(Answer(number, error=describe(error), is_dead=is_dead))


def _piece_of(number: int, output: Any) -> Answer:
    """What the engine wrote since the last one."""
    completion = output.outputs[0]
    ids = list(completion.token_ids)
    logprobs = completion.logprobs and [chosen[i].logprob for i, chosen in zip(ids, completion.logprobs, strict=True)]
    if not output.finished:
        return Answer(number, ids, logprobs)
    reason = completion.finish_reason
    if reason not in ("stop", "length"):
        return Answer(number, error=f"the request did not end: finish_reason is {reason!r}")
    reason = "eos" if reason == "stop" and not isinstance(completion.stop_reason, str) else reason
    return Answer(number, ids, logprobs, reason, {"num_cached_tokens": output.num_cached_tokens})
