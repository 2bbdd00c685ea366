"""Which of the teacher's tokens were useful: each call against the same response with the call refused, paired.

With a call refused the student continues alone (`relay_verl.traces.refusals`). What the k-th call adds is therefore the
difference between the response that goes without the calls from the k-th on and the one that goes without those from
the next one on, which for the last call is the response itself::

    useful          wrong without it, right with it
    harmful         right without it, wrong with it
    right anyway    right either way
    wrong anyway    wrong either way

Over the calls of a response the differences add up to what the teacher changed in all: the accuracy with the teacher
minus the accuracy with every first call refused. Verdicts are by rule on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from matplotlib.figure import Figure

from relay_verl.pictures import NEITHER, RELAY, SKY, VERMILION, dress
from relay_verl.report.comparison import NONE
from relay_verl.report.conditions import with_interval
from relay_verl.report.document import Picture, Table
from relay_verl.report.drawing import draw
from relay_verl.report.groups import Group
from relay_verl.report.learned_data import Pair, pooled, right, share
from relay_verl.report.seed_interval import over_seeds
from relay_verl.report.statistics import Estimate, difference, estimate
from relay_verl.traces.records import ResponseRecord
from relay_verl.types import CallOutcome


class Effect(StrEnum):
    """What a call changed."""

    USEFUL = "useful"
    HARMFUL = "harmful"
    RIGHT_ANYWAY = "right anyway"
    WRONG_ANYWAY = "wrong anyway"


_COLOURS = {
    Effect.USEFUL: RELAY,
    Effect.RIGHT_ANYWAY: SKY,
    Effect.WRONG_ANYWAY: NEITHER,
    Effect.HARMFUL: VERMILION,
}
"""In the order of the pictures."""


@dataclass(frozen=True)
class TriedCall:
    """A served call whose refusal was tried."""

    number: int
    """Which of the response's served calls, from 1."""
    num_tokens: int
    """Tokens the teacher delivered."""
    effect: Effect


def tried_calls(record: ResponseRecord) -> Iterator[TriedCall]:
    """The served calls of a response whose effect is known: those that were refused, as far as the next one was, too.

    Args:
        record: right or wrong by rule.
    """
    served = [call for call in record.calls if call["outcome"] == CallOutcome.SERVED]
    without = {refusal["position"]: refusal["is_correct"] for refusal in record.refusals or ()}
    for number, call in enumerate(served, start=1):
        is_last = number == len(served)
        with_it = record.is_correct if is_last else without.get(served[number]["position"])
        without_it = without.get(call["position"])
        if with_it is not None and without_it is not None:
            yield TriedCall(number, call["num_delivered"], _effect(with_it, without_it))


def _effect(with_it: bool, without_it: bool) -> Effect:
    if with_it == without_it:
        return Effect.RIGHT_ANYWAY if with_it else Effect.WRONG_ANYWAY
    return Effect.USEFUL if with_it else Effect.HARMFUL


def is_right_without(record: ResponseRecord) -> bool:
    """Whether the response would have been right with its first call refused; one without a call is as it is."""
    return record.refusals[0]["is_correct"] if record.refusals else record.is_correct


def right_without(record: ResponseRecord) -> tuple[float, float]:
    """What a response adds to the accuracy with every first call refused."""
    return float(is_right_without(record)), 1.0


def tried_groups(pair: Pair) -> list[Group]:
    """The conditions in which every response that called was tried."""
    return [
        group
        for group in pair.callers
        if all(one.refusals for records in group.raw_records for one in records if one.num_calls)
    ]


def useful_share(group: Group) -> Estimate | None:
    """The share of the teacher's tokens that a useful call delivered, of the calls whose effect is known; None without
    any."""
    return _share(group.raw_records, Effect.USEFUL, by_tokens=True)


def _share(seeds: Sequence[Sequence[ResponseRecord]], effect: Effect, *, by_tokens: bool) -> Estimate | None:
    def counts(record: ResponseRecord) -> tuple[float, float]:
        calls = [(call.num_tokens if by_tokens else 1, call.effect) for call in tried_calls(record)]
        return sum(size for size, one in calls if one is effect), sum(size for size, _ in calls)

    measured = pooled(seeds, counts)
    return estimate(measured) if any(stratum[..., 1].any() for stratum in measured.strata) else None


def what_teacher_adds(group: Group) -> Estimate:
    """Accuracy minus that with every first call refused, paired over questions, or over seeds where several differ."""
    with_calls, without = (share(group.raw_records, counts) for counts in (right, right_without))
    of_seeds = (with_calls.of_seeds() - without.of_seeds()).tolist()
    return over_seeds(of_seeds, -1.0, 1.0) or difference(with_calls, without)


def usefulness_table(pair: Pair) -> Table:
    """A line for each condition whose calls were refused."""
    rows = []
    for group in tried_groups(pair):
        calls = [call for records in group.raw_records for record in records for call in tried_calls(record)]
        num_served = sum(record.num_calls for records in group.raw_records for record in records)
        added = what_teacher_adds(group)
        without = estimate(share(group.raw_records, right_without))
        rows.append(
            (
                pair.names[group],
                f"{len(calls):,} of {num_served:,}",
                *(_cell(_share(group.raw_records, effect, by_tokens=False)) for effect in _COLOURS),
                f"{sum(call.num_tokens for call in calls):,}",
                _cell(useful_share(group)),
                with_interval(estimate(share(group.raw_records, right)), 1),
                with_interval(without, 1),
                f"{100 * added.value:+.1f} ({100 * added.low:+.1f} to {100 * added.high:+.1f})",
            )
        )
    head = (
        "condition",
        "calls tried",
        *(f"{effect} (%)" for effect in _COLOURS),
        "teacher's tokens",
        "useful tokens (%)",
        "accuracy (%)",
        "first call refused (%)",
        "difference",
    )
    note = (
        "Each call against the same response with the call refused, from where the student continued alone. Useful: "
        "wrong without the call, right with it; harmful: the other way round. A token is useful where its call is. In "
        "parentheses the 95% interval; the difference is paired over questions. Verdicts are by rule."
    )
    return Table("Which calls were useful", head, tuple(rows), note=note)


def usefulness_by_level(pair: Pair, key: str) -> Table | None:
    """The share of the teacher's tokens that were useful at each level of a number; None if nothing was tried."""
    groups = tried_groups(pair)
    if not groups:
        return None
    levels = pair.levels(key)
    rows = []
    for group in groups:
        cells = []
        for level in levels:
            seeds = [[one for one in records if level.has(pair.numbers.of(one, key))] for records in group.raw_records]
            cells.append(_cell(_share(seeds, Effect.USEFUL, by_tokens=True) if all(seeds) else None))
        rows.append((pair.names[group], *cells))
    head = ("condition", *(f"{key} {level.label}" for level in levels))
    note = "Of the teacher's tokens at each level; in parentheses the 95% interval."
    return Table(f"Useful tokens by {key} (%)", head, tuple(rows), note=note)


def _cell(estimated: Estimate | None) -> str:
    return NONE if estimated is None else with_interval(estimated, 1)


def usefulness_figure(pair: Pair) -> Picture | None:
    """The teacher's tokens by what their call changed, a bar for each condition; None if nothing was tried."""
    tokens = {group: _tokens_by_effect(group) for group in tried_groups(pair)}
    tokens = {group: sizes for group, sizes in tokens.items() if sum(sizes.values())}
    if not tokens:
        return None

    def paint(figure: Figure) -> None:
        axis = figure.subplots()
        dress(axis, x="the teacher's tokens (%)")
        axis.grid(visible=False)
        for place, sizes in enumerate(tokens.values()):
            shares = np.array([sizes[effect] for effect in _COLOURS], dtype=float)
            shares *= 100 / shares.sum()
            for effect, width, end in zip(_COLOURS, shares, np.cumsum(shares), strict=True):
                axis.barh(-place, width, 0.62, left=end - width, color=_COLOURS[effect], linewidth=0)
                if width >= 6:
                    axis.text(end - width / 2, -place, f"{width:.0f}", ha="center", va="center", color="#000000")
        for effect, colour in _COLOURS.items():
            axis.barh(0, 0, color=colour, label=effect.value)
        axis.set_yticks([-place for place in range(len(tokens))], [pair.names[group] for group in tokens])
        axis.set_xlim(0, 100)
        axis.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)

    svg = draw(paint, size=(7.6, 1.2 + 0.42 * len(tokens)))
    return Picture("useful", "The teacher's tokens by what their call changed", svg, "Shares in percent.")


def _tokens_by_effect(group: Group) -> Mapping[Effect, int]:
    sizes = dict.fromkeys(Effect, 0)
    for records in group.raw_records:
        for record in records:
            for call in tried_calls(record):
                sizes[call.effect] += call.num_tokens
    return sizes
