"""Which values are secret, and texts and configs without them.

A secret is the value of a key or an environment variable whose name says so, and the user and the password in a URL.
Nothing of ours writes one into a file, a log or an error: what is shown has `(hidden)` in its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HIDDEN = "(hidden)"
_NAME = re.compile(
    r"(api_?key|access_?key|secret_?key|private_?key|token|secret|passw(or)?d|passphrase|credentials?)$", re.IGNORECASE
)
_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"']+@")
_QUERY = re.compile(r"(?<=[?&])([\w.-]*(?:key|token|secret|passw(?:or)?d|sig|signature)=)[^&#\s\"']+", re.IGNORECASE)
MIN_LENGTH = 6
"""Shorter values are not searched for in texts: `none`, `EMPTY` and the like stand for a key that is not needed."""


def is_secret_name(name: str) -> bool:
    """Whether the value of a key, dotted or not, or of an environment variable of this name is secret.

    >>> is_secret_name("WANDB_API_KEY"), is_secret_name("relay.teacher.api_key_env")
    (True, False)
    """
    return _NAME.search(name) is not None


def holds_secret(url: str) -> bool:
    """Whether a URL has a user, a password or a query, where keys travel.

    >>> holds_secret("http://me:key@host/v1"), holds_secret("http://[::1]:8000/v1")
    (True, False)
    """
    return "@" in url.partition("://")[2].partition("/")[0] or "?" in url or ("://" not in url and "@" in url)


def hide_in_text(text: str, values: Iterable[str] = ()) -> str:
    """`text` without the given secret values, without those in the environment of this process, and without the user,
    the password and the keys of URLs."""
    for value in sorted({*values, *_values_in(os.environ)}, key=len, reverse=True):
        if len(value) >= MIN_LENGTH:
            text = text.replace(value, HIDDEN)
    return _QUERY.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", text))


def hide(key: str, value: Any) -> Any:
    """The value of a config's key as it may be shown: a group and a list with their secret parts hidden."""
    if isinstance(value, Mapping):
        return {name: hide(str(name), part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [hide(key, part) for part in value]
    if value is not None and is_secret_name(key):
        return HIDDEN
    return hide_in_text(value) if isinstance(value, str) else value


def hide_override(word: str, values: Iterable[str] = ()) -> str:
    """A word of a command line as it may be shown; `values` are the secrets that the composed config has."""
    key, equals, _ = word.partition("=")
    return f"{key}{equals}{HIDDEN}" if equals and is_secret_name(key) else hide_in_text(word, values)


def secrets_in(config: Mapping[str, Any]) -> set[str]:
    """The secret texts of a composed config, as they are written there: an interpolation is not one."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    return {value for value in _secrets_below("", plain) if "${" not in value}


def _secrets_below(key: str, node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, part in node.items():
            yield from _secrets_below(str(name), part)
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _secrets_below(key, part)
    elif isinstance(node, str):
        if is_secret_name(key):
            yield node
        for match in _USER_INFO.finditer(node):
            yield from filter(None, match[0].removesuffix("@").split(":", 1)[1:])


def _values_in(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if is_secret_name(name):
            yield value.strip()
        for match in _USER_INFO.finditer(value):  # a proxy's
            yield from filter(None, match[0].removesuffix("@").split(":", 1)[1:])
