"""Where the paper's own numbers do not tie."""

from __future__ import annotations

from relay_verl.recipes.paper import paper
from relay_verl.report.document import Section, Table


def discrepancies_section() -> Section:
    """A line for each place."""
    rows = tuple((item.place, item.says, item.but) for item in paper().discrepancies.values())
    head = ("place", "the paper says", "which does not fit")
    return Section("The paper's numbers", (Table("Where they do not tie", head, rows, num_labels=3),), is_folded=True)
