"""Prices per million tokens, and what a response costs at them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from relay_verl.prices.usage import Usage

MILLION = 1_000_000
"""Tokens that a price is of."""


@dataclass(frozen=True)
class TokenPrice:
    """What a million tokens of one model cost, in the list's currency."""

    input: float = 0.0
    """Tokens that it reads and no cache holds."""
    cached_input: float = 0.0
    """Tokens that it reads and its prefix cache holds."""
    output: float = 0.0
    """Tokens that it writes."""

    def cost(self, usage: Usage) -> float:
        """Money for these tokens.

        >>> TokenPrice(input=0.20, cached_input=0.02, output=0.60).cost(Usage(1_000_000, 500_000, 1_000_000))
        0.71
        """
        fresh = usage.num_input - usage.num_cached
        money = fresh * self.input + usage.num_cached * self.cached_input + usage.num_output * self.output
        return money / MILLION


@dataclass(frozen=True)
class PriceList:
    """The prices of a pair of models."""

    currency: str
    """Three letters (ISO 4217), such as USD; XXX is the code of no currency, for relative prices."""
    student: TokenPrice
    """The student's; all 0 where none is given."""
    teacher: TokenPrice
    """The teacher's; all 0 where none is given."""

    def cost(self, student: Usage, teacher: Usage) -> float:
        """Money for what both models read and wrote."""
        return self.student.cost(student) + self.teacher.cost(teacher)

    def cost_of_teacher_alone(self, num_prompt_tokens: int, num_tokens: int) -> float:
        """Money for a response of the same length if the teacher alone had written it in one go: it reads the prompt
        once, from no cache.

        Args:
            num_prompt_tokens: tokens of the prompt.
            num_tokens: tokens of the response, both writers together.
        """
        return self.teacher.cost(Usage(num_input=num_prompt_tokens, num_output=num_tokens))

    def cost_share(self, student: Usage, teacher: Usage, num_prompt_tokens: int, num_tokens: int) -> float:
        """What a response costs over what the teacher alone would cost for one of its length; 0.0 where that is free.

        It is rho (Eq. 3) where the teacher's output alone has a price. It may be above 1: the teacher reads the context
        at each call, so many short calls cost more than one long response.

        A prompt of 100 tokens and a response of 50, of which the teacher writes 10 after it has read 120:

        >>> outputs = PriceList("USD", TokenPrice(), TokenPrice(output=0.60))
        >>> outputs.cost_share(Usage(), Usage(120, 0, 10), 100, 50)
        0.2
        >>> both = PriceList("USD", TokenPrice(), TokenPrice(input=0.20, cached_input=0.20, output=0.60))
        >>> round(both.cost_share(Usage(), Usage(120, 0, 10), 100, 50), 3)
        0.6
        """
        alone = self.cost_of_teacher_alone(num_prompt_tokens, num_tokens)
        return self.cost(student, teacher) / alone if alone else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PriceList:
        """What `to_dict` wrote."""
        return cls(values["currency"], TokenPrice(**values["student"]), TokenPrice(**values["teacher"]))
