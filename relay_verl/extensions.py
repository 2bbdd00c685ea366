"""Finds what a config or a command line names: one of ours, or one of another package's. Pure.

A name has one of three forms:

    learned              an entry of our own registry
    pkg.module:Name      an object of any module that this process can import
    patient              what an installed package gives under this name, by an entry point of the registry's group

Invariant: a name travels as text and is loaded where it is used, so that every worker loads it itself; whatever is
wrong with it is a UserError of one line that says what to change.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

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


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All that one kind of name may mean.

    The built-in entries are a plain mapping, so that adding one is one line; the others are loaded when they are asked
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
        found: object = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                public = [each for each in vars(module) if not each.startswith("_")]
                raise UserError(f"{what}: {module_name} has no {attribute}{suggest(attribute, public)}")
            found = getattr(found, part)
        return found

    def _accepted(self, name: str, found: object) -> T:
        entry = self.accept(found, name)
        if entry is None:
            kind = f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
            raise UserError(f"{self.kind}: {name!r} is {kind}; expected {self.expected}")
        return entry


@cache
def _points(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name. Reading the metadata of all packages takes a tenth of a second: once."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def _owner(point: EntryPoint) -> str:
    """The package that an entry point is of."""
    return f"the package {point.dist.name}" if point.dist is not None else point.value


def subclasses_of(base: type[C]) -> Callable[[object, str], type[C] | None]:
    """An `accept` that takes subclasses of `base`."""

    def accept(found: object, name: str) -> type[C] | None:
        return found if isinstance(found, type) and issubclass(found, base) else None

    return accept
