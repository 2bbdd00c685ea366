"""Figure 1's numbers: the relay against a router that sends whole questions to the teacher at random.

With probability p the router's accuracy is linear in p: student + p * (teacher - student). Two points of that line are
compared with the relay: the one that gives the teacher as large a share (p = the relay's call ratio), and the one that
is as accurate.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay_verl.recipes.paper import paper
from relay_verl.report.comparison import NONE, NOT_MEASURED, estimate_of
from relay_verl.report.document import Table
from relay_verl.report.groups import Groups


@dataclass(frozen=True)
class RouterComparison:
    """One relay against its random router. Shares of 1."""

    student: float
    """Accuracy of the student alone."""
    relay: float
    """Accuracy of the relay."""
    teacher: float
    """Accuracy of the teacher alone."""
    ratio: float
    """The relay's call ratio."""

    def router_at(self, p: float) -> float:
        """Accuracy of the router that sends the share p.

        >>> round(RouterComparison(0.4250, 0.4952, 0.5412, 0.0107).router_at(0.0107), 4)
        0.4262
        """
        return self.student + p * (self.teacher - self.student)

    @property
    def gain(self) -> float:
        """The relay's accuracy above the router's with as large a share."""
        return self.relay - self.router_at(self.ratio)

    @property
    def matched_p(self) -> float | None:
        """Share with which the router is as accurate as the relay.

        None if no share does that: the teacher is not better than the student, or the relay lies outside of the two.

        >>> round(RouterComparison(0.4250, 0.4952, 0.5412, 0.0107).matched_p, 3)
        0.604
        """
        gap = self.teacher - self.student
        p = (self.relay - self.student) / gap if gap > 0 else -1.0
        return p if 0 <= p <= 1 else None

    @property
    def cost_reduction(self) -> float | None:
        """Share of the matched router's cost that the relay saves; negative if it costs more.

        >>> round(RouterComparison(0.4250, 0.4952, 0.5412, 0.0107).cost_reduction, 3)
        0.982
        """
        return 1 - self.ratio / self.matched_p if self.matched_p else None


def paper_comparison(size: str) -> RouterComparison | None:
    """The paper's numbers; None for a size that it has none for."""
    rows = (paper().sizes[size].teacher, f"{size}/relay", f"{size}/base")
    teacher, relay, base = (paper().find("Table 1", row) for row in rows)
    if not relay:
        return None
    numbers = (base["average"], relay["average"], teacher["average"], relay["call_ratio"])
    return RouterComparison(*(number / 100 for number in numbers))


def our_comparison(groups: Groups, size: str) -> RouterComparison | None:
    """Our numbers; None if one of the three was not measured."""
    facts = paper().sizes[size]
    candidates = [groups.find(row) for row in (f"{size}/base", f"{size}/relay", facts.teacher)]
    estimates = [estimate_of(group, facts.average) if group else None for group in candidates]
    ratio = estimate_of(candidates[1], "call_ratio") if candidates[1] else None
    values = [made.value for made in (*estimates, ratio) if made]
    return RouterComparison(*values) if len(values) == 4 else None


def router_table(groups: Groups, size: str, title: str) -> Table:
    """The numbers of Figure 1."""
    ours = our_comparison(groups, size)
    columns = {**({"paper": paper_comparison(size)} if paper().sizes[size].is_in_paper else {}), "ours": ours}
    lines = {
        "student alone, accuracy (%)": [_percent(c.student) if c else None for c in columns.values()],
        "relay, accuracy (%)": [_percent(c.relay) if c else None for c in columns.values()],
        "teacher alone, accuracy (%)": [_percent(c.teacher) if c else None for c in columns.values()],
        "relay, average call ratio (%)": [_percent(c.ratio) if c else None for c in columns.values()],
        "router with as large a share, accuracy (%)": [
            _percent(c.router_at(c.ratio)) if c else None for c in columns.values()
        ],
        "relay above it (points)": [f"{100 * c.gain:+.2f}" if c else None for c in columns.values()],
        "share of the router that is as accurate (%)": [_percent(c.matched_p) if c else None for c in columns.values()],
        "cost reduction against it (%)": [_percent(c.cost_reduction) if c else None for c in columns.values()],
    }
    rows = tuple((name, *(cell or NOT_MEASURED for cell in cells)) for name, cells in lines.items())
    note = f"{NONE}: no random router is as accurate, because the relay lies outside of student and teacher."
    note = note if any(NONE in row for row in rows) else ""
    return Table(title, ("", *columns), rows, note=note, is_measured=ours is not None)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.2f}"
