"""What evaluations took, and what an LLM judge says of them, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from relay_verl.judging.agreement import agreement
from relay_verl.report.comparison import NONE, can_call
from relay_verl.report.conditions import by_family, labels_of
from relay_verl.report.document import Table
from relay_verl.report.groups import Group, Groups
from relay_verl.report.statistics import average_call_ratio, mean_call_ratio, pooled_call_ratio
from relay_verl.traces.consumption import cost


def calls_table(groups: Groups) -> Table:
    """Calls and tokens of every group, a response."""
    shown = by_family(groups.groups)
    head, labels = labels_of(shown)
    columns = (
        "seeds",
        "responses",
        "average",
        "pooled",
        "mean",
        "calls",
        "requested",
        "delivered",
        "read",
        "prefilled",
        "cached",
    )
    rows = tuple((*label, *_calls_cells(group)) for label, group in zip(labels, shown, strict=True))
    note = (
        "Call ratio in percent: the teacher's tokens over all tokens of each benchmark, averaged over benchmarks "
        "(average), the same over the tokens of all benchmarks together (pooled), mean of rho over responses (mean). "
        "Then, a response: calls served, tokens they requested, tokens delivered, tokens the teacher was given to "
        "read, and those of them that no cache held. Mean over seeds."
    )
    return Table("Calls", (*head, *columns), rows, num_labels=len(head), note=note)


def _calls_cells(group: Group) -> list[str]:
    costs = [cost(records) for records in group.records]
    num = costs[0].num_responses
    ratios = [NONE] * 3
    if can_call(group):
        measures = (average_call_ratio, pooled_call_ratio, mean_call_ratio)
        ratios = [f"{100 * measure(group.records, group.benchmarks).value:.2f}" for measure in measures]
    each: list[Sequence[int | None]] = [
        [one.num_calls for one in costs],
        [one.num_requested for one in costs],
        [one.num_delivered for one in costs],
        [one.num_context for one in costs],
        [one.num_prefilled for one in costs],
        [one.num_cached for one in costs],
    ]
    return [f"{len(costs)}", f"{num:,}", *ratios, *(_mean(numbers, num) for numbers in each)]


def _mean(numbers: Sequence[int | None], num_responses: int) -> str:
    known = [number for number in numbers if number is not None]
    return f"{fmean(known) / num_responses:,.2f}" if len(known) == len(numbers) else "not said"


def time_table(groups: Groups) -> Table:
    """Seconds of every group."""
    shown = by_family(groups.groups)
    head, labels = labels_of(shown)
    rows = []
    for label, group in zip(labels, shown, strict=True):
        costs = [cost(result.records) for results in group.seeds for result in results if result.records]
        wall = sum(one.wall_s for one in costs)
        slowest = [cost(records) for records in group.records]
        rows.append(
            (
                *label,
                f"{sum(one.num_tokens for one in costs):,}",
                f"{sum(one.num_delivered for one in costs):,}",
                f"{wall:,.1f}",
                f"{sum(one.num_tokens for one in costs) / wall:,.1f}" if wall else NONE,
                f"{fmean(one.p50_s for one in slowest):.2f}",
                f"{fmean(one.p95_s for one in slowest):.2f}",
            )
        )
    note = (
        "All seeds together. Wall time is the time in which some response was under way, so that a pause between two "
        "parts of a run does not count; latencies are those of a response among many at a time, mean over seeds."
    )
    columns = ("tokens", "teacher's tokens", "wall time (s)", "tokens/s", "p50 (s)", "p95 (s)")
    return Table("Time", (*head, *columns), tuple(rows), num_labels=len(head), note=note)


def judge_table(groups: Groups) -> Table | None:
    """Accuracy by rule and by LLM judge, for groups that have the judge's verdicts; None if none has."""
    judged = [
        group
        for group in by_family(groups.groups)
        if any(record.judge is not None for of_seed in group.raw_records for record in of_seed)
    ]
    head, labels = labels_of(judged)
    rows = []
    for label, group in zip(labels, judged, strict=True):
        made = agreement([record for of_seed in group.raw_records for record in of_seed])
        shares = (made.rule_accuracy, made.judge_accuracy, made.share)
        cells = [f"{100 * share:.2f}" if share == share else NONE for share in shares]
        kappa = f"{made.kappa:.3f}" if made.kappa == made.kappa else NONE
        rows.append((*label, f"{made.num_compared:,}", *cells, kappa, f"{made.num_no_verdict:,}"))
    columns = (
        "responses compared",
        "right by rule (%)",
        "right by judge (%)",
        "same verdict (%)",
        "kappa",
        "no verdict",
    )
    note = (
        "Over responses that both judged, not averaged over benchmarks. A response without an answer is wrong for the "
        "judge, which is not asked about it."
    )
    table = Table("Rule and LLM judge", (*head, *columns), tuple(rows), num_labels=len(head), note=note)
    return table if rows else None
