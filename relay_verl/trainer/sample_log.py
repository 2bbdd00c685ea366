"""Responses of the training, kept to be read: `relay-verl trace CHECKPOINTS/samples`.

A group is chosen by its number, so that every worker decides alone; each becomes one file of records.

Invariant: `write` never raises: whatever is wrong with a group's record or its folder costs a warning, not the group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from relay_verl.data.prompts import strip_wrapper
from relay_verl.data.truths import truth_of, truth_text
from relay_verl.grading import Verdict
from relay_verl.jobs.byproducts import by_product
from relay_verl.messages import text_of
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import TokenBytes
from relay_verl.traces.records import ResponseRecord, write_records
from relay_verl.types import RelayTrajectory

RESOLUTION = 2**31
"""A group's number is below this (`relay_verl.seeds`)."""


@dataclass(frozen=True)
class SampleLog:
    """Where samples go and how many."""

    folder: Path
    """`samples` next to the checkpoints."""
    share: float
    """Share of the groups that are written."""
    tokenizer: Any
    """Decodes them."""

    @cached_property
    def _tokens(self) -> TokenBytes:
        return TokenBytes(self.tokenizer)

    @classmethod
    def of(cls, run: RunConfig, tokenizer: Any) -> SampleLog:
        """The log of a run."""
        folder, batch_size = run.trainer.folder, run.data.batch_size
        assert folder is not None and batch_size is not None  # verl's trainer has both
        return cls(folder / "samples", run.relay.num_logged_groups / batch_size, tokenizer)

    async def write(
        self, number: int, prompt: dict[str, Any], samples: Sequence[tuple[RelayTrajectory, Verdict, float]]
    ) -> None:
        """Write a group's samples, each with the seconds it took, if the group's number is among the chosen ones.
        What fails is a warning."""
        if number >= self.share * RESOLUTION or not samples:
            return
        # records are made in the block too: rows of others hold what no code here expects
        with by_product(f"a logged group in {self.folder}"):
            step = int(prompt["global_steps"])
            path = self.folder / f"step_{step:06d}_{number:08x}.jsonl"
            records = [self._record(step, prompt, index, *sample) for index, sample in enumerate(samples)]
            await asyncio.to_thread(write_records, path, records)

    def _record(
        self,
        step: int,
        prompt: dict[str, Any],
        sample: int,
        trajectory: RelayTrajectory,
        verdict: Verdict,
        latency_s: float,
    ) -> ResponseRecord:
        messages = list(prompt["raw_prompt"])
        question = strip_wrapper(text_of(messages[-1].get("content"))) if messages else ""
        extra = prompt.get("extra_info")
        id = extra.get("id") if isinstance(extra, Mapping) else None
        return ResponseRecord.of(
            trajectory,
            verdict,
            condition=f"step {step}",
            benchmark=str(prompt.get("data_source", "train")),
            id=str(prompt["uid"] if id is None else id),
            sample=sample,
            question=question,
            ground_truth=truth_text(truth_of(prompt["reward_model"])),
            started_at=time.time() - latency_s,
            latency_s=latency_s,
            join=self._tokens.join,
        )
