"""What listens from the first moment: 503 while the models load, then the real application.

The real one needs to know how long a context the models' servers take, which they say once they run.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from relay_verl.serving.api_error import ApiError
from relay_verl.serving.settings import ServerState


class StartingApp:
    """ASGI application in front of one that is not there yet.

    Args:
        retry_after_s: seconds after which a client may try again.
    """

    def __init__(self, retry_after_s: int):
        self.app: ASGIApp | None = None
        """The real application, as soon as it is there."""
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is not None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope["path"])(scope, receive, send)

    def _answer(self, path: str) -> Response:
        state = ServerState.STARTING
        if path in ("/health", "/ping"):
            return Response(status_code=503, headers={"X-Relay-State": state.value})
        message = "the server is starting: its models load; try again in a moment"
        error = ApiError(503, message, code=state.value, retry_after_s=self._retry_after_s)
        return JSONResponse(error.body, error.status, headers=dict(error.headers))
