"""Evaluation speed, side by side on the same engines and questions: our runner, one response at a time, lock-step.

- runner: `relay-verl eval`'s job, responses kept line by line as they end; no one waits for another.
- one at a time: the plainest loop; the next response begins when this one has ended. It is what --deterministic does.
- lock-step: all responses at once, but all wait for all at each turn; graded at the end.

Greedy, so that all variants should write the same; where they do not, batches of other sizes rounded otherwise, and the
table's last lines say how often.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from relay_verl.bench.relay_speed import run_in_lockstep
from relay_verl.bench.timing import Variant, time_rounds, timings_to_markdown
from relay_verl.config import num_gpus_of
from relay_verl.data.truths import truth_of
from relay_verl.decoder import RelayDecoder
from relay_verl.evaluation.suite import EvalSuite
from relay_verl.evaluation.worker import EvalSettings, EvalWorker, to_records
from relay_verl.grading import Grader, kind_of
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines
from relay_verl.models.address import as_student, model_at
from relay_verl.models.launch import start_models
from relay_verl.models.ray_session import ray_cluster
from relay_verl.models.tokenizers import tokenizer_at
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.preflight.commands import check_bench
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import chat_ids
from relay_verl.traces.records import ResponseRecord, read_records


def bench_eval(run: RunConfig, student: str, teacher: str, suite: EvalSuite, rounds: int) -> str:
    """Start both models and time the three variants on the suite; gives the table and how far the variants agree."""
    settings = run.relay
    tokenizer_path = run.prompts.tokenizer_of(student)
    tokenizer = tokenizer_at(run.prompts, tokenizer_path)
    vocabulary = read_vocabulary(student, tokenizer)
    models = {student: as_student(settings.teacher, student), teacher: model_at(teacher, settings.teacher)}
    max_tokens, max_context = run.lengths.max_response, run.lengths.max_context
    rules = EvalSettings("bench", "learned", settings, max_tokens, max_context, run.prompts.template, suite.seed)
    queries = list(suite.queries())
    check_bench([query["row"] for _, query in queries], tokenizer, tokenizer_path, rules.template)
    texts: dict[str, list[tuple[str, bool]]] = {}

    async def time_variants(folder: Path) -> str:
        engines = await start_models(run, models, tokenizer)
        worker = EvalWorker(engines[student], engines[teacher], tokenizer, rules, vocabulary=vocabulary)

        def job(name: str, at_a_time: int) -> Variant:
            async def work() -> list[int]:
                out = folder / f"{name}.jsonl"
                for old in (out, out.with_name(f"{out.name}.manifest.json")):
                    old.unlink(missing_ok=True)
                made = Job({}, JsonLines(), worker.process, to_records, max_concurrency=at_a_time)
                await run_job(made, queries, len(queries), out)
                return _note(texts, name, read_records(out))

            return work

        async def lockstep() -> list[int]:
            decoder = RelayDecoder(
                engines[student],
                engines[teacher],
                tokenizer,
                settings.decoder_config(
                    max_tokens, greedy=True, vocab_size=vocabulary.size, end_ids=vocabulary.end_ids
                ),
            )
            prompts = [chat_ids(tokenizer, query["row"]["prompt"], rules.template) for _, query in queries]
            relays = [decoder.stream(ids, sampling={"temperature": 0.0}) for ids in prompts]
            trajectories, grader, made = await run_in_lockstep(relays), Grader(), []
            for (_, query), trajectory in zip(queries, trajectories, strict=True):
                text = tokenizer.decode(trajectory.response_ids, skip_special_tokens=True)
                row = query["row"]
                truth = truth_of(row["reward_model"])
                verdict = await grader.grade_async(text, truth, kind_of(row.get("ability")))
                made.append((tokenizer.decode(trajectory.response_ids), verdict.is_correct))
            texts["lock-step"] = made
            return [len(trajectory.response_ids) for trajectory in trajectories]

        variants = {
            "runner": job("runner", 2 * settings.teacher.max_num_seqs),
            "one at a time": job("one at a time", 1),
            "lock-step": lockstep,
        }
        timings = await time_rounds(variants, rounds)
        return f"{timings_to_markdown(timings)}\n\n{_compare(texts, len(queries), rounds)}"

    num_gpus = num_gpus_of(models.values())
    with tempfile.TemporaryDirectory() as folder, ray_cluster(run, num_gpus):
        return asyncio.run(time_variants(Path(folder)))


def _note(texts: dict[str, list[tuple[str, bool]]], name: str, records: Sequence[ResponseRecord]) -> list[int]:
    texts[name] = [(record.text, record.is_correct) for record in records]
    return [record.num_tokens for record in records]


def _compare(texts: Mapping[str, list[tuple[str, bool]]], num: int, rounds: int) -> str:
    lines = [f"{rounds} rounds of {num} responses, greedy. In the last one:"]
    for name in ("runner", "lock-step"):
        pairs = list(zip(texts[name], texts["one at a time"], strict=True))
        num_texts = sum(mine[0] != theirs[0] for mine, theirs in pairs)
        num_verdicts = sum(mine[1] != theirs[1] for mine, theirs in pairs)
        lines.append(f"- {name} against one at a time: {num_texts} texts and {num_verdicts} verdicts differ")
    return "\n".join(lines)
