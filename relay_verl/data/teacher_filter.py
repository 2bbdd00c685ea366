"""The teacher-solvability filter: how often does the teacher solve each query by itself? (paper 3.2.2)

Every query keeps its pass count; the threshold is applied when the data is read (`relay_verl.trainer.datasets`). With a
threshold known beforehand sampling stops where the verdict is certain: samples are asked for in waves, each as large as
any outcome needs, and since each sample has a seed of its own the verdicts are those of a full pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from relay_verl.data.pass_counts import COLUMN, PassCount
from relay_verl.data.prompt_ids import prompt_ids_of
from relay_verl.data.truths import truth_of
from relay_verl.engines.base import TokenEngine, open_engine
from relay_verl.engines.boundary import ask_within
from relay_verl.engines.deadlines import pulse_of
from relay_verl.grading import Grader, kind_of
from relay_verl.jobs.formats import Row
from relay_verl.seeds import sample_seed

_COUNTS = pa.struct(
    [(name, pa.int32()) for name in ("num_samples", "num_done", "num_correct")] + [("num_tokens", pa.int64())]
)


class TeacherFilter:
    """Counts the teacher's right responses to a query.

    Args:
        teacher: who is asked.
        tokenizer: its tokenizer.
        num_samples: responses a query.
        stop_at: pass rate whose verdict is enough; None samples all.
        max_tokens: most tokens of a response.
        sampling: as vLLM names it, such as {"temperature": 0.7}.
        seed: of all samples; None for none.
        template: arguments of the chat template.
        timeout_s: seconds without a sign of life from the teacher after which a response fails.
    """

    def __init__(
        self,
        teacher: TokenEngine,
        tokenizer: Any,
        *,
        num_samples: int,
        stop_at: float | None,
        max_tokens: int,
        sampling: Mapping[str, Any],
        seed: int | None,
        template: Mapping[str, Any],
        timeout_s: float = 3600.0,
    ):
        self._teacher = teacher
        self._pulse = pulse_of(teacher)
        self._tokenizer = tokenizer
        self._num_samples = num_samples
        self._stop_at = stop_at
        self._max_tokens = max_tokens
        self._sampling = dict(sampling)
        self._seed = seed
        self._template = template
        self._timeout_s = timeout_s
        self._grader = Grader()

    async def process(self, row: Row) -> dict[str, int]:
        """The pass count of one row in verl's schema, and the tokens it took.

        Raises:
            PermanentError: the prompt cannot be rendered, or the teacher refuses it.
            EngineError: the teacher could not answer.
        """
        prompt_ids = prompt_ids_of(self._tokenizer, row, self._template)
        teacher = open_engine(self._teacher, row["prompt"], len(prompt_ids))
        count, num_tokens = PassCount(self._num_samples, 0, 0), 0
        while wave := count.next_wave(self._stop_at):
            indices = range(count.num_done, count.num_done + wave)
            samples = await asyncio.gather(*(self._sample(teacher, row, prompt_ids, index) for index in indices))
            num_correct = sum(is_correct for is_correct, _ in samples)
            num_tokens += sum(length for _, length in samples)
            count = PassCount(self._num_samples, count.num_done + wave, count.num_correct + num_correct)
        return {
            "num_samples": count.num_samples,
            "num_done": count.num_done,
            "num_correct": count.num_correct,
            "num_tokens": num_tokens,
        }

    async def _sample(self, teacher: TokenEngine, row: Row, prompt_ids: list[int], index: int) -> tuple[bool, int]:
        seed = sample_seed(self._seed, row["extra_info"]["id"], index)
        generation = await ask_within(
            self._timeout_s,
            lambda: teacher.generate(prompt_ids, max_tokens=self._max_tokens, sampling={**self._sampling, **seed}),
            pulse=self._pulse,
            max_tokens=self._max_tokens,
        )
        text = self._tokenizer.decode(generation.token_ids, skip_special_tokens=True)
        verdict = await self._grader.grade_async(text, truth_of(row["reward_model"]), kind_of(row.get("ability")))
        return verdict.is_correct, generation.num_billed_tokens


def filtered_schema(schema: pa.Schema) -> pa.Schema:
    """The dataset's columns and the pass count."""
    return schema.append(pa.field(COLUMN, _COUNTS))


def to_records(row: Row, result: Mapping[str, int]) -> list[Row]:
    """The row with its pass count."""
    return [{**row, COLUMN: dict(result)}]


def count_tokens(result: Mapping[str, int]) -> int:
    """What the teacher wrote for a result."""
    return result["num_tokens"]
