"""What an error says to a user."""

from collections.abc import Callable
from typing import Any

import pytest

from relay_verl.errors import UserError


def one_line(function: Callable[..., Any], *arguments: Any) -> str:
    """The message of the UserError that a call ends with: a single line, never empty."""
    with pytest.raises(UserError) as error:
        function(*arguments)
    line = str(error.value)
    assert line
    assert "\n" not in line
    return line


def names(text: str, key: object, *values: object) -> bool:
    """Whether a message begins with the key it is about and names every value; the words between are free."""
    return text.startswith(str(key)) and all(str(value) in text for value in values)
