"""verl's agent loop around the decoder: a chat in, a row of tokens and masks out. Thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from relay_verl.config import TeacherSettings
from relay_verl.decoder import RelayDecoder
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.text_bridge import TextBridge
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.messages import plain_messages
from relay_verl.models.launch import load_tokenizer
from relay_verl.models.routing import pick_teacher
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.policies import make_policy
from relay_verl.run_config import RunConfig
from relay_verl.seeds import sample_seed
from relay_verl.types import RelayStatus, RelayTrajectory

AGENT_NAME = "relay_agent"


class RolloutError(RuntimeError):
    """A trajectory that is not completed and must not be trained on."""


@register(AGENT_NAME)
class RelayAgentLoop(AgentLoopBase):
    """verl's agent loop around the decoder.

    Args:
        teachers: who answers calls, by label; without any every command stays unserved.
        vocabulary: the student's; read from its folder if None.
    """

    def __init__(
        self,
        *args: Any,
        teachers: Mapping[str, TokenEngine] = {},
        vocabulary: Vocabulary | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        run = RunConfig(self.config)
        self.settings = run.relay
        self.policy = make_policy(self.settings.policy)
        self._trusts = run.prompts.trust_remote_code
        self.vocabulary = vocabulary or read_vocabulary(
            run.student_path, self.tokenizer, trust_remote_code=self._trusts
        )
        self.student = VerlServerEngine(
            self.server_manager, self.tokenizer, tracks_versions=True, end_ids=self.vocabulary.end_ids
        )
        self._teachers = list(self.settings.active_teachers.values())
        engines = teachers if self.settings.needs_teacher else {}
        self._decoders = {
            (teacher.label, greedy): self._make_decoder(teacher, engines.get(teacher.label), greedy)
            for teacher in self._teachers
            for greedy in (False, True)
        }
        template = dict(self.apply_chat_template_kwargs)
        self._bridges = {
            teacher.label: self._make_bridge(teacher, engines[teacher.label], template)
            for teacher in self._teachers
            if teacher.own_tokenizer and teacher.label in engines
        }

    def _make_bridge(self, teacher: TeacherSettings, engine: TokenEngine, template: Mapping[str, Any]) -> TextBridge:
        theirs = load_tokenizer(teacher, self.tokenizer, trust_remote_code=self._trusts)
        address = teacher.path or teacher.own_tokenizer
        ends = read_vocabulary(address, theirs, trust_remote_code=self._trusts).end_ids
        return TextBridge(engine, theirs, self.tokenizer, template, ends)

    def _make_decoder(self, teacher: TeacherSettings, engine: TokenEngine | None, greedy: bool) -> RelayDecoder:
        limits = self.settings.decoder_config(
            self.rollout_config.response_length,
            greedy=greedy,
            vocab_size=self.vocabulary.size,
            teacher=teacher,
            end_ids=self.vocabulary.end_ids,
        )
        return RelayDecoder(self.student, engine, self.tokenizer, limits)

    async def build_prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        """The chat template's token ids, [prompt_length]."""
        return await self.ct_build_initial_tokens(plain_messages(messages))

    async def relay(
        self,
        prompt_ids: list[int],
        sampling: dict[str, Any],
        *,
        messages: Sequence[Mapping[str, Any]],
        data_source: str | None = None,
        seed: int = 0,
    ) -> tuple[RelayTrajectory, AgentLoopOutput]:
        """One trajectory, and the same in verl's form.

        Args:
            prompt_ids: the chat by the student's template, [prompt_length].
            sampling: the student's sampling parameters under vLLM's names.
            messages: the chat.
            data_source: of the query; where there are several teachers, it decides who answers.
            seed: of the draw among those and, where verl's `full_determinism` is on, of all that is sampled.

        Raises:
            EngineError: no teacher answers this data source.
        """
        request_id = uuid4().hex
        drawn = pick_teacher(self._teachers, data_source, seed) if self.settings.needs_teacher else self._teachers[0]
        bridge = self._bridges.get(drawn.label)
        decoder = self._decoders[drawn.label, sampling.get("temperature") == 0]
        sampling_seed = seed if self.rollout_config.full_determinism else None
        started = self.loop.time()
        try:
            trajectory = await decoder.run(
                prompt_ids,
                sampling=sampling | sample_seed(sampling_seed, "student"),
                teacher_sampling=sample_seed(sampling_seed, "teacher"),
                policy=self.policy,
                request_id=request_id,
                teacher=bridge.open(messages, len(prompt_ids)) if bridge else None,
            )
        finally:
            first_version, last_version = self.student.pop_weight_versions(request_id)
        response_ids = trajectory.response_ids
        mask = trajectory.sampled_mask if self.settings.train_on_teacher_tokens else trajectory.response_mask
        # The teacher's tokens have no log-probability by the student. Masked, the 0.0 in its place reaches nothing;
        # with a mask of 1 it would be taken for one, so verl is given none (`relay_verl.preflight.wiring` checks this).
        is_known = bool(sampling.get("logprobs")) and not self.settings.train_on_teacher_tokens
        return trajectory, AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            response_mask=mask,
            response_logprobs=trajectory.logprobs if is_known else None,
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
        messages = kwargs["raw_prompt"]
        prompt_ids = await self.build_prompt(messages)
        trajectory, output = await self.relay(
            prompt_ids, sampling_params, messages=messages, data_source=kwargs.get("data_source")
        )
        if trajectory.status is not RelayStatus.COMPLETED:
            raise RolloutError(f"{trajectory.status}: {trajectory.error}")
        return output
