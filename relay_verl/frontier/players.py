"""The models that take part: the teacher, and the students by the names that methods use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relay_verl.errors import UserError, suggest
from relay_verl.frontier.method import Method
from relay_verl.models.address import is_endpoint

DEFAULT_NAME = "student"
"""Name of a student that is given without one."""
_NAMED = re.compile(r"([A-Za-z0-9_.-]+)=(.+)")


@dataclass(frozen=True)
class Players:
    """Who takes part."""

    teacher: str
    """Folder, hub id or endpoint of the model that answers calls."""
    students: Mapping[str, tuple[str, ...]]
    """Likewise, by name, in the order of the command line; several of one name are trainings with different seeds."""

    def students_of(self, method: Method) -> tuple[str, ...]:
        """The students of a method, one a training seed."""
        return self.students[method.student or next(iter(self.students))]

    def check(self, methods: Sequence[Method]) -> None:
        """Every method has its student, and every student a method.

        Raises:
            UserError: one has not; names the method or the option.
        """
        for method in methods:
            if method.student is not None and method.student not in self.students:
                known = ", ".join(self.students)
                raise UserError(
                    f"method {method.name!r}: student: {method.student!r} is not one of {known}; give it with "
                    f"--student {method.student}=MODEL{suggest(method.student, self.students)}"
                )
        first = next(iter(self.students))
        for name in self.students:
            if name not in {method.student or first for method in methods}:
                raise UserError(f"--student {name}: no method names it; add one with student: {name} to --methods")


def parse_students(values: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The students of a command line, by name.

    Args:
        values: of the repeated option `--student`: MODEL or NAME=MODEL.

    >>> parse_students(["models/base", "relay=out/seed_1", "relay=out/seed_2"])
    {'student': ('models/base',), 'relay': ('out/seed_1', 'out/seed_2')}

    Raises:
        UserError: none, or one twice.
    """
    if not values:
        raise UserError("--student: none given; give MODEL, or NAME=MODEL for each of several")
    students: dict[str, tuple[str, ...]] = {}
    for value in values:
        match = _NAMED.fullmatch(value)
        name, model = match.groups() if match else (DEFAULT_NAME, value)
        if model in students.get(name, ()):
            raise UserError(f"--student: {value!r} twice")
        students[name] = (*students.get(name, ()), model)
    return students


def parse_endpoint_models(values: Sequence[str]) -> dict[str, str]:
    """The names of models at endpoints, by address.

    Args:
        values: of the repeated option `--model`.

    >>> parse_endpoint_models(["qwen3-8b=http://127.0.0.1:8000/v1"])
    {'http://127.0.0.1:8000/v1': 'qwen3-8b'}

    Raises:
        UserError: a value is not NAME=URL.
    """
    models: dict[str, str] = {}
    for value in values:
        name, separator, url = value.partition("=")
        if not (name and separator and is_endpoint(url)):
            raise UserError(f"--model: {value!r} is not NAME=URL, such as qwen3-8b=http://127.0.0.1:8000/v1")
        models[url] = name
    return models
