"""verl's replay buffer with relay metrics, a short poll and a deadline.

A recipe names it in `trainer.v1.sampler.custom_sampler`; it is for `trainer.v1.trainer_mode=sync`, and
`relay_verl.trainer.async_replay_buffer` for verl's other modes. `sampler_kwargs`:
`poll_interval_s` (seconds between looks at the queue; verl's own 2 s is most of a short step), `timeout_s` (seconds a
group may take, after which its worker gives it up), `grace_s` (seconds more after which the run ends with an error if
no group has ended), `reward` (the recipe's `relay.reward`) and `max_failed_call_share` (the recipe's;
`relay_verl.trainer.teacher_watch`).

Invariants: a batch's rows stand in an order that does not depend on which sample ended first; a hung group is a failed
group, and only a worker that ends none of its groups ends the run.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils import tensordict_utils as tu

from relay_verl.config import RelaySettings, RewardSettings
from relay_verl.engines.deadlines import GRACE_S
from relay_verl.errors import TeacherError
from relay_verl.rewards import rewards_of
from relay_verl.trainer.metrics import SampleStats, relay_metrics
from relay_verl.trainer.replica_metrics import take_replica_metrics
from relay_verl.trainer.teacher_watch import HOW_TO_CONTINUE, TeacherWatch
from relay_verl.types import RelayStatus


class RolloutTimeoutError(RuntimeError):
    """No group ended for longer than a group may take."""


class NoSampleError(RuntimeError):
    """Not one sample of a batch can be used."""


class RelayReplayBuffer(ReplayBuffer):
    """For `trainer.v1.trainer_mode=sync`."""

    def __init__(self, *args: Any, sampler_kwargs: Any, **kwargs: Any):
        options = dict(sampler_kwargs or {})
        poll_interval_s = options.get("poll_interval_s", 0.05)
        super().__init__(*args, sampler_kwargs=sampler_kwargs, poll_interval=poll_interval_s, **kwargs)
        self._timeout_s = float(options.get("timeout_s", 7200.0))
        self._grace_s = float(options.get("grace_s", GRACE_S))
        self._reward = RewardSettings(**(options.get("reward") or {}))
        self._watch = TeacherWatch(float(options.get("max_failed_call_share", RelaySettings.max_failed_call_share)))
        self._deadline = float("inf")
        self._ended: set[str] = set()
        self._groups: list[list[SampleStats]] = []
        self._failures: Counter[str] = Counter()
        self._needs_teacher = False
        self._sampled_partitions: set[str] = set()
        self.end_reason: str | None = None
        """Why the run must end behind this step (`relay_verl.trainer.teacher_watch`)."""
        self.last_metrics: dict[str, float] = {}
        """Metrics of the training groups sampled last."""

    def sample(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """verl's `sample`, whose metrics also hold those of the sampled training groups.

        Raises:
            RolloutTimeoutError: no group ended for longer than a group may take.
            NoSampleError: all groups ended, and not one sample of them can be used.
            TeacherError: a call failed, and `relay.on_teacher_failure` is 'fail'; or too many calls failed where there
                is not a step to end behind.
        """
        self._start_waiting()
        self._groups, self._failures = [], Counter()
        batch, metrics = super().sample(*args, **kwargs)
        self._count_calls(batch.partition_id, kwargs.get("global_steps"))
        self._warn_if_silent(batch.partition_id)
        if batch.partition_id == "val":  # verl logs none of these in validation
            return batch, metrics
        self.last_metrics = relay_metrics(self._groups) if self._groups else {}
        self.last_metrics |= {f"relay/groups/{why}": float(self._failures[why]) for why in ("timeout", "error")}
        self.last_metrics |= take_replica_metrics()
        return batch, {**metrics, **self.last_metrics}

    def _start_waiting(self) -> None:
        self._ended = set()
        self._deadline = time.monotonic() + self._timeout_s + self._grace_s

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        ended = self.finished_keys[partition_id] | self.failure_keys[partition_id]
        # Each group has its own deadline in its worker, so whoever waits has to wait as long as groups end.
        if ended - self._ended:
            self._start_waiting()
        self._ended |= ended
        if time.monotonic() > self._deadline:
            raise RolloutTimeoutError(
                f"relay.rollout_timeout_s={self._timeout_s:g}: no group ended within "
                f"{self._timeout_s + self._grace_s:g} s, though each is given up after {self._timeout_s:g} s: a "
                f"rollout worker is dead or blocked; still running: {len(self.running_keys[partition_id])} groups, "
                f"not started: {len(self.pending_keys[partition_id])}"
            )
        return super()._wait_for_next_poll(partition_id, last_debug_time)

    def _select_prompt_uids(self, partition_id: str, *args: Any, **kwargs: Any) -> Any:
        """verl's; an error that says why there is nothing to select comes before verl's own."""
        selection = super()._select_prompt_uids(partition_id, *args, **kwargs)
        uids, rows = selection[:2]
        tags = tags_of(partition_id)
        check_fatal(tags, uids)
        if uids and not {key.split("_")[0] for key in rows} & set(uids):
            raise NoSampleError(explain_no_sample(partition_id, [tags.get(uid, {}) for uid in uids]))
        return selection

    def _materialize_batch(self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: Any) -> Any:
        tags = tags_of(partition_id)
        uids = sorted(selected_prompt_uids, key=lambda uid: tags.get(uid, {}).get("relay_number", 0))
        groups: dict[str, list[SampleStats]] = {}
        for uid in uids:
            tag = tags.get(uid, {})
            self._needs_teacher |= tag.get("relay_needs_teacher", False)
            if tag.get("relay"):
                groups[uid] = stats_of(tag)
            elif "relay_failure" in tag:
                self._failures[tag["relay_failure"]] += 1
        place = {uid: index for index, uid in enumerate(uids)}
        rows = [key for key in partition_snapshot if key.split("_")[0] in place]
        rows.sort(key=lambda key: (place[key.split("_")[0]], *map(int, key.split("_")[1:])))
        ordered = {key: partition_snapshot[key] for key in rows}
        batch = super()._materialize_batch(partition_id, uids, ordered)
        if self._reward.scenario_scope == "batch" and partition_id == "train":
            groups = _reward_whole_batch(groups, self._reward, partition_id)
        self._groups = list(groups.values())
        return batch

    def _count_calls(self, partition_id: str, step: int | None) -> None:
        """Warn of failed calls, and end the run if they are too many: behind this step, which can be saved, or at once
        if none has begun."""
        is_val = partition_id == "val"
        self._watch.count(sample for group in self._groups for sample in group)
        self._watch.warn(f"validation at step {step}" if is_val else f"step {step}")
        too_many = self._watch.decide()
        if too_many is None:
            return
        if not is_val:
            self.end_reason = too_many.explain()
        elif "train" not in self._sampled_partitions:
            raise TeacherError(f"{too_many.explain()}; no step was begun; {HOW_TO_CONTINUE}")

    def _warn_if_silent(self, partition_id: str) -> None:
        """Warn if the run's first validation, or its first batch, has no response that called: a student that was not
        warmed up trains for days without a teacher and without an error."""
        samples = [sample for group in self._groups for sample in group]
        is_first = partition_id not in self._sampled_partitions
        self._sampled_partitions.add(partition_id)
        if is_first and self._needs_teacher and samples and not any(sample.called for sample in samples):
            what = "the first validation" if partition_id == "val" else "the first training batch"
            hint = (
                " (greedy responses may not call yet; the first training batch tells)" if partition_id == "val" else ""
            )
            print(
                f"relay_verl: warning: none of the {len(samples)} responses of {what} called the teacher{hint}; check "
                "that actor_rollout_ref.model.path (RELAY_STUDENT) is the student that the warm-up left, and that "
                "data.apply_chat_template_kwargs and the prompts are those of the warm-up",
                file=sys.stderr,
                flush=True,
            )


def tags_of(partition_id: str) -> Mapping[str, Mapping[str, Any]]:
    """All tags of a partition, prompts' and rows', by key."""
    return (tq.kv_list(partition_id) or {}).get(partition_id, {})


def stats_of(tag: Mapping[str, Any]) -> list[SampleStats]:
    """The samples of a group, by the tag that its worker left."""
    return [SampleStats(**sample) for sample in tag.get("relay") or ()]


def check_fatal(tags: Mapping[str, Mapping[str, Any]], uids: Collection[str]) -> None:
    """Raise TeacherError if one of the groups failed in a way that ends the run."""
    for uid in uids:
        if "relay_fatal" in (tag := tags.get(uid, {})):
            raise TeacherError(f"relay.on_teacher_failure=fail: {tag['relay_fatal']}")


def explain_no_sample(partition_id: str, tags: Collection[Mapping[str, Any]]) -> str:
    """Why a batch has no row, in numbers."""
    reasons = Counter(f"group {tag['relay_failure']}" for tag in tags if "relay_failure" in tag)
    for tag in tags:
        for sample in stats_of(tag):
            is_empty = sample.status == RelayStatus.COMPLETED and not sample.num_tokens
            status = "empty response" if is_empty else sample.status
            reasons["only survivor of its group" if sample.is_sole_survivor else status] += 1
    counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items())) or "no reason is known"
    causes = [sample.get("failure") for tag in tags for sample in tag.get("relay") or ()]
    cause = next((f"; the latest failed call: {cause}" for cause in reversed(causes) if cause), "")
    return (
        f"no sample of the {len(tags)} groups of a {partition_id} batch can be used ({counts}){cause}; the rollout "
        "workers' logs say more"
    )


def _reward_whole_batch(
    groups: dict[str, list[SampleStats]], settings: RewardSettings, partition_id: str
) -> dict[str, list[SampleStats]]:
    """Write the rewards of scenarios that the whole batch decides over those that each query decided; gives one group
    of all samples, for the metrics."""
    keys, samples, lost = [], [], []
    for uid, group in groups.items():
        whole = [sample for sample in group if sample.is_whole]
        keys += [f"{uid}_{session_id}_0" for session_id in range(len(whole))]
        samples += whole
        lost += [sample for sample in group if not sample.is_whole]
    rewards = rewards_of(samples, settings)
    if keys:
        scores = [torch.zeros(sample.num_tokens) for sample in samples]  # each [response_length]
        for score, reward in zip(scores, rewards, strict=True):
            score[-1] = reward
        rm_scores = torch.nested.as_nested_tensor(scores, layout=torch.jagged)
        tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=tu.get_tensordict({"rm_scores": rm_scores}))
    return {"batch": [replace(s, reward=r) for s, r in zip(samples, rewards, strict=True)] + lost}
