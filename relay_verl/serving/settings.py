"""What an operator decides about a server, and the states it is in. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

from relay_verl.errors import UserError


class ServerState(StrEnum):
    """How a server is, as `/health` reports it."""

    STARTING = "starting"
    """A model loads: nothing is answered yet (503)."""
    READY = "ready"
    """Both models answer."""
    STUDENT_DOWN = "student_down"
    """The student does not answer, so that no response can be written (503)."""
    TEACHER_DOWN = "teacher_down"
    """The teacher does not answer: the student still writes, and calls fail as `on_teacher_failure` says."""
    STOPPING = "stopping"
    """Requests that run may end; new ones are refused (503)."""

    @property
    def takes_requests(self) -> bool:
        """Whether a new request may start."""
        return self in (ServerState.READY, ServerState.TEACHER_DOWN)


@dataclass(frozen=True)
class ServeSettings:
    """What an operator decides about a server of one pair."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless told otherwise."""
    port: int = 8000
    """TCP port; 0 takes a free one."""
    api_key_env: str = "RELAY_SERVE_API_KEY"
    """Environment variable with the keys that clients may send, separated by commas; where it is empty, no key is
    needed."""
    max_concurrency: int = 256
    """Responses that are written at a time; further requests wait."""
    max_queue: int = 1024
    """Responses that wait for their turn; past that a request gets 429."""
    retry_after_s: int = 1
    """What a 429 and a 503 say in `Retry-After`, in seconds."""
    max_choices: int = 16
    """Most responses (`n` times the number of prompts) that one request may ask for; never more than
    `max_concurrency`."""
    teacher_tokens_per_minute: int | None = None
    """Tokens that the teacher may write in a minute for all clients together; once they are spent, calls are not served
    until the minute has passed. None for no limit."""
    request_timeout_s: float = 600.0
    """Seconds a request may take, its wait in the queue included; past that it ends with 504."""
    student_timeout_s: float = 120.0
    """Seconds of the student's silence after which a response fails (`relay_verl.engines.deadlines`)."""
    teacher_timeout_s: float = 60.0
    """Seconds of the teacher's silence after which a call fails."""
    write_timeout_s: float = 60.0
    """Seconds a client may take to read a piece of a stream, before the request is ended."""
    shutdown_timeout_s: float = 30.0
    """Seconds that running requests have to end when the server stops."""
    max_body_bytes: int = 8 << 20
    """Longest body of a request; a longer one gets 413."""
    allow_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API from a browser (CORS); the server's own page needs none."""

    def __post_init__(self) -> None:
        limits = {
            "max_concurrency": 1,
            "max_queue": 0,
            "retry_after_s": 0,
            "max_choices": 1,
            "max_body_bytes": 1024,
        }
        for field, least in limits.items():
            if getattr(self, field) < least:
                raise UserError(f"{field}: expected {least} or more, got {getattr(self, field)}")
        if self.teacher_tokens_per_minute is not None and self.teacher_tokens_per_minute < 0:
            raise UserError(f"teacher_tokens_per_minute: expected 0 or more, got {self.teacher_tokens_per_minute}")
        for who in ("request", "student", "teacher", "write", "shutdown"):
            field = f"{who}_timeout_s"
            if not getattr(self, field) > 0:
                raise UserError(f"{field}: expected more than 0 seconds, got {getattr(self, field)}")
        if not 0 <= self.port <= 65535:
            raise UserError(f"port: expected 0 to 65535, got {self.port}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect.

        >>> ServeSettings().is_loopback, ServeSettings(host="0.0.0.0").is_loopback
        (True, False)
        """
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
