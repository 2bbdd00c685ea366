"""Labels a query in iteration 1: a right response of the teacher, what both models think of its tokens, and a rollout
of the student alone at each place where neither has the token. Can be sent to a Ray worker.

A query that `relay-verl filter` saw the teacher fail each time is not asked. A reference is written under
`relay.teacher`'s sampling, each try with a seed of its own; it has to be right and to end with an end-of-sequence
token. Both models are greedy for the labels, as in CITER's release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from relay_verl.data.pass_counts import COLUMN
from relay_verl.data.prompt_ids import prompt_ids_of
from relay_verl.data.truths import truth_of
from relay_verl.defer_training.labelled_query import LabelledQuery
from relay_verl.defer_training.labels import label_places
from relay_verl.engines.base import Generation, TokenEngine
from relay_verl.engines.boundary import ask_within
from relay_verl.engines.deadlines import pulse_of
from relay_verl.engines.scoring import score_prompt
from relay_verl.grading import Grader, kind_of
from relay_verl.jobs.formats import Row
from relay_verl.seeds import sample_seed

GREEDY: Mapping[str, Any] = {"temperature": 0.0}


class Labeller:
    """Labels queries.

    Args:
        student, teacher: who is asked.
        tokenizer: both models'.
        num_tries: most responses of the teacher, until one is right.
        rollout_tokens: most tokens of a rollout.
        wants_logprobs: whether the file has log-probabilities, which `collm` trains on.
        max_tokens: most tokens of a reference.
        max_context: most tokens of prompt and response together; None: no limit.
        sampling: the teacher's, for references.
        seed: of the references.
        template: arguments of the chat template.
        timeout_s: seconds without a sign of life of an engine after which a request fails.
    """

    def __init__(
        self,
        student: TokenEngine,
        teacher: TokenEngine,
        tokenizer: Any,
        *,
        num_tries: int,
        rollout_tokens: int,
        wants_logprobs: bool,
        max_tokens: int,
        max_context: int | None,
        sampling: Mapping[str, Any],
        seed: int,
        template: Mapping[str, Any],
        timeout_s: float = 3600.0,
    ):
        self._student = student
        self._teacher = teacher
        self._tokenizer = tokenizer
        self._num_tries = num_tries
        self._rollout_tokens = rollout_tokens
        self._wants_logprobs = wants_logprobs
        self._max_tokens = max_tokens
        self._max_context = max_context
        self._sampling = dict(sampling)
        self._seed = seed
        self._template = template
        self._timeout_s = timeout_s
        self._grader = Grader()

    async def process(self, row: Row) -> dict[str, Any]:
        """The labels of one row in verl's schema, as JSON; without a reference its lists are empty.

        Raises:
            PermanentError: the prompt cannot be rendered, or an engine refuses it.
            EngineError: a model could not answer.
        """
        prompt_ids = prompt_ids_of(self._tokenizer, row, self._template)
        reference, num_tries, num_teacher_tokens = await self._write_reference(row, prompt_ids)
        if reference is None:
            return LabelledQuery(
                1, prompt_ids, [], [], [], [], None, None, num_tries, 0, num_teacher_tokens
            ).to_dict()  # fmt: skip
        text = prompt_ids + reference
        start = len(prompt_ids) - 1  # entry t of the scores is about token t + 1
        options: dict[str, Any] = {"wants_logprobs": self._wants_logprobs, "timeout_s": self._timeout_s}
        students, teachers = await asyncio.gather(
            score_prompt(self._student, text, writer="student", **options),
            score_prompt(self._teacher, text, writer="teacher", **options),
        )
        student_ids, teacher_ids = ((scores.best_ids or [])[start:] for scores in (students, teachers))
        labels = label_places(reference, student_ids, teacher_ids)
        rollouts = await asyncio.gather(
            *(self._roll_out(row, prompt_ids, reference[:place]) for place in labels.open_places)
        )
        labels = labels.decided([is_right for is_right, _ in rollouts])
        logprobs = [
            scores.logprobs[start:] if self._wants_logprobs and scores.logprobs is not None else None
            for scores in (students, teachers)
        ]
        return LabelledQuery(
            iteration=1,
            prompt_ids=prompt_ids,
            reference_ids=reference,
            sources=labels.sources,
            values=labels.values,
            student_ids=student_ids,
            student_logprobs=logprobs[0],
            teacher_logprobs=logprobs[1],
            num_tries=num_tries,
            num_student_tokens=sum(num_tokens for _, num_tokens in rollouts),
            num_teacher_tokens=num_teacher_tokens,
        ).to_dict()

    async def _write_reference(self, row: Row, prompt_ids: list[int]) -> tuple[list[int] | None, int, int]:
        """A right response of the teacher, the tries it took, and the tokens of all of them; None if none is right."""
        # the prefills of the labels write a token behind the reference
        room = self._room(len(prompt_ids) + 1, self._max_tokens)
        passes = row.get(COLUMN)  # of a dataset that was filtered: not one of its samples was right
        is_hopeless = passes is not None and passes["num_done"] and not passes["num_correct"]
        num_tries = 0 if is_hopeless or room < 1 else self._num_tries
        num_tokens = 0
        for number in range(num_tries):
            seed = sample_seed(self._seed, "reference", row["extra_info"]["id"], number)
            generation = await self._ask(self._teacher, prompt_ids, room, {**self._sampling, **seed})
            num_tokens += generation.num_billed_tokens
            ended = generation.finish_reason == "eos"
            if ended and await self._is_right(row, generation.token_ids):
                return generation.token_ids, number + 1, num_tokens
        return None, num_tries, num_tokens

    async def _roll_out(self, row: Row, prompt_ids: list[int], written: list[int]) -> tuple[bool, int]:
        """Whether the student alone is right from there, and the tokens it wrote."""
        context = prompt_ids + written
        room = self._room(len(context), self._rollout_tokens)  # at least 1: the whole reference has room for a token
        generation = await self._ask(self._student, context, room, GREEDY)
        return await self._is_right(row, written + generation.token_ids), len(generation.token_ids)

    def _room(self, num_tokens: int, most: int) -> int:
        return most if self._max_context is None else min(most, self._max_context - num_tokens)

    async def _ask(
        self, engine: TokenEngine, context: list[int], max_tokens: int, sampling: Mapping[str, Any]
    ) -> Generation:
        return await ask_within(
            self._timeout_s,
            lambda: engine.generate(context, max_tokens=max_tokens, sampling=sampling),
            pulse=pulse_of(engine),
            max_tokens=max_tokens,
        )

    async def _is_right(self, row: Row, token_ids: list[int]) -> bool:
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        verdict = await self._grader.grade_async(text, truth_of(row["reward_model"]), kind_of(row.get("ability")))
        return verdict.is_correct
