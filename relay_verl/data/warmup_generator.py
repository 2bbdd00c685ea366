"""The call warm-up's data: the vanilla student's own responses with commands in them, ready for training (paper 3.1).

A row is exact token ids, prompt and response, and a loss mask that is 1 on the response. Nothing is decoded and encoded
again: taking the commands out gives what the student sampled. A response that ran into the length limit is marked, and
`relay_verl.trainer.warmup_dataset` leaves it out: it would teach the student not to end.

Positions are uniform (3.1), so some commands stand inside the answer's `\\boxed{...}`. Such a row stays, because the
law of the paper says so; `breaks_box` marks it and the manifest counts it.

Where the number is fixed (`relay.policy=fixed_N`, `relay.fixed_command=text`) every command says N. The loss covers the
whole command there, too: decoding forces the number later, but a student that has learned it as text can also be run
with `relay.fixed_command=delivered`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relay_verl.data.prompt_ids import prompt_ids_of
from relay_verl.data.warmup import DrawnCall, draw_calls, place_calls
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.boundary import ask_within
from relay_verl.engines.deadlines import pulse_of
from relay_verl.grading.answers import last_boxed
from relay_verl.jobs.formats import Row
from relay_verl.seeds import derive_seed, sample_seed
from relay_verl.tokenization import TokenBytes

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("placement", pa.int32()),
        ("seed", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.int8())),
        ("num_prompt_tokens", pa.int32()),
        ("num_own_tokens", pa.int32()),
        (
            "calls",
            pa.list_(pa.struct([(name, pa.int32()) for name in ("position", "num_drawn", "num_tokens")])),
        ),
        ("is_finished", pa.bool_()),
        ("breaks_box", pa.bool_()),
    ]
)


class WarmupSampler:
    """Samples the student's responses to a query and puts commands into them.

    Args:
        student: the student before any training.
        tokenizer: its tokenizer.
        num_samples: responses a query.
        num_placements: rows a response.
        call_weights: relative frequency of 0, 1, 2 ... commands in a row.
        max_exponent: of the law of lengths.
        max_tokens: most tokens of a response.
        sampling: as vLLM names it.
        seed: of all samples and places; None for fresh ones.
        template: arguments of the chat template.
        timeout_s: seconds without a sign of life from the student after which a response fails.
        written_length: the number that every command says; None draws it by the law of lengths.
    """

    def __init__(
        self,
        student: TokenEngine,
        tokenizer: Any,
        *,
        num_samples: int,
        num_placements: int,
        call_weights: Sequence[float],
        max_exponent: int,
        max_tokens: int,
        sampling: Mapping[str, Any],
        seed: int | None,
        template: Mapping[str, Any],
        timeout_s: float = 3600.0,
        written_length: int | None = None,
    ):
        self._student = student
        self._pulse = pulse_of(student)
        self._tokenizer = tokenizer
        self._num_samples = num_samples
        self._num_placements = num_placements
        self._call_probabilities = np.asarray(call_weights) / sum(call_weights)
        self._max_exponent = max_exponent
        self._max_tokens = max_tokens
        self._sampling = dict(sampling)
        self._seed = seed
        self._template = template
        self._timeout_s = timeout_s
        self._written_length = written_length
        self._tokens = TokenBytes(tokenizer)

    async def process(self, row: Row) -> list[Row]:
        """All rows of one query.

        Raises:
            PermanentError: the prompt cannot be rendered, or the student's engine refuses it.
            EngineError: the student could not answer.
        """
        prompt_ids = prompt_ids_of(self._tokenizer, row, self._template)
        samples = await asyncio.gather(*(self._sample(row, prompt_ids, i) for i in range(self._num_samples)))
        return [record for records in samples for record in records]

    async def _sample(self, row: Row, prompt_ids: list[int], sample: int) -> list[Row]:
        key = row["extra_info"]["id"]
        sampling = {**self._sampling, **sample_seed(self._seed, key, sample)}
        generation = await ask_within(
            self._timeout_s,
            lambda: self._student.generate(prompt_ids, max_tokens=self._max_tokens, sampling=sampling),
            pulse=self._pulse,
            max_tokens=self._max_tokens,
        )
        return [
            self._place(key, prompt_ids, generation.token_ids, generation.finish_reason != "length", sample, placement)
            for placement in range(self._num_placements)
        ]

    def _place(
        self, key: str, prompt_ids: list[int], own: list[int], is_finished: bool, sample: int, placement: int
    ) -> Row:
        fresh = int(np.random.SeedSequence().generate_state(1)[0]) >> 1
        seed = fresh if self._seed is None else derive_seed(self._seed, key, sample, placement)
        rng = np.random.default_rng(seed)
        num_calls = int(rng.choice(len(self._call_probabilities), p=self._call_probabilities))
        calls = draw_calls(
            len(own),
            rng,
            num_calls=min(num_calls, len(own)),
            max_exponent=self._max_exponent,
            written_length=self._written_length,
        )
        response = place_calls(own, calls, self._tokenizer)
        return {
            "id": key,
            "sample": sample,
            "placement": placement,
            "seed": seed,
            "input_ids": prompt_ids + response,  # [prompt_length + response_length]
            "loss_mask": [0] * len(prompt_ids) + [1] * len(response),
            "num_prompt_tokens": len(prompt_ids),
            "num_own_tokens": len(own),
            "calls": [asdict(call) for call in calls],
            "is_finished": is_finished,
            "breaks_box": breaks_box(own, calls, self._tokens),
        }


def breaks_box(own: list[int], calls: Sequence[DrawnCall], tokens: TokenBytes) -> bool:
    r"""Whether a command stands inside the answer's box: between the backslash of the last `\boxed{...}` and its brace.

    Args:
        own: the response without commands, [num_own_tokens].
        calls: the commands, in order.
        tokens: the tokenizer's view of its ids as bytes.
    """
    marked, start = b"", 0
    for call in calls:
        # a byte that no box has stands for the command, so that an answer with it in it is another answer
        marked += tokens.join(own[start : call.position]) + b"\0"
        start = call.position
    marked += tokens.join(own[start:])
    return bool(calls) and last_boxed(marked.decode("latin-1")) != last_boxed(tokens.join(own).decode("latin-1"))


def summarize(path: Path) -> dict[str, int]:
    """The numbers that the manifest gives of the whole output at `path`."""
    rows = pq.read_table(path, columns=["calls", "is_finished", "breaks_box"])
    num_calls = pc.list_value_length(rows["calls"])
    return {
        "num_rows": len(rows),
        "num_finished": pc.sum(rows["is_finished"]).as_py() or 0,
        "num_with_commands": pc.sum(pc.greater(num_calls, 0)).as_py() or 0,
        "num_boxes_broken": pc.sum(rows["breaks_box"]).as_py() or 0,
    }


def to_records(row: Row, result: list[Row]) -> list[Row]:
    """The rows as they are."""
    return result


def count_tokens(result: list[Row]) -> int:
    """What the student wrote for a result: a response stands in the row of each of its placements."""
    return sum(row["num_own_tokens"] for row in result if row["placement"] == 0)
