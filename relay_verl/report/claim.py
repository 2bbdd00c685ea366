"""Claims that are settled before anything runs, as data: what is compared, by which test, and what difference counts.

    claims:
      - id: relay_above_grpo
        place: Table 1
        sentence: Relaying raises accuracy above that of GRPO alone.
        measure: accuracy
        of: {row: relay}
        to: {row: grpo}
        direction: more
        smallest: 8
        spread: {seeds: 3, questions: 45}
        questions: 317

Numbers are in the unit of the measure: percent and percentage points, but for rank correlations and tokens
(`relay_verl.report.claim_measures`). `questions` is what `relay-verl claims` computes from the rest
(`relay_verl.report.claim_power`).

Invariant: claims that were registered stay as they are. `registered` is their fingerprint; whoever changes one of them
afterwards adds an entry to `changes` with the reason and the new fingerprint, and the report shows it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from relay_verl.config.validation import validate
from relay_verl.config.values import STRICT, Count, NonNegative, Positive
from relay_verl.errors import UserError, as_user_error, suggest
from relay_verl.files import reading
from relay_verl.recipes.paper import find_row, paper
from relay_verl.report.claim_measures import MEASURES
from relay_verl.traces.words import natural_policies

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Level = Annotated[float, Field(gt=0, lt=1)]
Where = Mapping[str, tuple[int | str, ...]]
"""Which questions: for each of these facts one of these values."""


class Direction(StrEnum):
    """Which side of the other one it lies on."""

    MORE = "more"
    LESS = "less"

    @property
    def sign(self) -> int:
        """1 or -1."""
        return 1 if self is Direction.MORE else -1


class NoiseSource(StrEnum):
    """Which noise the test of a claim counts."""

    QUESTIONS = "questions"
    """The difference of each question, a mean over the training seeds; nothing is said of other trainings."""
    SEEDS = "seeds"
    """The difference over the same questions in each training seed: Student's t over the seeds (Welch's where both
    sides are trained apart), to whose variance that of the questions is added, since all seeds answered the same."""


@dataclass(frozen=True)
class Side:
    """A row of the tables under a policy and a teacher."""

    __pydantic_config__ = STRICT

    row: Name
    """Its method, such as 'relay'."""
    policy: str | None = None
    """How commands are treated; null: as the row's name says."""
    teacher: str | None = None
    """Who answers; null: the teacher of training."""

    @property
    def words(self) -> str:
        """Such as 'relay under teacher_free'."""
        under = f" under {self.policy}" if self.policy else ""
        return f"{self.row}{under}{f' with the teacher {self.teacher}' if self.teacher else ''}"

    @property
    def actual_policy(self) -> str:
        """Its policy, said or not."""
        return self.policy or natural_policies(self.row)[0]


@dataclass(frozen=True)
class Spread:
    """Standard deviations that the number of questions is computed from, assumed before anything was measured."""

    __pydantic_config__ = STRICT

    questions: Positive
    """Of a question's difference, a mean over seeds."""
    seeds: NonNegative = 0.0
    """Of a training seed's value; of its difference where both sides are one student."""


@dataclass(frozen=True)
class Claim:
    """One claim."""

    __pydantic_config__ = STRICT

    id: Name
    place: str
    """Table or section of the paper, or 'ours'."""
    sentence: str
    """What is claimed."""
    measure: str
    """One of `relay_verl.report.claim_measures.MEASURES`."""
    of: Side
    """What is claimed about."""
    direction: Direction
    """Whether `of` has more or less of the measure."""
    smallest: Positive
    """Smallest difference that counts: a smaller one does not show the claim, and is what the questions have to tell
    from none."""
    spread: Spread
    to: Side | None = None
    """What it is compared with; null: with `constant`."""
    constant: float | None = None
    """A number in place of a row."""
    margin: NonNegative = 0.0
    """By how much it may fall short of `to` and still hold: a claim of being as good. Then `smallest` is the margin."""
    test: NoiseSource = NoiseSource.SEEDS
    where: Where = field(default_factory=dict)
    """Which questions, by facts of `questions.csv` (grade, family) or by 'benchmark'; all if empty."""
    questions: Count | None = None
    """How many of them are needed; null before it is computed."""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"measure: {self.measure!r}: expected one of {', '.join(MEASURES)}")
        if (self.to is None) == (self.constant is None):
            raise ValueError(f"{self.id}: give either to or constant")
        if self.margin and self.margin != self.smallest:
            raise ValueError(f"smallest: {self.smallest:g}: expected the margin, {self.margin:g}")

    @property
    def sides(self) -> tuple[Side, ...]:
        """Both rows, or the one."""
        return (self.of,) if self.to is None else (self.of, self.to)

    @property
    def is_one_student(self) -> bool:
        """Whether both sides are the same students, so that their seeds pair up."""
        return self.to is not None and self.of.row == self.to.row

    @property
    def border(self) -> float:
        """The difference that the claim says is exceeded, in its direction."""
        return -self.margin


@dataclass(frozen=True)
class Change:
    """What was changed in the claims after they were registered."""

    __pydantic_config__ = STRICT

    date: date
    claims: tuple[str, ...]
    """Ids of the claims that it concerns, those that it removed included."""
    reason: str
    fingerprint: str
    """Of all claims after it."""


@dataclass(frozen=True)
class Claims:
    """A file of claims."""

    __pydantic_config__ = STRICT

    size: str
    """Of the rows, such as 'tiny'."""
    claims: tuple[Claim, ...]
    seeds: Mapping[str, Count]
    """Training seeds of each row, 1 to this number; a row that is not here is not trained."""
    alpha: Level = 0.05
    """Share of false ones among the claims that are shown, at most (Benjamini and Hochberg)."""
    power: Level = 0.8
    """Probability with which a difference of the smallest size that counts is told from none."""
    planned_level: Level = 0.025
    """Level at which that is computed: Benjamini and Hochberg's threshold where half of the claims hold, at .05."""
    world: str | None = None
    """SHA-256 of the questions; null: any, but the same in all results."""
    registered: str | None = None
    """Fingerprint of the claims before anything ran; null until then."""
    changes: tuple[Change, ...] = ()
    """What was changed since, in order."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the verdicts, in hexadecimal."""
        decides = {name: value for name, value in asdict(self).items() if name not in ("registered", "changes")}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def num_seeds(self, side: Side) -> int:
        """Training seeds of a side; 1 if it is not trained."""
        return self.seeds.get(side.row, 1)

    def is_trained(self, side: Side) -> bool:
        """Whether its training has a seed."""
        return side.row in self.seeds


def read_claims(path: Path) -> Claims:
    """The claims of a file.

    Raises:
        UserError: it cannot be read, an unknown key, row or measure, an id twice, or claims that differ from those that
            were registered without an entry in `changes`.
    """
    with reading(path):
        text = path.read_text(encoding="utf-8")
    with as_user_error(yaml.YAMLError, lambda error: f"{path}: not YAML: {' '.join(str(error).split())}"):
        content: Any = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping with claims, got {type(content).__name__}")
    claims = validate(Claims, content, f"{path}: ")
    with as_user_error(UserError, lambda error: f"{path}: {error}"):
        _check(claims)
    return claims


def _check(claims: Claims) -> None:
    if claims.size not in paper().sizes:
        raise UserError(f"size: {claims.size!r}: expected one of {', '.join(paper().sizes)}")
    ids = [claim.id for claim in claims.claims]
    if twice := next((id for id in ids if ids.count(id) > 1), None):
        raise UserError(f"claims: {twice!r} stands there twice")
    for claim in claims.claims:
        for side in claim.sides:
            find_row(f"{claims.size}/{side.row}")
        if claim.spread.seeds == 0 and claim.test is NoiseSource.SEEDS and any(map(claims.is_trained, claim.sides)):
            raise UserError(f"claims.{claim.id}.spread.seeds: 0: expected how much trainings differ")
    for row in claims.seeds:
        if f"{claims.size}/{row}" not in paper().rows:
            rows = [one.method for one in paper().rows.values() if one.size == claims.size]
            raise UserError(f"seeds.{row}: expected one of {', '.join(rows)}{suggest(row, rows)}")
    last = claims.changes[-1].fingerprint if claims.changes else claims.registered
    if claims.registered is not None and last != claims.fingerprint:
        raise UserError(
            f"the claims differ from those that were {'changed last' if claims.changes else 'registered'}: list the "
            f"change with its reason at changes, with fingerprint: {claims.fingerprint}"
        )
