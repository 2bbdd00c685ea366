"""Questions to a shipped pair, in this process and on the CPU: with its teacher, without, before training.

Invariant: every answer is greedy, so that a question has one answer; the prompt is the training's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay_verl.checkpoints.relay_file import read_relay_file
from relay_verl.data.prompts import wrap
from relay_verl.deltas import Delta
from relay_verl.demo.demo_question import DemoQuestion
from relay_verl.demo.shipped_pair import STUDENT, STUDENT_WARM, TEACHER
from relay_verl.grading import Grader
from relay_verl.pair.relay_pair import RelayPair
from relay_verl.tokenization import TokenBytes
from relay_verl.traces.records import ResponseRecord


@dataclass(frozen=True)
class DemoCondition:
    """Who answers, and who may call."""

    name: str
    """What tables call it."""
    student: str
    """The student's folder in the pair."""
    policy: str | None
    """See `relay_verl.policies`; None as the student was trained."""


RELAY = DemoCondition("trained relay", STUDENT, None)
CONDITIONS = (
    RELAY,
    DemoCondition("untrained relay", STUDENT_WARM, None),
    DemoCondition("without teacher", STUDENT, "teacher_free"),
    DemoCondition("teacher alone", STUDENT, "teacher_alone"),
)
"""What is compared, the trained relay first."""


class DemoRelay:
    """Asks both students.

    Args:
        pairs: each student with the teacher, by the student's folder.
        grader: judges the answers.
    """

    def __init__(self, pairs: dict[str, RelayPair], grader: Grader):
        self._pairs = pairs
        self._grader = grader
        self._tokens = {name: TokenBytes(pair.tokenizer) for name, pair in pairs.items()}

    def ask(
        self, question: DemoQuestion, condition: DemoCondition, show: Callable[[Delta], None] = lambda delta: None
    ) -> ResponseRecord:
        """The response to a question.

        Args:
            question: what is asked.
            condition: who answers.
            show: is given the text while it is written, commands included.

        Raises:
            EngineError: a model failed.
        """
        pair = self._pairs[condition.student]
        started_at, started = time.time(), time.monotonic()
        stream = pair.stream(wrap(question.text), policy=condition.policy, temperature=0.0, show_commands=True)
        for delta in stream:
            show(delta)
        trajectory = stream.result().trajectory
        latency_s = time.monotonic() - started
        text = pair.tokenizer.decode(trajectory.response_ids, skip_special_tokens=True)
        return ResponseRecord.of(
            trajectory,
            self._grader.grade(text, question.answer),
            condition=condition.name,
            benchmark=question.benchmark,
            id=question.id,
            question=question.text,
            ground_truth=question.answer,
            started_at=started_at,
            latency_s=latency_s,
            join=self._tokens[condition.student].join,
        )


@contextmanager
def open_relay(folder: Path) -> Iterator[DemoRelay]:
    """The models of a pair's folder, loaded.

    Raises:
        UserError: a model does not load.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar a model, for a hundredth of a second
    relay = read_relay_file(folder / STUDENT)
    with ExitStack() as stack:
        # matrices of this size gain nothing from a second thread, and wait for it on a busy machine
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        grader = stack.enter_context(Grader())
        pairs = {
            name: stack.enter_context(RelayPair.load(folder / name, folder / TEACHER, relay=relay, device="cpu"))
            for name in (STUDENT, STUDENT_WARM)
        }
        yield DemoRelay(pairs, grader)
