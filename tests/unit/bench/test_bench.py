"""What the benchmarks start from: verl's single-turn loop on an engine as commands get it; and the loop's own."""

import pytest

from relay_verl.bench import relay_speed
from relay_verl.bench.loop_speed import NUM_CALLS, STUDENT_TOKENS, TEACHER_TOKENS, bench_loop, measure_loop
from relay_verl.bench.relay_speed import single_turn_loop
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.models.replica_client import ReplicaClient
from relay_verl.recipes.compose import compose
from tests.helpers.tokenizers import BPE_WORDS, make_bpe


def test_the_single_turn_loop_asks_the_same_replicas_through_verls_own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """`start_models` gives engines behind retries and a breaker."""
    monkeypatch.setattr(relay_speed, "verls_client", lambda config, client: ("verl's client over", client))
    tokenizer, client = make_bpe(BPE_WORDS), ReplicaClient({"a": object()})
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    engine = VerlServerEngine(client, tokenizer)
    config = compose("relay_tiny")
    for each in (engine, GuardedEngine(engine)):
        assert single_turn_loop(config, each, tokenizer).server_manager == ("verl's client over", client)


def test_the_loop_is_measured_on_the_same_turns_both_ways() -> None:
    """It asserts itself that both ways write the same number of tokens."""
    costs = measure_loop([3, 6], rounds=2)
    assert [cost.num_trajectories for cost in costs] == [3, 6]
    assert all(len(cost.relay) == len(cost.plain) == 2 for cost in costs)
    assert NUM_CALLS * (STUDENT_TOKENS + TEACHER_TOKENS) + STUDENT_TOKENS < 1000, "the limit of a response"


def test_the_loops_table_says_how_the_cost_grows() -> None:
    table = bench_loop([8, 4], rounds=1).splitlines()
    assert [line.split("|")[1].strip() for line in table[2:4]] == ["4", "8"]
    assert table[-1].startswith("CPU of all turns grows as n^")
    assert len(bench_loop([4], rounds=1).splitlines()) == 3
