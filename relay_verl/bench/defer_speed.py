"""What a defer head costs, side by side on engines of the same student: its scores, and a hop to the teacher.

Three ways to write the same greedy responses of the student alone, in turn, round after round: vLLM's plain class, the
class with a head that is not asked, and one that is asked at threshold 0, so that each token has a score and none is
deferred. Then hops: under threshold 1.5 every token is the teacher's, one request to each engine a token, as many
responses at a time as in the other ways, and one at a time; and the hop of CITER's release, transformers'
`generate` of one token over the whole context, without a cache.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from relay_verl.bench.timing import ratio_to, time_rounds, timings_to_markdown
from relay_verl.config import DeferSettings
from relay_verl.decoder import RelayDecoder
from relay_verl.defer.engine_head import EngineHead
from relay_verl.engines.base import TokenEngine
from relay_verl.markdown import markdown_table
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.policies import make_policy
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import chat_ids
from relay_verl.types import RelayTrajectory

ALWAYS = "deferred_1.5"
"""The policy under which each token is a hop."""
NUM_RELEASED = 32
"""Hops of the release that are timed a round."""
_GREEDY = {"temperature": 0.0}


def bench_defer(
    run: RunConfig,
    student: str,
    teacher: str,
    settings: DeferSettings,
    rows: Sequence[Mapping[str, Any]],
    rounds: int,
    num_tokens: int,
) -> str:
    """Start the student without and with its head, and the teacher; gives the two tables.

    Args:
        run: a composed recipe.
        student, teacher: folders or hub ids.
        settings: the head, which is given.
        rows: prompts, in verl's schema.
        rounds: counted rounds.
        num_tokens: tokens of each response.

    Raises:
        UserError: the head does not fit the student.
    """
    from relay_verl.models.address import as_student, model_at
    from relay_verl.models.deferring import read_engine_head
    from relay_verl.models.launch import start_models
    from relay_verl.models.ray_session import ray_cluster
    from relay_verl.models.tokenizers import tokenizer_at
    from relay_verl.preflight.commands import check_bench

    tokenizer_path = run.prompts.tokenizer_of(student)
    tokenizer = tokenizer_at(run.prompts, tokenizer_path)
    check_bench(rows, tokenizer, tokenizer_path, run.prompts.template)
    head = read_engine_head(settings, student, tokenizer, run.prompts)
    prompts = [chat_ids(tokenizer, row["prompt"], run.prompts.template) for row in rows]

    async def measure() -> str:
        alone = as_student(run.relay.teacher, student)
        models = {"plain": alone, "headed": alone, "teacher": model_at(teacher, run.relay.teacher)}
        engines = await start_models(run, models, tokenizer, heads={"headed": head})
        scored = await _time_scores(engines, head, prompts, rounds, num_tokens)
        vocabulary = read_vocabulary(student, tokenizer, run.prompts)
        config = run.relay.decoder_config(
            num_tokens,
            greedy=True,
            vocab_size=vocabulary.size,
            end_ids=vocabulary.end_ids,
            deferral=head.deferral(settings.num_tokens),
        )
        decoder = RelayDecoder(engines["headed"], engines["teacher"], tokenizer, config)
        return f"{scored}\n\n{await _time_hops(decoder, prompts, rounds, teacher)}"

    with ray_cluster(run, num_gpus=3):
        return asyncio.run(measure())


async def _time_scores(
    engines: Mapping[str, TokenEngine], head: EngineHead, prompts: list[list[int]], rounds: int, num_tokens: int
) -> str:
    """The plain class against the one with a head, not asked and asked."""
    asked = head.deferral(1).sampling(0.0, {**_GREEDY, "ignore_eos": True})

    async def write(name: str, sampling: Mapping[str, Any]) -> list[int]:
        engine = engines[name]
        answers = (
            engine.generate(ids, max_tokens=num_tokens, sampling=sampling, request_id=f"{name}{number}")
            for number, ids in enumerate(prompts)
        )
        return [len(answer.token_ids) for answer in await asyncio.gather(*answers)]

    plain = {**_GREEDY, "ignore_eos": True}
    variants = {
        "plain class": lambda: write("plain", plain),
        "head, not asked": lambda: write("headed", plain),
        "head, asked": lambda: write("headed", asked),
    }
    return timings_to_markdown(await time_rounds(variants, rounds))


async def _time_hops(decoder: RelayDecoder, prompts: list[list[int]], rounds: int, teacher: str) -> str:
    """Milliseconds of a hop: in a batch, alone, and as the release has it."""

    async def relay(ids: list[int]) -> RelayTrajectory:
        policy = make_policy(ALWAYS)
        return await decoder.run(ids, sampling=_GREEDY, teacher_sampling=_GREEDY, policy=policy)

    times: dict[str, list[float]] = {"a hop, in the batch": [], "a hop, alone": [], "as released": []}
    released = _load_released(teacher)
    for number in range(rounds + 1):
        started = time.monotonic()
        written = await asyncio.gather(*map(relay, prompts))
        in_batch = (time.monotonic() - started) / sum(len(one.calls) for one in written)
        started = time.monotonic()
        one = await relay(prompts[number % len(prompts)])
        alone = (time.monotonic() - started) / len(one.calls)
        contexts = [[*one.prompt_ids, *one.response_ids[:end]] for end in range(min(NUM_RELEASED, one.num_tokens))]
        started = time.monotonic()
        for context in contexts:
            released(context)
        as_released = (time.monotonic() - started) / len(contexts)
        if number:  # the first round is not counted
            for name, seconds in zip(times, (in_batch, alone, as_released), strict=True):
                times[name].append(1000 * seconds)
    base = times["a hop, alone"]
    rows = [[name, f"{statistics.median(each):.2f}", ratio_to(each, base)] for name, each in times.items()]
    return markdown_table(["way", "ms a hop", "time / a hop's alone"], rows)


def _load_released(teacher: str) -> Any:
    """What writes one token as CITER's release does: a `generate` over the whole context that keeps no cache."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(teacher, dtype="auto", use_safetensors=True).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    def write(context: list[int]) -> None:
        ids = torch.tensor([context], device=model.device)  # [1, length]
        mask = torch.ones_like(ids)
        model.generate(ids, attention_mask=mask, max_new_tokens=1, do_sample=False, use_cache=False)

    return write
