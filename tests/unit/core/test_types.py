"""What a relayed response is."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment


def trajectory(*segments: Segment, calls: tuple[CallRecord, ...] = ()) -> RelayTrajectory:
    return RelayTrajectory([1, 2], list(segments), RelayStatus.COMPLETED, list(calls))


EXAMPLE = trajectory(
    Segment("student", [10, 11, 12], [-0.1, -0.2, -0.3]),
    Segment("teacher", [20, 21]),
    Segment("student", [13], [-0.4]),
    Segment("teacher", [22], [-9.0]),
    calls=(
        CallRecord(CallOutcome.SERVED, 20, 2),
        CallRecord(CallOutcome.ZERO),
        CallRecord(CallOutcome.FAILED, 50),
        CallRecord(CallOutcome.OVER_LIMIT, 70),
        CallRecord(CallOutcome.SERVED, 1, 1),
        CallRecord(CallOutcome.MALFORMED),
        CallRecord(CallOutcome.MALFORMED),
    ),
)


def test_the_example() -> None:
    assert EXAMPLE.response_ids == [10, 11, 12, 20, 21, 13, 22]
    assert EXAMPLE.response_mask == [1, 1, 1, 0, 0, 1, 0]
    assert EXAMPLE.logprobs == [-0.1, -0.2, -0.3, 0.0, 0.0, -0.4, 0.0], "0.0 also where the teacher's are known"
    assert EXAMPLE.num_calls == 2
    assert EXAMPLE.num_requested_tokens == 21, "served calls alone"
    assert EXAMPLE.num_teacher_tokens == 3
    assert EXAMPLE.num_malformed_calls == 2
    assert EXAMPLE.num_failed_calls == 1
    assert EXAMPLE.call_ratio == pytest.approx(3 / 7)


def test_forced_tokens_are_the_students_and_not_trained_on() -> None:
    whole = trajectory(
        Segment("student", [10, 11, 12], [-0.1, 0.0, 0.0], [False, True, True]),
        Segment("teacher", [20]),
        Segment("student", [13], [-0.4]),
    )
    assert whole.response_ids == [10, 11, 12, 20, 13]
    assert whole.response_mask == [1, 0, 0, 0, 1]
    assert whole.sampled_mask == [1, 0, 0, 1, 1]
    assert whole.logprobs == [-0.1, 0.0, 0.0, 0.0, -0.4]
    assert (whole.num_teacher_tokens, whole.call_ratio) == (1, 1 / 5), "they count in the response's length"
    assert [segment.num_forced_tokens for segment in whole.segments] == [2, 0, 0]


def test_an_empty_response() -> None:
    empty = trajectory()
    assert (empty.response_ids, empty.response_mask, empty.logprobs) == ([], [], [])
    assert (empty.num_calls, empty.num_requested_tokens, empty.num_teacher_tokens, empty.call_ratio) == (0, 0, 0, 0.0)


def test_logprobs_are_unknown_if_some_of_the_students_are() -> None:
    known, unknown = Segment("student", [1], [-0.1]), Segment("student", [3])
    assert trajectory(known, Segment("teacher", [2]), unknown).logprobs is None
    assert trajectory(Segment("teacher", [2])).logprobs == [0.0]


@given(
    st.lists(st.tuples(st.sampled_from(["student", "teacher"]), st.lists(st.integers(0, 99), max_size=4)), max_size=6)
)
def test_ids_mask_and_logprobs_line_up(parts: list[tuple]) -> None:
    whole = trajectory(*(Segment(source, ids, [-1.0] * len(ids)) for source, ids in parts))
    assert len(whole.response_ids) == len(whole.response_mask) == len(whole.logprobs or [])
    assert whole.response_ids == [i for _, ids in parts for i in ids]
    assert [logprob == 0.0 for logprob in whole.logprobs or []] == [bit == 0 for bit in whole.response_mask]
    assert whole.num_teacher_tokens == whole.response_mask.count(0)
    assert 0.0 <= whole.call_ratio <= 1.0


def test_a_trajectory_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLE.status = RelayStatus.STUDENT_FAILED  # type: ignore[misc]
    EXAMPLE.response_ids.append(99)
    assert EXAMPLE.response_ids[-1] == 22, "what a property gives is the caller's own"


def test_states_are_written_as_plain_words() -> None:
    assert [str(status) for status in RelayStatus] == ["completed", "teacher_failed", "student_failed"]
    assert [f"{outcome}" for outcome in CallOutcome] == ["served", "failed", "zero", "over_limit", "malformed"]
