"""The folder of a shipped pair: two students, their teacher, the world's questions, and the card.

    card.json           hashes, training, results (`relay_verl.demo.pair_card`)
    README.md           the same to read
    questions.jsonl     the world's questions
    student/            the trained student, with relay.json
    student_warm/       the same before its training
    teacher/

Invariant: what `read_pair` gives is what was packed, byte for byte, or it raises a one-line error that names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from relay_verl.demo.demo_question import DemoQuestion, read_questions
from relay_verl.demo.pair_card import PairCard, read_card
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import sha256_of

STUDENT, STUDENT_WARM, TEACHER = "student", "student_warm", "teacher"
MODELS = (STUDENT, STUDENT_WARM, TEACHER)
QUESTIONS_FILE = "questions.jsonl"
OWN = Path(__file__).with_name("pair")
"""The pair of this installation."""


@dataclass(frozen=True)
class ShippedPair:
    """A pair whose files are whole."""

    folder: Path
    """Where it lies."""
    card: PairCard
    """What is said of it."""

    @cached_property
    def questions(self) -> list[DemoQuestion]:
        """The world's questions."""
        return read_questions(self.folder / QUESTIONS_FILE)


def read_pair(folder: Path | None = None) -> ShippedPair:
    """A shipped pair, its files compared with the hashes on its card.

    Args:
        folder: as `relay_verl.demo.packing` writes it; None takes the one of this installation.

    Raises:
        UserError: a file is missing or is not the one that was packed, or the card is damaged.
    """
    place = OWN if folder is None else Path(folder).expanduser()
    hint = "reinstall relay-verl" if folder is None else "pack the pair again"
    with as_user_error(UserError, lambda error: f"{error}; {hint}"):
        card = read_card(place)
        for name, stored in card.files.items():
            file = place / name
            if not file.is_file():
                raise UserError(f"{file} is missing")
            if (digest := sha256_of(file)) != stored.sha256:
                raise UserError(
                    f"{file} is damaged: {file.stat().st_size:,} bytes with SHA-256 {digest[:12]}..., expected "
                    f"{stored.num_bytes:,} with {stored.sha256[:12]}..."
                )
    return ShippedPair(place, card)
