"""Which of the paper's claims our results show: the direction of a difference between two rows, and its interval.

A claim is shown if the 95% interval of the difference lies on the claimed side of zero, opposite if on the other, and
not shown if it has zero inside. Where a trained row has one seed, the verdict says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay_verl.recipes.paper import paper
from relay_verl.report.comparison import NONE, NOT_MEASURED, measure_of
from relay_verl.report.document import Table
from relay_verl.report.groups import Group, Groups
from relay_verl.report.statistics import Estimate, difference
from relay_verl.traces.words import TEACHER_FREE


@dataclass(frozen=True)
class Direction:
    """One claim: `of` has more or less of a measure than `to`."""

    of: str
    """Method, with '/teacher_free' after it where commands are forbidden."""
    to: str
    measure: str
    """'accuracy' (the average) or 'call_ratio'."""
    sign: int
    """1 claims more, -1 less."""
    place: str
    """Where the paper says so."""

    @property
    def text(self) -> str:
        """The claim in words."""
        what = "accuracy" if self.measure == "accuracy" else "call ratio"
        return f"{_name(self.of)}: {'higher' if self.sign > 0 else 'lower'} {what} than {_name(self.to)}"


def directions(size: str) -> tuple[Direction, ...]:
    """The claims about the rows of one size."""
    methods = {row.method for row in paper().rows.values() if row.size == size}
    fixed = sorted((m for m in methods if m.startswith("fixed_")), key=lambda method: int(method[6:]))
    claims = (
        Direction("grpo", "base", "accuracy", 1, "Table 1"),
        Direction("relay_simple", "grpo", "accuracy", 1, "Table 1"),
        Direction("relay", "grpo", "accuracy", 1, "Table 1"),
        Direction("relay", "relay_simple", "accuracy", 1, "4.4"),
        Direction("relay", "relay_simple", "call_ratio", 1, "4.4"),
        Direction("no_filter", "relay", "call_ratio", 1, "5.2"),
        Direction("no_filter", "relay", "accuracy", -1, "5.2"),
        Direction("no_independence", "relay", "call_ratio", 1, "5.2"),
        Direction("no_exploration", "relay", "call_ratio", -1, "Table 3"),
        Direction("no_exploration", "relay", "accuracy", -1, "5.2"),
        Direction(f"relay/{TEACHER_FREE}", "relay", "accuracy", -1, "5.3"),
        Direction(f"relay_simple/{TEACHER_FREE}", f"relay/{TEACHER_FREE}", "accuracy", 1, "5.3"),
        *(Direction(method, "relay", "call_ratio", 1, "5.4") for method in fixed),
        *(Direction(fixed[-1], "relay", "accuracy", 1, "Table 5") for _ in fixed[:1]),
    )
    return tuple(c for c in claims if {c.of.partition("/")[0], c.to.partition("/")[0]} <= methods)


def verdict(made: Estimate, sign: int) -> str:
    """'shown', 'not shown' or 'opposite'."""
    if made.low > 0 or made.high < 0:
        return "shown" if (made.low > 0) == (sign > 0) else "opposite"
    return "not shown"


def directions_table(groups: Groups, size: str, *, is_measured: bool = True) -> Table:
    """The claims about one size that were measured, each with the paper's difference, ours, its interval and the
    verdict; or, not `is_measured`, the other claims."""
    rows = []
    facts = paper().sizes[size]
    for claim in directions(size):
        theirs, ours = _paper_difference(claim, size), _our_difference(groups, claim, size)
        cells = [claim.text, claim.place]
        if facts.is_in_paper:
            cells.append(NONE if theirs is None else f"{theirs:+.2f}")
        if ours is None:
            cells.append(NOT_MEASURED)
        else:
            number, over = f"{100 * ours.value:+.2f}", f"{100 * ours.low:+.2f} to {100 * ours.high:+.2f}"
            says = verdict(ours, claim.sign)
            if says != "not shown" and _rests_on_one_seed(groups, claim, size):
                says += " in one seed"
            cells += [number, over, f"{ours.num_seeds}", ours.basis, says]
        rows.append(tuple(cells))
    head = ("claim", "place", *(("paper",) if facts.is_in_paper else ()), "ours", "95% interval", "seeds")
    note = (
        "Differences in percentage points. The interval is over training seeds (Welch's t) where both rows have "
        "several that differ, else over questions (paired bootstrap), which says nothing about other seeds."
    )
    title = f"What the paper claims{'' if is_measured else ' and was not measured'}, on {facts.title}"
    shown = tuple(row for row in rows if (NOT_MEASURED not in row) is is_measured)
    head = (*head, "interval over", "verdict") if is_measured else head[: head.index("ours") + 1]
    return Table(
        title, head, shown, num_labels=2, note=note if is_measured else "", is_measured=is_measured and bool(shown)
    )


def _name(method: str) -> str:
    name, _, policy = method.partition("/")
    title = next(row.title for row in paper().rows.values() if row.method == name)
    return f"{title} without the teacher" if policy else title


def _paper_difference(claim: Direction, size: str) -> float | None:
    measure = "average" if claim.measure == "accuracy" else claim.measure
    values = []
    for method in (claim.of, claim.to):
        name, _, policy = method.partition("/")
        lines = [e.values for e in paper().entries if e.row == f"{size}/{name}" and (e.policy or "") == policy]
        values += [line[measure] for line in lines if measure in line][:1]
    return values[0] - values[1] if len(values) == 2 else None


def _sides(groups: Groups, claim: Direction, size: str) -> list[Group | None]:
    rows = []
    for method in (claim.of, claim.to):
        name, _, policy = method.partition("/")
        rows.append(groups.find(f"{size}/{name}", policy or None))
    return rows


def _our_difference(groups: Groups, claim: Direction, size: str) -> Estimate | None:
    measure = paper().sizes[size].average if claim.measure == "accuracy" else claim.measure
    of, to = (measure_of(group, measure) if group else None for group in _sides(groups, claim, size))
    return difference(of, to) if of and to else None


def _rests_on_one_seed(groups: Groups, claim: Direction, size: str) -> bool:
    """Whether a side that is trained was trained once, so that the difference may be that run's."""
    return any(group and group.method != "base" and len(group.seeds) == 1 for group in _sides(groups, claim, size))
