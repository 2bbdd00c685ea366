"""Claims in the report: every verdict with its numbers, and what was changed after the claims were registered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from relay_verl.report.claim import Claims
from relay_verl.report.claim_measures import MEASURES
from relay_verl.report.claim_verdict import Judged, Verdict
from relay_verl.report.comparison import NONE
from relay_verl.report.document import Section, Table
from relay_verl.report.groups import Groups

_HEAD = (
    *("claim", "place", "measure", "of", "to", "difference", "95% interval", "corrected p", "counts from"),
    *("seeds", "questions", "verdict"),
)


def claims_section(claims: Claims, judged: Sequence[Judged]) -> Section:
    """The verdicts, and the changes."""
    registered = (
        f"They were registered before anything ran, as {claims.registered[:12]}"
        if claims.registered
        else "They are not registered"
    )
    note = f"{count_verdicts(judged)}. {registered}; {len(claims.changes)} changes since."
    return Section("The claims", (claims_table(claims, judged), changes_table(claims)), note)


def count_verdicts(judged: Sequence[Judged]) -> str:
    """How many claims have which verdict, such as `34 claims: 9 shown, 8 not shown, 2 opposite, 15 too few data`."""
    numbers = Counter(one.verdict for one in judged)
    return f"{len(judged)} claims: {', '.join(f'{numbers[verdict]} {verdict}' for verdict in Verdict)}"


def seeds_table(claims: Claims, groups: Groups) -> Table:
    """Which training seeds of each row are planned, and which were measured."""
    rows = []
    for row, num_planned in claims.seeds.items():
        some = [group for group in groups.of_size(claims.size) if group.row == f"{claims.size}/{row}"]
        numbers = {of_one[0].training_seed for group in some for of_one in group.seeds}
        seeds = sorted(number for number in numbers if number is not None)
        rows.append((row, f"1 to {num_planned}", ", ".join(map(str, seeds)) or NONE))
    note = "The claims plan them; a claim has a verdict if all of its rows' seeds were measured."
    return Table("Training seeds", ("row", "planned", "measured"), tuple(rows), num_labels=3, note=note)


def claims_table(claims: Claims, judged: Sequence[Judged]) -> Table:
    """A line for each claim."""
    note = (
        "Shown: the p-value, corrected for all claims with data (Benjamini and Hochberg), is below "
        f"{claims.alpha:g} and the difference is as large as counts. Not shown: the interval leaves out a difference "
        "that counts. Too few data: it has both none and one that counts in it, or what was planned is missing. "
        "Percent and percentage points, but for rank correlations and tokens; the interval is over training seeds and "
        "questions together."
    )
    return Table("What is claimed and what is shown", _HEAD, tuple(map(_cells, judged)), num_labels=3, note=note)


def _cells(one: Judged) -> tuple[str, ...]:
    claim, effect = one.claim, one.effect
    measure = MEASURES[claim.measure].words
    verdict = f"{one.verdict}: {one.why}" if one.why else str(one.verdict)
    counts_from = f"{claim.direction.sign * (claim.border if claim.margin else claim.smallest):+g}"
    if effect is None:
        return (claim.sentence, claim.place, measure, *[NONE] * 5, counts_from, NONE, NONE, verdict)
    decimals = 2
    low, high = effect.interval
    return (
        claim.sentence,
        claim.place,
        measure,
        f"{effect.of:.{decimals}f}",
        f"{effect.to:.{decimals}f}",
        f"{effect.value:+.{decimals}f}",
        f"{low:+.{decimals}f} to {high:+.{decimals}f}",
        NONE if one.p_value is None else _p_value(one.p_value),
        counts_from,
        f"{effect.num_seeds}",
        f"{effect.num_questions:,}",
        verdict,
    )


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def changes_table(claims: Claims) -> Table:
    """What was changed after the claims were registered."""
    rows = tuple((change.date.isoformat(), ", ".join(change.claims), change.reason) for change in claims.changes)
    if not rows:
        rows = (("none", "", ""),)
    return Table("Changes after the claims were registered", ("date", "claims", "reason"), rows, num_labels=3)


def tell(one: Judged) -> str:
    """A verdict in words, with its numbers."""
    if one.effect is None:
        return f"{one.verdict} ({one.why})"
    low, high = one.effect.interval
    return f"{one.verdict} ({one.effect.value:+.1f}, 95% interval {low:+.1f} to {high:+.1f})"
