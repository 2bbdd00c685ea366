"""Finds what a config or a command line names: one of ours, or one of another package's. Pure.

A name has one of three forms:

    learned              an entry of our own registry
    pkg.module:Name      an object of any module that this process can import
    patient              what an installed package gives under this name, by an entry point of the registry's group

Invariant: a name travels as text and is loaded where it is used, so that every worker loads it itself; if it
cannot be loaded, a one-line UserError says what to change.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeGuard, TypeVar

from relay_verl.errors import UserError, first_line, suggest

T = TypeVar("T")
C = TypeVar("C")

_ADDRESS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
FORM = "pkg.module:Name"
"""How an object of another package is written."""


def is_address(name: str) -> bool:
    """Whether a name has the form `pkg.module:Name`.

    >>> is_address("my_rewards:thrifty"), is_address("learned"), is_address("http://127.0.0.1:8000")
    (True, False, False)
    """
    return _ADDRESS.fullmatch(name) is not None


def short_name(name: str) -> str:
    """A name for tables and folders: what stands behind the colon.

    >>> short_name("my_rewards:thrifty"), short_name("learned")
    ('thrifty', 'learned')
    """
    return name.rpartition(":")[2]


def takes(value: object, *arguments: object) -> TypeGuard[Callable[..., Any]]:
    """Whether `value` is a function or class that can be called with these arguments by position.

    >>> takes(len, "text"), takes(len), takes(3)
    (True, False, False)
    """
    try:
        inspect.signature(value).bind(*arguments)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # not callable, other arguments, or a builtin that does not say what it takes
        return False
    return True


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All that one kind of name may mean.

    The built-in entries are a plain mapping, so that adding one takes a line; the others are loaded when they are asked
    for.
    """

    kind: str
    """What an entry is, for messages, such as 'policy'."""
    group: str
    """The group of entry points, such as 'relay_verl.policies'."""
    entries: Mapping[str, T]
    """Ours by name."""
    accept: Callable[[object, str], T | None]
    """An object of another package, and its name, as an entry; None if it is of another kind."""
    expected: str
    """What `accept` takes, for messages."""
    other_forms: tuple[str, ...] = field(default=())
    """What else may stand where a name stands, for messages."""

    def find(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            UserError: the module or the name in it is missing, its import fails, it is of the wrong kind, two packages
                give the name, or nothing has it; lists the valid names.
        """
        if ":" in name:
            return self._accepted(name, self._load(name))
        points = _points(self.group).get(name, ())
        if name in self.entries and not points:
            return self.entries[name]
        if len(points) > 1 or (points and name in self.entries):
            owners = [*(["relay_verl"] if name in self.entries else []), *map(_owner, points)]
            raise UserError(
                f"{self.kind}: {name!r} is given by {' and by '.join(owners)}; name one as {FORM}, such as "
                f"{points[0].value}"
            )
        if not points:
            raise UserError(f"{self.kind}: {name!r} is not {self.allowed()}{suggest(name, self.names())}")
        return self._accepted(name, self._load(points[0].value, f"{name!r} of {_owner(points[0])}, "))

    def __contains__(self, name: str) -> bool:
        """Whether a name without a colon has an entry, ours or another package's; loads nothing."""
        return name in self.entries or name in _points(self.group)

    def names(self) -> list[str]:
        """All valid names without a colon: ours, then those of other packages."""
        return [*dict.fromkeys([*self.entries, *_points(self.group)])]

    def allowed(self) -> str:
        """What a name may be, for messages."""
        names = [*self.names(), *self.other_forms]
        return (
            f"one of {', '.join(names)}, or {FORM}"
            if names
            else f"the name of an entry point of {self.group}, or {FORM}"
        )

    def _load(self, address: str, owner: str = "") -> object:
        """The object at `pkg.module:Name`."""
        what = f"{self.kind}: {owner}{address!r}"
        if not is_address(address):
            raise UserError(f"{what}: expected {self.allowed()}")
        module_name, _, attribute = address.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                raise UserError(
                    f"{what}: there is no module {error.name!r} here; install its package in the environment of "
                    f"{sys.executable}, on every node, or add its folder to PYTHONPATH"
                ) from None
            raise UserError(f"{what}: importing {module_name} fails: {first_line(error)}") from error
        except Exception as error:  # a module of another package may raise anything as it is imported
            raise UserError(
                f"{what}: importing {module_name} fails: {type(error).__name__}: {first_line(error)}"
            ) from error
        target: object = module
        for part in attribute.split("."):
            if not hasattr(target, part):
                public = [each for each in vars(module) if not each.startswith("_")]
                raise UserError(f"{what}: {module_name} has no {attribute}{suggest(attribute, public)}")
            target = getattr(target, part)
        return target

    def _accepted(self, name: str, candidate: object) -> T:
        entry = self.accept(candidate, name)
        if entry is None:
            name_of = type(candidate).__name__
            kind = f"the class {candidate.__name__}" if isinstance(candidate, type) else f"of type {name_of}"
            raise UserError(f"{self.kind}: {name!r} is {kind}; expected {self.expected}")
        return entry


@cache
def _points(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name. Reading the metadata of all packages takes a tenth of a second: once."""
    points: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        points[point.name] = (*points.get(point.name, ()), point)
    return points


def _owner(point: EntryPoint) -> str:
    """The package that an entry point is of."""
    return f"the package {point.dist.name}" if point.dist is not None else point.value


def subclasses_of(base: type[C]) -> Callable[[object, str], type[C] | None]:
    """An `accept` that takes subclasses of `base`."""

    def accept(candidate: object, name: str) -> type[C] | None:
        return candidate if isinstance(candidate, type) and issubclass(candidate, base) else None

    return accept
