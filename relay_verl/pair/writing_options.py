"""What a text is written under: limits, sampling, who calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from relay_verl.errors import UserError, suggest
from relay_verl.policies import parse_policy
from relay_verl.relay_config import ON_TEACHER_FAILURE, OnTeacherFailure


@dataclass(frozen=True)
class WritingOptions:
    """What one call of `RelayPair` may be told; None is as the student's `relay.json` says.

    Raises:
        UserError: a value out of range; names the field.
    """

    max_tokens: int | None = None
    """Most tokens of a text, both writers and commands together."""
    policy: str | None = None
    """Who calls and for how long, by its name in `relay_verl.policies`."""
    max_calls: int | None = None
    """Most calls in a text."""
    max_teacher_tokens: int | None = None
    """Most tokens of a text that the teacher writes; None sets no limit."""
    on_teacher_failure: OnTeacherFailure | None = None
    """'continue': the student continues alone; 'drop': the text ends there, with its error; 'fail': raise."""
    temperature: float | None = None
    """Sampling temperature of both models; 0 takes the likeliest token."""
    top_p: float | None = None
    """Share of the probability that both models' tokens are sampled from."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Further sampling parameters of both models under vLLM's names, such as {"top_k": 20}."""
    seed: int | None = None
    """Of the first text's sampling; that of the others follows from it. None draws one."""
    stop: str | tuple[str, ...] = ()
    """Strings that end a text once both authors together have written them; they are not part of it."""
    show_commands: bool = False
    """Whether the text has the student's commands."""

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("max_calls", 0), ("max_teacher_tokens", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UserError(f"{name}: expected an int of at least {least}, got {value!r}")
        for name, most in (("temperature", float("inf")), ("top_p", 1.0)):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 <= value <= most and value < float("inf")):
                raise UserError(f"{name}: expected a number from 0 to {most:g}, got {value!r}")
        if self.on_teacher_failure not in (None, *ON_TEACHER_FAILURE):
            allowed = ", ".join(ON_TEACHER_FAILURE)
            raise UserError(f"on_teacher_failure: {self.on_teacher_failure!r} is not one of {allowed}")
        if self.policy is not None:
            parse_policy(self.policy)

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> WritingOptions:
        """The options of a call.

        Raises:
            UserError: one is unknown, or a value is out of range.
        """
        names = [each.name for each in fields(cls)]
        for name in options:
            if name not in names:
                raise UserError(f"unknown option {name!r}; allowed: {', '.join(names)}{suggest(name, names)}")
        return cls(**options)

    @property
    def stops(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def parameters(self) -> dict[str, Any]:
        """Both writers' sampling parameters that are given, under vLLM's names."""
        named = {"temperature": self.temperature, "top_p": self.top_p}
        return dict(self.sampling) | {name: value for name, value in named.items() if value is not None}
