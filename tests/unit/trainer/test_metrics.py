"""What a step's groups say about relaying."""

import json
from dataclasses import replace

import pytest

from relay_verl.trainer.metrics import SampleStats, drop_sole_survivor, drop_unscored, relay_metrics
from relay_verl.trainer.teacher_watch import TeacherWatch
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment


def trajectory(*segments: Segment, calls: tuple[CallRecord, ...] = (), status: str = "completed") -> RelayTrajectory:
    return RelayTrajectory([1], list(segments), RelayStatus(status), list(calls))


SERVED = trajectory(
    Segment("student", [1] * 6),
    Segment("teacher", [2] * 2),
    Segment("student", [1] * 2),
    calls=(
        CallRecord(CallOutcome.MALFORMED),
        CallRecord(CallOutcome.SERVED, 5, 2, 6, 0.25),
        CallRecord(CallOutcome.FAILED, 9, 0, 8, 3.0, "down"),
        CallRecord(CallOutcome.MALFORMED),
    ),
)


def test_stats_of_a_trajectory() -> None:
    stats = SampleStats.of(SERVED, is_correct=True, reward=0.8, grading="graded")
    assert stats == SampleStats(
        status="completed",
        is_correct=True,
        reward=0.8,
        called=True,
        num_tokens=10,
        num_calls=1,
        num_requested_tokens=5,
        num_teacher_tokens=2,
        outcomes={"malformed": 2, "served": 1, "failed": 1},
        latencies_s=[0.25],
        grading="graded",
        failure="down",
    )


def test_stats_travel_as_plain_data() -> None:
    stats = SampleStats.of(SERVED, is_correct=True, reward=0.8)
    assert SampleStats(**json.loads(json.dumps(stats.to_dict()))) == stats
    there = SampleStats(**json.loads(json.dumps(stats.to_dict())))
    assert relay_metrics([[there]]) == relay_metrics([[stats]]), "plain strings count as the states they name"


CALLED_CASES = [
    # trajectory, has called, why
    (trajectory(Segment("student", [1])), False, "no call"),
    (trajectory(Segment("student", [1]), Segment("teacher", [2]), calls=(CallRecord(CallOutcome.SERVED, 1, 1),)), True,
     "a served call"),
    (trajectory(Segment("student", [1]), calls=(CallRecord(CallOutcome.FAILED, 5),)), True,
     "a call in vain: neither stubborn nor independent"),
    (trajectory(Segment("student", [1]), calls=(CallRecord(CallOutcome.ZERO), CallRecord(CallOutcome.MALFORMED))),
     False, "no one was asked"),
    (trajectory(Segment("student", [1]), calls=(CallRecord(CallOutcome.OVER_LIMIT, 5),)), False, "no one was asked"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "called", "why"), CALLED_CASES)
def test_has_called(sample: RelayTrajectory, called: bool, why: str) -> None:
    assert sample.has_called is called, why
    assert SampleStats.of(sample, is_correct=True).called is called, why


SOLVED_ALONE = SampleStats("completed", is_correct=True, reward=1.5, num_tokens=10)
WRONG_ALONE = SampleStats("completed", num_tokens=10, reward=-1.0, grading="no_answer")
SOLVED_WITH_HELP = SampleStats(
    "completed",
    is_correct=True,
    reward=0.75,
    called=True,
    num_tokens=40,
    num_calls=2,
    num_requested_tokens=30,
    num_teacher_tokens=10,
    outcomes={"served": 2, "malformed": 1},
    latencies_s=[1.0, 3.0],
    num_reread=80,
    num_cached=60,
)
WRONG_WITH_HELP = SampleStats(
    "completed",
    reward=0.5,
    called=True,
    num_tokens=20,
    num_calls=1,
    num_requested_tokens=10,
    num_teacher_tokens=10,
    outcomes={"served": 1},
    latencies_s=[2.0],
    grading="timeout",
)
LOST = SampleStats("teacher_failed", is_correct=True, reward=99.0, called=True, num_tokens=7, outcomes={"failed": 1})


def test_means_over_responses() -> None:
    metrics = relay_metrics([[SOLVED_ALONE, SOLVED_WITH_HELP], [WRONG_ALONE, WRONG_WITH_HELP]])
    expected = {
        "relay/accuracy": 0.5,
        "relay/call_rate": 0.5,
        "relay/call_ratio": (0.25 + 0.5) / 4,
        "relay/num_calls": 3 / 4,
        "relay/requested_tokens": 40 / 4,
        "relay/delivered_tokens": 20 / 4,
        "relay/malformed_calls": 1 / 4,
        "relay/teacher_latency_s/p50": 2.0,
        "relay/teacher_wait_s": 6 / 4,
        "relay/teacher_cached": 60 / 80,
        "relay/teacher_failures": 0.0,
        "relay/calls/served": 3.0,
        "relay/calls/malformed": 1.0,
        "relay/calls/zero": 0.0,
        "relay/status/completed": 4.0,
        "relay/status/teacher_failed": 0.0,
        "relay/grading/timeout": 1.0,
        "relay/grading/no_answer": 1.0,
        "relay/grading/error": 0.0,
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value), name
    assert 2.0 <= metrics["relay/teacher_latency_s/p95"] <= 3.0


def test_what_the_teacher_read_to_score() -> None:
    one, other = (replace(SOLVED_ALONE, num_scored=n, num_read=10 * n, score_s=0.1 * n) for n in (1, 3))
    metrics = relay_metrics([[one, other]])
    assert (metrics["relay/scored_tokens"], metrics["relay/read_tokens"]) == (2.0, 20.0)
    assert metrics["relay/score_latency_s/p50"] == pytest.approx(0.2)
    assert not {name for name in relay_metrics([[SOLVED_ALONE]]) if "score" in name or "read" in name}


def test_a_response_that_was_not_scored_is_dropped_and_counts_as_a_failed_request() -> None:
    lost = drop_unscored(SOLVED_ALONE, RuntimeError("out of\nmemory"))
    assert (lost.is_whole, lost.failure) == (False, "out of memory")
    assert relay_metrics([[lost, SOLVED_ALONE]])["relay/status/teacher_failed"] == 1.0
    watch = TeacherWatch(0.5)
    watch.count([lost] * 15 + [replace(SOLVED_ALONE, num_read=5)] * 10)
    too_many = watch.decide()
    assert too_many is not None
    assert "15 of 25" in too_many.explain()
    assert "out of memory" in too_many.explain()


def test_scenarios_by_group() -> None:
    metrics = relay_metrics(
        [
            [SOLVED_ALONE, SOLVED_WITH_HELP],
            [SOLVED_WITH_HELP, WRONG_ALONE],
            [SOLVED_WITH_HELP, SOLVED_WITH_HELP],
            [WRONG_WITH_HELP, WRONG_ALONE],
        ]
    )
    assert metrics["relay/scenario/student_solvable"] == 0.25
    assert metrics["relay/scenario/teacher_dependent"] == 0.5
    assert metrics["relay/scenario/teacher_unsolvable"] == 0.25
    assert metrics["relay/reward/student_solvable"] == pytest.approx((1.5 + 0.75) / 2)
    assert metrics["relay/reward/teacher_dependent"] == pytest.approx((0.75 - 1.0 + 0.75 + 0.75) / 4)
    assert metrics["relay/reward/teacher_unsolvable"] == pytest.approx((0.5 - 1.0) / 2)


def test_a_scenario_that_did_not_come_up_has_no_mean() -> None:
    metrics = relay_metrics([[SOLVED_ALONE]])
    assert metrics["relay/scenario/teacher_unsolvable"] == 0.0
    assert "relay/reward/teacher_unsolvable" not in metrics
    assert "relay/teacher_latency_s/p50" not in metrics, "no one called"
    assert "relay/teacher_cached" not in metrics, "so nothing was read twice"


def test_a_failed_sample_is_a_status_and_in_no_mean() -> None:
    with_lost, without = relay_metrics([[SOLVED_ALONE, LOST]]), relay_metrics([[SOLVED_ALONE]])
    differing = {name for name in with_lost if with_lost[name] != without.get(name)}
    assert differing == {"relay/status/teacher_failed", "relay/calls/failed", "relay/teacher_failures"}
    assert with_lost["relay/status/teacher_failed"] == 1.0
    assert with_lost["relay/teacher_failures"] == 1.0, "what the teacher did to it is on record"


@pytest.mark.parametrize("groups", [[], [[]], [[LOST]], [[LOST], []]])
def test_nothing_to_average(groups: list) -> None:
    metrics = relay_metrics(groups)
    assert metrics["relay/status/completed"] == 0.0
    assert not {name for name in metrics if name.startswith(("relay/scenario", "relay/reward", "relay/call_rate"))}


def test_every_metric_is_a_float_for_the_logger() -> None:
    metrics = relay_metrics([[SOLVED_ALONE, SOLVED_WITH_HELP, WRONG_ALONE, WRONG_WITH_HELP, LOST]])
    assert all(type(value) is float for value in metrics.values())
    assert all(name.startswith("relay/") for name in metrics)


EMPTY = SampleStats("completed", is_correct=True, reward=9.0)
SOLE = replace(SOLVED_ALONE, is_sole_survivor=True)


@pytest.mark.parametrize("other", [EMPTY, SOLE])
def test_what_is_not_a_row_of_the_batch_is_in_no_mean(other: SampleStats) -> None:
    """`is_whole` is what the worker makes rows by: neither an empty response that completed nor a survivor has one."""
    assert not other.is_whole
    rows = [SOLVED_ALONE, WRONG_ALONE]
    with_other, without = relay_metrics([[*rows, other]]), relay_metrics([rows])
    differing = {name for name in with_other if with_other[name] != without.get(name)}
    assert differing <= {"relay/status/completed", "relay/groups/dropped_single"}
    alone = relay_metrics([[other]])
    assert not {name for name in alone if name.startswith(("relay/accuracy", "relay/call_r", "relay/scenario"))}


SURVIVORS = [
    # group, which are whole afterwards, why
    ([SOLVED_ALONE, LOST], [False, False], "the only one left"),
    ([LOST, EMPTY, WRONG_ALONE], [False, False, False], "an empty one is not left"),
    ([SOLVED_ALONE, WRONG_ALONE, LOST], [True, True, False], "two are left"),
    ([SOLVED_ALONE], [True], "there was only one"),
    ([LOST, LOST], [False, False], "none is left"),
    ([], [], "an empty group"),
]


@pytest.mark.parametrize(("group", "whole", "why"), SURVIVORS, ids=[why for *_, why in SURVIVORS])
def test_the_only_survivor_of_a_group_is_dropped(group: list[SampleStats], whole: list[bool], why: str) -> None:
    dropped = drop_sole_survivor(group)
    assert [sample.is_whole for sample in dropped] == whole, why
    is_dropped = sum(whole) != sum(sample.is_whole for sample in group)
    assert relay_metrics([dropped])["relay/groups/dropped_single"] == float(is_dropped)
    assert drop_sole_survivor(dropped) == dropped, "a second look changes nothing"


def test_what_the_prefix_cache_held_counts_from_the_second_call_on() -> None:
    def call(num_context: int, num_cached: int | None, outcome: CallOutcome = CallOutcome.SERVED) -> CallRecord:
        return CallRecord(outcome, num_context=num_context, num_cached=num_cached)

    calls = [call(10, 0), call(20, 16), call(25, 0, CallOutcome.FAILED), call(30, None), call(40, 32)]
    stats = SampleStats.of(RelayTrajectory([1], [], RelayStatus.COMPLETED, calls), is_correct=True)
    assert (stats.num_reread, stats.num_cached) == (20 + 40, 16 + 32)


def test_the_whole_blocks_that_a_call_could_take_from_those_before() -> None:
    def call(num_context: int, num_delivered: int, num_cached: int | None, block: int | None = 16) -> CallRecord:
        served = CallOutcome.SERVED
        return CallRecord(
            served, num_context=num_context, num_delivered=num_delivered, num_cached=num_cached, cache_block=block
        )

    calls = [
        call(20, 12, 0),  # leaves 32 tokens, of which the engine read 31: one block
        call(40, 9, 16),  # took it, and leaves 48: three blocks
        CallRecord(CallOutcome.FAILED, num_context=50),
        call(60, 5, 32),  # took two of them, and leaves 64: four
        call(70, 5, 66),  # no more than those can count
        call(80, 5, None),
        call(90, 5, 80, None),
    ]
    stats = SampleStats.of(RelayTrajectory([1], [], RelayStatus.COMPLETED, calls), is_correct=True)
    assert (stats.num_reusable, stats.num_reused) == (16 + 48 + 64, 16 + 32 + 64)
    metrics = relay_metrics([[stats]])
    assert metrics["relay/teacher_cached_blocks"] == (16 + 32 + 64) / (16 + 48 + 64)
    assert "relay/teacher_cached_blocks" not in relay_metrics([[SOLVED_ALONE]])
