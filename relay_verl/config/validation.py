"""Values of a file or a config as a frozen dataclass: each error names the key, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from relay_verl.errors import UserError, suggest
from relay_verl.secrets import HIDDEN, hide

T = TypeVar("T")


def validate(kind: type[T], values: Mapping[str, Any], prefix: str) -> T:
    """The values as `kind`.

    Args:
        kind: a frozen dataclass, whose fields may be other ones.
        values: by the names of its fields.
        prefix: what stands before a key in a message, such as `relay.` or `relay.json: `.

    Raises:
        UserError: an unknown key or a bad value; one message names all of them.
    """
    try:
        hashable: Any = kind  # as every class is, which mypy does not know
        settings: T = _validator(hashable).validate_python(values)
        return settings
    except ValidationError as error:
        raise UserError("; ".join(_explain(item, kind, prefix) for item in error.errors())) from None


@cache
def _validator(kind: Any) -> TypeAdapter[Any]:
    """Made once: that takes longer than all that it validates."""
    return TypeAdapter(kind)


def _explain(item: Any, kind: type, prefix: str) -> str:
    """One pydantic error as 'key: value: what is allowed'."""
    location = [str(part) for part in item["loc"]]
    key = prefix + ".".join(location)
    said = item["msg"].removeprefix("Value error, ")
    if not location:  # about several fields together, which the message names
        return prefix + said
    if item["type"] == "unexpected_keyword_argument":
        allowed = fields_at(kind, location[:-1])
        return f"{key}: unknown key; allowed: {', '.join(allowed)}{suggest(location[-1], allowed)}"
    shown = HIDDEN if location[-1:] == ["api_key_env"] else repr(hide(key, item["input"]))
    return f"{key}: {shown}: {said}"


def fields_at(kind: Any, location: list[str]) -> list[str]:
    """Names of the fields of the dataclass at `location` in `kind`; an index stands for an item of a tuple."""
    for name in location:
        kind = typing.get_args(kind)[0] if name.isdigit() else typing.get_type_hints(kind, include_extras=False)[name]
    return [field.name for field in dataclasses.fields(kind)]
