"""A recipe's own keys, composed as Hydra does it but with each file read once: a table of all recipes in a second.

Only what recipes are made of is read here: a `defaults` list of names in the same folder, or of /folder/name, in files
that begin with `# @package _global_`; and the defaults of `relay:`, which are generated. For anything else `own_keys`
says None, and Hydra has to compose the recipe.

Invariant: where `own_keys` gives a config, it is Hydra's (a test compares them for every recipe).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from relay_verl.config.defaults import CONFIG_NAME, default_config

_HEADER = "# @package _global_"
_SELF = "_self_"


def own_keys(path: Path, roots: Sequence[Path]) -> dict[str, Any] | None:
    """What a recipe's file and all that its `defaults` name set together, not resolved; None if Hydra has to do it.

    Args:
        path: the recipe's file.
        roots: folders in which /folder/name is looked for, in order.
    """
    merged: dict[str, Any] = {}
    for layer in _layers(path, tuple(roots)):
        if layer is None:
            return None
        merged = lay_over(merged, layer)
    return merged


def _layers(path: Path, roots: tuple[Path, ...]) -> Iterator[dict[str, Any] | None]:
    """The files' contents, the later ones over the earlier; None where one is not understood."""
    content = _read(path)
    if content is None:
        yield None
        return
    defaults = content.get("defaults", [])
    if not isinstance(defaults, list) or not all(isinstance(item, str) for item in defaults):
        yield None
        return
    own = {key: value for key, value in content.items() if key != "defaults"}
    for item in defaults if _SELF in defaults else [*defaults, _SELF]:
        if item == _SELF:
            yield own
            continue
        folders = roots if item.startswith("/") else (path.parent,)
        places = [folder / f"{item.lstrip('/')}.yaml" for folder in folders]
        file = next((place for place in places if place.is_file()), None)
        if file is None and (item.lstrip("/") if item.startswith("/") else f"{path.parent.name}/{item}") == CONFIG_NAME:
            yield default_config()
            continue
        if file is None or "@" in item or "$" in item or " " in item:
            yield None
            return
        yield from _layers(file, roots)


@cache
def _read(path: Path) -> dict[str, Any] | None:
    """A file's content; None if its keys do not belong at the top."""
    if _HEADER not in path.read_text(encoding="utf-8-sig").splitlines()[:3]:
        return None
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return content if isinstance(content, dict) else None  # type: ignore[return-value]


def lay_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `under`: groups key by key, everything else as a whole. Neither is changed.

    >>> lay_over({"a": {"b": 1, "c": [2]}}, {"a": {"c": [3, 4]}})
    {'a': {'b': 1, 'c': [3, 4]}}
    """
    merged = dict(under)
    for key, value in over.items():
        has_both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = lay_over(merged[key], value) if has_both else value
    return merged
