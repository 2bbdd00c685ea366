"""The replay buffer over a real transfer queue: the order of a batch's rows, and rewards that a whole batch decides."""

from typing import Any

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from relay_verl.config import RewardSettings
from relay_verl.errors import TeacherError
from relay_verl.rewards import rewards_of
from relay_verl.trainer.metrics import SampleStats
from relay_verl.trainer.replay_buffer import (
    NoSampleError,
    RelayReplayBuffer,
    RolloutTimeoutError,
    _reward_whole_batch,
)

ALONE = SampleStats("completed", is_correct=True, num_tokens=3, reward=1.5)
STUBBORN = SampleStats("completed", num_tokens=2)
HELPED = SampleStats(
    "completed", is_correct=True, called=True, num_tokens=4, num_calls=1, num_teacher_tokens=1, num_requested_tokens=9
)
LOST = SampleStats("student_failed", called=True, num_tokens=1)
GROUPS = {"second": (2, [HELPED, LOST, STUBBORN]), "first": (1, [ALONE, STUBBORN])}
"""By uid: the number that orders, and the samples. By itself 'second' needs its teacher; the batch can do without."""


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


def make_buffer(**options: Any) -> RelayReplayBuffer:
    return RelayReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs=options,
        refill_fn=lambda num_prompts: None,
    )


def sample(scope: str, partition: str = "train") -> tuple[Any, list[list[float]], dict[str, float]]:
    put(partition)
    buffer = make_buffer(timeout_s=20, reward={"scenario_scope": scope})
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


# ---- what does not end, or ends badly ----


def put_prompt(uid: str, status: str, partition: str = "train", **tag: Any) -> None:
    tq.kv_put(key=uid, partition_id=partition, tag={"is_prompt": True, "global_steps": 1, "status": status, **tag})


def clear(*uids: str, partition: str = "train") -> None:
    tq.kv_clear(keys=list(uids), partition_id=partition)


def test_the_run_ends_if_nothing_ends(queue: None) -> None:
    put_prompt("hung", "running")
    put_prompt("waiting", "pending")
    with pytest.raises(RolloutTimeoutError) as error:
        make_buffer(timeout_s=0.2, grace_s=0.1).sample(global_steps=1, partition_id="train", batch_size=2)
    clear("hung", "waiting")
    line = str(error.value)
    assert line.startswith("relay.rollout_timeout_s=0.2: ")
    assert "still running: 1 groups, not started: 1" in line


class Clock:
    """Time that passes when told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


DEADLINES = [
    # (seconds later, what has finished, what has failed) at each look, index of the look that ends the run, why
    ([(109, "", ""), (111, "", "")], 1, "nothing ended within 100 + 10 s"),
    ([(109, "a", ""), (218, "a", ""), (220, "a", "")], 2, "the wait begins again when one ends"),
    ([(109, "", "a"), (218, "", "ab"), (327, "c", "ab")], None, "a failed group has ended, too"),
]


@pytest.mark.parametrize(("looks", "ends_at", "why"), DEADLINES, ids=[why for *_, why in DEADLINES])
def test_whoever_waits_waits_as_long_as_groups_end(
    looks: list, ends_at: int | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("relay_verl.trainer.replay_buffer.time", clock)
    buffer = make_buffer(timeout_s=100, grace_s=10, poll_interval_s=0)
    buffer._start_waiting()
    for index, (clock.now, finished, failed) in enumerate(looks):
        buffer.finished_keys["train"], buffer.failure_keys["train"] = set(finished), set(failed)
        if index == ends_at:
            with pytest.raises(RolloutTimeoutError):
                buffer._wait_for_next_poll("train", 0.0)
            return
        buffer._wait_for_next_poll("train", 0.0)
    assert ends_at is None, why


def test_a_fatal_group_ends_the_run(queue: None) -> None:
    """verl's own error, that nothing is left to train on, must not hide it."""
    put_prompt("fatal", "failure", relay_fatal="the teacher is down")
    with pytest.raises(TeacherError, match="on_teacher_failure=fail: the teacher is down"):
        make_buffer(timeout_s=20).sample(global_steps=1, partition_id="train", batch_size=1)
    clear("fatal")


@pytest.mark.parametrize("partition", ["train", "val"])
def test_a_batch_without_a_row_says_why(partition: str, queue: None) -> None:
    empty, sole = SampleStats("completed"), SampleStats("completed", num_tokens=3, is_sole_survivor=True)
    stats = [sample.to_dict() for sample in (LOST, empty, sole)]
    put_prompt("a", "failure", partition, relay=stats, relay_number=1)
    put_prompt("b", "failure", partition, relay_failure="timeout")
    with pytest.raises(NoSampleError) as error:
        make_buffer(timeout_s=20).sample(global_steps=1, partition_id=partition, batch_size=2)
    clear("a", "b", partition=partition)
    for reason in ("student_failed: 1", "empty response: 1", "only survivor of its group: 1", "group timeout: 1"):
        assert reason in str(error.value)


DEAD = SampleStats(
    "completed", called=True, num_tokens=2, outcomes={"failed": 24}, failure="http://h/v1: HTTP 401: who are you"
)
DROPPED = SampleStats(
    "teacher_failed", called=True, num_tokens=2, outcomes={"failed": 24}, failure="Connection refused"
)


def test_a_batch_whose_calls_fail_is_a_warning_and_ends_the_run_behind_its_step(
    queue: None, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = make_buffer(timeout_s=20, max_failed_call_share=0.5)
    put_group([DEAD, SILENT], "train")
    batch, _ = buffer.sample(global_steps=3, partition_id="train", batch_size=1)
    tq.kv_clear(keys=batch.keys, partition_id="train")
    warning = (
        "relay_verl: warning: step 3: 24 of 24 calls to the teacher failed (100%), the latest: http://h/v1: HTTP 401"
    )
    assert warning in capsys.readouterr().err
    assert buffer.end_reason.startswith("relay.max_failed_call_share=0.5: 24 of 24 calls")
    assert "HTTP 401: who are you" in buffer.end_reason


def test_a_user_who_continues_without_a_teacher_is_only_warned(queue: None, capsys: pytest.CaptureFixture[str]) -> None:
    buffer = make_buffer(timeout_s=20, max_failed_call_share=1)
    put_group([DEAD, SILENT], "train")
    batch, _ = buffer.sample(global_steps=3, partition_id="train", batch_size=1)
    tq.kv_clear(keys=batch.keys, partition_id="train")
    assert "step 3: 24 of 24 calls" in capsys.readouterr().err
    assert buffer.end_reason is None


def test_a_validation_whose_calls_fail_ends_the_run_before_its_first_step_alone(queue: None) -> None:
    buffer = make_buffer(timeout_s=20)
    put_group([DEAD], "val")
    with pytest.raises(TeacherError, match=r"relay\.max_failed_call_share=0\.5: .*HTTP 401.*no step was begun"):
        buffer.sample(global_steps=0, partition_id="val", batch_size=1)
    clear("g_0_0", partition="val")
    put_group([SILENT], "train")
    batch, _ = buffer.sample(global_steps=1, partition_id="train", batch_size=1)
    tq.kv_clear(keys=batch.keys, partition_id="train")
    put_group([DEAD], "val")
    batch, _ = buffer.sample(global_steps=1, partition_id="val", batch_size=1)
    tq.kv_clear(keys=batch.keys, partition_id="val")
    assert buffer.end_reason is None, "the next step decides"


def test_a_batch_without_a_row_says_why_its_calls_failed(queue: None) -> None:
    put_prompt("lost", "failure", relay=[DROPPED.to_dict()], relay_number=1)
    with pytest.raises(NoSampleError, match=r"the latest failed call: Connection refused"):
        make_buffer(timeout_s=20).sample(global_steps=1, partition_id="train", batch_size=1)
    clear("lost")


SILENT = SampleStats("completed", num_tokens=2)
SAID = [
    # partition, samples, needs a teacher, warns, why
    ("train", [SILENT, SILENT], True, True, "the first batch without a call"),
    ("val", [SILENT], True, True, "the first validation without a call"),
    ("train", [SILENT, HELPED], True, False, "one called"),
    ("train", [SILENT, SampleStats("completed", num_tokens=2, called=True)], True, False, "one called in vain"),
    ("val", [SILENT], False, False, "plain GRPO does not call"),
]


@pytest.mark.parametrize(("partition", "samples", "needs_teacher", "warns", "why"), SAID, ids=[w for *_, w in SAID])
def test_a_student_that_never_calls_is_a_warning(
    partition: str,
    samples: list[SampleStats],
    needs_teacher: bool,
    warns: bool,
    why: str,
    queue: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    buffer = make_buffer(timeout_s=20)
    said = []
    for _ in range(2):
        put_group(samples, partition, relay_needs_teacher=needs_teacher)
        batch, _ = buffer.sample(global_steps=0, partition_id=partition, batch_size=1)
        tq.kv_clear(keys=batch.keys, partition_id=partition)
        said.append(capsys.readouterr().err)
    assert said[0].startswith("relay_verl: warning: none of the ") == warns, why
    assert ("RELAY_STUDENT" in said[0]) == warns
    assert said[1] == "", "once is enough"


def put_group(samples: list[SampleStats], partition: str, **tag: Any) -> None:
    stats = [sample.to_dict() for sample in samples]
    put_prompt("g", "finished", partition, relay=stats, relay_number=1, **tag)
    rows = [{"rm_scores": torch.zeros(sample.num_tokens), "uid": "g"} for sample in samples]
    tq.kv_batch_put(
        keys=[f"g_{session}_0" for session in range(len(rows))],
        fields=list_of_dict_to_tensordict(rows),
        tags=[{"status": "success", "global_steps": 0, "min_global_steps": 0, "max_global_steps": 0}] * len(rows),
        partition_id=partition,
    )
