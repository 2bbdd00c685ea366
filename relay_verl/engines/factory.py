"""Engines of other packages: who answers where a config or a command line names neither a model nor an endpoint.

    relay.teacher.path=null relay.teacher.engine=my_engines:Echo      in a recipe
    relay-verl eval --teacher engine:my_engines:Echo                   on the command line

The name is a factory: a class or a function that is given the teacher's settings and the tokenizer, and gives a
`TokenEngine`. It is called once a run, in the driver; the engine is then sent to every Ray worker by pickle, so it must
be picklable, and its package installed on every node. Ours retries and breaks the circuit around it, as around all
engines (`relay_verl.engines.resilience`). An entry point of the group `relay_verl.engines` gives it a short name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from relay_verl.engines.base import TokenEngine
from relay_verl.errors import UserError
from relay_verl.extensions import Registry, takes

PREFIX = "engine:"
"""What stands before an engine's name where a model's address could stand."""


class EngineOptions(Protocol):
    """What an engine knows of the recipe; `relay_verl.config.TeacherSettings` is one and says what each field means."""

    @property
    def model(self) -> str | None: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def num_retries(self) -> int: ...
    @property
    def max_num_seqs(self) -> int: ...


EngineFactory = Callable[[EngineOptions, Any], TokenEngine]
"""Settings and tokenizer to an engine."""


def _accept(candidate: object, name: str) -> EngineFactory | None:
    """A class with `generate`, or a function, of two arguments."""
    if isinstance(candidate, type) and not callable(getattr(candidate, "generate", None)):
        return None
    return candidate if takes(candidate, None, None) else None


REGISTRY: Registry[EngineFactory] = Registry(
    kind="engine",
    group="relay_verl.engines",
    entries={},
    accept=_accept,
    expected="a class of (settings, tokenizer) that has the method generate, or a function that gives one",
)


def find_engine(name: str) -> EngineFactory:
    """The factory called `name`.

    Raises:
        UserError: there is none; lists the valid names.
    """
    return REGISTRY.find(name)


def make_engine(name: str, options: EngineOptions, tokenizer: Any) -> TokenEngine:
    """The engine called `name`.

    Raises:
        UserError: there is none, or what the factory gives is not an engine.
    """
    engine = find_engine(name)(options, tokenizer)
    if not inspect.iscoroutinefunction(getattr(engine, "generate", None)):
        raise UserError(f"engine: {name!r} gives a {type(engine).__name__} without `async def generate`")
    return engine
