"""What the benchmarks start from: verl's single-turn loop on an engine as commands get it."""

import pytest

from relay_verl.bench import relay_speed
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
