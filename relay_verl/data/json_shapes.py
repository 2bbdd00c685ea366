r"""The rows in one JSON value, in the shapes in which datasets have them. Pure.

Invariant: rows keep their order, and no value is left out: a column that is shorter than another is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay_verl.data.columns import QUESTIONS, values_of
from relay_verl.data.schema import is_messages
from relay_verl.errors import UserError

_MAX_NAMED = 8


def rows_of_json(value: object, place: str) -> Iterator[object]:
    """The rows of a JSON value; whether each is an object is for the caller to check.

    Raises:
        UserError: the value has none of the shapes that `relay_verl.data.files` lists; names `place`.

    >>> list(rows_of_json({"examples": [{"input": "7*8?"}], "canary": "x"}, "f.json"))
    [{'input': '7*8?'}]
    >>> list(rows_of_json({"problem": {"0": "7*8?", "1": "3+4"}, "answer": {"0": 56, "1": 7}}, "f.json"))
    [{'problem': '7*8?', 'answer': 56}, {'problem': '3+4', 'answer': 7}]
    """
    if isinstance(value, list):
        return iter(value)
    if not isinstance(value, Mapping):
        raise UserError(f"{place} is {str(value)[:60]!r}; expected a list of rows, or an object that holds rows")
    if _is_one_row(value):
        return iter([value])
    lists = [entry for entry in value.values() if _is_rows(entry)]
    if len(lists) == 1:
        return iter(lists[0])
    if value and all(isinstance(column, Mapping) for column in value.values()):
        return _rows_of_mappings(value, place)
    if value and not lists and all(isinstance(column, list) for column in value.values()):
        return _rows_of_columns(value, [range(len(column)) for column in value.values()], place)
    if any(isinstance(entry, Mapping | list) for entry in value.values()):
        keys = ", ".join(list(map(str, value))[:_MAX_NAMED])
        raise UserError(f"{place} is an object with the keys {keys}; expected rows under one key, or columns")
    return iter([value])


def _is_rows(entry: object) -> bool:
    return isinstance(entry, list) and bool(entry) and all(isinstance(row, Mapping) for row in entry)


def _is_one_row(value: Mapping[str, Any]) -> bool:
    """Whether a column of questions holds one: a text, or messages, which are a list of objects, too."""
    return any(isinstance(entry, str) or is_messages(entry) for entry in values_of(value, QUESTIONS))


def _rows_of_mappings(value: Mapping[str, Mapping[str, Any]], place: str) -> Iterator[object]:
    """Rows of `{"problem": {"0": ...}}`, or of `{"0": {"problem": ...}}`, which pandas calls columns and index."""
    inner = [str(key) for column in value.values() for key in column]
    if all(key.isdecimal() for key in inner):
        return _rows_of_columns(value, [list(column) for column in value.values()], place)
    return iter(value.values())


def _rows_of_columns(value: Mapping[str, Any], keys: list[Sequence[Any]], place: str) -> Iterator[object]:
    first, *others = keys
    for name, other in zip(list(value)[1:], others, strict=True):
        if list(other) != list(first):
            column = next(iter(value))
            raise UserError(f"{place} has {len(first)} values in the column {column} and {len(other)} in {name}")
    return ({name: column[key] for name, column in value.items()} for key in first)
