"""Tokens as a price list counts them, money, presets, `relay.prices`, and the reward by price."""

import datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.prices import PRESETS, PriceList, TokenPrice, Usage, find_preset, student_usage, teacher_usage
from relay_verl.prices.usage import usage_of
from relay_verl.rewards import price_reward, rewards_of, simple_reward
from relay_verl.trainer.metrics import SampleStats, relay_metrics
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment, rho

SEGMENTS = st.lists(st.tuples(st.sampled_from(["student", "teacher"]), st.integers(1, 50)), max_size=6)
PRICE = st.floats(0, 100, allow_nan=False)
LIST = PriceList("USD", TokenPrice(0.05, 0.005, 0.15), TokenPrice(0.2, 0.02, 0.6))


def trajectory(*segments: tuple[str, int], calls: list[CallRecord] | None = None) -> RelayTrajectory:
    parts: list[Any] = [Segment(source, [1] * number) for source, number in segments]  # type: ignore[arg-type]
    return RelayTrajectory([1] * 100, parts, RelayStatus.COMPLETED, calls or [])


def served(num_context: int, num_delivered: int, **values: Any) -> CallRecord:
    return CallRecord(CallOutcome.SERVED, num_delivered, num_delivered, num_context=num_context, **values)


# ---- usage ----


@given(num_prompt=st.integers(0, 200), segments=SEGMENTS)
def test_the_student_reads_each_token_anew_once(num_prompt: int, segments: list[tuple[str, int]]) -> None:
    usage = student_usage(num_prompt, segments)
    assert usage.num_output == sum(number for source, number in segments if source == "student")
    assert 0 <= usage.num_cached <= usage.num_input
    turns = [index for index, (source, _) in enumerate(segments) if source == "student"]
    if turns:  # what it has not written itself, up to its last turn
        before = sum(number for source, number in segments[: turns[-1]] if source == "teacher")
        assert usage.num_input - usage.num_cached == num_prompt + before
    else:
        assert usage == Usage()


CALLS = [
    # calls, usage, why
    ([served(100, 5)], Usage(100, 0, 5), "an engine that does not say what its cache held"),
    ([served(100, 5, num_cached=60)], Usage(100, 60, 5), "one that does"),
    ([served(100, 5, num_cached=160)], Usage(100, 100, 5), "never more than it reads"),
    ([served(100, 5, num_billed_input=120, num_billed_output=40)], Usage(120, 0, 40), "billed"),
    ([served(100, 5, num_billed_input=0, num_billed_output=0)], Usage(0, 0, 0), "billed nothing"),
    ([CallRecord(CallOutcome.FAILED, 5, num_context=100)], Usage(), "a call that failed"),
    ([CallRecord(CallOutcome.FAILED, 5, num_context=100, num_billed_input=9, num_billed_output=7)], Usage(9, 0, 7),
     "and was billed"),
    ([CallRecord(CallOutcome.FAILED, 5, 2, num_context=100, num_cached=60)], Usage(100, 60, 2), "after it streamed"),
    ([CallRecord(CallOutcome.ZERO), CallRecord(CallOutcome.MALFORMED)], Usage(), "not asked"),
    ([served(100, 5), served(110, 6, num_cached=100)], Usage(210, 100, 11), "two calls"),
]  # fmt: skip


@pytest.mark.parametrize(("calls", "usage", "why"), CALLS, ids=[why for *_, why in CALLS])
def test_what_the_teacher_reads_and_writes(calls: list[CallRecord], usage: Usage, why: str) -> None:
    assert usage_of(trajectory(calls=calls))[1] == usage
    assert teacher_usage(vars(call) for call in calls) == usage


def test_flops_count_what_is_computed() -> None:
    assert Usage(100, 60, 10).flops(1_700_000_000) == 2 * 1_700_000_000 * 50


# ---- money ----


@given(num_prompt=st.integers(0, 300), parts=SEGMENTS, price=st.floats(0.01, 100))
def test_it_is_rho_where_the_teachers_output_alone_has_a_price(
    num_prompt: int, parts: list[tuple[str, int]], price: float
) -> None:
    prices = PriceList("USD", TokenPrice(), TokenPrice(output=price))
    num_teacher = sum(number for source, number in parts if source == "teacher")
    num_tokens = sum(number for _, number in parts)
    share = prices.cost_share(Usage(9, 1, 7), Usage(77, 7, num_teacher), num_prompt, num_tokens)
    assert share == pytest.approx(rho(num_teacher, num_tokens))


@given(student=PRICE, read=PRICE, cached=PRICE, written=PRICE)
def test_the_teacher_alone_costs_itself(student: float, read: float, cached: float, written: float) -> None:
    prices = PriceList("USD", TokenPrice(student, student, student), TokenPrice(read, cached, written))
    alone = trajectory(("teacher", 40), calls=[served(100, 40, has_command=False)])
    share = prices.cost_share(*usage_of(alone), 100, 40)
    assert share == (pytest.approx(1.0) if prices.cost_of_teacher_alone(100, 40) else 0.0)


@given(prices=st.builds(PriceList, st.just("EUR"), *[st.builds(TokenPrice, PRICE, PRICE, PRICE)] * 2))
def test_a_price_list_as_plain_data(prices: PriceList) -> None:
    assert PriceList.from_dict(prices.to_dict()) == prices


# ---- presets and settings ----


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_dated_and_has_its_source(name: str) -> None:
    preset = find_preset(name.upper())
    assert name == name.lower() and len(preset.currency) == 3
    assert datetime.date.fromisoformat(preset.date) <= datetime.date(2026, 11, 26)
    assert urlsplit(preset.source).scheme == "https"
    assert 0 < preset.price.cached_input <= preset.price.input <= preset.price.output


def settings(prices: dict[str, Any], **values: Any) -> Any:
    return read_settings({"teacher": {"path": "a"}, "prices": prices, **values})


GOOD = [
    # relay.prices, the list, why
    ({}, None, "the default"),
    ({"teacher": {"num_parameters": 8}}, None, "parameters are not a price"),
    ({"currency": "USD", "teacher": {"input": 1, "output": 4}},
     PriceList("USD", TokenPrice(), TokenPrice(1, 1, 4)), "cached tokens cost what others cost"),
    ({"currency": "XXX", "student": {"input": 0, "output": 1}, "teacher": {"input": 1, "cached_input": 0, "output": 4}},
     PriceList("XXX", TokenPrice(0, 0, 1), TokenPrice(1, 0, 4)), "relative prices"),
    ({"teacher": {"preset": "openai/gpt-4.1"}}, PriceList("USD", TokenPrice(), TokenPrice(2.0, 0.5, 8.0)), "a preset"),
    ({"teacher": {"preset": "openai/gpt-4.1", "output": 5}},
     PriceList("USD", TokenPrice(), TokenPrice(2.0, 0.5, 5)), "a price of one's own comes before the preset's"),
    ({"teacher": {"preset": "openai/gpt-4.1", "input": 3}},
     PriceList("USD", TokenPrice(), TokenPrice(3, 3, 8.0)), "not at another price's discount"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "prices", "why"), GOOD, ids=[why for *_, why in GOOD])
def test_prices_of_a_recipe(node: dict[str, Any], prices: PriceList | None, why: str) -> None:
    assert settings(node).prices.price_list() == prices


BAD = [
    # relay.prices, the line's beginning, what else stands in it
    ({"teacher": {"input": 1, "output": 4}}, "relay.prices.teacher.input: 1: a price without a unit", "USD"),
    ({"student": {"output": 4, "input": 0}}, "relay.prices.student.input: 0: a price without a unit", "million tokens"),
    ({"currency": "USD", "teacher": {"input": 1, "output": -4}}, "relay.prices.teacher.output: -4: ", "greater than"),
    ({"currency": "USD", "teacher": {"input": float("inf"), "output": 4}}, "relay.prices.teacher.input: inf", "finite"),
    ({"currency": "USD", "teacher": {"input": "free", "output": 4}}, "relay.prices.teacher.input: 'free': ", "number"),
    ({"currency": "USD", "teacher": {"output": 4}}, "relay.prices.teacher.input: not given", "output"),
    ({"currency": "USD", "teacher": {"input": 4}}, "relay.prices.teacher.output: not given", "input"),
    ({"currency": "dollars", "teacher": {"input": 1, "output": 4}}, "relay.prices.currency: 'dollars': ", "[A-Z]"),
    ({"currency": "USD"}, "relay.prices.currency: 'USD', but no price is given", ""),
    ({"teacher": {"preset": "openai/gpt-4"}}, "relay.prices.teacher.preset: 'openai/gpt-4': ", "did you mean"),
    ({"currency": "EUR", "teacher": {"preset": "openai/gpt-4.1"}}, "relay.prices.teacher.preset: 'openai/gp", "EUR"),
    ({"teacher": {"price": 4}}, "relay.prices.teacher.price: unknown key; allowed: preset, input", ""),
    ({"currency": "USD", "teacher": {"input": 1, "output": 4, "num_parameters": 0}},
     "relay.prices.teacher.num_parameters: 0: ", ""),
]  # fmt: skip


@pytest.mark.parametrize(("node", "line", "part"), BAD, ids=[line for _, line, _ in BAD])
def test_bad_prices_are_a_one_line_error(node: dict[str, Any], line: str, part: str) -> None:
    with pytest.raises(UserError) as error:
        settings(node)
    assert str(error.value).startswith(line) and part in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "prices",
    [
        {},
        {"currency": "USD", "student": {"input": 1, "output": 1}},
        {"currency": "USD", "teacher": {"input": 0, "output": 0}},
    ],
)
def test_the_reward_by_price_needs_what_the_teacher_costs(prices: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^relay\.prices\.teacher: .*reward\.kind=price"):
        settings(prices, reward={"kind": "price"})


# ---- the reward ----


def sample(is_correct: bool, *calls: CallRecord) -> SampleStats:
    parts = [("student", 30), *[("teacher", call.num_delivered) for call in calls], ("student", 10)]
    return SampleStats.of(trajectory(*parts, calls=list(calls)), is_correct=is_correct, prices=LIST)


def test_the_reward_by_price() -> None:
    options = settings({"teacher": {"preset": "openai/gpt-4.1"}}, reward={"kind": "price", "price_weight": 0.5}).reward
    group = [sample(True, served(130, 20)), sample(True), sample(False, served(130, 20))]
    rewards = rewards_of(group, options)
    shares = [one.cost_share or 0.0 for one in group]
    assert rewards == pytest.approx([1 - 0.5 * shares[0], 1 - 0.5 * shares[1], -0.5 * shares[2]])
    student, teacher = Usage(100 + 150, 130, 40), Usage(130, 0, 20)
    assert group[0].cost == pytest.approx(LIST.cost(student, teacher))
    assert shares[0] == pytest.approx(LIST.cost(student, teacher) / LIST.cost_of_teacher_alone(100, 60))
    assert 0 < shares[1] < shares[0], "a response without a call costs what the student costs"


def test_a_sample_without_a_cost_is_refused() -> None:
    options = settings({"teacher": {"preset": "openai/gpt-4.1"}}, reward={"kind": "price"}).reward
    with pytest.raises(UserError, match=r"relay\.prices"):
        rewards_of([SampleStats("completed", is_correct=True, num_tokens=3)], options)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=5))
def test_it_is_the_simple_reward_where_the_share_is_rho(group: list[tuple[bool, float]]) -> None:
    correct, shares = [right for right, _ in group], [share for _, share in group]
    assert price_reward(correct, shares) == simple_reward(correct, shares)


def test_metrics_have_the_cost_where_prices_are_given() -> None:
    priced = [sample(True, served(130, 20)), sample(True)]
    metrics = relay_metrics([priced])
    assert metrics["relay/cost"] == pytest.approx(sum(one.cost or 0 for one in priced) / 2)
    assert metrics["relay/cost_share"] == pytest.approx(sum(one.cost_share or 0 for one in priced) / 2)
    assert SampleStats(**priced[0].to_dict()) == priced[0], "it travels in a tag"  # type: ignore[arg-type]
    assert not any("cost" in name for name in relay_metrics([[SampleStats("completed", num_tokens=3)]]))
