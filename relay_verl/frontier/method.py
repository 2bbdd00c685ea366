"""A way to share work between two models: a line of the list that `relay-verl frontier` runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator

from relay_verl.config.values import STRICT

_QUERY_ROUTER = re.compile(r"query_router_(0(?:\.[0-9]+)?|1(?:\.0+)?)")
QUERY_ROUTER = "query_router_P"
"""How the one policy is spelled that no decoder runs: `relay_verl.frontier.query_router` makes its responses."""


BUDGET = "max_teacher_tokens"
"""The option that is not a key of the recipe."""
RELAY = "relay."
"""How the others begin."""


def _check_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, value in options.items():
        if key == BUDGET:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{BUDGET}: {value!r}: expected a number of tokens from 0 on")
        elif not key.startswith(RELAY):
            raise ValueError(f"{key}: unknown key; allowed: {BUDGET}, or a key of the recipe that begins with {RELAY}")
    return options


@dataclass(frozen=True, eq=False)
class Method:
    """A student, how it shares work with the teacher, and within which limits."""

    __pydantic_config__ = STRICT

    name: str
    """What tables and pictures call it."""
    policy: str
    """A name of `relay_verl.policies`, `pkg.module:Name`, or query_router_P."""
    student: str | None = None
    """Which of the students, by its name on the command line; the first one if None."""
    options: Annotated[Mapping[str, Any], AfterValidator(_check_options)] = field(default_factory=dict)
    """What it changes: `max_teacher_tokens`, the most tokens that the teacher writes in a response, all its calls
    together; and keys of the recipe, such as `relay.max_calls`."""

    @property
    def max_teacher_tokens(self) -> int | None:
        """None sets no limit."""
        return self.options.get(BUDGET)

    @property
    def changes(self) -> dict[str, Any]:
        """Keys of the recipe at other values."""
        return {key: value for key, value in self.options.items() if key != BUDGET}

    @property
    def slug(self) -> str:
        """Name of its folder.

        >>> Method("relay, budget 10", "learned").slug
        'relay-budget-10'
        """
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def routed_share(self) -> float | None:
        """Share of the questions that a query router gives to the teacher; None for another policy.

        >>> Method("a", "query_router_0.25").routed_share, Method("b", "learned").routed_share
        (0.25, None)
        """
        match = _QUERY_ROUTER.fullmatch(self.policy)
        return float(match.group(1)) if match else None
