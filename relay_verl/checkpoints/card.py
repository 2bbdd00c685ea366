"""Model cards in the hub's standard, by one template for all models that this package writes: `card.md`.

`card` writes the card of any subject. A trained student is one (`trained_student`), and a model whose weights came in
packages is another (`relay_verl.weights.dequantized`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, StrictUndefined

CARD_FILE = "README.md"
TAG = "relay-verl"
"""Says in the card's front matter that this package exported the model."""


class CardSubject(Protocol):
    """A model that has a card."""

    def front_matter(self) -> dict[str, Any]:
        """The metadata under the names of `huggingface_hub.ModelCardData`; what is empty is left out."""
        ...

    def words(self) -> dict[str, Any]:
        """What the template shows: `origin` says which part of it, `title` is its heading."""
        ...


def card(subject: CardSubject) -> str:
    """The card of a model.

    Raises:
        UserError: a file that the card is made of cannot be read.
    """
    from huggingface_hub import ModelCardData

    data = {key: value for key, value in subject.front_matter().items() if value}
    source = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    blocks: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    template = Environment(undefined=StrictUndefined, **blocks).from_string(source)
    matter = ModelCardData(**data).to_yaml()
    text = template.render(card_data=matter, license=data.get("license"), **subject.words())
    return re.sub(r"\n{3,}", "\n\n", text)
