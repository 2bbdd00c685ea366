"""Estimates, intervals and costs, against numbers computed by hand and against simulation."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.report import statistics
from relay_verl.report.statistics import (
    Average,
    Measure,
    accuracy,
    average_call_ratio,
    call_rate,
    difference,
    estimate,
    harmonic_accuracy,
    has_tasks,
    mean_call_ratio,
    pooled_call_ratio,
    t_quantile,
)
from relay_verl.traces.consumption import cost, union_length
from relay_verl.traces.records import ResponseRecord
from tests.helpers.records import alone, call, record


def answers(benchmark: str, right: list[bool], *, num_samples: int = 1) -> list[ResponseRecord]:
    return [
        alone(benchmark=benchmark, id=str(number // num_samples), sample=number % num_samples, is_correct=is_correct)
        for number, is_correct in enumerate(right)
    ]


def stratum(*columns: list[float]) -> np.ndarray:
    """[num_questions, num_seeds, 2] with denominators of 1; one column a seed."""
    values = np.array(columns, dtype=float).T
    return np.stack([values, np.ones_like(values)], axis=-1)


def test_measures_by_hand() -> None:
    records = [
        record(id="a"),  # 2 of 10 tokens
        record(id="b", num_tokens=30, num_teacher_tokens=15, is_correct=False),
        *answers("tiny/add", [True, True, True, False], num_samples=2),
    ]
    both = ["tiny/mul", "tiny/add"]
    assert accuracy([records], both).of_seeds() == pytest.approx([(1 / 2 + 3 / 4) / 2])  # the mean of benchmarks
    assert call_rate([records], both).of_seeds() == pytest.approx([(1 + 0) / 2])
    assert pooled_call_ratio([records], both).of_seeds() == pytest.approx([17 / 80])  # all tokens together
    assert average_call_ratio([records], both).of_seeds() == pytest.approx([(17 / 40 + 0) / 2])  # each benchmark alike
    assert mean_call_ratio([records], both).of_seeds() == pytest.approx([(0.2 + 0.5) / 6])
    for ratio in (average_call_ratio, pooled_call_ratio):
        assert ratio([records], ["tiny/mul"]).of_seeds() == pytest.approx([17 / 40]), "one benchmark: the same"


def test_empty_responses_have_a_ratio_of_zero() -> None:
    measured = pooled_call_ratio([[alone(num_tokens=0)]], ["tiny/mul"])
    assert measured.of_seeds() == [0.0]
    assert estimate(measured).value == 0.0


def of_task(task: str | None, right: list[bool]) -> list[ResponseRecord]:
    """BBEH's questions of one task."""
    return [
        alone(benchmark="bbeh", task=task, id=f"{task}{number}", is_correct=is_correct)
        for number, is_correct in enumerate(right)
    ]


def test_the_harmonic_mean_of_tasks_by_hand() -> None:
    records = [*of_task("a", [True] * 3 + [False]), *of_task("b", [False] * 9), *answers("tiny/mul", [True])]
    measured = harmonic_accuracy([records], "bbeh")
    assert measured.of_seeds() == pytest.approx([2 / (1 / 0.76 + 1 / 0.01)])  # 75% and 0%, each 1% higher
    assert [len(stratum) for stratum in measured.strata] == [4, 9], "resampled within each task"
    made = estimate(measured)
    assert made.low < made.value < made.high
    assert has_tasks(records, "bbeh")
    assert not has_tasks(records, "tiny/mul")
    assert not has_tasks([*records, *of_task(None, [True])], "bbeh"), "one of them does not say"
    with pytest.raises(ValueError, match="b: not the same questions in all records"):
        harmonic_accuracy([records, of_task("a", [True] * 4)], "bbeh")


def test_a_difference_of_harmonic_means() -> None:
    one, other = ([*of_task("a", [True, right]), *of_task("b", [True, False])] for right in (True, False))
    apart = difference(harmonic_accuracy([one], "bbeh"), harmonic_accuracy([other], "bbeh"))
    assert apart.value == pytest.approx(2 / (1 / 1.01 + 1 / 0.51) - 0.51)
    assert apart.low <= apart.value <= apart.high


def test_questions_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="tiny/mul: not the same questions"):
        accuracy([[record(id="a")], [record(id="b")]], ["tiny/mul"])
    with pytest.raises(ValueError, match="tiny/add: not the same questions in all records, or none"):
        accuracy([[record()]], ["tiny/add"])
    with pytest.raises(ValueError, match="needs records and benchmarks"):
        accuracy([[record()]], [])


def test_questions_are_paired_by_id_not_by_place() -> None:
    one = [alone(id="a", is_correct=True), alone(id="b", is_correct=False)]
    same, turned = (accuracy([answers], ["tiny/mul"]) for answers in (one, one[::-1]))
    assert difference(same, turned) == difference(same, same)
    assert difference(replace(same, is_proportion=False), turned).high == 0.0
    other = accuracy([[alone(id="a"), alone(id="c")]], ["tiny/mul"])
    with pytest.raises(ValueError, match="the same questions on both sides"):
        difference(accuracy([one], ["tiny/mul"]), other)


@pytest.mark.parametrize("is_few_kinds", [True, False], ids=["drawn by kind", "drawn by row"])
def test_the_bootstrap_has_the_spread_that_theory_gives(is_few_kinds: bool) -> None:
    rng = np.random.default_rng(1)
    values = (rng.random(400) < 0.3).astype(float) if is_few_kinds else rng.random(400)
    resampled = Measure((stratum(list(values)),)).resample(np.random.default_rng(0))[:, 0]
    assert resampled.mean() == pytest.approx(values.mean(), abs=0.002)
    assert resampled.std() == pytest.approx(values.std() / math.sqrt(400), rel=0.03)


def test_samples_of_one_question_stay_together() -> None:
    once = answers("tiny/mul", [True, False] * 40)
    often = answers("tiny/mul", [right for right in [True, False] * 40 for _ in range(16)], num_samples=16)
    narrow, wide = (estimate(accuracy([records], ["tiny/mul"])) for records in (once, often))
    assert (narrow.low, narrow.high) == (wide.low, wide.high)  # 16 samples that agree say no more than one


def test_the_average_resamples_within_each_benchmark() -> None:
    """Benchmarks without spread of their own leave none of it, though they differ from each other, but that of a share
    at its end."""
    records = answers("tiny/add", [True] * 9) + answers("tiny/mul", [False] * 3)
    measured = accuracy([records], ["tiny/add", "tiny/mul"])
    averaged = estimate(replace(measured, is_proportion=False))
    assert (averaged.value, averaged.low, averaged.high) == (0.5, 0.5, 0.5)
    wider = estimate(measured)
    reaches = [1.96**2 / (num + 1.96**2) / 2 for num in (9, 3)]
    assert (wider.value, 0.5 - wider.low, wider.high - 0.5) == pytest.approx((0.5, *reaches), abs=1e-4)
    two = estimate(Measure((stratum([0, 1] * 50), stratum([0, 1] * 200))))
    sigma = math.hypot(0.5 / 10, 0.5 / 20) / 2
    assert two.high - two.low == pytest.approx(2 * 1.96 * sigma, rel=0.06)


def test_coverage_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        made = estimate(Measure((stratum(list((rng.random(120) < 0.7).astype(float))),)))
        hits += made.low <= 0.7 <= made.high
    assert 0.915 <= hits / 400 <= 0.975


def test_coverage_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        tokens = rng.integers(50, 400, size=100).astype(float)
        share = rng.beta(1, 9, size=100)
        pairs = np.stack([share * tokens, tokens], axis=-1)[:, None]
        resampled = np.quantile(Measure((pairs,), average=Average.POOLED).resample(rng, 1000), [0.025, 0.975])
        hits += resampled[0] <= 0.1 <= resampled[1]
    assert 0.88 <= hits / 200 <= 0.985


def test_pairing_narrows_a_difference() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(500)  # how hard each question is, for both
    one, other = (hard < 0.5).astype(float), (hard < 0.55).astype(float)
    paired = difference(Measure((stratum(list(other)),)), Measure((stratum(list(one)),)))
    share = float((other - one).mean())
    assert (paired.value, paired.basis, paired.num_seeds) == (pytest.approx(share), "questions", 1)
    sigma = math.sqrt(share * (1 - share) / 500)
    assert paired.high - paired.low == pytest.approx(2 * 1.96 * sigma, rel=0.1)
    assert paired.low > 0


def test_seeds_by_hand() -> None:
    one = Measure((stratum([0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]),))  # 0.5, 0.75, 1
    made = estimate(one)
    error = 0.25 / math.sqrt(3)
    assert (made.value, made.num_seeds, made.basis) == (0.75, 3, "seeds")
    assert made.low == pytest.approx(0.75 - 4.30265 * error, rel=1e-5)
    assert made.high == 1.0  # a share is no more
    two = Measure((stratum([0, 0, 0, 0], [0, 0, 0, 1]),))  # 0, 0.25: another number of seeds
    apart = difference(one, two)
    other_error = 0.17677669529663687 / math.sqrt(2)
    freedom = (error**2 + other_error**2) ** 2 / (error**4 / 2 + other_error**4 / 1)
    assert (apart.value, apart.num_seeds, apart.basis) == (0.625, 2, "seeds")
    assert apart.low == pytest.approx(0.625 - t_quantile(freedom) * math.hypot(error, other_error))


def test_one_seed_falls_back_to_questions() -> None:
    many, single = Measure((stratum([0, 1, 1, 0], [1, 1, 1, 1]),)), Measure((stratum([0, 0, 1, 0]),))
    apart = difference(many, single)
    assert (apart.value, apart.num_seeds, apart.basis) == (0.5, 1, "questions")
    with pytest.raises(ValueError, match="the same questions on both sides"):
        difference(many, Measure((stratum([0, 0, 1]),)))


def test_seeds_that_agree_fall_back_to_questions() -> None:
    """Seeds without spread would give an interval without width."""
    same = Measure((stratum([0, 1, 1, 1], [1, 0, 1, 1]),))
    made = estimate(same)
    assert (made.value, made.basis, made.num_seeds) == (0.75, "questions", 2)
    assert made.low < 0.75 < made.high
    assert difference(same, Measure((stratum([0, 0, 0, 1], [0, 0, 0, 1]),))).basis == "questions"


T_QUANTILES = [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980)]


@pytest.mark.parametrize(("freedom", "quantile"), T_QUANTILES)
def test_t_quantiles_of_the_printed_tables(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_t_quantiles_between() -> None:
    assert t_quantile(2.5) == pytest.approx(3.5747, abs=1e-4)
    assert t_quantile(3, 0.99) == pytest.approx(5.841, abs=1e-3)
    assert t_quantile(1e6) == pytest.approx(1.95996, abs=1e-4)


def test_the_same_seed_gives_the_same_interval() -> None:
    made = Measure((stratum(list(np.random.default_rng(0).random(50))),))
    assert estimate(made) == estimate(made) != estimate(made, seed=1)


def test_five_thousand_questions_take_a_moment() -> None:
    rng = np.random.default_rng(0)
    shares = Measure((stratum(list((rng.random(5000) < 0.5).astype(float))),))
    start = time.process_time()
    shares.resample(rng, statistics.NUM_RESAMPLES)
    assert time.process_time() - start < 1.0


# ---- cost ----


def test_cost_by_hand() -> None:
    records = [
        record(started_at=10.0, latency_s=2.0, calls=[call("served", 8, 2), call("failed", 9)], num_teacher_tokens=2),
        record(started_at=11.0, latency_s=3.0, calls=[call("served", 4, 3)] * 2, num_calls=2, num_teacher_tokens=6),
        alone(started_at=100.0, latency_s=1.0, num_tokens=30),  # after a pause of 86 seconds
    ]
    made = cost(records)
    assert (made.num_responses, made.num_tokens, made.num_calls) == (3, 50, 3)
    assert (made.num_requested, made.num_delivered) == (8 + 4 + 4, 8)
    assert (made.num_context, made.num_cached, made.num_prefilled) == (60, 48, 12)
    assert (made.wall_s, made.tokens_per_s) == (5.0, 10.0)
    assert (made.p50_s, made.p95_s) == (2.0, pytest.approx(2.9))


def test_a_cache_that_does_not_say() -> None:
    silent = call("served", 2, 2)
    silent["num_cached"] = None
    made = cost([record(calls=[silent, call("served", 2, 2)])])
    assert (made.num_cached, made.num_prefilled, made.num_context) == (None, None, 40)
    assert cost([alone()]).num_cached == 0  # no call, nothing cached
    with pytest.raises(ValueError, match="no records"):
        cost([])


UNIONS = [
    ([], 0.0, "nothing"),
    ([(5.0, 6.0)], 1.0, "one"),
    ([(0.0, 10.0), (2.0, 3.0)], 10.0, "one inside another"),
    ([(2.0, 4.0), (0.0, 3.0)], 4.0, "out of order"),
    ([(0.0, 1.0), (1.0, 2.0)], 2.0, "end to end"),
    ([(0.0, 1.0), (9.0, 9.0)], 1.0, "one without length"),
]


@pytest.mark.parametrize(("intervals", "length", "why"), UNIONS, ids=[case[2] for case in UNIONS])
def test_union_length(intervals: list[tuple[float, float]], length: float, why: str) -> None:
    assert union_length(intervals) == length


# ---- an accuracy of 0 or 1 ----


@pytest.mark.parametrize("num", [1, 5, 30, 500])
@pytest.mark.parametrize("is_correct", [True, False])
def test_an_accuracy_at_the_border_keeps_a_width(num: int, is_correct: bool) -> None:
    """Zero of 30 and zero of 500 are not the same evidence (lm-evaluation-harness#4070)."""
    records = [record(id=str(i), sample=s, is_correct=is_correct) for i in range(num) for s in range(2)]
    interval = estimate(accuracy([records], ["tiny/mul"]))
    reach = 1.96**2 / (num + 1.96**2)  # Wilson's, by questions: samples of one question are alike
    assert interval.value == float(is_correct)
    assert (interval.low, interval.high) == pytest.approx((1 - reach, 1.0) if is_correct else (0.0, reach), abs=1e-4)


def test_only_an_accuracy_at_the_border_does() -> None:
    nobody_called = [record(id=str(i), calls=[], num_calls=0, num_teacher_tokens=0) for i in range(9)]
    interval = estimate(call_rate([nobody_called], ["tiny/mul"]))
    assert (interval.low, interval.high) == (0.0, 0.0), "a student without a teacher cannot call"
    mixed = [record(id=str(i), is_correct=i < 4) for i in range(9)]
    interval = estimate(accuracy([mixed], ["tiny/mul"]))
    assert 0.0 < interval.low < interval.value < interval.high < 1.0


def test_benchmarks_at_the_border_share_its_reach() -> None:
    records = [
        record(id=str(i), benchmark=b, is_correct=False) for b, num in (("a", 10), ("b", 40)) for i in range(num)
    ]
    interval = estimate(accuracy([records], ["a", "b"]))
    reaches = [1.96**2 / (num + 1.96**2) / 2 for num in (10, 40)]
    assert interval.high == pytest.approx(math.hypot(*reaches), abs=1e-4)


def test_a_difference_of_equal_answers_keeps_a_width() -> None:
    right, wrong = (answers("tiny/mul", [is_correct] * 40) for is_correct in (True, False))
    reach = 1.96**2 / (40 + 1.96**2)
    of_right, of_wrong = (accuracy([records], ["tiny/mul"]) for records in (right, wrong))
    same, apart = difference(of_right, of_right), difference(of_right, of_wrong)
    assert (same.low, same.value, same.high) == pytest.approx((-reach, 0.0, reach), abs=1e-4)
    assert (apart.low, apart.value, apart.high) == pytest.approx((1 - reach, 1.0, 1.0), abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.lists(st.booleans(), min_size=1, max_size=30))
def test_an_interval_of_an_accuracy_holds_it_and_has_a_width(add: list[bool], mul: list[bool]) -> None:
    found = estimate(accuracy([answers("tiny/add", add) + answers("tiny/mul", mul)], ["tiny/add", "tiny/mul"]))
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.low < found.high
