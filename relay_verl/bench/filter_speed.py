"""The teacher's filter, side by side: every sample, early stopping, and the plainest script that does the same.

- filter: `relay-verl filter`'s job, every query sampled in full.
- early stop: the same, no further than the verdict needs.
- offline script: vLLM's offline engine gets all prompts in one batch, and a loop grades the answers.

The models are started before the clock: the filter's teacher in Ray, the script's in this process.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from relay_verl.bench.offline import offline_engine, set_engine_environment
from relay_verl.bench.timing import Variant, time_rounds, timings_to_markdown
from relay_verl.cpu.threads import share_cores
from relay_verl.data.generate import plan_filter
from relay_verl.data.pass_counts import COLUMN, PassCount
from relay_verl.data.source import Source
from relay_verl.data.truths import truth_of
from relay_verl.errors import UserError
from relay_verl.grading import grade, kind_of
from relay_verl.jobs import run_job
from relay_verl.preflight.commands import check_generator
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import chat_ids


def bench_filter(run: RunConfig, source: Source, rounds: int) -> str:
    """Time the three variants on the queries of `source`; gives the table and what the rounds did.

    Raises:
        UserError: the recipe's teacher is not a model that can be started here.
    """
    from relay_verl.models.launch import start_teacher
    from relay_verl.models.ray_session import ray_cluster
    from relay_verl.models.tokenizers import tokenizer_at

    settings = run.relay
    teacher = settings.only_teacher
    path = teacher.path
    if path is None:
        raise UserError("relay.teacher.path: the benchmark starts the teacher itself; give a model")
    tokenizer = tokenizer_at(run.prompts, path)
    check_generator(plan_filter(run, source), source, tokenizer)
    verdicts: dict[str, list[bool | None]] = {}

    async def time_variants(folder: Path, offline: Variant) -> str:
        group = await start_teacher(run, teacher, tokenizer)
        assert group is not None

        def way(name: str, stop_early: bool) -> Variant:
            async def work() -> list[int]:
                out = folder / f"{name}.parquet"
                for old in (out, out.with_name(f"{out.name}.manifest.json")):
                    old.unlink(missing_ok=True)
                job = plan_filter(run, source, stop_early=stop_early).job(group.engine, tokenizer)
                await run_job(job, source.queries(), source.num_rows, out)
                counts = pq.read_table(out, columns=[COLUMN])[COLUMN].to_pylist()
                threshold = settings.filter.min_pass_rate
                verdicts[name] = [PassCount.of(count).is_solvable(threshold) for count in counts]
                return [count["num_tokens"] for count in counts]

            return work

        variants = {"filter": way("filter", False), "early stop": way("early stop", True), "offline script": offline}
        timings = await time_rounds(variants, rounds)
        same = sum(a == b for a, b in zip(verdicts["filter"], verdicts["early stop"], strict=True))
        return (
            f"{timings_to_markdown(timings)}\n\n{rounds} rounds of {source.num_rows} queries x "
            f"{settings.filter.num_samples} samples; early stopping gives the same verdict for {same} of "
            f"{source.num_rows}."
        )

    share_cores(run.verl, teacher.num_replicas)
    set_engine_environment(run)
    with tempfile.TemporaryDirectory() as folder, ray_cluster(run, num_gpus=teacher.num_replicas):
        return asyncio.run(time_variants(Path(folder), _offline_script(run, path, tokenizer, source)))


def _offline_script(run: RunConfig, path: str, tokenizer: Any, source: Source) -> Variant:
    from vllm import SamplingParams

    settings = run.relay
    teacher = settings.only_teacher
    llm = offline_engine(run, teacher, path)
    sampling = SamplingParams(
        n=settings.filter.num_samples,
        **teacher.sampling(),
        max_tokens=run.lengths.max_response,
    )
    template = run.prompts.template

    async def work() -> list[int]:
        rows = [row for _, row in source.queries()]
        prompts = [{"prompt_token_ids": chat_ids(tokenizer, row["prompt"], template)} for row in rows]
        lengths = []
        for row, answer in zip(rows, llm.generate(prompts, sampling, use_tqdm=False), strict=True):
            for sample in answer.outputs:
                grade(sample.text, truth_of(row["reward_model"]), kind_of(row.get("ability")))
            lengths.append(sum(len(sample.token_ids) for sample in answer.outputs))
        return lengths

    return work
