"""The replay buffer over a real transfer queue: the order of a batch's rows, and rewards that a whole batch decides."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray
import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from relay_verl.config import RewardSettings
from relay_verl.metrics import SampleStats
from relay_verl.replay import RelayReplayBuffer, _reward_whole_batch
from relay_verl.rewards import rewards_of

ALONE = SampleStats("completed", is_correct=True, num_tokens=3, reward=1.5)
STUBBORN = SampleStats("completed", num_tokens=2)
HELPED = SampleStats(
    "completed", is_correct=True, called=True, num_tokens=4, num_calls=1, num_teacher_tokens=1, num_requested_tokens=9
)
LOST = SampleStats("student_failed", called=True, num_tokens=1)
GROUPS = {"second": (2, [HELPED, LOST, STUBBORN]), "first": (1, [ALONE, STUBBORN])}
"""By uid: the number that orders, and the samples. By itself 'second' needs its teacher; the batch can do without."""


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+recipe=relay_tiny"]).transfer_queue
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init(config)
    yield
    tq.close()
    ray.shutdown()


def put(partition: str) -> None:
    """What workers put: the later group first, and its rows in the order in which they ended."""
    for uid, (number, samples) in GROUPS.items():
        stats = [sample.to_dict() for sample in samples]
        tag = {"is_prompt": True, "global_steps": 1, "status": "finished", "relay": stats, "relay_number": number}
        tq.kv_put(key=uid, partition_id=partition, tag=tag)
        rows = [
            {"rm_scores": torch.tensor([0.0] * (s.num_tokens - 1) + [s.reward]), "uid": uid}
            for s in samples
            if s.is_whole
        ]
        order = list(reversed(range(len(rows))))
        tq.kv_batch_put(
            keys=[f"{uid}_{session}_0" for session in order],
            fields=list_of_dict_to_tensordict([rows[session] for session in order]),
            tags=[{"status": "success", "global_steps": 1, "min_global_steps": 1, "max_global_steps": 1}] * len(rows),
            partition_id=partition,
        )


def sample(scope: str, partition: str = "train") -> tuple[Any, list[list[float]], dict[str, float]]:
    put(partition)
    buffer = RelayReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={"timeout_s": 20, "reward": {"scenario_scope": scope}},
    )
    batch, metrics = buffer.sample(global_steps=1, partition_id=partition, batch_size=2)
    data = tq.kv_batch_get(keys=batch.keys, partition_id=partition, select_fields=["rm_scores"])
    scores = [row.tolist() for row in data["rm_scores"].unbind()]
    tq.kv_clear(keys=batch.keys, partition_id=partition)
    return batch, scores, metrics


def test_rows_stand_in_an_order_that_does_not_depend_on_time(queue: None) -> None:
    batch, scores, metrics = sample("query")
    assert batch.keys == ["first_0_0", "first_1_0", "second_0_0", "second_1_0"]
    assert scores == [[0, 0, 1.5], [0, 0], [0, 0, 0, 0], [0, 0]], "each query's own rewards stay"
    assert metrics["relay/scenario/student_solvable"] == metrics["relay/scenario/teacher_dependent"] == 0.5


def test_the_released_codes_scenarios_are_the_whole_batchs(queue: None) -> None:
    """'second' alone punishes its stubborn sample; in a batch that somebody solved alone it does not."""
    by_query = rewards_of([HELPED, STUBBORN], RewardSettings())
    assert by_query == [0.75, -1.0]
    _, scores, metrics = sample("batch")
    assert scores == [[0, 0, 1.5], [0, 0], [0, 0, 0, 0.75], [0, 0]]
    assert metrics["relay/scenario/student_solvable"] == 1.0
    assert metrics["relay/reward/student_solvable"] == pytest.approx((1.5 + 0 + 0.75 + 0) / 4)
    assert metrics["relay/status/student_failed"] == 1.0, "a lost sample is still in the metrics"


def test_a_batch_in_which_every_sample_is_lost_has_no_rewards_to_write() -> None:
    assert _reward_whole_batch({"a": [LOST], "b": []}, RewardSettings(), "train") == {"batch": [LOST]}


def test_validation_keeps_its_scores(queue: None) -> None:
    _, scores, _ = sample("batch", "val")
    assert scores[2] == [0, 0, 0, 0], "1[correct] is the worker's business there"
