"""The `relay:` node with every key at its default, as Hydra composes it: `recipes/relay/base.yaml` begins with it.

Hydra takes `relay.x=y` without a `+` only for a key that the composed config has, so every key must be in it. The Hydra
plugin offers this node as the config `relay/settings`, so that no file repeats the defaults.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from relay_verl.config.settings import RelaySettings

CONFIG_NAME = "relay/settings"
"""What a `defaults` list calls the node; in a file of the folder `relay` itself, `settings`."""


def default_config() -> dict[str, Any]:
    """The node and nothing else, in the types that YAML has."""
    return {"relay": _plain(RelaySettings())}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
