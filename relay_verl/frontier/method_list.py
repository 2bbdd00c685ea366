"""The list of methods as data: `methods.yaml`, or a file of the user's own in the same form."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from relay_verl.config.validation import validate
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import reading
from relay_verl.frontier.method import QUERY_ROUTER, Method
from relay_verl.policies import parse_policy
from relay_verl.traces.words import ALONE, TEACHER_ALONE

OURS = "methods.yaml"
KEY = "methods"


def read_methods(file: Path | None) -> tuple[Method, ...]:
    """The methods of a file; ours if None.

    Raises:
        UserError: the file cannot be read, an unknown key or policy, a name twice, or a query router without what it is
            made of; names the file and the key.
    """
    if file is None:
        return parse_methods(files(__package__).joinpath(OURS).read_text(encoding="utf-8"), OURS)
    with reading(file):
        text = file.read_text(encoding="utf-8")
    return parse_methods(text, str(file))


def parse_methods(text: str, where: str) -> tuple[Method, ...]:
    """The methods of a text.

    Args:
        text: YAML with a list at `methods`.
        where: what messages call it.

    Raises:
        UserError: as `read_methods`.
    """
    with as_user_error(yaml.YAMLError, lambda error: f"{where}: not YAML: {' '.join(str(error).split())}"):
        content = yaml.safe_load(text)
    if not isinstance(content, dict) or set(content) != {KEY} or not isinstance(content[KEY], list) or not content[KEY]:
        raise UserError(f"{where}: expected a list of methods at {KEY!r} and nothing else")
    methods = tuple(_read(entry, f"{where}: {KEY}.{number}") for number, entry in enumerate(content[KEY]))
    _check_names(methods, where)
    _check_routers(methods, where)
    return methods


def _read(entry: Any, key: str) -> Method:
    if not isinstance(entry, dict):
        raise UserError(f"{key}: {entry!r}: expected a mapping with name and policy")
    method = validate(Method, entry, f"{key}.")
    if not method.slug:
        raise UserError(f"{key}.name: {method.name!r}: expected a letter or a digit in it")
    if method.routed_share is None:
        with as_user_error(UserError, lambda error: f"{key}.{error}, or {QUERY_ROUTER}"):
            parse_policy(method.policy)
    return method


def _check_names(methods: Sequence[Method], where: str) -> None:
    """Each name, and each folder, stands once."""
    seen: dict[str, int] = {}
    for number, method in enumerate(methods):
        if method.slug in seen:
            other = seen[method.slug]
            raise UserError(
                f"{where}: {KEY}.{number}.name: {method.name!r} is that of {KEY}.{other}, {methods[other].name!r}: "
                "give each a name of its own"
            )
        seen[method.slug] = number


def _check_routers(methods: Sequence[Method], where: str) -> None:
    """What a query router is made of is measured, too."""
    for number, method in enumerate(methods):
        if method.routed_share is None:
            continue
        if source_of(method, methods) is None or teacher_of(methods) is None:
            raise UserError(
                f"{where}: {KEY}.{number}.policy: {method.policy} is made of the responses of two other methods: "
                f"add one with policy {ALONE} and the same student, and one with policy {TEACHER_ALONE}"
            )


def source_of(router: Method, methods: Sequence[Method]) -> Method | None:
    """The method in which a query router's student answers alone."""
    return next((each for each in methods if (each.policy, each.student) == (ALONE, router.student)), None)


def teacher_of(methods: Sequence[Method]) -> Method | None:
    """The method in which the teacher answers alone."""
    return next((each for each in methods if each.policy == TEACHER_ALONE), None)
