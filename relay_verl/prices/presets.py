"""Published prices by name, from `presets.yaml`: dated data, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import yaml

from relay_verl.errors import find_known
from relay_verl.prices.price import TokenPrice


@dataclass(frozen=True)
class Preset:
    """The published price of one model."""

    price: TokenPrice
    """Per million tokens."""
    currency: str
    """Three letters, such as USD."""
    date: str
    """The day on which the source said so, as YYYY-MM-DD."""
    source: str
    """Address of the page."""
    note: str = ""
    """What the numbers do not say, such as a time of day."""


def _read() -> dict[str, Preset]:
    entries = yaml.safe_load(files("relay_verl.prices").joinpath("presets.yaml").read_text(encoding="utf-8"))
    presets = {}
    for name, entry in entries.items():
        # a price list without a line for cached tokens charges them like others
        cached = entry.get("cached_input", entry["input"])
        price = TokenPrice(float(entry["input"]), float(cached), float(entry["output"]))
        note = entry.get("note", "")
        presets[name] = Preset(price, entry["currency"], str(entry["date"]), entry["source"], note)
    return presets


PRESETS = _read()
"""All presets, by name in lower case."""


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UserError: there is none; lists those that are known.
    """
    return find_known("price preset", name, PRESETS)
