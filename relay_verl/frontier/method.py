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
    if len(lengths := _list_lengths(options)) > 1 or 0 in lengths:
        raise ValueError(f"lists of {sorted(lengths)} values: each list has one value for each training seed")
    return options


def _list_lengths(options: Mapping[str, Any]) -> set[int]:
    """How many training seeds the lists among these say."""
    return {len(value) for value in options.values() if isinstance(value, list)}


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
    together; and keys of the recipe, such as `relay.max_calls`. A list has a value for each training seed, such as the
    folders of a defer head that was trained several times."""

    @property
    def max_teacher_tokens(self) -> int | None:
        """None sets no limit."""
        return self.options.get(BUDGET)

    @property
    def changes(self) -> tuple[dict[str, Any], ...]:
        """Keys of the recipe at other values, once for each training seed that a list has; else once.

        >>> Method("a", "deferred", options={"relay.defer.head": ["h1", "h2"], "relay.max_calls": 1}).changes
        ({'relay.defer.head': 'h1', 'relay.max_calls': 1}, {'relay.defer.head': 'h2', 'relay.max_calls': 1})
        """
        return tuple(
            {
                key: value[seed] if isinstance(value, list) else value
                for key, value in self.options.items()
                if key != BUDGET
            }
            for seed in range(next(iter(_list_lengths(self.options)), 1))
        )

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
