"""Connections whose client does not read what was sent: they are aborted, not closed. Pure.

Closing a connection waits until all of it is sent, which a client that never reads puts off for ever: the socket and
what waits in it would be kept.

Invariant: a connection whose unsent bytes do not change for `timeout_s` is aborted, whatever was sent on it: a stream,
a whole answer, or one that is over already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class UnreadWatch:
    """Looks at connections.

    Args:
        timeout_s: seconds for which a client may read nothing.
    """

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._unread: dict[asyncio.Transport, tuple[int, float]] = {}
        """Of each connection with unsent bytes: how many, and since when."""

    def look(self, transports: Iterable[asyncio.Transport], now: float) -> None:
        """Abort those that have been stuck for too long.

        Args:
            transports: all that are open.
            now: seconds, by any clock that rises.
        """
        unread: dict[asyncio.Transport, tuple[int, float]] = {}
        for transport in transports:
            size = transport.get_write_buffer_size()
            if not size:
                continue
            known = self._unread.get(transport, (0, now))
            unread[transport] = known if known[0] == size else (size, now)
            if now - unread[transport][1] >= self._timeout_s:
                del unread[transport]
                transport.abort()
        self._unread = unread
