"""Paired differences on the same questions: the trained relay against every other condition of its size.

The random router that costs as much as the relay is not a run: it is the point of the line between student alone and
teacher alone at the relay's call ratio, question by question, so that it is paired as the others are.
"""

from __future__ import annotations

from collections.abc import Iterator

from relay_verl.recipes.paper import paper
from relay_verl.report.comparison import estimate_of, measure_of
from relay_verl.report.conditions import names_of
from relay_verl.report.directions import verdict
from relay_verl.report.document import Table
from relay_verl.report.groups import Groups
from relay_verl.report.statistics import Measure, difference, mix

_WORDS = {"shown": "higher", "opposite": "lower", "not shown": "not told apart"}
_NOTE = (
    "Differences of accuracy in percentage points. The interval is over training seeds (Welch's t) where both sides "
    "have several that differ, else over questions (paired bootstrap), which says nothing about other training runs. "
    "The router with as large a share gives the teacher whole questions at random, as many as the relay's call ratio "
    "says, which is taken as known."
)


def differences_table(groups: Groups, size: str) -> Table | None:
    """The differences of one size; None if no two of its conditions can be compared."""
    rows: list[tuple[str, ...]] = []
    previous = ""
    for of, to, one, other in _pairs(groups, size):
        made = difference(one, other)
        over = f"{100 * made.low:+.1f} to {100 * made.high:+.1f}"
        rows.append(
            (of if of != previous else "", to, f"{100 * made.value:+.1f}", over, made.basis, _WORDS[verdict(made, 1)])
        )
        previous = of
    head = ("accuracy of", "against", "difference", "95% interval", "interval over", "verdict")
    title = f"Differences on the same questions, {paper().sizes[size].title}"
    return Table(title, head, tuple(rows), num_labels=2, note=_NOTE) if rows else None


def _pairs(groups: Groups, size: str) -> Iterator[tuple[str, str, Measure, Measure]]:
    facts = paper().sizes[size]
    measured = groups.of_size(size)
    names = dict(zip(measured, names_of(measured), strict=True))
    relay, base = groups.find(f"{size}/relay"), groups.find(f"{size}/base")
    teacher = groups.find(facts.teacher)
    accuracies = {
        group: made for group in measured if group is not teacher and (made := measure_of(group, facts.average))
    }
    alone = accuracies.get(base) if base else None

    if relay in accuracies:
        for other, accuracy in accuracies.items():
            if other is not relay:
                yield names[relay], names[other], accuracies[relay], accuracy
        ratio, of_teacher = estimate_of(relay, "call_ratio"), teacher and measure_of(teacher, facts.average)
        if alone and ratio and of_teacher:
            router = mix(alone, of_teacher, ratio.value)
            yield (
                names[relay],
                f"random router with as large a share ({100 * ratio.value:.2f}%)",
                accuracies[relay],
                router,
            )
    if alone and base:
        for method in ("warm", "grpo"):
            trained = groups.find(f"{size}/{method}") if f"{size}/{method}" in paper().rows else None
            if trained in accuracies:
                yield names[trained], names[base], accuracies[trained], alone
