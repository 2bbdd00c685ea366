"""Labels a query again in iteration 2 and later: at each place that a rollout decides, the student's own token and then
the student under the last head, with the teacher. Can be sent to a Ray worker.

Invariant: no other label changes, as in CITER's release. Its rollouts of later iterations read multiple choice alone,
so that they do not exist for mathematics; here the grader reads them like all responses.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from relay_verl.data.truths import truth_of
from relay_verl.decoder import RelayConfig, RelayDecoder, failure_of
from relay_verl.defer_training.labelled_query import LabelledQuery
from relay_verl.defer_training.labeller import GREEDY
from relay_verl.engines.base import TokenEngine
from relay_verl.grading import Grader, kind_of
from relay_verl.jobs.formats import Row
from relay_verl.policies import make_policy


class Relabeller:
    """Labels queries again.

    Args:
        student: runs with the last head.
        teacher: writes where that head's score is below the threshold.
        tokenizer: both models'.
        config: limits of a rollout; its `max_response_tokens` are the most that both models write.
        policy: that of the last head, with its threshold.
        iteration: of the new labels, from 2.
        max_context: most tokens of prompt and response together; None: no limit.
    """

    def __init__(
        self,
        student: TokenEngine,
        teacher: TokenEngine,
        tokenizer: Any,
        *,
        config: RelayConfig,
        policy: str,
        iteration: int,
        max_context: int | None,
    ):
        # a rollout that its teacher fails is asked for again, not continued by the student
        self._decoder = RelayDecoder(student, teacher, tokenizer, replace(config, on_teacher_failure="drop"))
        self._tokenizer = tokenizer
        self._config = config
        self._policy = policy
        self._iteration = iteration
        self._max_context = max_context
        self._grader = Grader()

    async def process(self, row: Row) -> dict[str, Any]:
        """The labels of one row of a label file, as JSON.

        Raises:
            EngineError: a model could not answer.
        """
        query = LabelledQuery.of(row)
        places = query.labels.open_places
        rollouts = await asyncio.gather(*(self._roll_out(row, query, place) for place in places))
        labels = query.labels.decided([is_right for is_right, _, _ in rollouts])
        changed = replace(
            query,
            iteration=self._iteration,
            values=labels.values,
            num_student_tokens=sum(student for _, student, _ in rollouts),
            num_teacher_tokens=sum(teacher for _, _, teacher in rollouts),
        )
        return changed.to_dict()

    async def _roll_out(self, row: Row, query: LabelledQuery, place: int) -> tuple[bool, int, int]:
        """Whether the routed system is right from there, and the tokens of student and teacher."""
        written = [*query.reference_ids[:place], query.student_ids[place]]
        context = query.prompt_ids + written
        room = self._config.max_response_tokens
        if self._max_context is not None:
            room = min(room, self._max_context - len(context))
        num_student, num_teacher = 1, 0
        if written[-1] not in self._decoder.end_ids:
            trajectory = await self._decoder.run(
                context,
                sampling=GREEDY,
                teacher_sampling=GREEDY,
                policy=make_policy(self._policy),
                max_response_tokens=room,
            )
            if (failure := failure_of(trajectory)) is not None:
                raise failure
            written += trajectory.response_ids
            num_teacher = trajectory.num_teacher_tokens
            num_student += trajectory.num_tokens - num_teacher
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        verdict = await self._grader.grade_async(text, truth_of(row["reward_model"]), kind_of(row.get("ability")))
        return verdict.is_correct, num_student, num_teacher
