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
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import ray
import torch
import transfer_queue as tq
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap
from verl.trainer.ppo.reward import load_reward_manager
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from relay_verl.config import RelaySettings
from relay_verl.data.truths import truth_of
from relay_verl.engines.deadlines import STATUS_TIMEOUT_S, DeadlineError, run_within
from relay_verl.errors import TeacherError
from relay_verl.garbage import collect_seldom
from relay_verl.grading import Verdict
from relay_verl.models.replica_watch import Counts
from relay_verl.models.reservation import nodes_without_teachers
from relay_verl.models.vocabulary import vocabulary_of
from relay_verl.run_config import RunConfig, VerlConfig
from relay_verl.seeds import derive_seed
from relay_verl.trainer.agent_loop import AGENT_NAME, RelayAgentLoop
from relay_verl.trainer.clients import Clients, student_client
from relay_verl.trainer.early_teachers import teachers_of
from relay_verl.trainer.metrics import SampleStats, drop_sole_survivor
from relay_verl.trainer.replica_metrics import start_watch
from relay_verl.trainer.sample_log import SampleLog
from relay_verl.types import RelayTrajectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sample:
    """One ended sample of a group."""

    trajectory: RelayTrajectory
    output: AgentLoopOutput
    verdict: Verdict
    stats: SampleStats
    """What metrics and rewards know of it."""


class RelayAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's worker, with the teacher at hand and rewards by group.

    `teacher_client`, which verl fills for distillation only, carries our `Clients`.
    """

    def __init__(
        self,
        config: VerlConfig,
        llm_client: Any,
        teacher_client: Clients | None = None,
        reward_loop_worker_handles: Any = None,
    ):
        super().__init__(config, llm_client, None, reward_loop_worker_handles)
        run = RunConfig(config)
        self.settings = run.relay
        self._clients = clients = teacher_client or Clients()
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
            vocabulary=vocabulary_of(self.model_config.hf_config, self.model_config.generation_config, self.tokenizer),
        )
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
    ) -> list[_Sample]:
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
                    group.create_task(self._run_sample(prompt_ids, sampling, prompt, derive_seed(number, session_id)))
                    for session_id in range(num_samples)
                ]
        except ExceptionGroup as errors:
            raise (errors.subgroup(TeacherError) or errors).exceptions[0] from None
        if any(task.cancelled() for task in tasks):  # its CancelledError would end this prompt without a status
            raise RuntimeError("a sample was cancelled")
        return [task.result() for task in tasks]

    async def _finish_group(
        self, prompt: dict[str, Any], number: int, samples: list[_Sample], validate: bool
    ) -> tuple[list[SampleStats], int]:
        """Reward a group and hand its rows to the trainer; gives the stats of each sample and the number of rows."""
        # A sample alone in its group has no baseline to be compared with; in validation each counts for itself.
        stats = [sample.stats for sample in samples]
        if not validate:
            stats = drop_sole_survivor(stats)
        samples = [replace(sample, stats=its_stats) for sample, its_stats in zip(samples, stats, strict=True)]
        whole = [sample for sample in samples if sample.stats.is_whole]
        rewards = self._rewards(whole, validate)
        await self._put_rows(whole, rewards, _fields_of(prompt), "val" if validate else "train")
        if not validate:
            timed = [(s.trajectory, s.verdict, s.output.metrics.generate_sequences) for s in whole]
            await self.sample_log.write(number, prompt, timed)
        # Samples without a row keep their place in the stats, with no reward: metrics count all of the group.
        reward_of = {id(sample): reward for sample, reward in zip(whole, rewards, strict=True)}
        return [replace(sample.stats, reward=reward_of.get(id(sample), 0.0)) for sample in samples], len(whole)

    async def _run_sample(
        self, prompt_ids: list[int], sampling: dict[str, Any], prompt: dict[str, Any], seed: int
    ) -> _Sample:
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
        return _Sample(trajectory, output, verdict, stats)

    def _rewards(self, samples: list[_Sample], validate: bool) -> list[float]:
        if validate:
            return [float(sample.verdict.is_correct) for sample in samples]
        return self.reward_manager.score_group([sample.stats for sample in samples])

    async def _put_rows(
        self, samples: list[_Sample], rewards: list[float], fields: dict[str, Any], partition_id: str
    ) -> None:
        """The group's rows, in verl's form, in one call: a call a row costs as much as writing the response did."""
        keys, rows, tags = [], [], []
        for session_id, (sample, reward) in enumerate(zip(samples, rewards, strict=True)):
            sample.output.reward_score = reward
            sample.output.extra_fields["reward_extra_info"] = _reward_extra_info(sample)
            row = sample.output.as_dict() | fields | {"session_id": session_id, "multi_modal_inputs": {}}
            # verl's trainer reads the mask under both names.
            row["loss_mask"] = row["response_mask"]
            row["input_ids"] = torch.cat([row["prompts"], row["responses"]])  # [prompt_length + response_length]
            row["position_ids"] = torch.arange(len(row["input_ids"]))
            # verl's form of a key: prompt, sample, number of the sample's row; here a sample has one row.
            keys.append(f"{fields['uid']}_{session_id}_0")
            rows.append(row)
            tags.append(
                {
                    "status": "success",
                    "prompt_len": len(row["prompts"]),
                    "response_len": len(row["responses"]),
                    "seq_len": len(row["input_ids"]),
                    "global_steps": fields["global_steps"],
                    "min_global_steps": row["extra_fields"]["min_global_steps"],
                    "max_global_steps": row["extra_fields"]["max_global_steps"],
                }
            )
        if keys:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                await tq.async_kv_batch_put(
                    keys=keys, fields=list_of_dict_to_tensordict(rows), tags=tags, partition_id=partition_id
                )


def _fields_of(prompt: dict[str, Any]) -> dict[str, Any]:
    """The dataset's columns of a prompt, which its rows keep."""
    return {key: value for key, value in prompt.items() if key not in ("agent_name", "__do_sample__", "__rollout_n__")}


async def _put_status(uid: str, partition_id: str, tag: dict[str, Any]) -> None:
    """What became of a prompt, for the trainer; whose own deadline is `relay_verl.trainer.replay_buffer`'s."""
    async with asyncio.timeout(STATUS_TIMEOUT_S):
        await tq.async_kv_put(key=uid, partition_id=partition_id, tag=tag)


def _reward_extra_info(sample: _Sample) -> dict[str, float]:
    """What verl's validation averages a sample by."""
    trajectory = sample.trajectory
    return {
        "acc": float(sample.verdict.is_correct),
        "call_rate": float(trajectory.has_called),
        "call_ratio": trajectory.call_ratio,
        "num_calls": float(trajectory.num_calls),
        "requested_tokens": float(trajectory.num_requested_tokens),
        "delivered_tokens": float(trajectory.num_teacher_tokens),
        "malformed_calls": float(trajectory.num_malformed_calls),
        "failed_calls": float(trajectory.num_failed_calls),
    }


class RelayAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, which starts the teachers before its workers and hands them to these.

    A recipe names it in `actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(RelayAgentLoopWorker)
        self.teacher_groups: dict[str, Any] = {}

    async def _init_agent_loop_workers(self) -> None:
        run = RunConfig(self.config)
        if run.relay.needs_teacher:
            self.teacher_groups = await teachers_of(run)
        teachers = {label: group.engine for label, group in self.teacher_groups.items()}
        self.teacher_client = Clients(await student_client(self.llm_client, run), teachers)
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
