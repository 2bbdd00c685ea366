"""What is measured: the conditions under which questions are answered, and the questions with how they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.benchmarks.registry import Benchmark, Questions
from relay_verl.config import check_endpoint
from relay_verl.engines.factory import PREFIX, find_engine
from relay_verl.errors import UserError, as_user_error
from relay_verl.jobs.formats import Row
from relay_verl.jobs.queries import Queries
from relay_verl.judging.answer_judge import AnswerJudge
from relay_verl.models.address import is_endpoint, is_engine
from relay_verl.policies import make_policy, needs_student, needs_teacher, parse_policy
from relay_verl.traces.words import has_both, serves_commands

_UNTRUNCATED: Mapping[str, Any] = {"top_p": 1.0, "top_k": -1}
"""Sampling from the whole distribution, said in full: what is not said an endpoint takes from the model's files."""


@dataclass(frozen=True)
class Condition:
    """Who answers, and under which policy."""

    name: str
    """What tables call it."""
    out: Path
    """Its results folder."""
    student: str | None
    """Folder, hub id or endpoint of the model that writes; None only if the policy never asks it."""
    teacher: str | None = None
    """The same of the model that answers calls."""
    policy: str = "learned"
    """See `relay_verl.policies`."""
    row: str | None = None
    """The row of the paper or of the tiny world that the student is (see `relay_verl.recipes.paper`)."""
    teacher_name: str | None = None
    """What tables call the teacher; the last part of its address if None."""
    max_teacher_tokens: int | None = None
    """Most tokens that the teacher writes in a response, all its calls together; from then on a command is text. None
    sets no limit but those of the recipe."""
    training_seed: int | None = None
    """Seed of the training of the student, or of its head, for reports over several; None if not said."""
    has_scores: bool = False
    """Whether records have the mean log-probability of the student's tokens."""
    num_refusals: int = 0
    """How many of a response's calls are each refused as well, to see what it would have been without them."""

    def __post_init__(self) -> None:
        with as_user_error(UserError, lambda error: f"--{error}"):
            make_policy(self.policy)
        for role, model, is_needed in (
            ("student", self.student, needs_student(self.policy)),
            ("teacher", self.teacher, needs_teacher(self.policy)),
        ):
            if is_needed and model is None:
                raise UserError(f"--{role}: policy {self.policy} needs one")
            if model is not None and is_endpoint(model):
                check_endpoint(f"--{role}", model, f"RELAY_{role.upper()}_API_KEY")
            if model is not None and is_engine(model):
                find_engine(model.removeprefix(PREFIX))
        if self.max_teacher_tokens is not None:
            kind, number = parse_policy(self.policy)
            # a model that writes alone would not have written what it was asked for
            if not (has_both(self.policy) and len(kind.alternatives(number)) == 1):
                raise UserError(
                    f"max_teacher_tokens: {self.max_teacher_tokens}: policy {self.policy} gives whole responses to one "
                    "model; a limit is for a policy under which both models write"
                )
            if self.max_teacher_tokens < 0:
                raise UserError(f"max_teacher_tokens: {self.max_teacher_tokens}: expected a number of tokens from 0 on")
        if self.num_refusals and not serves_commands(self.policy):
            raise UserError(
                f"--refusals {self.num_refusals}: policy {self.policy} serves no command that could be "
                "refused; it is for learned and fixed_N"
            )

    @property
    def defers(self) -> bool:
        """Whether the student's engine asks the teacher by a defer head."""
        return make_policy(self.policy).defer_threshold(0.0) is not None

    @property
    def models(self) -> tuple[str | None, str | None]:
        """The student and the teacher that take part; None for one that does not."""
        return (
            self.student if needs_student(self.policy) else None,
            self.teacher if needs_teacher(self.policy) else None,
        )


@dataclass(frozen=True)
class EvalSuite:
    """The questions and how they are asked: the same for every condition that is compared."""

    benchmarks: Mapping[str, tuple[Benchmark, Questions]]
    """By name."""
    num_samples: int | None = None
    """Responses a question; each benchmark's own number if None."""
    temperature: float | None = None
    """Sampling temperature, with neither top_p nor top_k; each benchmark's own sampling if None."""
    seed: int = 0
    """Of all that is drawn."""
    is_deterministic: bool = False
    """One response at a time and no prefix cache, so that greedy responses never depend on what else is under way."""
    judge: AnswerJudge | None = None
    """Gives a second verdict on every response."""

    def sampling(self, name: str) -> tuple[int, dict[str, Any]]:
        """Responses a question of this benchmark, and their sampling under vLLM's names."""
        benchmark = self.benchmarks[name][0]
        if self.temperature is None:
            sampling = dict(benchmark.sampling)
        else:  # greedy needs no more
            sampling = {"temperature": self.temperature, **(_UNTRUNCATED if self.temperature > 0 else {})}
        return self.num_samples or benchmark.num_samples, sampling

    def queries(self) -> Queries:
        """A key and the query for each response, in order."""
        return Queries(self._read_queries)

    def _read_queries(self) -> Iterator[tuple[str, Row]]:
        for name, (_, questions) in self.benchmarks.items():
            num_samples, sampling = self.sampling(name)
            for row in questions.rows:
                for sample in range(num_samples):
                    key = f"{name}/{row['extra_info']['id']}/{sample}"
                    yield key, {"row": row, "sample": sample, "sampling": sampling}

    @property
    def num_queries(self) -> int:
        """Responses in all."""
        return sum(len(q.rows) * self.sampling(name)[0] for name, (_, q) in self.benchmarks.items())

    def describe(self) -> dict[str, Any]:
        """What decides the responses, for a job's spec."""
        described = {}
        for name, (_, questions) in self.benchmarks.items():
            num_samples, sampling = self.sampling(name)
            described[name] = {
                "sha256": questions.sha256,
                "num_questions": len(questions.rows),
                "num_samples": num_samples,
                "sampling": sampling,
            }
        return {
            "benchmarks": described,
            "seed": self.seed,
            "is_deterministic": self.is_deterministic,
            "judge": self.judge and self.judge.spec,
        }
