"""`summary.json` of a results folder: what the evaluation came to, as numbers with their units in their names.

    {"condition": ..., "in_words": ..., "row": ..., "policy": ..., "student": ..., "teacher": ...,
     "all_benchmarks": {"num_responses": 128, "accuracy_percent": 42.19, "accuracy_percent_low": ..., ...},
     "benchmarks": {"gsm8k": {the same}, ...},
     "not_completed": [{"benchmark": "gsm8k", "id": ..., "sample": 0, "cause": "the prompt fills the context: ..."}]}

Invariant: it follows from the folder's manifest and responses alone, so that it can be made again at any time. Accuracy
is by rule; where an LLM judge decided on every response, its accuracy stands next to it. Over all benchmarks accuracy
and call rate are means over benchmarks (paper 4.2).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay_verl.files import replace_file
from relay_verl.jobs.byproducts import by_product
from relay_verl.recipes.paper import paper
from relay_verl.report.statistics import (
    Estimate,
    accuracy,
    average_call_ratio,
    call_rate,
    estimate,
    mean_call_ratio,
    pooled_call_ratio,
)
from relay_verl.report.summary_table import summarize
from relay_verl.traces.consumption import cost
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.results import SUMMARY, Result, read_result
from relay_verl.traces.spending import Spending, spending
from relay_verl.traces.verdicts import VerdictsBy, take_verdicts
from relay_verl.traces.words import condition_words

logger = logging.getLogger(__name__)

MAX_NAMED = 3
"""Most responses that a message names."""


def write_summary(folder: Path) -> None:
    """Write the summary of a whole results folder. What keeps it from being written costs a warning, not the responses
    or the conditions that are still to be measured."""
    with by_product(str(folder / SUMMARY)):
        text = json.dumps(summary_of(read_result(folder)), indent=2, allow_nan=False)
        replace_file(folder / SUMMARY, f"{text}\n".encode())


def summary_of(result: Result) -> dict[str, Any]:
    """The summary of one result as JSON's types."""
    # a row or a policy that is not known here costs its words, not the summary
    row, policy = paper().rows.get(result.row or ""), result.job.get("policy")
    records = result.records
    benchmarks = list(dict.fromkeys(record.benchmark for record in records))
    return {
        "condition": result.job.get("condition"),
        "in_words": condition_words(row, policy) if policy else None,
        "row": result.row,
        "policy": policy,
        "student": result.job.get("student"),
        "teacher": result.teacher,
        "seed": result.job.get("seed"),
        "all_benchmarks": _numbers(result, records, benchmarks),
        "benchmarks": {
            name: _numbers(result, [r for r in records if r.benchmark == name], [name]) for name in benchmarks
        },
        "not_completed": [_name(record) for record in records if not record.is_completed],
    }


def _name(record: ResponseRecord) -> dict[str, Any]:
    """Which response it is, and why it is not completed."""
    return {
        "benchmark": record.benchmark,
        "id": record.id,
        "sample": record.sample,
        "cause": record.error or record.status,
    }


def tell_not_completed(folder: Path) -> str:
    """Which responses of a whole results folder count as wrong because they can never be completed, as a line with
    the first cases; empty if there is none.

    Raises:
        UserError: the folder is not a whole result.
    """
    records = read_result(folder).records
    missing = [_name(record) for record in records if not record.is_completed]
    if not missing:
        return ""
    named = "; ".join(f"{one['benchmark']}/{one['id']}/{one['sample']}: {one['cause']}" for one in missing[:MAX_NAMED])
    more = f"; {len(missing) - MAX_NAMED} more in {SUMMARY}" if len(missing) > MAX_NAMED else ""
    return f"{folder}: {len(missing)} of {len(records)} responses are not completed and count as wrong: {named}{more}"


def _numbers(result: Result, records: Sequence[ResponseRecord], benchmarks: Sequence[str]) -> dict[str, Any]:
    if not records:
        return {"num_responses": 0}
    took = cost(records)
    seeds = [records]
    numbers: dict[str, Any] = {
        "num_questions": len({(record.benchmark, record.id) for record in records}),
        "num_responses": len(records),
        "num_right": sum(record.is_correct for record in records),
        "num_not_completed": sum(not record.is_completed for record in records),
    }
    numbers |= _percent("accuracy_percent", estimate(accuracy(seeds, benchmarks)))
    if summarize(records)[0].judged_accuracy is not None:
        by_judge = [take_verdicts(records, VerdictsBy.JUDGE)]
        numbers |= _percent("accuracy_by_judge_percent", estimate(accuracy(by_judge, benchmarks)))
    numbers |= _percent("call_rate_percent", estimate(call_rate(seeds, benchmarks)))
    for name, measure in (
        ("average_call_ratio_percent", average_call_ratio),
        ("pooled_call_ratio_percent", pooled_call_ratio),
        ("mean_call_ratio_percent", mean_call_ratio),
    ):
        numbers |= _percent(name, estimate(measure(seeds, benchmarks)))
    return numbers | {
        "num_calls": took.num_calls,
        "num_requested_tokens": took.num_requested,
        "num_student_tokens": took.num_tokens - took.num_delivered,
        "num_teacher_tokens": took.num_delivered,
        "wall_seconds": round(took.wall_s, 3),
        "median_response_seconds": round(took.p50_s, 3),
        "p95_response_seconds": round(took.p95_s, 3),
        "tokens_per_second": round(took.tokens_per_s, 3),
        **_spent(spending(records, result.prices, result.num_parameters)),
    }


def _spent(spent: Spending) -> dict[str, Any]:
    """Tokens, FLOPs and money; null where they are not known."""
    return {
        "num_student_read_tokens": spent.student.num_input,
        "num_student_cached_tokens": spent.student.num_cached,
        "num_teacher_read_tokens": spent.teacher.num_input,
        "num_teacher_cached_tokens": spent.teacher.num_cached,
        "num_teacher_billed_tokens": spent.teacher.num_output,
        "student_flops": spent.student_flops,
        "teacher_flops": spent.teacher_flops,
        "currency": spent.currency,
        "student_cost": spent.student_cost,
        "teacher_cost": spent.teacher_cost,
        "cost": spent.cost,
        "cost_of_teacher_alone": spent.cost_of_teacher_alone,
    }


def _percent(name: str, made: Estimate) -> dict[str, float]:
    """The value and both ends of its 95% interval."""
    shares = {name: made.value, f"{name}_low": made.low, f"{name}_high": made.high}
    return {key: round(100 * share, 4) for key, share in shares.items()}
