"""verl's reward manager `relay`: grades answers and rewards whole groups (paper 3.2.3).

`score_group` sees all samples of one query at once, so a reward never depends on the rest of the batch. `run_single` is
what verl's stock workers call, one sample at a time: it gives 1[correct], the reward of plain GRPO and of validation.

It stands apart from `rewards.py`, whose functions import without verl.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from relay_verl.config import RewardSettings
from relay_verl.data.truths import Truth, truth_of
from relay_verl.grading import Grader, Verdict, kind_of
from relay_verl.rewards import Sample, rewards_of
from relay_verl.run_config import RunConfig, VerlConfig


@register("relay")
class RelayRewardManager(RewardManagerBase):
    """Rewards of relayed groups; see the module."""

    def __init__(self, config: VerlConfig, tokenizer: Any, compute_score: Any = None, **kwargs: Any):
        super().__init__(config, tokenizer, compute_score)
        self.settings: RewardSettings = RunConfig(config).relay.reward
        self.grader = Grader()

    async def grade(self, response_ids: list[int], ground_truth: Truth, ability: str | None = None) -> Verdict:
        """Whether a response answers right; `ability` is one of `relay_verl.grading.KINDS`, and all else is math."""
        response = self.tokenizer.decode(response_ids, skip_special_tokens=True)
        return await self.grader.grade_async(response, ground_truth, kind_of(ability))

    def score_group(self, samples: Sequence[Sample]) -> list[float]:
        """Rewards of all completed samples of one query, [group]."""
        return rewards_of(samples, self.settings)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """1[correct] of one sample, in verl's form.

        Raises:
            UnusableTruthError: the row has no answer, so that any reward would be invented. In local files such rows
                are found before a training starts.
        """
        item = data[-1]  # of a multi-sequence output the last sequence counts
        ids = item.batch["responses"]
        num_prompt_tokens = item.batch["prompts"].shape[-1]
        num_valid = int(item.batch["attention_mask"][num_prompt_tokens:].sum())
        fields = item.non_tensor_batch
        verdict = await self.grade(ids[:num_valid].tolist(), truth_of(fields["reward_model"]), fields.get("ability"))
        score = float(verdict.is_correct)
        return {"reward_score": score, "reward_extra_info": {"acc": score}}
