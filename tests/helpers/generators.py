"""Both generators over an engine that needs no model: its answer depends on the prompt and the sample's seed alone."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from relay_verl.data import teacher_filter
from relay_verl.data import warmup_generator as warmup_samples
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.data.source import Source
from relay_verl.data.teacher_filter import TeacherFilter
from relay_verl.data.warmup_generator import WarmupSampler
from relay_verl.engines.base import Generation
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines, Parquet
from tests.helpers.tokenizers import ByteTokenizer


class ChatTokenizer(ByteTokenizer):
    """With a chat template that writes a line for each message."""

    def apply_chat_template(self, messages: Iterable[Mapping[str, str]], **_: Any) -> list[int]:
        return self.encode("".join(f"{message['role']}: {message['content']}\n" for message in messages))


class SeededEngine:
    """Answers 7 or 8; how often depends on the prompt, and which by the sample's seed.

    Args:
        delay_s: longest time an answer takes.
        fail: raises what it likes for a prompt.
    """

    def __init__(self, delay_s: float = 0.0, fail: Callable[[str], None] = lambda prompt: None):
        self.num_asked = 0
        self._delay_s = delay_s
        self.fail = fail

    async def generate(
        self, prompt_ids: list[int], *, max_tokens: int, sampling: Mapping[str, Any], **_: Any
    ) -> Generation:
        self.num_asked += 1
        self.fail(bytes(prompt_ids).decode())
        rng = Random(f"{prompt_ids}-{sampling['seed']}")
        await asyncio.sleep(self._delay_s * Random().random())  # in another order each time
        answer = 7 if rng.random() < sum(prompt_ids) % 11 / 10 else 8
        text = f"{'so ' * rng.randint(1, 8)}\\boxed{{{answer}}}"
        ids = [*text.encode(), ChatTokenizer.eos_token_id]
        return Generation(ids[:max_tokens], None, "eos" if len(ids) <= max_tokens else "length")


def write_questions(path: Path, num: int) -> Source:
    rows = [
        to_row(data_source="test", question=f"What is {i}?", ground_truth="7", id=f"q{i}", index=i) for i in range(num)
    ]
    write_parquet(path, rows)
    return Source.scan(path)


def filter_worker(engine: Any, stop_at: float | None = None) -> TeacherFilter:
    return TeacherFilter(
        engine,
        ChatTokenizer(),
        num_samples=10,
        stop_at=stop_at,
        max_tokens=64,
        sampling={"temperature": 0.7},
        seed=0,
        template={},
    )


def filter_job(source: Source, engine: Any, *, stop_at: float | None = None, **options: Any) -> Job:
    worker = filter_worker(engine, stop_at)
    schema = teacher_filter.filtered_schema(source.schema)
    spec = {"kind": "filter", "stop_at": stop_at, "data": source.sha256}
    return Job(spec, Parquet(schema), worker.process, teacher_filter.to_records, **{"shard_size": 7, **options})


def warmup_job(source: Source, engine: Any, *, written_length: int | None = None, **options: Any) -> Job:
    worker = WarmupSampler(
        engine,
        ChatTokenizer(),
        num_samples=2,
        num_placements=2,
        call_weights=(1.0, 1.0, 1.0, 1.0),
        max_exponent=3,
        max_tokens=30,
        sampling={"temperature": 1.0},
        seed=0,
        template={},
        written_length=written_length,
    )
    spec = {"kind": "warmup-data", "data": source.sha256}
    options = {"shard_size": 7, "summarize": warmup_samples.summarize, **options}
    return Job(spec, Parquet(warmup_samples.SCHEMA), worker.process, warmup_samples.to_records, **options)


def filter_to_lines(source: Source, engine: Any, **options: Any) -> Job:
    return replace(filter_job(source, engine, **options), format=JsonLines())


JOBS: dict[str, Callable[..., Job]] = {
    "filter": filter_job,
    "filter as lines": filter_to_lines,
    "warmup-data": warmup_job,
}


def run(job: Job, source: Source, out: Path) -> dict[str, Any]:
    return asyncio.run(run_job(job, source.queries(), source.num_rows, out))
