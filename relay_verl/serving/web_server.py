"""The HTTP server on its socket: uvicorn, which ends when it is told, not by signals of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from relay_verl.errors import as_user_error
from relay_verl.serving.settings import ServeSettings
from relay_verl.serving.unread_watch import UnreadWatch

KEEP_ALIVE_S = 75
"""Seconds that a connection may idle: longer than proxies and clients' pools keep theirs, which then close first."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


class WebServer(uvicorn.Server):
    """Serves an application until `should_exit`; then requests that run have `shutdown_timeout_s` to end.

    Args:
        app: the application.
        settings: the operator's.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings):
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                lifespan="off",
                log_level="warning",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
                backlog=BACKLOG,
            )
        )
        self._unread = UnreadWatch(settings.write_timeout_s)

    async def on_tick(self, counter: int) -> bool:
        """What uvicorn does ten times a second."""
        transports = [each.transport for each in self.server_state.connections]
        self._unread.look([each for each in transports if each is not None], asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them again when it is done, before the models' servers have
        ended."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, so that a port in use is known before a model loads.

    Raises:
        UserError: the port is in use, or the address is not of this machine.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with as_user_error(
        OSError,
        lambda error: (
            f"--host and --port: {where}: {error.strerror or error}; take another port, or --port 0 for a free one"
        ),
    ):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    return listener


def url_of(listener: socket.socket) -> str:
    """The address of a listening socket, without a path."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
