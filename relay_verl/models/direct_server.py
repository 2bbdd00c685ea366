"""A second door of verl's rollout server, for clients on its node: a Unix socket in the server's own process.

A request through Ray passes three actors (balancer, server, balancer) with a pickled object each time; here it is a few
bytes, and the answers that vLLM gives in one of its steps come back together. What is asked is verl's own `generate`,
so all that it does to a request is done. Two things differ: vLLM hands out an answer when it is whole, not token by
token, and a request whose client has gone or no longer wants it is aborted in the engine.

Only for engines that are not paused while they write: asynchronous trainers keep verl's client.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

from relay_verl.models.frame_server import FrameServer
from relay_verl.models.wire import Answer, Request, Sender

FIELD = "_relay_direct_server"
_opening = threading.Lock()
KNOWN = ("global_steps", "num_cached_tokens", "prompt_ids", "prompt_logprobs")
"""What verl's server says of an answer that its clients read; the last two where log-probabilities were asked for."""
BACKLOG = 1024
"""Clients that may connect at the same time."""


class Door(NamedTuple):
    """Where a server answers."""

    node_id: str = ""
    """Ray's id of its node; empty if it is not vLLM's, and only Ray reaches it."""
    path: str = ""
    """Of its socket on that node."""
    cache_block: int | None = None
    """Tokens of a block of its prefix cache; None if its engine does not say."""


def open_door(server: Any) -> Door:
    """Where `server` answers. Runs in the server's process, as `handle.__ray_call__.remote(open_door)`."""
    try:
        vllm_names()
    except ImportError:
        return Door()
    with _opening:  # Ray runs this in a thread, and clients come at the same time
        door = getattr(server, FIELD, None)
        if door is None:
            door = DirectServer(server, server._server_task.get_loop())
            setattr(server, FIELD, door)
    return Door(node_id(), door.path, _cache_block_of(server))


def _cache_block_of(server: Any) -> int | None:
    try:
        return int(server.engine.vllm_config.cache_config.block_size)
    except (AttributeError, TypeError):  # only a metric reads it
        return None


def node_id() -> str:
    """Ray's id of this process's node."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


class DirectServer(FrameServer):
    """Answers requests on a socket of its own, which the same user alone can reach.

    Args:
        server: verl's, whose `generate` writes.
        loop: the server's event loop, in another thread or in this one.
    """

    def __init__(self, server: Any, loop: asyncio.AbstractEventLoop):
        folder = tempfile.mkdtemp(prefix="relay-")  # its mode is 0700
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.path = str(Path(folder) / "s")
        self._server = server
        self._when_whole, self._dead_error = vllm_names()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen(BACKLOG)  # so that who reads the path can connect at once
        self._listening: asyncio.Task[None] | None = None
        loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        listener = await asyncio.start_unix_server(self.serve, sock=self._socket)
        async with listener:
            await listener.serve_forever()

    async def answer(self, request: Request, sender: Sender) -> None:
        """What the engine wrote, as a whole."""
        sender.send(await self._generate(request))

    async def _generate(self, request: Request) -> Answer:
        sampling = {**request.sampling, "output_kind": self._when_whole}
        try:
            output = await self._server.generate(
                prompt_ids=request.prompt_ids, sampling_params=sampling, request_id=request.request_id
            )
        except ValueError as error:  # how verl and vLLM refuse a request
            return Answer(request.number, error=_text(error), is_refusal=True)
        except Exception as error:  # the client is told: it decides what a server in trouble means
            return Answer(request.number, error=_text(error), is_dead=isinstance(error, self._dead_error))
        known = {name: output.extra_fields[name] for name in KNOWN if name in output.extra_fields}
        return Answer(
            request.number,
            list(output.token_ids),
            None if output.log_probs is None else list(output.log_probs),
            output.stop_reason,
            known,
        )


def vllm_names() -> tuple[Any, type[Exception]]:
    """vLLM's name for answers that come when they are whole, and what it raises once its engine is dead."""
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.exceptions import EngineDeadError

    return RequestOutputKind.FINAL_ONLY, EngineDeadError


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
