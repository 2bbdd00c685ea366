r"""What a dataset gives as the right answer, as the grader takes it. Pure.

Invariant: training, filter, evaluation and judge read a truth through this module alone, so that the same file means
the same everywhere. A truth is a text that is not blank, or several of which any one is right; whatever cannot be read
as that raises UnusableTruthError, and the caller names the file and the row.

What datasets have at `reward_model.ground_truth`, and what it is read as:

    "2", " 2\n"                     2
    2, 0.5, 70.0, numpy scalars     2, 0.5, 70 (a table with gaps makes floats of integers)
    ["2"], array(["2"])             2: the one element (TTRL, TinyV, rllm)
    ["$1$", "$7$"]                  $1$, $7$: all of them are wanted (OlympiadBench), unless any_of says otherwise
    ["7.5e7", "75000000"], any_of   one of them is enough (rllm's Minerva)
    {"target": "2"}                 2: the one entry that says something
    '["2"]', "['2']"                2: a list that was written as text (Skywork-OR1; a CSV file of pandas)
    null, NaN, "", [], true         unusable
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from relay_verl.data.columns import ANSWERS

Truth = str | tuple[str, ...]
"""A text that is not blank, or several of which any one is right."""
ALLOWED = "a text, a number, a list of them, or an object with one of them"
"""What a ground truth may be, for messages."""
_LARGEST_EXACT = 2.0**53
_SHOWN_CHARS = 80


class UnusableTruthError(ValueError):
    """No response can be graded by this; the message is a single line that quotes it."""


def read_truth(value: object, *, any_of: bool = False) -> Truth:
    """A ground truth as the grader takes it.

    Args:
        value: what the dataset gives.
        any_of: whether one element of a list is enough; else all of them are wanted.

    Raises:
        UnusableTruthError: it says nothing, or is of a kind that cannot be read.

    >>> read_truth(70.0), read_truth(["1", "7"]), read_truth(["0.5", "1/2"], any_of=True), read_truth({"target": "2"})
    ('70', '1, 7', ('0.5', '1/2'), '2')
    """
    return join_parts(parts_of(value), any_of=any_of)


def truth_of(reward_model: object) -> Truth:
    """The ground truth of a row's `reward_model`, whose `any_of` says whether one element of a list is enough.

    Raises:
        UnusableTruthError: as `read_truth`, or it is not a mapping.
    """
    if not isinstance(reward_model, Mapping):
        raise UnusableTruthError(f"reward_model is {_show(reward_model)}; expected a mapping with a ground_truth")
    return read_truth(reward_model.get("ground_truth"), any_of=reward_model.get("any_of") is True)


def truth_text(truth: Truth) -> str:
    """A truth as one text, for people and for an LLM judge.

    >>> truth_text("2"), truth_text(("0.5", "1/2"))
    ('2', 'any of: 0.5; 1/2')
    """
    return truth if isinstance(truth, str) else f"any of: {'; '.join(truth)}"


def join_parts(parts: Sequence[str], *, any_of: bool) -> Truth:
    """The truth that these texts, at least one, make up together."""
    if not any_of:
        return ", ".join(parts)
    distinct = tuple(dict.fromkeys(parts))
    return distinct if len(distinct) > 1 else distinct[0]


def parts_of(value: object) -> list[str]:
    """The texts of a ground truth, at least one, each without the blanks around it.

    Raises:
        UnusableTruthError: as `read_truth`.
    """
    parts = list_parts(value)
    if not parts:
        raise UnusableTruthError(f"the ground truth is {_show(value)}; expected {ALLOWED}")
    return parts


def list_parts(value: object) -> list[str]:
    """As `parts_of`; empty where there is none. What is empty inside a list is passed over."""
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, without importing numpy
        value = value.tolist()
    if isinstance(value, str):
        written = _written_value(value)
        return list_parts(written) if written is not None else [value.strip()] if value.strip() else []
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int | Decimal):
        return [str(value)]
    if isinstance(value, float):
        return [_float_text(value)] if math.isfinite(value) else []
    if isinstance(value, list | tuple):
        return [part for element in value for part in list_parts(element)]
    if isinstance(value, Mapping):
        return _entry(value)
    return []


def _entry(value: Mapping[object, object]) -> list[str]:
    """The one entry of an object that says something. Two are none: which of them is the answer is not known."""
    entries = {str(key): parts for key, element in value.items() if (parts := list_parts(element))}
    if len(entries) != 1:
        return []
    ((key, parts),) = entries.items()
    return parts if key in (*ANSWERS, "value") else []


def _written_value(text: str) -> object:
    """The list or object that a text spells, as JSON or as Python prints it; None for every other text.

    `[1, 2]` is an interval and stays one: only a list of quoted texts is a list.
    """
    text = text.strip()
    if not text.startswith(('["', "['", '{"')):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _printed_list(text)
    if isinstance(value, Mapping):
        return value if _entry(value) else None
    is_list = isinstance(value, list) and value and all(isinstance(element, str) for element in value)
    return value if is_list else None


def _printed_list(text: str) -> object:
    """The list that Python prints as this text. numpy prints `['2' '3']`, which Python reads as one text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if repr(value) == text else None


def _float_text(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) <= _LARGEST_EXACT else repr(value)


def _show(value: object) -> str:
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."
