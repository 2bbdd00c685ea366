"""What the benchmarks start from: verl's single-turn loop on an engine as commands get it."""

from relay_verl.bench.relay_speed import single_turn_loop
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.recipes.compose import compose
from tests.helpers.tokenizers import BPE_WORDS, make_bpe


def test_the_single_turn_loop_asks_through_verls_own_client() -> None:
    """`start_models` gives engines behind retries and a breaker."""
    tokenizer, client = make_bpe(BPE_WORDS), object()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    engine = VerlServerEngine(client, tokenizer)
    config = compose("relay_tiny")
    assert single_turn_loop(config, GuardedEngine(engine), tokenizer).server_manager is client
    assert single_turn_loop(config, engine, tokenizer).server_manager is client
