"""The verl side of relaying: worker and manager. Thin: the relaying is the decoder's, the row the agent loop's.

A worker runs all samples of one prompt in one coroutine: it builds the prompt once, lets the samples go on side by side
without waiting for each other's teacher, grades each as it ends, and rewards the group when the last one has ended. A
sample that failed leaves no row, and its siblings are rewarded among themselves; a sample that is the only one left of
its group leaves none either. A group that does not end in `relay.rollout_timeout_s` is a failed group.

What the groups did travels to the trainer in the tag of the prompt's key (`relay_verl.trainer.replay_buffer` reads it),
with a number that is the same whenever this prompt comes up in this step: it orders the batch and, where verl's
`full_determinism` is on, seeds each sample.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any
from uuid import uuid4

import ray
import transfer_queue as tq
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap
from verl.trainer.ppo.reward import load_reward_manager
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from relay_verl.config import RelaySettings
from relay_verl.data.truths import truth_of
from relay_verl.engines.deadlines import STATUS_TIMEOUT_S, DeadlineError, run_within
from relay_verl.errors import EngineError, TeacherError
from relay_verl.garbage import collect_seldom
from relay_verl.models.replica_watch import Counts
from relay_verl.models.reservation import nodes_without_teachers
from relay_verl.models.vocabulary import vocabulary_of
from relay_verl.run_config import RunConfig, VerlConfig
from relay_verl.seeds import derive_seed
from relay_verl.trainer.agent_loop import AGENT_NAME, RelayAgentLoop
from relay_verl.trainer.clients import Clients, make_scorer, student_client
from relay_verl.trainer.early_teachers import teachers_of
from relay_verl.trainer.group_rows import Sample, fields_of, row_of
from relay_verl.trainer.metrics import SampleStats, drop_sole_survivor, drop_unscored
from relay_verl.trainer.replica_metrics import start_watch
from relay_verl.trainer.sample_log import SampleLog
from relay_verl.types import RelayTrajectory

logger = logging.getLogger(__name__)


class RelayAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's worker, with the teacher at hand and rewards by group.

    `teacher_client` carries our `Clients`, verl's own of its distillation among them.
    """

    def __init__(
        self,
        config: VerlConfig,
        llm_client: Any,
        teacher_client: Clients | None = None,
        reward_loop_worker_handles: Any = None,
    ):
        self._clients = clients = teacher_client or Clients()
        super().__init__(config, llm_client, clients.scoring, reward_loop_worker_handles)
        run = RunConfig(config)
        self.settings = run.relay
        vocabulary = vocabulary_of(self.model_config.hf_config, self.model_config.generation_config, self.tokenizer)
        self.reward_manager = load_reward_manager(config, self.tokenizer)
        self.agent_loop = RelayAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=clients.student or llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(config.data),
            hf_model_type=self.hf_model_type,
            teachers=clients.teachers,
            vocabulary=vocabulary,
        )
        self.scorer = make_scorer(run, clients, self.tokenizer, vocabulary)
        self.sample_log = SampleLog.of(run, self.tokenizer)
        collect_seldom()

    async def replica_counts(self) -> Counts:
        """What became of this worker's requests, by model and replica."""
        return {model: client.counts() for model, client in self._clients.by_model().items()}

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        """Sample, grade and reward one prompt's group and hand its rows to the trainer."""
        # A dataset may mix agents; others have no group rewards and are left to verl.
        if prompt.get("agent_name") != AGENT_NAME:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
            return
        uid, validate = prompt["uid"], trajectory["validate"]
        partition_id = "val" if validate else "train"
        tag: dict[str, Any] = {"status": "failure", "relay_needs_teacher": self.settings.needs_teacher}
        try:
            await _put_status(uid, partition_id, {"status": "running"})
            number = self._number(prompt)
            # Only the sampling may be cut off: a deadline amid the writing would leave rows without their stats.
            samples = await run_within(
                self.settings.rollout_timeout_s, self._sample_group(prompt, number, sampling_params, validate)
            )
            stats, num_rows = await self._finish_group(prompt, number, samples, validate)
            # verl's synchronous trainer takes what is left of a failed group, the asynchronous ones throw it away
            is_whole = num_rows == len(stats) or (num_rows > 0 and self.config.trainer.v1.trainer_mode != "sync")
            tag["status"] = "finished" if is_whole else "failure"
            tag |= {"relay": [sample.to_dict() for sample in stats], "relay_number": number}
        # Each failure becomes a tag: the trainer counts it, and only a fatal one ends the run.
        except TeacherError as error:
            tag["relay_fatal"] = str(error)
        except DeadlineError as error:
            logger.error("relay.rollout_timeout_s: the group of prompt %s failed: %s", uid, error)
            tag["relay_failure"] = "timeout"
        except Exception:
            logger.exception("the group of prompt %s failed", uid)
            tag["relay_failure"] = "error"
        await _put_status(uid, partition_id, tag)

    def _number(self, prompt: dict[str, Any]) -> int:
        """The same whenever this prompt comes up in this step of a run with this `rollout.seed`."""
        seed, step = self.config.actor_rollout_ref.rollout.seed, prompt.get("global_steps")
        return derive_seed(seed, step, json.dumps(list(prompt["raw_prompt"]), sort_keys=True, default=str))

    async def _sample_group(
        self, prompt: dict[str, Any], number: int, sampling_params: dict[str, Any], validate: bool
    ) -> list[Sample]:
        """All samples of one prompt, ended; if one raises, the others are cancelled.

        Raises:
            TeacherError: a sample's, before any other error.
        """
        rollout = self.config.actor_rollout_ref.rollout
        # verl may ask for another number or for greedy samples per prompt, such as for a baseline of its own.
        num_samples = prompt.get("__rollout_n__", rollout.val_kwargs.n if validate else rollout.n)
        sampling = dict(sampling_params)
        if not validate and not prompt.get("__do_sample__", True):
            sampling |= {"temperature": 0, "top_p": 1.0, "top_k": -1}
        prompt_ids = await self.agent_loop.build_prompt(prompt["raw_prompt"])
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._run_sample(prompt_ids, sampling, prompt, derive_seed(number, session_id), validate)
                    )
                    for session_id in range(num_samples)
                ]
        except ExceptionGroup as errors:
            raise (errors.subgroup(TeacherError) or errors).exceptions[0] from None
        if any(task.cancelled() for task in tasks):  # its CancelledError would end this prompt without a status
            raise RuntimeError("a sample was cancelled")
        return [task.result() for task in tasks]

    async def _finish_group(
        self, prompt: dict[str, Any], number: int, samples: list[Sample], validate: bool
    ) -> tuple[list[SampleStats], int]:
        """Reward a group and hand its rows to the trainer; gives the stats of each sample and the number of rows."""
        # A sample alone in its group has no baseline to be compared with; in validation each counts for itself.
        stats = [sample.stats for sample in samples]
        if not validate:
            stats = drop_sole_survivor(stats)
        samples = [replace(sample, stats=its_stats) for sample, its_stats in zip(samples, stats, strict=True)]
        whole = [sample for sample in samples if sample.stats.is_whole]
        rewards = self._rewards(whole, validate)
        await self._put_rows(whole, rewards, fields_of(prompt), "val" if validate else "train")
        if not validate:
            timed = [(s.trajectory, s.verdict, s.output.metrics.generate_sequences) for s in whole]
            await self.sample_log.write(number, prompt, timed)
        # Samples without a row keep their place in the stats, with no reward: metrics count all of the group.
        reward_of = {id(sample): reward for sample, reward in zip(whole, rewards, strict=True)}
        return [replace(sample.stats, reward=reward_of.get(id(sample), 0.0)) for sample in samples], len(whole)

    async def _run_sample(
        self, prompt_ids: list[int], sampling: dict[str, Any], prompt: dict[str, Any], seed: int, validate: bool
    ) -> Sample:
        trajectory, output = await self.agent_loop.relay(
            prompt_ids,
            sampling,
            messages=prompt["raw_prompt"],
            data_source=prompt.get("data_source"),
            seed=seed,
        )
        verdict = await self.reward_manager.grade(
            output.response_ids, truth_of(prompt["reward_model"]), prompt.get("ability")
        )
        grading, prices = str(verdict.status), self.settings.prices.price_list()
        stats = SampleStats.of(trajectory, is_correct=verdict.is_correct, grading=grading, prices=prices)
        if not validate:
            stats = await self._score(trajectory, output, stats)
        return Sample(trajectory, output, verdict, stats)

    async def _score(self, trajectory: RelayTrajectory, output: AgentLoopOutput, stats: SampleStats) -> SampleStats:
        """Where the run distils, let the teacher score the student's tokens, for the row that `output` becomes; gives
        the sample's stats.

        Raises:
            TeacherError: it failed and `relay.on_teacher_failure` is 'fail'.
        """
        if self.scorer is None or not trajectory.is_whole:
            return stats
        try:
            scores = await self.scorer.score(trajectory)
        except EngineError as error:
            if self.settings.on_teacher_failure == "fail":
                raise TeacherError(f"teacher: {error}") from error
            return drop_unscored(stats, error)
        output.extra_fields |= {"teacher_ids": scores.ids, "teacher_logprobs": scores.logprobs}  # verl's names
        return replace(stats, num_scored=scores.num_scored, num_read=scores.num_read, score_s=scores.latency_s)

    def _rewards(self, samples: list[Sample], validate: bool) -> list[float]:
        if validate:
            return [float(sample.verdict.is_correct) for sample in samples]
        return self.reward_manager.score_group([sample.stats for sample in samples])

    async def _put_rows(
        self, samples: list[Sample], rewards: list[float], fields: dict[str, Any], partition_id: str
    ) -> None:
        """The group's rows, in verl's form, in one call: a call a row costs as much as writing the response did."""
        each = zip(samples, rewards, strict=True)
        rows = [row_of(sample, reward, fields, session_id) for session_id, (sample, reward) in enumerate(each)]
        if rows:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                await tq.async_kv_batch_put(
                    keys=[row.key for row in rows],
                    fields=list_of_dict_to_tensordict([row.fields for row in rows]),
                    tags=[row.tag for row in rows],
                    partition_id=partition_id,
                )


async def _put_status(uid: str, partition_id: str, tag: dict[str, Any]) -> None:
    """What became of a prompt, for the trainer; whose own deadline is `relay_verl.trainer.replay_buffer`'s."""
    async with asyncio.timeout(STATUS_TIMEOUT_S):
        await tq.async_kv_put(key=uid, partition_id=partition_id, tag=tag)


class RelayAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, which starts the teachers before its workers and hands them to these.

    A recipe names it in `actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
    """

    teacher_client: Any
    """verl's own clients of its distillation's teacher, and then our `Clients`."""
    agent_loop_workers: list[Any]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(RelayAgentLoopWorker)
        self.teacher_groups: dict[str, Any] = {}

    async def _init_agent_loop_workers(self) -> None:
        run = RunConfig(self.config)
        scoring = self.teacher_client  # verl's, of the teacher that it started for its distillation
        self.teacher_groups = await teachers_of(run, scoring)
        teachers = {label: group.engine for label, group in self.teacher_groups.items()}
        self.teacher_client = Clients(await student_client(self.llm_client, run), teachers, scoring)
        await self._start_workers(run.relay)
        await start_watch(self.teacher_client, self.llm_client, self.agent_loop_workers, self.teacher_groups)

    async def _start_workers(self, settings: RelaySettings) -> None:
        # Without nodes of their own for teachers verl's placement is right as it is.
        nodes = nodes_without_teachers(settings)
        if nodes is None:
            await super()._init_agent_loop_workers()
            return
        strategies = [NodeAffinitySchedulingStrategy(node_id=node_id, soft=False) for node_id in nodes]
        self.agent_loop_workers = [  # as verl does it, but not on the teacher's nodes, whose death they shall survive
            self.agent_loop_workers_class.options(
                name=f"agent_loop_worker_{index}_{uuid4().hex[:8]}",
                scheduling_strategy=strategies[index % len(strategies)],
            ).remote(self.config, self.llm_client, self.teacher_client, self.reward_loop_worker_handles)
            for index in range(self.rollout_config.agent.num_workers)
        ]
