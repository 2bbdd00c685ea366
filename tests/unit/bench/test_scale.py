"""The simulation of relayed rollouts, its input, its tables and its picture."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay_verl.bench.scale import Outcome, simulate
from relay_verl.bench.scale_report import SIGMAS, TOLERANCE, measure, skew, splits_of, study_scale
from relay_verl.bench.scenario import ASSUMED, Scenario, Trajectory, curve_of, read_scenario
from relay_verl.cli.main import app
from relay_verl.models.replica_client import SLACK, rendezvous_hash, room_of
from tests.helpers.errors import names, one_line

SCENARIO = read_scenario(ASSUMED)
CONSTANT = curve_of([(1, 100.0)], prefill_s_per_token=0.0)
"""100 tokens a second, however many sequences share them."""


def scenario(**changes: Any) -> Scenario:
    """The assumed one with other curves, or other keys of the workload."""
    curves = {key: value for key, value in changes.items() if key in ("student", "teacher")}
    workload = {key: value for key, value in changes.items() if key not in curves}
    return dataclasses.replace(SCENARIO, **curves, workload=dataclasses.replace(SCENARIO.workload, **workload))


def batch(*turns: tuple[int, ...]) -> list[Trajectory]:
    return [Trajectory(str(index), each) for index, each in enumerate(turns)]


def busy(outcome: Outcome) -> float:
    return outcome.student.busy_s + outcome.teacher.busy_s


@st.composite
def batches(draw: st.DrawFn) -> list[Trajectory]:
    """Up to 30 trajectories of up to 3 calls."""
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=30))
    return batch(*(tuple(draw(st.integers(1, 500)) for _ in range(2 * calls + 1)) for calls in counts))


@given(batches(), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_all_tokens_are_written_and_each_trajectory_ends_once(
    trajectories: list[Trajectory], num_students: int, num_teachers: int, has_barrier: bool
) -> None:
    outcome = simulate(SCENARIO, trajectories, num_students, num_teachers, has_barrier=has_barrier)
    own = sum(sum(trajectory.turns[::2]) for trajectory in trajectories)
    delivered = sum(sum(trajectory.turns[1::2]) for trajectory in trajectories)
    assert outcome.student.num_tokens == pytest.approx(own)
    assert outcome.teacher.num_tokens == pytest.approx(delivered)
    assert outcome.num_tokens == own + delivered
    assert len(outcome.ended_at) == len(trajectories)
    fastest = SCENARIO.student.rates(1)[1]
    for trajectory, seconds in zip(trajectories, outcome.ended_at, strict=True):
        assert seconds * fastest >= sum(trajectory.turns)
    for fleet in (outcome.student, outcome.teacher):
        assert fleet.busy_s <= fleet.num_replicas * outcome.seconds * (1 + 1e-9)


@given(batches(), st.integers(1, 4), st.booleans())
def test_the_same_input_gives_the_same_outcome(
    trajectories: list[Trajectory], num_replicas: int, has_barrier: bool
) -> None:
    first, again = (
        simulate(SCENARIO, trajectories, num_replicas, num_replicas, has_barrier=has_barrier) for _ in range(2)
    )
    assert first == again


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40))
def test_an_engine_of_constant_rate_takes_all_tokens_over_the_rate(lengths: list[int]) -> None:
    outcome = simulate(scenario(student=CONSTANT), batch(*((length,) for length in lengths)), 1, 1)
    assert outcome.seconds == pytest.approx(sum(lengths) / 100)


def test_the_sequences_of_an_engine_share_it() -> None:
    """Both write at half the rate until the shorter one ends: 2 x 100 tokens in 2 s, the other 200 in 2 more."""
    outcome = simulate(scenario(student=CONSTANT), batch((100,), (300,)), 1, 1)
    assert outcome.ended_at == pytest.approx((2.0, 4.0))


def test_a_sequence_that_joins_slows_the_others_down() -> None:
    """The teacher writes 100 tokens for the first alone in 1 s, and meanwhile the second has the student for itself."""
    both = scenario(student=CONSTANT, teacher=CONSTANT)
    outcome = simulate(both, batch((50, 100, 50), (225,)), 1, 1)
    # 0 to 1 s: 50 each. To 2 s: the second alone, 150. To 3 s: 50 each, and the first ends. To 3.25 s: the last 25.
    assert outcome.ended_at == pytest.approx((3.0, 3.25))


def test_a_barrier_makes_all_wait_for_all() -> None:
    both = scenario(student=CONSTANT, teacher=CONSTANT)
    outcome = simulate(both, batch((50, 100, 50), (225,)), 1, 1, has_barrier=True)
    # The student's 275 tokens, the teacher's 100, the student's 50.
    assert outcome.ended_at == pytest.approx((4.25, 2.75))


def test_a_request_pays_for_what_the_cache_does_not_have() -> None:
    """Prompts of 100, 110 and 130 tokens, of which a later request pays for half at the same replica."""
    slow = curve_of([(1, 1e9)], prefill_s_per_token=0.1, cached_share=0.5)
    outcome = simulate(scenario(student=slow, teacher=slow, prompt_tokens=100), batch((10, 20, 30)), 1, 1)
    assert outcome.student.prefill_s == pytest.approx(0.1 * (100 + 130 / 2))
    assert outcome.teacher.prefill_s == pytest.approx(0.1 * 110)
    assert outcome.seconds == pytest.approx(0.1 * (100 + 130 / 2 + 110))


def test_more_replicas_are_not_slower() -> None:
    def seconds(num_replicas: int) -> float:
        batches = [SCENARIO.workload.draw(200, seed) for seed in range(5)]
        return sum(simulate(SCENARIO, each, 3 * num_replicas, num_replicas).seconds for each in batches)

    times = [seconds(num_replicas) for num_replicas in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)


@given(batches())
def test_a_barrier_is_never_faster_on_one_replica_of_constant_rate(trajectories: list[Trajectory]) -> None:
    """With the barrier one engine waits while the other one works; without, at least one of them works at any time."""
    both = scenario(student=CONSTANT, teacher=CONSTANT)
    ours, barrier = (simulate(both, trajectories, 1, 1, has_barrier=each) for each in (False, True))
    assert ours.seconds <= barrier.seconds * (1 + 1e-9)


def test_a_barrier_is_slower_on_one_replica_of_the_assumed_curves() -> None:
    for seed in range(5):
        trajectories = SCENARIO.workload.draw(50, seed)
        ours, barrier = (simulate(SCENARIO, trajectories, 1, 1, has_barrier=each) for each in (False, True))
        assert ours.seconds < barrier.seconds
        assert busy(ours) / ours.seconds > busy(barrier) / barrier.seconds


def test_a_barrier_loses_more_on_skewed_lengths() -> None:
    def loss(sigma: float) -> float:
        skewed = skew(SCENARIO, sigma)
        batches = [skewed.workload.draw(400, seed) for seed in range(5)]
        [split] = [each for each in splits_of(skewed, 8) if each.num_teachers == 2]
        ours, barrier = (measure(skewed, split, batches, has_barrier=each) for each in (False, True))
        return ours.tokens_per_s / barrier.tokens_per_s

    assert 1 < loss(0.0) < loss(0.8)


def test_skewed_lengths_keep_their_mean() -> None:
    rng = np.random.default_rng(0)
    for sigma in SIGMAS:
        lengths = dataclasses.replace(skew(SCENARIO, sigma).workload.response_tokens, max=10**9)
        expected = 1200 * np.exp(0.8**2 / 2)
        assert lengths.draw(rng, 400_000).mean() == pytest.approx(expected, rel=0.05)


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_a_drawn_response_has_the_length_it_says(seed: int, longest: int) -> None:
    lengths = dataclasses.replace(SCENARIO.workload.response_tokens, max=longest)
    workload = scenario(response_tokens=lengths).workload
    drawn = workload.draw(20, seed)
    assert drawn == workload.draw(20, seed)
    for trajectory in drawn:
        assert len(trajectory.turns) % 2 == 1
        assert len(trajectory.turns) // 2 <= workload.max_calls
        assert min(trajectory.turns) >= 1
        assert sum(trajectory.turns) <= longest


def test_responses_call_as_often_as_the_workload_says() -> None:
    workload = scenario(max_calls=100).workload
    calls = np.array([len(trajectory.turns) // 2 for trajectory in workload.draw(20_000, 0)])
    assert (calls > 0).mean() == pytest.approx(workload.call_share, abs=0.02)
    assert calls[calls > 0].mean() == pytest.approx(workload.calls_per_response, abs=0.02)


def test_routing_spreads_the_load_as_the_client_does() -> None:
    """Both take the first replica that has room: the client sorts them by the hash, the simulation draws them by it."""
    num_replicas, num_requests = 16, 1600
    loads = [0] * num_replicas
    for request in range(num_requests):
        order = sorted(range(num_replicas), key=lambda number: rendezvous_hash(str(request), str(number)))
        room = room_of(sum(loads), num_replicas)
        loads[next(number for number in order if loads[number] < room)] += 1
    share = num_requests / num_replicas
    # All start at once and have as many tokens: a replica's busy time is its load.
    outcome = simulate(
        scenario(student=CONSTANT, num_workers=1), [Trajectory(str(i), (1,)) for i in range(num_requests)], 16, 1
    )
    assert outcome.seconds * 100 <= np.ceil((1 + SLACK) * share)
    assert outcome.seconds * 100 == pytest.approx(max(loads), rel=0.1)


def test_a_curve_is_linear_between_its_points() -> None:
    curve = curve_of([(2, 100.0), (4, 300.0)], prefill_s_per_token=0.0)
    assert curve.rates(6) == [0.0, 50.0, 100.0, 200.0, 300.0, 300.0, 300.0]


@pytest.mark.parametrize(
    ("points", "values"),
    [
        ([], ["decode"]),
        ([(4, 10.0), (2, 20.0)], ["decode", "[4, 2]"]),
        ([(2, 10.0), (2, 20.0)], ["decode", "[2, 2]"]),
        ([(0, 10.0)], ["decode.0.0", "0"]),
        ([(1, 0.0)], ["decode.0.1", "0.0"]),
        ([(1, -5.0)], ["decode.0.1", "-5.0"]),
        ([(1, float("nan"))], ["decode.0.1", "nan"]),
        ([(1,)], ["decode.0.1"]),
    ],
)
def test_a_bad_curve_is_named(points: Any, values: list[str]) -> None:
    assert names(one_line(lambda: curve_of(points, prefill_s_per_token=0.0)), "curve", *values)


@pytest.mark.parametrize("key", ["prefill_s_per_token", "cached_share", "gpus_per_replica"])
def test_a_bad_number_of_a_curve_is_named(key: str) -> None:
    values: dict[str, Any] = {"prefill_s_per_token": 0.0, key: -1}
    assert names(one_line(lambda: curve_of([(1, 1.0)], **values)), "curve", key, -1)


@pytest.mark.parametrize(
    ("num_students", "num_teachers", "key"), [(0, 1, "student replicas"), (1, 0, "teacher replicas")]
)
def test_no_replicas_are_refused(num_students: int, num_teachers: int, key: str) -> None:
    assert names(one_line(simulate, SCENARIO, batch((1,)), num_students, num_teachers), key, 0)


def test_no_trajectories_are_refused() -> None:
    assert names(one_line(simulate, SCENARIO, [], 1, 1), "trajectories", 0)


def values_of(path: Path = ASSUMED) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())  # type: ignore[no-any-return]


def test_a_scenario_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values_of()))
    assert read_scenario(path) == SCENARIO


def test_a_bad_key_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    unknown, missing, bad = values_of(), values_of(), values_of()
    unknown["workload"]["call_rate"] = 0.5
    del missing["teacher"]["decode"]
    bad["workload"]["call_share"] = 1.5
    for values, mentioned in (
        (unknown, ["workload.call_rate", "unknown"]),
        (missing, ["teacher.decode", "missing"]),
        (bad, ["workload.call_share", "1.5"]),
        ([1, 2], ["mapping", "list"]),
    ):
        path.write_text(yaml.safe_dump(values))
        assert names(one_line(read_scenario, path), path, *mentioned)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert names(one_line(read_scenario, tmp_path / "none.yaml"), tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("student: [")
    assert names(one_line(read_scenario, tmp_path / "broken.yaml"), tmp_path / "broken.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert names(one_line(read_scenario, tmp_path / "bytes.yaml"), tmp_path / "bytes.yaml")


def test_a_cluster_is_divided_into_whole_replicas() -> None:
    large = scenario(teacher=dataclasses.replace(SCENARIO.teacher, gpus_per_replica=4))
    for split in splits_of(large, 32):
        assert split.num_teachers >= 1
        assert split.num_students + 4 * split.num_teachers == 32
    assert names(one_line(splits_of, large, 4), "--gpus", 4, 5)


def test_the_chosen_split_has_the_fewest_teachers_of_the_fast_ones() -> None:
    study = study_scale(scenario(responses_per_gpu=16), [8], num_responses=128)
    [chosen] = study.by_gpus
    fastest = max(pair.ours.tokens_per_s for pair in study.by_split)
    fast = [pair.ours.split for pair in study.by_split if pair.ours.tokens_per_s >= (1 - TOLERANCE) * fastest]
    assert chosen.ours.split == fast[0]
    assert [sigma for sigma, _ in study.by_sigma] == list(SIGMAS)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_command_prints_tables_and_draws_them(tmp_path: Path, suffix: str) -> None:
    small, out = tmp_path / "small.yaml", tmp_path / "pictures" / f"scale.{suffix}"
    values = values_of()
    values["workload"]["responses_per_gpu"] = 4
    values["origin"] = "measured last week"
    small.write_text(yaml.safe_dump(values))
    words = [
        "bench",
        "scale",
        "--curves",
        str(small),
        "--gpus",
        "8",
        "--gpus",
        "4",
        "--out",
        str(out),
        "--num-responses",
        "32",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "measured last week" in result.output
    rows = [line.split("|")[1].strip() for line in result.output.splitlines() if line.startswith("|")]
    assert rows[2:4] == ["4", "8"]
    assert out.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["--out", "scale.txt"], ["--out", "scale.txt", ".png"]),
        (["--curves", "none.yaml"], ["none.yaml"]),
    ],
)
def test_the_command_refuses_bad_input(words: list[str], mentioned: list[str]) -> None:
    result = CliRunner().invoke(app, ["bench", "scale", *words])
    assert result.exit_code != 0
    assert names(str(result.exception), *mentioned)
