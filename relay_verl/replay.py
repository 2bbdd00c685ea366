"""verl's replay buffer with relay metrics, a short poll and a deadline.

A recipe names one of these in `trainer.v1.sampler.custom_sampler`. `sampler_kwargs`: `poll_interval_s` (seconds between
looks at the queue; verl's own 2 s is most of a short step), `timeout_s` (seconds a step's rollout may take before
the run ends with an error instead of waiting for ever) and `reward` (the recipe's `relay.reward`).

Invariant: a batch's rows stand in an order that does not depend on which sample ended first.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync
from verl.utils import tensordict_utils as tu

from relay_verl.config import RewardSettings
from relay_verl.engines.base import TeacherError
from relay_verl.metrics import SampleStats, relay_metrics
from relay_verl.rewards import rewards_of


class RolloutTimeoutError(RuntimeError):
    """A step's rollout took longer than `timeout_s`."""


class _RelaySampling:
    """What both buffers add to verl's; mixed in before its classes."""

    sampler_kwargs: Any

    def __init__(self, *args: Any, sampler_kwargs: Any, **kwargs: Any):
        options = dict(sampler_kwargs or {})
        poll_interval_s = options.get("poll_interval_s", 0.05)
        super().__init__(  # type: ignore[call-arg]
            *args, sampler_kwargs=sampler_kwargs, poll_interval=poll_interval_s, **kwargs
        )
        self._timeout_s = float(options.get("timeout_s", 7200.0))
        self._reward = RewardSettings(**(options.get("reward") or {}))
        self._deadline = float("inf")
        self._groups: list[list[SampleStats]] = []
        self.last_metrics: dict[str, float] = {}
        """`relay_metrics` of the groups sampled last."""

    def sample(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """verl's `sample`, whose metrics also hold `relay_metrics` of the sampled groups.

        Raises:
            RolloutTimeoutError: not enough groups ended within `timeout_s`.
        """
        self._deadline = time.monotonic() + self._timeout_s
        self._groups = []
        batch, metrics = super().sample(*args, **kwargs)  # type: ignore[misc]
        self.last_metrics = relay_metrics(self._groups) if self._groups else {}
        return batch, {**metrics, **self.last_metrics}

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        if time.monotonic() > self._deadline:
            raise RolloutTimeoutError(
                f"trainer.v1.sampler.sampler_kwargs.timeout_s: no full batch within {self._timeout_s:g} s; "
                f"still running: {len(self.running_keys[partition_id])} groups, "  # type: ignore[attr-defined]
                f"not started: {len(self.pending_keys[partition_id])}"  # type: ignore[attr-defined]
            )
        return super()._wait_for_next_poll(partition_id, last_debug_time)  # type: ignore[misc]

    def _materialize_batch(self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: Any) -> Any:
        tags = (tq.kv_list(partition_id) or {}).get(partition_id, {})
        uids = sorted(selected_prompt_uids, key=lambda uid: tags.get(uid, {}).get("relay_number", 0))
        groups: dict[str, list[SampleStats]] = {}
        for uid in uids:
            tag = tags.get(uid, {})
            if "relay_fatal" in tag:
                raise TeacherError(f"relay.on_teacher_failure=fail: {tag['relay_fatal']}")
            if tag.get("relay"):
                groups[uid] = [SampleStats(**sample) for sample in tag["relay"]]
        place = {uid: index for index, uid in enumerate(uids)}
        rows = [key for key in partition_snapshot if key.split("_")[0] in place]
        rows.sort(key=lambda key: (place[key.split("_")[0]], *map(int, key.split("_")[1:])))
        ordered = {key: partition_snapshot[key] for key in rows}
        batch = super()._materialize_batch(partition_id, uids, ordered)  # type: ignore[misc]
        if self._reward.scenario_scope == "batch" and partition_id == "train":
            groups = _reward_whole_batch(groups, self._reward, partition_id)
        self._groups = list(groups.values())
        return batch


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


class RelayReplayBuffer(_RelaySampling, ReplayBuffer):
    """For `trainer.v1.trainer_mode=sync`."""


class RelayReplayBufferAsync(_RelaySampling, ReplayBufferAsync):
    """For verl's asynchronous trainer modes."""
