"""verl's agent loop around the decoder: a chat in, a row of tokens and masks out. Thin."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from relay_verl.config import read_settings
from relay_verl.data.seeds import sample_seed
from relay_verl.decoder import RelayDecoder
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.policies import make_policy
from relay_verl.types import RelayStatus, RelayTrajectory

AGENT_NAME = "relay_agent"


class RolloutError(RuntimeError):
    """A trajectory that is not completed and must not be trained on."""


@register(AGENT_NAME)
class RelayAgentLoop(AgentLoopBase):
    """verl's agent loop around the decoder.

    Args:
        teacher: who answers calls; None leaves every command unserved.
    """

    def __init__(self, *args: Any, teacher: TokenEngine | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.settings = read_settings(self.config.get("relay"))
        self.policy = make_policy(self.settings.policy)
        self.student = VerlServerEngine(self.server_manager, self.tokenizer, tracks_versions=True)
        length = self.rollout_config.response_length
        self._decoders = {
            greedy: RelayDecoder(
                self.student,
                teacher if self.settings.needs_teacher else None,
                self.tokenizer,
                self.settings.decoder_config(length, greedy=greedy, vocab_size=len(self.tokenizer)),
            )
            for greedy in (False, True)
        }

    async def build_prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        """The chat template's token ids, [prompt_length]."""
        return await self.ct_build_initial_tokens(list(messages))

    async def relay(
        self, prompt_ids: list[int], sampling: dict[str, Any], *, seed: int | None = None
    ) -> tuple[RelayTrajectory, AgentLoopOutput]:
        """One trajectory, and the same in verl's form; `seed` is that of all its draws, None draws freely."""
        request_id = uuid4().hex
        decoder = self._decoders[sampling.get("temperature") == 0]
        started = self.loop.time()
        try:
            trajectory = await decoder.run(
                prompt_ids,
                sampling=sampling | sample_seed(seed, "student"),
                teacher_sampling=sample_seed(seed, "teacher"),
                policy=self.policy,
                request_id=request_id,
            )
        finally:
            first_version, last_version = self.student.pop_weight_versions(request_id)
        response_ids = trajectory.response_ids
        mask = [1] * len(response_ids) if self.settings.train_on_teacher_tokens else trajectory.response_mask
        return trajectory, AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            response_mask=mask,
            response_logprobs=trajectory.logprobs if sampling.get("logprobs") else None,
            num_turns=1 + len(trajectory.segments),
            metrics=AgentLoopMetrics(generate_sequences=self.loop.time() - started),
            extra_fields={
                "min_global_steps": first_version,
                "max_global_steps": last_version,
                "turn_scores": [],
                "tool_rewards": [],
            },
        )

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """verl's entry point, for workers other than ours.

        Raises:
            RolloutError: the trajectory is not completed.
        """
        prompt_ids = await self.build_prompt(kwargs["raw_prompt"])
        trajectory, output = await self.relay(prompt_ids, sampling_params)
        if trajectory.status is not RelayStatus.COMPLETED:
            raise RolloutError(f"{trajectory.status}: {trajectory.error}")
        return output
