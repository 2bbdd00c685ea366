"""The relay replay buffer for verl's asynchronous trainers, which write responses while they learn from others.

Two things differ from `relay_verl.trainer.replay_buffer`. verl takes out groups that are too old
(`trainer.v1.sampler.max_off_policy_threshold`), and groups without any row, and asks for others in their place; and a
batch is whatever has ended, oldest first, so a run is not the same twice.

Invariant: the calls of a group that was taken out for its failures count like those of others, and a run in which only
groups without a row end does not ask for others for ever.
"""

from __future__ import annotations

from typing import Any

from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync

from relay_verl.trainer.metrics import SampleStats
from relay_verl.trainer.replay_buffer import (
    NoSampleError,
    RelayReplayBuffer,
    check_fatal,
    explain_no_sample,
    stats_of,
    tags_of,
)

MAX_REPLACED = 4
"""Times the batch's size of failed groups that are replaced for one batch."""


class AsyncRelayReplayBuffer(RelayReplayBuffer, ReplayBufferAsync):
    """For `trainer.v1.trainer_mode=colocate_async` and `separate_async`; takes the same `sampler_kwargs`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._replaced: list[list[SampleStats]] = []
        self._most_replaced = 0

    def sample(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """See `RelayReplayBuffer.sample`; `relay/groups/replaced` counts the failed groups that were taken out.

        Raises:
            NoSampleError: too many groups in a row ended without a row.
        """
        self._replaced = []
        self._most_replaced = MAX_REPLACED * int(kwargs["batch_size"])
        batch, metrics = super().sample(*args, **kwargs)
        if batch.partition_id != "val":
            metrics["relay/groups/replaced"] = float(len(self._replaced))
        return batch, metrics

    def _evict_terminal_groups(
        self, global_steps: int, partition_id: str, eviction_reasons: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        failed = eviction_reasons[2]
        if failed:
            tags = tags_of(partition_id)
            check_fatal(tags, failed)
            groups = [tags.get(uid, {}) for uid in sorted(failed)]
            self._replaced += [stats_of(tag) for tag in groups]
            self._watch.count(sample for tag in groups for sample in stats_of(tag))
            if len(self._replaced) > self._most_replaced:
                raise NoSampleError(explain_no_sample(partition_id, groups))
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)
