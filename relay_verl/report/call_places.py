"""Where in their responses calls stand: before the step that needs them, or anywhere (paper 2.1, 5.4)?"""

from __future__ import annotations

import numpy as np

from relay_verl.report.document import Picture, Table
from relay_verl.report.figures import calls_picture, served_calls
from relay_verl.report.learned_data import Pair

_PARTS = ((0, 25), (25, 50), (50, 75), (75, 100))
"""Quarters of a response, in percent."""


def places_table(pair: Pair) -> Table:
    """A line for each condition in which the student calls."""
    rows = []
    for group in pair.callers:
        calls = served_calls(group)
        num_responses = sum(len(records) for records in group.records)
        shares = [np.mean((calls[:, 0] >= low) & (calls[:, 0] < high + (high == 100))) for low, high in _PARTS]
        rows.append(
            (
                pair.names[group],
                f"{len(calls):,}",
                f"{len(calls) / num_responses:.2f}",
                f"{np.median(calls[:, 3]):g}",
                f"{np.median(calls[:, 0]):.0f}",
                *(f"{100 * share:.0f}" for share in shares),
            )
        )
    head = (
        "condition",
        "served calls",
        "a response",
        "median token",
        "median place (%)",
        *(f"{low} to {high}% (%)" for low, high in _PARTS),
    )
    note = (
        "The place of a call is the number of response tokens before the teacher's first one, by itself and over the "
        "length of the response; the last columns have the share of the calls in each quarter."
    )
    return Table("Where calls stand", head, tuple(rows), note=note)


def places_figure(pair: Pair) -> Picture | None:
    """Calls by place and by length; None if no one called."""
    if not pair.callers:
        return None
    names = {group: pair.names[group] for group in pair.callers}
    return calls_picture(names, "places", "Calls by position and by length")
