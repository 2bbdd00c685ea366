"""Asks every method, each in a results folder of its own, so that a run that was killed continues where it ended.

    OUT/results/SLUG      what `relay-verl eval` leaves; SLUG.2 and so on for further training seeds

Invariant: a folder is read only for the method whose job it holds (`relay_verl.evaluation.job_spec`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from relay_verl.errors import UserError, as_user_error
from relay_verl.evaluation.job_spec import note_costs
from relay_verl.evaluation.runner import PlannedEvaluation, evaluate
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.frontier.axis import Ledger
from relay_verl.frontier.method import Method
from relay_verl.frontier.method_list import source_of, teacher_of
from relay_verl.frontier.players import Players
from relay_verl.frontier.query_router import route
from relay_verl.policies import needs_student
from relay_verl.prices import PriceList
from relay_verl.run_config import RunConfig
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.results import MANIFEST, read_result
from relay_verl.traces.words import ALONE

STUDENTS_AT_A_TIME = 2
"""Students that are loaded together, next to the teacher: each is an engine of its own."""


@dataclass(frozen=True)
class Seed:
    """A method in one training seed."""

    condition: Condition
    """How it is asked."""
    changes: Mapping[str, Any]
    """Keys of the recipe at other values."""

    @property
    def is_finished(self) -> bool:
        """Whether all of its responses are there."""
        return (self.condition.out / MANIFEST).exists()


@dataclass(frozen=True)
class Experiment:
    """Everything that one command compares."""

    run: RunConfig
    """The composed recipe."""
    methods: Sequence[Method]
    """What is compared."""
    players: Players
    """The models."""
    suite: EvalSuite
    """The questions, the same for every method."""
    check: Callable[[PlannedEvaluation], None]
    """Tries everything before a model loads (`relay_verl.preflight.commands.check_evaluation`)."""
    tokenizer_path: str | None = None
    """Whose tokenizer it is, where all models are endpoints."""
    endpoint_models: Mapping[str, str] = field(default_factory=dict)
    """Names of models at endpoints, by address."""
    student_replicas: int = 1
    """vLLM replicas of each student."""
    num_workers: int | None = None
    """See `relay_verl.evaluation.runner.evaluate`."""

    def run_of(self, seed: Seed) -> RunConfig:
        """The recipe with what a method changes.

        Raises:
            UserError: an unknown key or a bad value; names the method and the key.
        """
        if not seed.changes:
            return self.run
        config = self.run.verl.copy()
        name = f"method {seed.condition.name!r}"
        with as_user_error(OmegaConfBaseException, name):
            for key, value in seed.changes.items():
                # a key that no recipe says is added here, and refused below unless the settings have it
                OmegaConf.update(config, key, value, merge=False, force_add=True)
        run = RunConfig(config)
        with as_user_error(UserError, lambda error: f"{name}: {error}"):
            _ = run.relay
        return run

    @property
    def ledger(self) -> Ledger:
        """What tokens cost, by the prices of this command: those of an earlier one decide nothing."""
        costs = note_costs(self.run.relay.prices, None, self.players.teacher)
        prices = costs["prices"]
        return Ledger(prices and PriceList.from_dict(prices), costs["num_parameters"]["teacher"])

    def all_seeds(self, results: Path) -> dict[Method, list[Seed]]:
        """How all methods are asked."""
        return {method: self.seeds(method, results) for method in self.methods}

    def seeds(self, method: Method, results: Path) -> list[Seed]:
        """How a method is asked, once a training seed; nothing for a query router.

        Raises:
            UserError: its limit does not fit its policy, a model's address is wrong, or its student and its options are
                of different numbers of training seeds; names the method.
        """
        if method.routed_share is not None:
            return []
        students: Sequence[str | None] = self.players.students_of(method) if needs_student(method.policy) else [None]
        num_seeds = max(len(students), len(method.changes))
        if {len(students), len(method.changes)} - {1, num_seeds}:
            raise UserError(
                f"method {method.name!r}: {len(students)} students and lists of {len(method.changes)} values: expected "
                "one of both for each training seed"
            )
        with as_user_error(UserError, lambda error: f"method {method.name!r}: {error}"):
            return [
                Seed(
                    Condition(
                        method.name,
                        results / (f"{method.slug}.{number + 1}" if number else method.slug),
                        students[number % len(students)],
                        self.players.teacher,
                        method.policy,
                        max_teacher_tokens=method.max_teacher_tokens,
                        has_scores=method.policy == ALONE,  # a query router may read them
                    ),
                    method.changes[number % len(method.changes)],
                )
                for number in range(num_seeds)
            ]


@dataclass(frozen=True)
class Measured:
    """The responses of one method."""

    method: Method
    seeds: tuple[Sequence[ResponseRecord], ...]
    """Those of each training seed."""


def ask(experiment: Experiment, suite: EvalSuite, seeds: Sequence[Seed]) -> None:
    """Ask all questions of `suite`, of each method in each training seed; what is there already is kept.

    Raises:
        UserError: a model cannot be used, before any model loads.
        JobError: a method cannot continue; what is finished is saved.
    """
    pace = Pace(sum(not seed.is_finished for seed in seeds))
    # those with one recipe share its engines
    alike: dict[str, list[Seed]] = {}
    for seed in seeds:
        alike.setdefault(json.dumps(seed.changes, sort_keys=True, default=str), []).append(seed)
    runs = [experiment.run_of(group[0]) for group in alike.values()]
    for run, group in zip(runs, alike.values(), strict=True):
        for together in _by_students([seed.condition for seed in group]):
            _evaluate(experiment, run, suite, together, pace)


def _evaluate(
    experiment: Experiment, run: RunConfig, suite: EvalSuite, conditions: Sequence[Condition], pace: Pace
) -> None:
    if conditions:
        evaluate(
            run,
            conditions,
            suite,
            experiment.check,
            tokenizer_path=experiment.tokenizer_path,
            endpoint_models=experiment.endpoint_models,
            student_replicas=experiment.student_replicas,
            num_workers=experiment.num_workers,
            tell=pace.tell,
        )


def _by_students(conditions: Sequence[Condition]) -> Iterable[list[Condition]]:
    """The conditions, a few students at a time; those without a student with the first ones."""
    students = list(dict.fromkeys(one.student for one in conditions if one.student))
    for start in range(0, max(1, len(students)), STUDENTS_AT_A_TIME):
        together: list[str | None] = list(students[start : start + STUDENTS_AT_A_TIME])
        yield [one for one in conditions if one.student in together or (start == 0 and one.student is None)]


class Pace:
    """Says which method's turn it is and how long the rest takes at the speed so far.

    Args:
        num_conditions: how many are to be asked.
        clock: in seconds.
    """

    def __init__(self, num_conditions: int, clock: Callable[[], float] = time.monotonic):
        self._num_conditions = num_conditions
        self._clock = clock
        self._started: float | None = None
        self._num_told = 0

    def tell(self, condition: Condition) -> None:
        """Told of a condition when its turn comes."""
        print(f"relay-verl frontier: {self.line(condition.name)}", file=sys.stderr)

    def line(self, name: str) -> str:
        """What is said of it."""
        now = self._clock()
        if self._started is None:
            self._started = now
        num_done, self._num_told = self._num_told, self._num_told + 1
        said = f"method {self._num_told} of {self._num_conditions}: {name}"
        if num_done == 0:
            return said
        left = (now - self._started) / num_done * (self._num_conditions - num_done)
        return f"{said}; about {left / 60:.1f} min left"


def collect(experiment: Experiment, results: Path) -> list[Measured]:
    """The responses of every method, those of the query routers too, in the order of the list. A query router whose
    student's engine gives no log-probabilities is left out.

    Raises:
        UserError: a results folder is not whole.
    """
    methods = experiment.methods
    asked = {
        method: tuple(read_result(seed.condition.out).records for seed in experiment.seeds(method, results))
        for method in methods
    }
    measured = []
    for method in methods:
        seeds = asked[method]
        if method.routed_share is not None:
            source, teacher = source_of(method, methods), teacher_of(methods)
            assert source is not None, "see `method_list`"
            assert teacher is not None, "see `method_list`"
            routed = [route(method.name, method.routed_share, own, asked[teacher][0]) for own in asked[source]]
            seeds = tuple(records for records in routed if records is not None)
        if seeds:
            measured.append(Measured(method, seeds))
    return measured
