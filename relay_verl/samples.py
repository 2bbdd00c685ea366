"""Responses of the training, kept to be read: `relay-verl trace CHECKPOINTS/samples`.

A group is chosen by its number, so that every worker decides alone; each becomes one file of records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from relay_verl.config import RelaySettings
from relay_verl.data.prompts import strip_wrapper
from relay_verl.data.truths import truth_of, truth_text
from relay_verl.evaluation.records import ResponseRecord, write_records
from relay_verl.grading import Verdict
from relay_verl.tokenization import TokenBytes
from relay_verl.types import RelayTrajectory

logger = logging.getLogger(__name__)

RESOLUTION = 2**31
"""A group's number is below this (`relay_verl.data.seeds`)."""


@dataclass(frozen=True)
class SampleLog:
    """Where samples go and how many."""

    folder: Path
    """`samples` beside the checkpoints."""
    share: float
    """Share of the groups that are written."""
    tokenizer: Any
    """Decodes them."""

    @cached_property
    def _tokens(self) -> TokenBytes:
        return TokenBytes(self.tokenizer)

    @classmethod
    def of(cls, config: Any, settings: RelaySettings, tokenizer: Any) -> SampleLog:
        """The log of a run."""
        folder = Path(config.trainer.default_local_dir).expanduser().absolute() / "samples"
        return cls(folder, settings.num_logged_groups / config.data.train_batch_size, tokenizer)

    async def write(
        self, number: int, prompt: dict[str, Any], samples: Sequence[tuple[RelayTrajectory, Verdict, float]]
    ) -> None:
        """Write a group's samples, each with the seconds it took, if the group's number is among the chosen ones.
        A folder that cannot be written is a warning."""
        if number >= self.share * RESOLUTION or not samples:
            return
        step = int(prompt["global_steps"])
        path = self.folder / f"step_{step:06d}_{number:08x}.jsonl"
        records = [self._record(step, prompt, index, *sample) for index, sample in enumerate(samples)]
        try:
            await asyncio.to_thread(write_records, path, records)
        except OSError as error:  # what is kept to be read must not cost a group of the training
            logger.warning("%s could not be written: %s", path, error.strerror or error)

    def _record(
        self,
        step: int,
        prompt: dict[str, Any],
        sample: int,
        trajectory: RelayTrajectory,
        verdict: Verdict,
        latency_s: float,
    ) -> ResponseRecord:
        question = strip_wrapper(list(prompt["raw_prompt"])[-1]["content"])
        return ResponseRecord.of(
            trajectory,
            verdict,
            condition=f"step {step}",
            benchmark=str(prompt.get("data_source", "train")),
            id=str((prompt.get("extra_info") or {}).get("id", prompt["uid"])),
            sample=sample,
            question=question,
            ground_truth=truth_text(truth_of(prompt["reward_model"])),
            started_at=time.time() - latency_s,
            latency_s=latency_s,
            join=self._tokens.join,
        )
