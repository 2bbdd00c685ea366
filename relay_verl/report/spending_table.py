"""Tokens, floating-point operations and money of every condition, as a table of the report and of `relay-verl eval`."""

from __future__ import annotations

from collections.abc import Sequence

from relay_verl.markdown import markdown_table
from relay_verl.report.comparison import NONE
from relay_verl.report.conditions import by_family, labels_of
from relay_verl.report.document import Table
from relay_verl.report.groups import Groups
from relay_verl.traces.results import Result
from relay_verl.traces.spending import Spending, spending

_HEAD = (
    "student reads",
    "student writes",
    "teacher reads",
    "teacher writes",
    "student's FLOPs",
    "teacher's FLOPs",
    "money, 1,000 responses",
    "money of the teacher alone (%)",
)
_NOTE = (
    "A response, all seeds together. Read: tokens of all contexts that a model is given, in parentheses those that its "
    "prefix cache does not hold; where an engine does not say, none counts as held, and the student's own earlier "
    "tokens always do. Written: tokens delivered, or what an API bills. FLOPs: 2 x parameters x tokens, prefill "
    "included. Money: at the prices of the run's relay.prices, and over what the teacher alone would cost for "
    "responses of these lengths."
)


def spending_of(results: Sequence[Result]) -> Spending | None:
    """What several results cost together; None if none has a response, or if they were priced in several ways."""
    results = [result for result in results if result.records]
    if not results:
        return None
    first = results[0]
    are_alike = all(
        (result.prices, result.num_parameters) == (first.prices, first.num_parameters) for result in results
    )
    records = [record for result in results for record in result.records]
    # tokens are tokens; FLOPs and money of runs that counted them in other ways do not add up
    return spending(records, first.prices if are_alike else None, first.num_parameters if are_alike else {})


def spending_table(groups: Groups) -> Table:
    """A line for each group."""
    shown = by_family(groups.groups)
    head, labels = labels_of(shown)
    rows = []
    for label, group in zip(labels, shown, strict=True):
        spent = spending_of([result for results in group.seeds for result in results])
        rows.append((*label, *(spending_cells(spent) if spent else [NONE] * len(_HEAD))))
    return Table("Tokens, FLOPs and money", (*head, *_HEAD), tuple(rows), num_labels=len(head), note=_NOTE)


def spending_to_markdown(results: Sequence[Result]) -> str:
    """A line for each result, as Markdown without a final line break."""
    rows = []
    for result in results:
        spent = spending_of([result])
        if spent is not None:
            rows.append([str(result.job.get("condition")).replace("|", "\\|"), *spending_cells(spent)])
    return markdown_table(["condition", *_HEAD], rows)


def spending_cells(spent: Spending) -> list[str]:
    """The numbers of a line."""
    each = max(1, spent.num_responses)
    cells = []
    for usage in (spent.student, spent.teacher):
        read = f"{usage.num_input / each:,.1f}"
        fresh = usage.num_input - usage.num_cached
        cells += [f"{read} ({fresh / each:,.1f})" if usage.num_cached else read, f"{usage.num_output / each:,.1f}"]
    cells += ["not said" if n is None else f"{n / each:.3g}" for n in (spent.student_flops, spent.teacher_flops)]
    if spent.cost is None:
        return [*cells, NONE, NONE]
    share = spent.cost_share
    return [
        *cells,
        f"{1000 * spent.cost / each:.4g} {spent.currency}",
        NONE if share is None else f"{100 * share:.2f}",
    ]
