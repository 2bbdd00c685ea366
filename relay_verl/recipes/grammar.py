"""Text as Hydra's command line takes it, and what to write where the command line of a user cannot be read.

A path is not text of Hydra's override grammar: blanks, brackets, commas, `=`, `#`, quotes, `~` and letters beyond ASCII
mean something else there, or nothing. Whoever puts a path into an override writes it with `override`.

Invariant: the value that Hydra reads from `override(key, text)` is `text`, and so is the value in the composed config.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, cast

from relay_verl.errors import UserError
from relay_verl.secrets import hide_override


def quote(text: str) -> str:
    """`text` as a quoted value of Hydra's override grammar.

    >>> print(quote('/models/big (copy)'))
    "/models/big (copy)"

    Raises:
        UserError: no quoting keeps it.
    """
    # OmegaConf has an escape for this, but verl resolves a config twice, which takes the escape for the text.
    if "${" in text:
        raise UserError(f"{text}: '${{' in a path is read as a reference by Hydra; rename the folder")
    return _quoted(text)


def override(key: str, value: object) -> str:
    """The override that sets `key` to a path or another text, whatever characters it has.

    >>> print(override("data.train_files", "/data/a, b.parquet"))
    data.train_files="/data/a, b.parquet"

    Raises:
        UserError: no quoting keeps it.
    """
    return f"{key}={quote(str(value))}"


def shown(value: Any) -> str:
    """A value as the command line takes it.

    >>> shown(None), shown(True), shown(0.5)
    ('null', 'true', '0.5')
    """
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(dict(value) if isinstance(value, Mapping) else value)


def two_recipes(names: Sequence[str]) -> str:
    """The error where a command line chooses several recipes for one run."""
    return (
        f"+recipe: {' and '.join(names)} at once; a run has one recipe: take one of them and override its keys, or "
        "write a recipe whose defaults name it"
    )


def words_of_the_job() -> list[str]:
    """The overrides of the running Hydra app as they were typed: Hydra's own list resolves what stands in them."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(word) for word in cast("list[Any]", words)]


def parse(words: Sequence[str]) -> list[Any]:
    """Hydra's `Override` of each word of a command line.

    Raises:
        UserError: Hydra cannot read one; names it, and how to write it so that it can.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for word in words:
        try:
            parsed.append(parser.parse_override(word))
        except HydraException as error:
            raise UserError(_unreadable(word, error)) from None
    return parsed


def check_single_values(words: Sequence[str]) -> None:
    """No word is a sweep: outside `--multirun` a comma in a value is a part of it, which Hydra wants quoted.

    Raises:
        UserError: one is; names it, and how to write it.
    """
    for word, parsed in zip(words, parse(words), strict=True):
        if parsed.is_sweep_override():
            raise UserError(
                f"{hide_override(word)}: Hydra reads several values; for one value write {_quoted_word(word)}"
            )


def _unreadable(word: str, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    shown = hide_override(word)
    key, equals, _ = word.partition("=")
    if not equals or any(character.isspace() for character in key):
        return f"{shown}: Hydra cannot read this ({reason}); expected KEY=VALUE"
    return f"{shown}: Hydra cannot read the value ({reason}); quote it: {_quoted_word(word)}"


def _quoted_word(word: str) -> str:
    """The word for a shell, its value quoted for Hydra."""
    key, _, value = hide_override(word).partition("=")
    return shlex.quote(f"{key}={_quoted(value)}")


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return str(QuotedString(text, Quote.double).with_quotes())
