"""Runs the decoder over a set of questions with any student, teacher and policy, and records every response.

The engines are verl's replicas in Ray, as in training, one group a model, started side by side; every condition goes
through the same decoder as training. Greedy: pass@1 (paper 4.2).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relay_verl.cluster import ray_cluster, start_models
from relay_verl.config import RelaySettings, read_settings
from relay_verl.decoder import RelayDecoder
from relay_verl.engines.base import TokenEngine
from relay_verl.evaluation.records import ResponseRecord
from relay_verl.grading import Grader, kind_of
from relay_verl.policies import make_policy
from relay_verl.tokenization import chat_ids


@dataclass(frozen=True)
class Condition:
    """One way to answer every question."""

    name: str
    """What tables call it."""
    student: str
    """Folder of the model that writes."""
    teacher: str | None = None
    """Folder of the model that answers calls; None leaves calls unserved."""
    policy: str = "learned"
    """How commands are treated; see `relay_verl.policies`."""


def evaluate(
    config: Any, conditions: Sequence[Condition], rows: Sequence[Mapping[str, Any]], *, max_concurrency: int = 256
) -> list[ResponseRecord]:
    """Answer every row under every condition.

    Args:
        config: a composed recipe; its rollout section says how engines run, its relay section what calls may cost.
        conditions: who writes and who helps.
        rows: questions in verl's schema.
        max_concurrency: responses under way at a time.
    """
    from verl.utils import hf_tokenizer

    tokenizer = hf_tokenizer(conditions[0].student, trust_remote_code=config.actor_rollout_ref.model.trust_remote_code)
    paths = list(dict.fromkeys(path for c in conditions for path in (c.student, c.teacher) if path))

    async def run() -> list[ResponseRecord]:
        engines = await start_models(config, paths, tokenizer)
        grader = Grader()
        try:
            records: list[ResponseRecord] = []
            for condition in conditions:
                records += await _answer_all(config, condition, rows, engines, tokenizer, grader, max_concurrency)
            return records
        finally:
            grader.close()

    with ray_cluster(config, num_gpus=len(paths)):
        return asyncio.run(run())


async def _answer_all(
    config: Any,
    condition: Condition,
    rows: Sequence[Mapping[str, Any]],
    engines: Mapping[str, TokenEngine],
    tokenizer: Any,
    grader: Grader,
    max_concurrency: int,
) -> list[ResponseRecord]:
    from tqdm.asyncio import tqdm

    settings: RelaySettings = replace(read_settings(config.relay), policy=condition.policy)
    decoder = RelayDecoder(
        engines[condition.student],
        engines[condition.teacher] if condition.teacher else None,
        tokenizer,
        settings.decoder_config(config.data.max_response_length, greedy=True, vocab_size=len(tokenizer)),
    )
    template = dict(config.data.get("apply_chat_template_kwargs") or {})
    gate = asyncio.Semaphore(max_concurrency)

    async def answer(row: Mapping[str, Any]) -> ResponseRecord:
        messages = [dict(message) for message in row["prompt"]]
        prompt_ids = chat_ids(tokenizer, messages, template)
        async with gate:
            started = time.monotonic()
            trajectory = await decoder.run(
                prompt_ids, sampling={"temperature": 0.0}, policy=make_policy(condition.policy)
            )
            latency_s = time.monotonic() - started
        truth = str(row["reward_model"]["ground_truth"])
        text = tokenizer.decode(trajectory.response_ids, skip_special_tokens=True)
        verdict = await grader.grade_async(text, truth, kind_of(row.get("ability")))
        return ResponseRecord.of(
            trajectory,
            verdict,
            condition=condition.name,
            benchmark=str(row["data_source"]),
            id=str(row["extra_info"]["id"]),
            question=messages[-1]["content"],
            ground_truth=truth,
            latency_s=latency_s,
            decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        )

    return list(await tqdm.gather(*(answer(row) for row in rows), desc=condition.name, unit="response"))
