"""What dominates what, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from relay_verl.frontier.axis import WORDS, Axis, Ledger
from relay_verl.frontier.standing import Position, Standing
from relay_verl.policies import find_policy
from relay_verl.report.statistics import Estimate


def headline(standings: Sequence[Standing], axis: Axis) -> str:
    """The frontier of an axis, and how many methods are not on it."""
    corners = [one for one in standings if one.position is Position.HULL]
    corners.sort(key=lambda one: one.point.place(axis))
    names = list_words([one.point.name for one in corners])
    verb = "is alone on the frontier" if len(corners) == 1 else "are on the frontier, from the cheapest on"
    parts = [f"By {WORDS[axis].title}, {names} {verb}"]
    for position, words in ((Position.DOMINATED, "dominated"), (Position.UNDER, "under it")):
        others = [one for one in standings if one.position is position]
        if others:
            num_clear = sum(one.is_clear for one in others)
            is_are = "is" if len(others) == 1 else "are"
            parts.append(
                f"{len(others)} of {len(standings)} methods {is_are} {words}, {num_clear or 'none'} of them beyond the "
                "intervals"
            )
    return " ".join([f"{'; '.join(parts)}.", *_losses(standings)])


def _losses(standings: Sequence[Standing]) -> list[str]:
    """Where a relay loses, and to whom; nothing if each of them is on the frontier, or none takes part."""
    beaten = [one for one in standings if one.by and find_policy(one.point.method.policy).kind.author == "relay"]
    losses = [
        f"{one.point.name} to {' mixed with '.join(by.name for by in one.by)}{'' if one.is_clear else ' (not clearly)'}"
        for one in beaten
    ]
    return [f"The relay loses here: {list_words(losses)}."] if losses else []


def sentence(one: Standing, axis: Axis, ledger: Ledger) -> str:
    """Where one method stands."""
    name = one.point.name
    if one.position is Position.HULL or one.gain is None:
        return f"{name} is on the frontier: no method and no mixture of two is more accurate at its cost."
    gain = points_words(one.gain)
    if one.position is Position.UNDER:
        left, right = one.by
        return (
            f"{name} is under the frontier: {100 * one.share:.0f}% of the questions to {right.name} and the others to "
            f"{left.name} cost as much and are {gain}.{_doubt(one.gain)}"
        )
    (by,) = one.by
    assert one.extra is not None
    cost = cost_words(one.extra, axis, ledger)
    return f"{name} is dominated by {by.name}, which is {gain} and {cost}.{_doubt(one.gain)}"


def points_words(gain: Estimate) -> str:
    """A difference of accuracy that is not negative."""
    interval = f"95% interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    if gain.value == 0:
        return f"as accurate ({interval})"
    return f"{100 * gain.value:.1f} points more accurate ({interval})"


def cost_words(extra: Estimate, axis: Axis, ledger: Ledger) -> str:
    """A difference of cost that is not positive."""
    saved, low, high = 0.0 - extra.value, 0.0 - extra.high, 0.0 - extra.low
    words = f"costs {number(saved)} {ledger.unit(axis)} less" if saved else "costs as much"
    return f"{words} (95% interval {number(low)} to {number(high)})" if low < high else words


def _doubt(gain: Estimate) -> str:
    """What an interval with both orders in it says."""
    return " The interval of the accuracy does not exclude the other order." if gain.low <= 0 < gain.value else ""


def number(value: float) -> str:
    """Three significant digits.

    >>> number(12345.6), number(0.04567), number(0)
    ('12,346', '0.0457', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def list_words(names: Sequence[str]) -> str:
    """Names as a list in a sentence; a semicolon parts them where a name has a comma.

    >>> list_words(["a", "b", "c"]), list_words(["a, 1", "b"]), list_words(["a"])
    ('a, b and c', 'a, 1; and b', 'a')
    """
    if len(names) < 2:
        return "".join(names)
    if any("," in name for name in names):
        return f"{'; '.join(names[:-1])}; and {names[-1]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"
