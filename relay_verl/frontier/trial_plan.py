"""What a comparison will cost, before it runs: a few questions under every method, scaled to all of them.

    OUT/trial/N/SLUG    the responses to N questions of each benchmark; a second plan reads them

The trial is asked as the comparison will be, so it also shows that every model and policy works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from relay_verl.evaluation.suite import EvalSuite
from relay_verl.frontier.measuring import Experiment, Seed, ask
from relay_verl.frontier.method import Method
from relay_verl.frontier.standing_words import number
from relay_verl.frontier.workload import Workload, workload_of
from relay_verl.markdown import markdown_table
from relay_verl.report.comparison import NONE
from relay_verl.traces.results import read_result

TRIAL, RESULTS = "trial", "results"


@dataclass(frozen=True)
class MethodPlan:
    """What a method still takes."""

    method: Method
    workload: Workload
    """Of the training seeds that are not finished; of an interrupted one all of it."""
    at_a_time: int
    """Responses that are under way together."""

    @property
    def minutes(self) -> tuple[float, float]:
        """At least and at most: where the engines answer more at a time as fast, and at the trial's speed."""
        return self.workload.least_s(self.at_a_time) / 60, self.workload.wall_s / 60


def plan(experiment: Experiment, out: Path, num_questions: int) -> list[MethodPlan]:
    """Ask the first questions of each benchmark once, and scale what they took.

    Raises:
        UserError: a model cannot be used.
        JobError: a method cannot continue.
    """
    few = limit_suite(experiment.suite, num_questions)
    trials = {
        method: [_on_trial(seed, out / TRIAL / str(num_questions)) for seed in seeds if not seed.is_finished]
        for method, seeds in experiment.all_seeds(out / RESULTS).items()
    }
    ask(experiment, few, [seed for seeds in trials.values() for seed in seeds])
    plans = []
    for method in experiment.methods:
        total = Workload()
        for seed in trials[method]:
            total += scale_by_benchmark(
                {
                    benchmark: workload_of(
                        [record for record in read_result(seed.condition.out).records if record.benchmark == benchmark],
                        experiment.ledger.prices,
                    )
                    for benchmark in _sources(few)
                },
                _sources(experiment.suite),
            )
        plans.append(MethodPlan(method, total, _at_a_time(experiment)))
    return plans


def _on_trial(seed: Seed, folder: Path) -> Seed:
    return replace(seed, condition=replace(seed.condition, out=folder / seed.condition.out.name))


def limit_suite(suite: EvalSuite, num_questions: int) -> EvalSuite:
    """The first questions of each benchmark, a response each."""
    few = {
        name: (benchmark, replace(questions, rows=questions.rows[:num_questions]))
        for name, (benchmark, questions) in suite.benchmarks.items()
    }
    return replace(suite, benchmarks=few, num_samples=1)


def _sources(suite: EvalSuite) -> dict[str, int]:
    """Responses by the benchmark that records name, a row's data source."""
    numbers: dict[str, int] = {}
    for name, (_, questions) in suite.benchmarks.items():
        for row in questions.rows:
            source = str(row["data_source"])
            numbers[source] = numbers.get(source, 0) + suite.sampling(name)[0]
    return numbers


def scale_by_benchmark(trial: Mapping[str, Workload], numbers: Mapping[str, int]) -> Workload:
    """The workload of so many responses of each benchmark; one that the trial has none of is as the others are.

    Args:
        trial: by benchmark.
        numbers: of responses, by benchmark.
    """
    known = [workload for workload in trial.values() if workload.num_responses]
    anything = sum(known, Workload())
    total = Workload()
    for benchmark, num_responses in numbers.items():
        workload = trial.get(benchmark, Workload())
        total += (workload if workload.num_responses else anything).scaled(num_responses)
    return total


def _at_a_time(experiment: Experiment) -> int:
    """Responses that an evaluation has under way, as `relay_verl.evaluation.runner` decides it."""
    if experiment.suite.is_deterministic:
        return 1
    return 2 * experiment.run.relay.teacher.max_num_seqs * experiment.student_replicas


def plan_to_markdown(plans: Sequence[MethodPlan], currency: str | None) -> str:
    """The plan as a table with its total, and what it leaves out."""
    head = ["method", "responses", "requests", "student writes", "teacher writes", "both read", "money", "minutes"]
    rows = [[one.method.name.replace("|", "\\|"), *_cells(one.workload, one.minutes, currency)] for one in plans]
    total = sum((one.workload for one in plans), Workload())
    minutes = (sum(one.minutes[0] for one in plans), sum(one.minutes[1] for one in plans))
    rows.append(["all", *_cells(total, minutes, currency)])
    note = (
        "Tokens of all responses; both read: what no cache holds. Minutes: from as fast as in the trial with more "
        "responses at a time, to the trial's own speed, without the start of the models. A method that is "
        "finished, and a query router, which is made of the responses of the two models alone, take nothing more."
    )
    return f"{markdown_table(head, rows)}\n\n{note}"


def _cells(workload: Workload, minutes: tuple[float, float], currency: str | None) -> list[str]:
    counts = (
        workload.num_responses,
        workload.num_requests,
        workload.num_student_tokens,
        workload.num_teacher_tokens,
        workload.num_read_tokens,
    )
    money = f"{number(workload.money)} {currency}" if currency else NONE
    return [*(f"{count:,.0f}" for count in counts), money, f"{number(minutes[0])}–{number(minutes[1])}"]


def plan_to_rows(plans: Sequence[MethodPlan], currency: str | None) -> list[dict[str, Any]]:
    """The plan for programs."""
    rows = []
    for one in plans:
        low, high = one.minutes
        numbers = {name: round(value, 6) for name, value in asdict(one.workload).items()}
        if currency is None:
            numbers["money"] = None
        rows.append(
            {"method": one.method.name, **numbers, "currency": currency, "minutes_least": low, "minutes_most": high}
        )
    return rows
