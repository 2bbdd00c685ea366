"""verl's agent loop around the decoder: a chat in, a row of tokens and masks out. Thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from relay_verl.config import TeacherSettings
from relay_verl.decoder import RelayDecoder
from relay_verl.engines.base import TokenEngine, open_engine
from relay_verl.engines.text_bridge import TextBridge
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.messages import plain_messages
from relay_verl.models.launch import load_tokenizer
from relay_verl.models.routing import pick_teacher
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.policies import make_policy
from relay_verl.policy_base import Policy
from relay_verl.run_config import RunConfig
from relay_verl.seeds import derive_seed, sample_seed
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
        self._prompts = run.prompts
        self.vocabulary = vocabulary or read_vocabulary(run.student_path, self.tokenizer, run.prompts)
        self.student = VerlServerEngine(
            self.server_manager, self.tokenizer, tracks_versions=True, end_ids=self.vocabulary.end_ids
        )
        self._teachers = list(self.settings.active_teachers.values())
        # A policy that never calls gets no teacher, so that its commands stay text even if a teacher is running.
        engines = teachers if self.settings.needs_teacher else {}
        # one a teacher: its deadline and its name are the decoder's, its sampling may differ from response to response
        self._decoders = {
            teacher.label: self._make_decoder(teacher, engines.get(teacher.label)) for teacher in self._teachers
        }
        # A teacher that reads text, for its tokenizer or as a chat API, is opened by each response with its own chat.
        template = dict(self.apply_chat_template_kwargs)
        self._readers: dict[str, TokenEngine | TextBridge] = {
            teacher.label: self._make_bridge(teacher, engines[teacher.label], template)
            if teacher.own_tokenizer
            else engines[teacher.label]
            for teacher in self._teachers
            if teacher.label in engines
        }

    def _make_bridge(self, teacher: TeacherSettings, engine: TokenEngine, template: Mapping[str, Any]) -> TextBridge:
        theirs = load_tokenizer(teacher, self.tokenizer, self._prompts)
        address = teacher.path or teacher.own_tokenizer
        ends = read_vocabulary(address, theirs, self._prompts).end_ids
        return TextBridge(engine, theirs, self.tokenizer, template, ends)

    def _make_decoder(self, teacher: TeacherSettings, engine: TokenEngine | None) -> RelayDecoder:
        limits = self.settings.decoder_config(
            self.rollout_config.response_length,
            greedy=False,
            vocab_size=self.vocabulary.size,
            teacher=teacher,
            end_ids=self.vocabulary.end_ids,
        )
        return RelayDecoder(self.student, engine, self.tokenizer, limits)

    def _policy_of(self, seed: int) -> Policy:
        """The policy of one response: a policy that draws has a seed of its own for each."""
        if self.policy.is_stateless:
            return self.policy
        return make_policy(self.settings.policy, derive_seed(seed, "policy"))

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
        # One name for all turns: verl keeps it on one replica, whose prefix cache holds what was written so far.
        request_id = uuid4().hex
        drawn = pick_teacher(self._teachers, data_source, seed) if self.settings.needs_teacher else self._teachers[0]
        reader = self._readers.get(drawn.label)
        # greedy validation makes the teacher greedy, too: its figures depend on no draw
        own_sampling = drawn.sampling(greedy=sampling.get("temperature") == 0)
        # vLLM keeps a random generator for each seeded request, so only a deterministic run pays for seeds.
        sampling_seed = seed if self.rollout_config.full_determinism else None
        started = self.loop.time()
        try:
            trajectory = await self._decoders[drawn.label].run(
                prompt_ids,
                sampling=sampling | sample_seed(sampling_seed, "student"),
                teacher_sampling=own_sampling | sample_seed(sampling_seed, "teacher"),
                policy=self._policy_of(seed),
                request_id=request_id,
                teacher=None if reader is None else open_engine(reader, messages, len(prompt_ids)),
            )
        finally:
            # In a `finally`: the engine remembers versions until asked, and a failed response must not leak them.
            first_version, last_version = self.student.pop_weight_versions(request_id)
        # The row: ids as the engines saw them, and a mask that says which of them are the policy's own samples.
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
            RolloutError: the trajectory is not completed, or it is empty.
        """
        messages = kwargs["raw_prompt"]
        prompt_ids = await self.build_prompt(messages)
        trajectory, output = await self.relay(
            prompt_ids, sampling_params, messages=messages, data_source=kwargs.get("data_source")
        )
        if trajectory.status is not RelayStatus.COMPLETED:
            raise RolloutError(f"{trajectory.status}: {trajectory.error}")
        if not trajectory.is_whole:
            raise RolloutError("the response is empty: it has no token to train on")
        return output
