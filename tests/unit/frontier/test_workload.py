"""The plan's arithmetic: what a few responses took, scaled to many."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.frontier.trial_plan import scale_by_benchmark
from relay_verl.frontier.workload import Workload, workload_of
from relay_verl.prices import PriceList, TokenPrice
from tests.helpers.records import alone, record

WORKLOADS = st.builds(
    Workload,
    num_responses=st.integers(1, 100).map(float),
    **{field.name: st.floats(0, 1e6) for field in dataclasses.fields(Workload) if field.name != "num_responses"},
)
NUMBERS = st.integers(0, 10_000)


@given(WORKLOADS, NUMBERS)
def test_a_scaled_workload_is_as_much_a_response(workload: Workload, number: int) -> None:
    scaled = workload.scaled(number)
    assert scaled.num_responses == pytest.approx(number)
    for name, value in vars(scaled).items():
        assert value * workload.num_responses == pytest.approx(getattr(workload, name) * number)


@given(st.dictionaries(st.sampled_from("abc"), st.tuples(WORKLOADS, NUMBERS), min_size=1))
def test_each_benchmark_is_scaled_by_its_own_number(parts: dict[str, tuple[Workload, int]]) -> None:
    trial = {name: workload for name, (workload, _) in parts.items()}
    numbers = {name: number for name, (_, number) in parts.items()}
    total = scale_by_benchmark(trial, numbers)
    for name, value in vars(total).items():
        assert value == pytest.approx(sum(getattr(w.scaled(n), name) for w, n in parts.values()))


def test_a_benchmark_without_a_trial_is_as_the_others_are() -> None:
    total = scale_by_benchmark({"a": Workload(num_responses=2, num_requests=6)}, {"a": 10, "b": 5})
    assert (total.num_responses, total.num_requests) == (15, 45)


@given(WORKLOADS, st.integers(1, 1000))
def test_more_at_a_time_never_takes_longer_than_the_trials_speed(workload: Workload, at_a_time: int) -> None:
    assert 0 <= workload.least_s(at_a_time) <= workload.wall_s


def test_what_responses_took_is_counted_from_their_records() -> None:
    prices = PriceList("USD", TokenPrice(), TokenPrice(input=1.0, cached_input=0.0, output=2.0))
    workload = workload_of([record(), alone(id="8", started_at=3.0)], prices)
    assert workload.num_requests == 2 + 1 + 1, "two turns of the student and a call, and a turn"
    assert workload.num_teacher_tokens == 2
    assert workload.num_student_tokens == 8 + 10
    assert workload.money == pytest.approx((4 * 1.0 + 2 * 2.0) / 1e6), "20 tokens read, 16 of them cached"
    assert (workload.busy_s, workload.wall_s) == (1.0, 1.0)
