"""The replay buffer of verl's asynchronous modes over a real transfer queue: which groups are replaced, and counted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from relay_verl.errors import TeacherError
from relay_verl.trainer.async_replay_buffer import MAX_REPLACED, AsyncRelayReplayBuffer
from relay_verl.trainer.metrics import SampleStats
from relay_verl.trainer.replay_buffer import NoSampleError

WELL = SampleStats("completed", is_correct=True, called=True, num_tokens=3, num_calls=1, outcomes={"served": 1})
LOST = SampleStats("teacher_failed", called=True, num_tokens=1, outcomes={"failed": 30}, failure="Connection refused")


def put(uid: str, samples: list[SampleStats], *, step: int = 1, **tag: Any) -> None:
    whole = [sample for sample in samples if sample.is_whole]
    status = "finished" if whole else "failure"
    group = {"is_prompt": True, "global_steps": step, "relay_number": 1, "relay": [each.to_dict() for each in samples]}
    tq.kv_put(key=uid, partition_id="train", tag=group | {"status": status} | tag)
    if whole:
        tq.kv_batch_put(
            keys=[f"{uid}_{session}_0" for session in range(len(whole))],
            fields=list_of_dict_to_tensordict([{"rm_scores": torch.zeros(s.num_tokens), "uid": uid} for s in whole]),
            tags=[{"status": "success", "global_steps": step, "min_global_steps": 1, "max_global_steps": 1}]
            * len(whole),
            partition_id="train",
        )


@pytest.fixture
def sample(queue: None) -> Any:
    """Samples a batch at step 1; gives its keys, the metrics and the buffer. What is left in the queue goes."""

    def take(num: int, refill: Callable[[int], None] = lambda num: None, step: int = 1, **options: Any) -> Any:
        buffer = AsyncRelayReplayBuffer(
            trainer_mode="colocate_async",
            trainer_config=OmegaConf.create({}),
            max_off_policy_threshold=2,
            max_off_policy_strategy="drop",
            sampler_kwargs={"timeout_s": 20, **options},
            refill_fn=refill,
        )
        batch, metrics = buffer.sample(global_steps=step, partition_id="train", batch_size=num)
        return batch.keys, metrics, buffer

    yield take
    if keys := list((tq.kv_list("train") or {}).get("train", {})):
        tq.kv_clear(keys=keys, partition_id="train")


def test_a_group_without_a_row_is_replaced_and_its_calls_count(sample: Any, capsys: Any) -> None:
    put("lost", [LOST, LOST])
    put("part", [WELL, LOST])
    asked: list[int] = []

    def refill(num: int) -> None:
        asked.append(num)
        put("new", [WELL, WELL])

    keys, metrics, buffer = sample(2, refill, max_failed_call_share=0.5)
    assert sorted(keys) == ["new_0_0", "new_1_0", "part_0_0"], "what is left of a group is trained on"
    assert asked == [1]
    assert metrics["relay/groups/replaced"] == 1.0
    assert metrics["relay/status/teacher_failed"] == 1.0, "of the groups of the batch"
    assert "step 1" not in (buffer.end_reason or "")
    assert "90 of 93 calls" in buffer.end_reason
    assert "90 of 93 calls to the teacher failed (97%), the latest: Connection refused" in capsys.readouterr().err


def test_a_group_that_is_too_old_is_replaced_too(sample: Any) -> None:
    put("old", [WELL], step=1)
    put("young", [WELL], step=3)
    keys, metrics, _ = sample(1, step=3)
    assert keys == ["young_0_0"]
    assert metrics["training/off_policy/evicted_samples"] == 1
    assert metrics["relay/groups/replaced"] == 0.0


def test_a_run_in_which_every_group_fails_ends(sample: Any) -> None:
    put("lost0", [LOST])
    numbers = iter(range(1, 1000))
    with pytest.raises(NoSampleError, match=r"teacher_failed: 1.*Connection refused"):
        sample(2, lambda num: put(f"lost{next(numbers)}", [LOST]))
    assert next(numbers) == 2 * MAX_REPLACED + 1


def test_a_fatal_group_ends_the_run(sample: Any) -> None:
    put("fatal", [LOST], relay_fatal="the teacher is down")
    with pytest.raises(TeacherError, match="on_teacher_failure=fail: the teacher is down"):
        sample(1)
