"""Claims against results: shown, not shown, opposite, or too few data, each with its difference and its interval.

With the 95% interval of the difference and its p-value after Benjamini and Hochberg's correction for all claims of the
file that have data (`scipy.stats.false_discovery_control`):

    shown          the corrected p-value is below alpha, the sign is as claimed, and the difference counts (`smallest`)
    opposite       the corrected p-value is below alpha, and the sign is the other one
    not shown      neither, and the interval leaves out a difference that counts: there is none to be seen
    too few data   neither, and the interval has both none and one that counts in it; or what the claim planned is not
                   there: a row, a training seed, questions

Invariant: a claim without its data has a verdict that says what is missing, and takes part in no correction. Training
seeds past those that the claims plan are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from relay_verl.errors import UserError, as_user_error, suggest
from relay_verl.report.claim import Claim, Claims, Side, Where
from relay_verl.report.claim_effect import Effect, effect_of
from relay_verl.report.claim_measures import MEASURES, Answers, References, answers_of
from relay_verl.report.groups import Group, Groups
from relay_verl.traces.question_table import QuestionFacts
from relay_verl.traces.words import TEACHER_ALONE, natural_policies

_REFERENCES = {"base": natural_policies("base")[0], "teacher": TEACHER_ALONE}
"""The rows that some measures are relative to, with their policies."""
BENCHMARK = "benchmark"
"""By which questions may be selected, as by a fact."""


class Verdict(StrEnum):
    """What the data say of a claim."""

    SHOWN = "shown"
    NOT_SHOWN = "not shown"
    OPPOSITE = "opposite"
    TOO_FEW = "too few data"


@dataclass(frozen=True)
class Judged:
    """A claim and what is known of it."""

    claim: Claim
    verdict: Verdict
    why: str
    """What is missing, or how small the difference is; empty where the numbers say it."""
    effect: Effect | None = None
    """The difference; None if it cannot be computed."""
    p_value: float | None = None
    """Corrected; None if it takes no part."""


class MissingError(UserError):
    """What a claim planned is not there."""


def judge_claims(claims: Claims, groups: Groups, questions: QuestionFacts) -> list[Judged]:
    """Every claim of the file, in order.

    Args:
        claims: with levels and planned seeds.
        groups: the results.
        questions: what is known of their questions.

    Raises:
        UserError: the results are of another version of the questions than the claims, or a claim selects by a fact
            that the questions do not have.
    """
    if claims.world is not None and claims.world not in questions.world.values():
        raise UserError(
            f"world: {claims.world}: the results are on other questions: "
            f"{', '.join(f'{name} {sha256}' for name, sha256 in questions.world.items())}"
        )
    bench = ClaimBench(claims, groups, questions)
    judged = [bench.measure(claim) for claim in claims.claims]
    return decide(judged, claims.alpha)


def decide(judged: Sequence[Judged], alpha: float) -> list[Judged]:
    """The verdicts, with p-values corrected over those that have one."""
    from scipy.stats import false_discovery_control

    with_data = [one for one in judged if one.verdict is not Verdict.TOO_FEW]
    raw = [one.effect.p_value(_border(one.claim)) for one in with_data if one.effect]
    corrected = iter(false_discovery_control(raw) if raw else ())
    return [
        one if one.verdict is Verdict.TOO_FEW else _decide(replace(one, p_value=float(next(corrected))), alpha)
        for one in judged
    ]


def _border(claim: Claim) -> float:
    """The difference between both verdicts, `of` minus `to`."""
    return claim.direction.sign * claim.border


def _decide(one: Judged, alpha: float) -> Judged:
    claim, effect = one.claim, one.effect
    assert effect is not None and one.p_value is not None
    sign = claim.direction.sign
    ahead = sign * effect.value - claim.border  # of the border, in the claimed direction
    counts_from = claim.border + claim.smallest
    if one.p_value < alpha:
        if ahead < 0:
            return replace(one, verdict=Verdict.OPPOSITE)
        if claim.margin or sign * effect.value >= counts_from:
            return replace(one, verdict=Verdict.SHOWN)
        return replace(one, verdict=Verdict.NOT_SHOWN, why=f"smaller than {claim.smallest:g}, from where on it counts")
    highest = max(sign * end for end in effect.interval)
    if highest < counts_from:
        return replace(one, verdict=Verdict.NOT_SHOWN)
    return replace(one, verdict=Verdict.TOO_FEW, why="the interval has none and one that counts in it")


class ClaimBench:
    """Measures claims; reads each row's answers once."""

    def __init__(self, claims: Claims, groups: Groups, questions: QuestionFacts):
        self._claims = claims
        self._groups = groups
        self._questions = questions
        self._known: dict[Side, Answers] = {}

    def measure(self, claim: Claim) -> Judged:
        """The difference of a claim; 'not shown' stands for a verdict that is still to be decided."""
        with as_user_error(UserError, lambda error: f"claims.{claim.id}: {error}"):
            self._check_facts(claim.measure, claim.where)
        try:
            sides = [self._answers(side) for side in claim.sides]
            references = self._references(claim.measure)
            places = self._places(claim.where, claim.questions or 1, [*sides, *references.known])
        except MissingError as missing:
            return Judged(claim, Verdict.TOO_FEW, str(missing))
        whole = [side.take(places) for side in sides]
        effect = effect_of(claim, whole[0], whole[1] if claim.to else None, references.take(places))
        if math.isnan(effect.value) or math.isnan(effect.error):
            return Judged(claim, Verdict.TOO_FEW, f"{MEASURES[claim.measure].words} means nothing on these responses")
        missing_seeds = self._missing_seeds(claim)
        return Judged(claim, Verdict.TOO_FEW if missing_seeds else Verdict.NOT_SHOWN, missing_seeds, effect)

    def values(self, side: Side, measure: str, where: Where) -> np.ndarray:
        """A measure of each planned training seed of a row that is there, in the measure's unit: [num_seeds].

        Raises:
            UserError: it was not measured, or the questions are not known by this.
        """
        self._check_facts(measure, where)
        references = self._references(measure)
        answers = self._answers(side)
        places = self._places(where, 1, [answers, *references.known])
        return MEASURES[measure].values(answers.take(places), references.take(places))

    def _check_facts(self, measure: str, where: Where) -> None:
        """What questions are selected by and what is computed with is known of them."""
        known, needed = self._questions.facts, MEASURES[measure].needs_facts
        for name in (*where, *needed):
            if name not in (BENCHMARK, *known):
                names = [BENCHMARK, *known]
                raise UserError(
                    f"{name}: not known of these questions; expected one of {', '.join(names)}{suggest(name, names)}"
                )
        for name in needed:
            if strange := [value for value in known[name] if not isinstance(value, int)]:
                raise UserError(f"{name}: {strange[0]!r}: expected whole numbers of all questions")

    def _answers(self, side: Side) -> Answers:
        if side not in self._known:
            group = self._group(side)
            seeds = self._planned(side, group)
            self._known[side] = answers_of([group.records[number] for number in seeds], self._questions)
        return self._known[side]

    def _group(self, side: Side) -> Group:
        row = f"{self._claims.size}/{side.row}"
        group = self._groups.find(row, side.policy, side.teacher)
        if group is None or (side.teacher and group.teacher != side.teacher):
            raise MissingError(f"{side.words} was not measured")
        return group

    def _planned(self, side: Side, group: Group) -> list[int]:
        """The places of the seeds that the claims plan; of a row without a training, the one there is."""
        if not self._claims.is_trained(side):
            return [0]
        planned = range(1, self._claims.num_seeds(side) + 1)
        numbers = [number for number, of_one in enumerate(group.seeds) if of_one[0].training_seed in planned]
        if not numbers:
            raise MissingError(f"{side.words}: no result says its training seed (--training-seed)")
        return numbers

    def _missing_seeds(self, claim: Claim) -> str:
        """Which planned seeds of which row are not there."""
        missing = []
        for side in claim.sides:
            if not self._claims.is_trained(side):
                continue
            present = {of_one[0].training_seed for of_one in self._group(side).seeds}
            absent = [str(seed) for seed in range(1, self._claims.num_seeds(side) + 1) if seed not in present]
            if absent:
                missing.append(f"{side.words}: training seed{'s' * (len(absent) > 1)} {', '.join(absent)} missing")
        return "; ".join(missing)

    def _references(self, measure: str) -> References:
        if not MEASURES[measure].needs_references:
            return References(None, None)
        return References(*(self._answers(Side(row, policy)) for row, policy in _REFERENCES.items()))

    def _places(self, where: Where, num_needed: int, sides: Sequence[Answers]) -> np.ndarray:
        """The places of the questions that are chosen."""
        answers = sides[0]
        if any(one.num_questions != answers.num_questions for one in sides):
            raise MissingError("its rows were not measured on the same benchmarks")
        chosen = np.ones(answers.num_questions, dtype=bool)
        for name, values in where.items():
            chosen &= np.isin(answers.benchmarks if name == BENCHMARK else answers.facts[name], values)
        places = np.flatnonzero(chosen)
        if len(places) < num_needed:
            raise MissingError(f"{len(places)} of the {num_needed} questions that it needs")
        return places
