"""From responses to the page: points, what dominates what, and the files."""

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from relay_verl.benchmarks.registry import Questions, find_benchmark
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.frontier.axis import Axis, Ledger
from relay_verl.frontier.frontier_page import DATA, PAGE, Comparison, compare_methods, to_rows, write_frontier
from relay_verl.frontier.measuring import Experiment, Measured, Pace, Seed
from relay_verl.frontier.method import Method
from relay_verl.frontier.method_list import parse_methods
from relay_verl.frontier.players import Players
from relay_verl.frontier.query_router import route
from relay_verl.frontier.standing import Position
from relay_verl.frontier.standing_words import headline
from relay_verl.prices import PriceList, TokenPrice
from relay_verl.run_config import RunConfig
from relay_verl.traces.records import ResponseRecord
from tests.helpers.errors import names, one_line
from tests.helpers.records import alone, call, record, student, teacher

NUM_QUESTIONS = 60
PRICES = PriceList("USD", TokenPrice(0.1, 0.0, 0.4), TokenPrice(1.0, 0.1, 4.0))
LEDGER = Ledger(PRICES, num_parameters=1000)


def responses(accuracy: float, num_teacher_tokens: int, seed: int, **changes: Any) -> list[ResponseRecord]:
    """Of one method: right where a draw, which is the same for all methods, is below its accuracy."""
    draws = random.Random(0)
    others = random.Random(seed)
    records = []
    for number in range(NUM_QUESTIONS):
        common: dict[str, Any] = {
            "id": f"q{number}",
            "is_correct": draws.random() < accuracy,
            "latency_s": 0.5 + 0.1 * others.random(),
            "started_at": float(number),
        }
        if num_teacher_tokens:
            parts = {
                "segments": [student("a", 6), teacher("b", num_teacher_tokens)],
                "calls": [call("served", num_teacher_tokens, num_teacher_tokens)],
                "num_teacher_tokens": num_teacher_tokens,
                "num_tokens": 6 + num_teacher_tokens,
            }
            records.append(record(**common, **parts, **changes))
        else:
            records.append(alone(**common, mean_logprob=-others.random(), **changes))
    return records


METHODS = [
    Method("student alone", "student_alone"),
    Method("teacher alone", "teacher_alone"),
    Method("query router 50%", "query_router_0.5"),
    Method("relay, budget 10", "learned", options={"max_teacher_tokens": 10}),
    Method("random calls 5%", "random_0.05"),
]


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    benchmark = find_benchmark("tiny")
    suite = EvalSuite({"tiny": (benchmark, Questions([{"data_source": "tiny/mul"}] * NUM_QUESTIONS, {}))})
    players = Players("models/teacher", {"student": ("models/student",)})
    return Experiment(None, METHODS, players, suite, lambda planned: None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    own, whole = responses(0.3, 0, 1), responses(0.9, 40, 2)
    routed = route("query router 50%", 0.5, own, whole)
    assert routed is not None
    seeds = [(own,), (whole,), (routed,), (responses(0.8, 10, 3),), (responses(0.4, 20, 4), responses(0.5, 22, 5))]
    return [Measured(method, one) for method, one in zip(METHODS, seeds, strict=True)]


@pytest.fixture(scope="module")
def comparison(measured: list[Measured]) -> Comparison:
    return compare_methods(measured, LEDGER)


def test_the_relay_dominates_what_costs_more_and_is_less_accurate(comparison: Comparison) -> None:
    by_name = {one.point.name: one for one in comparison.standings[Axis.TOKENS]}
    positions = {name: one.position for name, one in by_name.items()}
    assert positions["student alone"] == positions["teacher alone"] == positions["relay, budget 10"] == Position.HULL
    assert positions["random calls 5%"] == positions["query router 50%"] == Position.DOMINATED
    beaten = by_name["random calls 5%"]
    assert [point.name for point in beaten.by] == ["relay, budget 10"]
    assert beaten.is_clear
    assert beaten.extra is not None
    assert beaten.extra.value == pytest.approx(10 - 21)
    assert beaten.gain is not None
    assert 0 < beaten.gain.low < beaten.gain.value


def test_a_cost_over_seeds_is_not_cut_off_at_one(comparison: Comparison) -> None:
    random_calls = comparison.points[-1].cost_estimates[Axis.TOKENS]
    assert (random_calls.value, random_calls.num_seeds, random_calls.basis) == (21.0, 2, "seeds")
    assert random_calls.low < 21.0 < random_calls.high


def test_a_query_router_pays_for_both_answers(measured: list[Measured], comparison: Comparison) -> None:
    own, whole, routed = (one.seeds[0] for one in measured[:3])
    sure = sorted(own, key=lambda one: one.mean_logprob or 0.0)
    expected = {one.id for one in sure[: NUM_QUESTIONS // 2]}
    assert {one.id for one in routed if one.num_teacher_tokens} == expected, "the least sure half"
    for student_record, teacher_record, routed_record in zip(own, whole, routed, strict=True):
        is_routed = routed_record.id in expected
        assert routed_record.is_correct == (teacher_record if is_routed else student_record).is_correct
        both = [LEDGER.cost(one, Axis.SECONDS) for one in (student_record, teacher_record)]
        assert LEDGER.cost(routed_record, Axis.SECONDS) == pytest.approx(sum(both) if is_routed else both[0])
        assert LEDGER.cost(routed_record, Axis.MONEY) > LEDGER.cost(student_record, Axis.MONEY) or not is_routed
        assert LEDGER.cost(routed_record, Axis.TOKENS) == (40 if is_routed else 0)


@pytest.mark.parametrize(("share", "num_routed"), [(0.0, 0), (0.25, 15), (1.0, NUM_QUESTIONS)])
def test_the_share_is_kept(share: float, num_routed: int, measured: list[Measured]) -> None:
    own, whole = (one.seeds[0] for one in measured[:2])
    routed = route("r", share, own, whole)
    assert routed is not None
    assert sum(routed_record.num_teacher_tokens > 0 for routed_record in routed) == num_routed
    assert {routed_record.condition for routed_record in routed} == {"r"}


def test_without_log_probabilities_there_is_no_query_router(measured: list[Measured]) -> None:
    whole = measured[1].seeds[0]
    assert route("r", 0.5, responses(0.3, 6, 1), whole) is None


def test_the_files_say_the_same(comparison: Comparison, experiment: Experiment, tmp_path: Path) -> None:
    printed = write_frontier(comparison, experiment, tmp_path)
    page = (tmp_path / PAGE).read_text()
    with (tmp_path / DATA).open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for method in METHODS:
        assert method.name in page
        assert method.name in printed
    for axis in Axis:
        assert (tmp_path / f"frontier_{axis}.svg").stat().st_size > 5000
    relay = rows["relay, budget 10"]
    assert (relay["policy"], relay["max_teacher_tokens"]) == ("learned", "10")
    assert float(relay["teacher_tokens_a_response"]) == 10.0
    assert float(relay["USD_per_1000_responses"]) == pytest.approx(
        1000 * LEDGER.cost(responses(0.8, 10, 3)[0], Axis.MONEY) / 1000, rel=1e-3
    )
    assert rows["random calls 5%"]["teacher_tokens_beaten_by"] == "relay, budget 10"
    assert rows["random calls 5%"]["num_seeds"] == "2"


def test_an_axis_that_is_not_known_is_left_out_and_named(
    measured: list[Measured], experiment: Experiment, tmp_path: Path
) -> None:
    bare = compare_methods(measured[:2], Ledger(None, None))
    assert set(bare.standings) == {Axis.TOKENS, Axis.SECONDS}
    write_frontier(bare, experiment, tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert "relay.prices.teacher.num_parameters" in page
    assert "relay.prices.currency" in page
    assert all("money" not in "".join(row) for row in to_rows(bare))


def test_the_pace_tells_what_is_left() -> None:
    times = iter([0.0, 60.0, 120.0])
    pace = Pace(3, lambda: next(times))
    assert pace.line("a") == "method 1 of 3: a"
    assert pace.line("b").endswith("about 2.0 min left")
    assert pace.line("c").endswith("about 1.0 min left")


@pytest.mark.parametrize("policy", ["teacher_alone", "student_alone", "router_0.5"])
def test_a_budget_is_for_a_policy_under_which_both_models_write(experiment: Experiment, policy: str) -> None:
    method = Method("odd", policy, options={"max_teacher_tokens": 10})
    assert names(one_line(experiment.seeds, method, Path("x")), "method 'odd': max_teacher_tokens", 10, policy)


def test_each_training_seed_has_a_folder_and_the_teacher_alone_has_one() -> None:
    players = Players("t", {"student": ("a", "b")})
    experiment = Experiment(None, METHODS, players, None, lambda planned: None)  # type: ignore[arg-type]
    folders = {
        method.name: [(seed.condition.out.name, seed.condition.student, seed.condition.has_scores) for seed in seeds]
        for method, seeds in experiment.all_seeds(Path("x")).items()
    }
    assert folders["student alone"] == [("student-alone", "a", True), ("student-alone.2", "b", True)]
    assert folders["teacher alone"] == [("teacher-alone", None, False)]
    assert folders["query router 50%"] == []
    assert [name for name, *_ in folders["relay, budget 10"]] == ["relay-budget-10", "relay-budget-10.2"]


def test_a_list_of_values_has_one_for_each_training_seed() -> None:
    heads = Method("citer", "deferred", options={"relay.defer.head": ["h1", "h2"]})
    players = Players("t", {"student": ("a",), "two": ("a", "b"), "three": ("a", "b", "c")})
    experiment = Experiment(None, [heads], players, None, lambda planned: None)  # type: ignore[arg-type]

    def asked(method: Method) -> list[tuple[str, str | None, dict]]:
        seeds = experiment.seeds(method, Path("x"))
        return [(seed.condition.out.name, seed.condition.student, seed.changes) for seed in seeds]

    values = [{"relay.defer.head": "h1"}, {"relay.defer.head": "h2"}]
    assert asked(heads) == [("citer", "a", values[0]), ("citer.2", "a", values[1])]
    assert asked(replace(heads, student="two")) == [("citer", "a", values[0]), ("citer.2", "b", values[1])]
    three = replace(heads, student="three")
    assert names(one_line(experiment.seeds, three, Path("x")), "method 'citer': 3 students", "of 2 values")


@pytest.mark.parametrize("options", [{"relay.max_calls": [1, 2], "relay.defer.head": ["a"]}, {"relay.max_calls": []}])
def test_lists_of_other_lengths_are_refused(options: dict) -> None:
    text = yaml.safe_dump({"methods": [{"name": "odd", "policy": "learned", "options": options}]})
    assert names(
        one_line(parse_methods, text, "m.yaml"), "m.yaml: methods.0.options", "one value for each training seed"
    )


def test_the_headline_says_where_the_relay_loses(measured: list[Measured], comparison: Comparison) -> None:
    assert "relay loses" not in headline(comparison.standings[Axis.TOKENS], Axis.TOKENS)
    weak = Measured(Method("relay, weak", "learned"), (responses(0.2, 12, 6),))
    placed = compare_methods([*measured, weak], LEDGER).standings[Axis.TOKENS]
    assert "relay loses here: relay, weak to relay, budget 10." in headline(placed, Axis.TOKENS)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [("relay.max_calls", 1, None), ("relay.nope", 1, "max_calls"), ("relay.max_calls", "x", "x")],
)
def test_a_method_may_change_the_recipe(key: str, value: object, named: str | None) -> None:
    config = OmegaConf.create({"relay": {"teacher": {"path": "t"}}})
    OmegaConf.set_struct(config, True)
    experiment = Experiment(RunConfig(config), [], None, None, lambda planned: None)  # type: ignore[arg-type]
    seed = Seed(Condition("odd", Path("x"), "s", "t", "learned"), {key: value})
    if named is None:
        assert experiment.run_of(seed).relay.max_calls == value
        assert experiment.run.relay.max_calls is None, "the others keep the recipe"
    else:
        assert names(one_line(experiment.run_of, seed), f"method 'odd': {key}", named)
