"""A circuit breaker for asyncio: who failed several times in a row is left alone for a while.

A refusal (`PermanentError`) is an answer: whoever gives it is well, and it opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from relay_verl.errors import EngineError, PermanentError


class CircuitOpenError(EngineError):
    """Nobody was asked: the circuit is open."""


class Breaker:
    """pybreaker's, with one trial at a time while the circuit is not closed.

    Can be sent to a Ray worker, where it starts closed: each process counts for itself.

    Args:
        threshold: failures in a row that open the circuit.
        reset_s: seconds until one call is let through to try.
    """

    def __init__(self, threshold: int, reset_s: float):
        self._threshold = threshold
        self._reset_s = reset_s
        self._is_trying = False
        self._last_failure = ""

    def __reduce__(self) -> Any:
        return Breaker, (self._threshold, self._reset_s)

    @cached_property
    def _breaker(self) -> Any:
        from pybreaker import CircuitBreaker

        return CircuitBreaker(
            fail_max=self._threshold,
            reset_timeout=self._reset_s,
            exclude=[PermanentError],
            throw_new_error_on_trip=False,
        )

    @contextmanager
    def calling(self) -> Iterator[None]:
        """The block is a call that may fail, which any exception is.

        Raises:
            CircuitOpenError: the circuit is open, or another call is trying; the block is not entered.
        """
        from pybreaker import CircuitBreakerError

        is_trial = self._breaker.current_state != "closed"
        if is_trial and self._is_trying:
            raise CircuitOpenError(f"{self._open}; another call is trying")
        self._is_trying = self._is_trying or is_trial
        try:
            with self._breaker.calling():
                yield
        except CircuitBreakerError as error:
            raise CircuitOpenError(self._open) from error
        except PermanentError:
            raise
        except Exception as error:
            self._last_failure = str(error) or type(error).__name__
            raise
        finally:
            if is_trial:
                self._is_trying = False

    @property
    def _open(self) -> str:
        last = f", the last one: {self._last_failure}" if self._last_failure else ""
        return f"circuit open after {self._threshold} failures in a row{last}"
