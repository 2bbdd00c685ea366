"""What the models of each tiny world are told in pre-training, and for how long.

A `Pretraining` is one model's: its size, its schedule, and its world's knowledge, from which it draws responses to
learn from. `WORLDS` has those of both worlds.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, NamedTuple, Protocol, Self

import graded_world
import measuring
import torch
import world


class Lesson(NamedTuple):
    """A response to learn from."""

    question: world.Question
    parts: list[world.Part]
    is_whole: bool = True
    """Whether the response ends where the parts do."""


@dataclass(frozen=True, kw_only=True)
class Pretraining(ABC):
    """One model's size and schedule; a subclass a world has what it knows."""

    width: int
    num_layers: int
    steps: int
    learning_rate: float = 5e-3
    call_rate: float = 0.0
    """Share of examples with commands that the model reads and does not learn to write."""
    batch_size: int = 48
    num_examples: int = 20_000

    @abstractmethod
    def lessons(self, rng: Random) -> Iterator[Lesson]:
        """`num_examples` responses, each drawn when it is asked for."""

    def batches(self, examples: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
        """Random batches without end."""
        while True:
            yield [examples[i] for i in torch.randint(len(examples), (self.batch_size,)).tolist()]

    @abstractmethod
    def measure(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """What such a model can do alone."""

    def scaled(self, factor: float) -> Self:
        """Shorter."""
        return replace(self, steps=max(1, round(self.steps * factor)))


@dataclass(frozen=True, kw_only=True)
class PlainPretraining(Pretraining):
    known: str
    """Families whose numbers the model is told, as '+*'."""
    family_weights: tuple[int, int, int]
    """Shares of '+', '*' and '#'."""
    read_rate: float
    """Share of examples with a number that the model reads and did not write."""

    def lessons(self, rng: Random) -> Iterator[Lesson]:
        for family in rng.choices(list(world.Family), weights=self.family_weights, k=self.num_examples):
            question = rng.choice(world.questions(family))
            is_known = family.value in self.known
            yield Lesson(question, world.draw_example(question, rng, is_known=is_known, read_rate=self.read_rate))

    def measure(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        return measuring.measure_plain(model, tokenizer)


@dataclass(frozen=True, kw_only=True)
class GradedPretraining(Pretraining):
    knowledge: graded_world.Knowledge
    cut_rate: float
    """Share of examples that stop after their first number: most of what there is to learn is in it."""
    batch_size: int = 32
    num_examples: int = 40_000
    temperature: float = 1.0
    """Of the samples that are measured: the model's in training, as the recipes have it."""

    def lessons(self, rng: Random) -> Iterator[Lesson]:
        asked = graded_world.all_questions()
        for question in rng.choices(asked, weights=[SHARES[q.needed] for q in asked], k=self.num_examples):
            parts = graded_world.draw_example(question, rng, self.knowledge)
            is_cut = rng.random() < self.cut_rate
            yield Lesson(question, [*parts[:2], FULL_STOP], is_whole=False) if is_cut else Lesson(question, parts)

    def batches(self, examples: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
        """Each of examples of about the same length, so that little of one is padding."""
        size = self.batch_size
        while True:
            drawn = sorted(torch.randint(len(examples), (8 * size,)).tolist(), key=lambda i: len(examples[i]))
            for start in torch.randperm(8).tolist():
                yield [examples[i] for i in drawn[start * size : (start + 1) * size]]

    def measure(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        return measuring.measure_graded(model, tokenizer, temperature=self.temperature)

    def scaled(self, factor: float) -> Self:
        num_examples = max(self.batch_size, round(self.num_examples * min(1.0, factor)))
        return replace(super().scaled(factor), num_examples=num_examples)


SHARES = {0: 0.3, 1: 0.8, 3: 1.0, 6: 1.3, 12: 1.8, 25: 2.5}
"""How often a graded question is among the examples, by the tokens it needs: a long answer takes more of them."""
FULL_STOP = world.Part(".")
"""What follows a number."""
TEACHER_TEMPERATURE = 0.7


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The stages of one world's models, and their seed."""

    seed: int = 0
    student: Pretraining
    teacher: Pretraining
    other: Pretraining

    def scaled(self, factor: float) -> "Settings":
        """With shorter pre-training."""
        student, teacher, other = (stage.scaled(factor) for stage in (self.student, self.teacher, self.other))
        return replace(self, student=student, teacher=teacher, other=other)


PLAIN = Settings(
    student=PlainPretraining(
        known="+", width=64, num_layers=2, steps=1000, family_weights=(2, 1, 1), read_rate=0.5, call_rate=0.5
    ),
    teacher=PlainPretraining(known="+*", width=128, num_layers=3, steps=600, family_weights=(1, 2, 1), read_rate=0.4),
    other=PlainPretraining(known="+*", width=64, num_layers=2, steps=300, family_weights=(1, 2, 1), read_rate=0.4),
)
GRADED = Settings(
    student=GradedPretraining(
        knowledge=graded_world.Knowledge((1.08, 0.8, 0.55, 0.3, 0.08), 0.3),
        width=128,  # at 64 GRPO makes it forget the answers of questions that it is not trained on
        num_layers=2,
        steps=1500,
        cut_rate=0.3,
        call_rate=0.5,
    ),
    teacher=GradedPretraining(
        knowledge=graded_world.Knowledge((1.02, 0.96, 0.86, 0.7, 0.5), 0.1),
        width=128,
        num_layers=3,
        steps=1200,
        cut_rate=0.5,
        temperature=TEACHER_TEMPERATURE,
    ),
    other=GradedPretraining(
        knowledge=graded_world.Knowledge((1.02, 0.9, 0.75, 0.55, 0.35), 0.1),
        width=64,
        num_layers=2,
        steps=1500,
        cut_rate=0.5,
        temperature=TEACHER_TEMPERATURE,
    ),
)


class Task(Protocol):
    """What the module of a world has, for a pair to be built in it."""

    def all_questions(self) -> Sequence[world.Question]: ...

    def build_tokenizer(self) -> Any: ...

    def datasets(self, seed: int) -> dict[str, list[dict[str, object]]]: ...


class World(NamedTuple):
    task: Task
    settings: Settings


WORLDS = {"plain": World(world, PLAIN), "graded": World(graded_world, GRADED)}
"""By name; the first is the default."""
