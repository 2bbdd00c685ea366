"""How many of the requests to a model fail, and when these are too many (`relay.max_failed_call_share`). Pure.

A response continues without its teacher, a job without a query that failed: one failure is data. A teacher that serves
nothing, however, makes a run that looks like one and is not; so failures are counted, said, and end the work when their
share is above the limit.

Invariants: fewer than MIN_COUNT requests decide nothing; a limit of 1 ends nothing; what is said names the counts and
the latest cause.
"""

from __future__ import annotations

from dataclasses import dataclass

KEY = "relay.max_failed_call_share"
MIN_COUNT = 20
"""Fewest requests that a share is taken of."""


@dataclass
class FailureShare:
    """Counts of requests and failures.

    >>> share = FailureShare(0.5, "calls to the teacher")
    >>> share.add(9, 1, "timeout")
    >>> share.is_over  # 10 requests tell too little
    False
    >>> share.add(0, 10, "refused")
    >>> share.is_over, str(share)
    (True, '11 of 20 calls to the teacher failed (55%), the latest: refused')
    """

    limit: float
    """Largest share of the requests that may fail."""
    what: str
    """What is counted, as a message calls it."""
    num_served: int = 0
    """Requests with an answer."""
    num_failed: int = 0
    """Requests that failed."""
    cause: str = ""
    """Why the latest one failed."""
    key: str = KEY
    """What the user sets the limit with."""

    def add(self, num_served: int, num_failed: int, cause: str = "") -> None:
        """Count requests; `cause` is why the latest of the failed ones failed."""
        self.num_served += num_served
        self.num_failed += num_failed
        self.cause = cause or self.cause

    @property
    def num_requests(self) -> int:
        """All of them."""
        return self.num_served + self.num_failed

    @property
    def is_decided(self) -> bool:
        """Whether there are enough requests to take a share of."""
        return self.num_requests >= MIN_COUNT

    @property
    def is_over(self) -> bool:
        """Whether the share of failures is above the limit."""
        return self.is_decided and self.num_failed > self.limit * self.num_requests

    def __str__(self) -> str:
        percent = 100 * self.num_failed / max(1, self.num_requests)
        return (
            f"{self.num_failed} of {self.num_requests} {self.what} failed ({percent:.0f}%)"
            f"{', the latest: ' if self.cause else ''}{self.cause}"
        )

    def explain(self) -> str:
        """Why the work ends, and what lets it continue."""
        return f"{self.key}={self.limit:g}: {self}"
