"""`card.json`: what is stored of a shipped pair. Its hashes, where it comes from, what it can do.

Invariant: the same pair on the same machine gives the same file, byte for byte: nothing in it is a time or a place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from relay_verl.config.validation import validate
from relay_verl.config.values import STRICT, Count
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import reading, replace_file
from relay_verl.report.summary_table import ConditionSummary

CARD_FILE = "card.json"
FORMAT = 1
"""Of the file; a reader refuses a higher one."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the pair."""

    __pydantic_config__ = STRICT

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of its content, in hexadecimal."""
    num_bytes: int
    """Its length."""


@dataclass(frozen=True)
class PairTraining:
    """How the student was trained."""

    __pydantic_config__ = STRICT

    recipe: str | None
    """Its recipe; null if it is not known."""
    step: Count | None
    """Step of the training whose weights these are; null likewise."""
    command: str
    """verl's command; empty likewise."""
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    """Settings by which the models were made before, as their manifest has them."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that trained it."""


@dataclass(frozen=True)
class PairCard:
    """All that is said of a shipped pair."""

    __pydantic_config__ = STRICT

    title: str
    """What the pair is of, such as 'The tiny world'."""
    files: Mapping[str, StoredFile]
    """Every other file, by its path in the folder."""
    num_parameters: Mapping[str, int]
    """Of each model, by its folder."""
    names: Mapping[str, str]
    """What tables call a kind of questions."""
    notes: Mapping[str, str]
    """What such a kind asks."""
    training: PairTraining
    """How the student was trained."""
    results: tuple[ConditionSummary, ...]
    """What the pair answers to all questions that were held out (`relay_verl.demo.demo_relay`)."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that measured `results`."""
    format: Annotated[int, Field(ge=1, le=FORMAT, strict=True)] = FORMAT
    """Of the file."""


def write_card(folder: Path, card: PairCard) -> None:
    """Write `card.json` into the pair's folder. Raises OSError."""
    replace_file(folder / CARD_FILE, (json.dumps(asdict(card), indent=1, ensure_ascii=False) + "\n").encode())


def read_card(folder: Path) -> PairCard:
    """The card in a pair's folder.

    Raises:
        UserError: there is none, or it is damaged or of a later format; names the file.
    """
    file = folder / CARD_FILE
    if not file.is_file():
        raise UserError(f"{folder}: expected the folder of a shipped pair, with {CARD_FILE} in it")
    with reading(file), as_user_error((ValueError, RecursionError), f"{file} is damaged"):
        values = json.loads(file.read_bytes())
    if not isinstance(values, dict):
        raise UserError(f"{file} is damaged: expected a JSON object, got {values!r:.80}")
    return validate(PairCard, values, f"{file}: ")
