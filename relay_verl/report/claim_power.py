"""How many questions a claim needs: the fewest with which its smallest difference that counts is told from none.

The test is that of `relay_verl.report.claim_effect` with the standard deviations that the claim assumes: `spread.seeds`
of a seed's value and `spread.questions` of a question's difference. Power is of the noncentral t, in the claimed
direction, at `planned_level`.
"""

from __future__ import annotations

import math

from relay_verl.errors import UserError
from relay_verl.report.claim import Claim, Claims, NoiseSource
from relay_verl.report.claim_effect import Part, join
from relay_verl.report.document import Table

MAX_QUESTIONS = 1_000_000
"""At so many questions their noise is nothing next to that of seeds."""
MIN_QUESTIONS = 10
"""At least so many: of fewer the mean is not normal."""


def power_of(claims: Claims, claim: Claim, num_questions: int, smallest: float | None = None) -> float:
    """Probability that the claim is shown where the difference is the smallest that counts.

    Args:
        claims: with seeds and level.
        claim: which one.
        num_questions: how many of its questions are asked.
        smallest: another difference than its own.
    """
    from scipy.special import nctdtr, stdtrit

    joined = join(
        [*_seeds_parts(claims, claim), Part(claim.spread.questions / math.sqrt(num_questions), num_questions)]
    )
    critical = float(stdtrit(joined.freedom, 1 - claims.planned_level / 2))
    away = (claim.smallest if smallest is None else smallest) / joined.error
    return 1.0 - float(nctdtr(joined.freedom, away, critical))


def _seeds_parts(claims: Claims, claim: Claim) -> list[Part]:
    if claim.test is NoiseSource.QUESTIONS:
        return []
    trained = [claims.num_seeds(side) for side in claim.sides if claims.is_trained(side)]
    numbers = trained[:1] if claim.is_one_student else trained
    return [Part(claim.spread.seeds / math.sqrt(num), num - 1) for num in numbers if num > 1]


def needed_questions(claims: Claims, claim: Claim) -> int:
    """The fewest questions with enough power.

    Raises:
        UserError: no number is enough, since trainings differ too much; names the smallest difference that would do.
    """
    if power_of(claims, claim, MAX_QUESTIONS) < claims.power:
        reached = claim.smallest
        while power_of(claims, claim, MAX_QUESTIONS, reached) < claims.power:
            reached *= 1.02
        raise UserError(
            f"claims.{claim.id}.smallest: {claim.smallest:g}: no number of questions tells it from none with these "
            f"seeds: expected {reached:.3g} or more, or more seeds"
        )
    low, high = MIN_QUESTIONS - 1, MAX_QUESTIONS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(claims, claim, middle) >= claims.power else (middle, high)
    return high


def check_power(claims: Claims) -> None:
    """Each claim has the number of questions that its power needs.

    Raises:
        UserError: one has another number; names it.
    """
    for claim in claims.claims:
        if (needed := needed_questions(claims, claim)) != claim.questions:
            raise UserError(f"claims.{claim.id}.questions: {claim.questions}: expected {needed}, as its power needs")


def power_table(claims: Claims) -> Table:
    """What each claim needs."""
    rows = []
    for claim in claims.claims:
        seeds = " / ".join(str(claims.num_seeds(side)) if claims.is_trained(side) else "–" for side in claim.sides)
        where = ", ".join(f"{name} {'/'.join(map(str, values))}" for name, values in claim.where.items()) or "all"
        spread = f"{claim.spread.seeds:g} / {claim.spread.questions:g}"
        needed = needed_questions(claims, claim)
        rows.append(
            (
                claim.id,
                where,
                f"{claim.smallest:g}",
                seeds,
                str(claim.test),
                spread,
                f"{needed:,}",
                f"{claim.questions}",
            )
        )
    note = (
        f"Questions with which a difference of the smallest size that counts is shown with a probability of "
        f"{claims.power:.0%} at level {claims.planned_level:g}. Spread: the assumed standard deviations of seeds and "
        "of questions."
    )
    head = ("claim", "questions of", "smallest", "seeds", "test", "spread", "needed", "in the file")
    return Table("What the claims need", head, tuple(rows), num_labels=2, note=note)
