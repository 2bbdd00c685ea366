"""A model of transformers as an engine: what it writes, why it ends, and what it keeps of the past."""

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from relay_verl.engines import Generation, TransformersEngine
from relay_verl.errors import PermanentError, UserError
from tests.helpers.chain_models import MAX_MODEL_LEN, make_tokenizer, save_chain

MOVES = {"a": "b", "b": "c", "c": "d", "d": "e", "e": "a", "q": "<|end|>"}
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chain(tmp_path_factory.mktemp("models") / "chain", MOVES, "q")


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    return TransformersEngine.load(str(folder), make_tokenizer(), device="cpu")


@pytest.fixture
def mixing() -> TransformersEngine:
    """A model with random weights, in which every token depends on all before it."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=False, eos_token_id=None)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5 if weight.ndim == 2 else 0.1)
    return TransformersEngine(model, make_tokenizer(), num_kept=2)


def ids(text: str) -> list[int]:
    return make_tokenizer().encode(text, add_special_tokens=False)


def text(token_ids: list[int]) -> str:
    return make_tokenizer().decode(token_ids)


async def test_what_it_writes_and_why_it_ends(engine: TransformersEngine) -> None:
    greedy = {"temperature": 0.0}
    cases = [
        (ids("xa"), 7, (), "bcdeabc", "length"),
        (ids("xa"), 99, ("ea",), "bcdea", "stop"),
        (ids("xa"), 99, ("zz", "d"), "bcd", "stop"),
        (ids("xq"), 99, (), "<|end|>", "eos"),
    ]
    for prompt, max_tokens, stop, expected, reason in cases:
        answer = await engine.generate(prompt, max_tokens=max_tokens, stop=stop, sampling=greedy)
        assert (text(answer.token_ids), answer.finish_reason) == (expected, reason)
        assert answer.logprobs is None
    assert engine.max_model_len == MAX_MODEL_LEN


async def test_sampling(engine: TransformersEngine) -> None:
    sampled = await engine.generate(ids("a"), max_tokens=5, sampling={"temperature": 1.0, "seed": 3, "logprobs": True})
    assert text(sampled.token_ids) == "bcdea", "the moves are certain"
    assert sampled.logprobs is not None
    assert len(sampled.logprobs) == 5
    assert all(-1.0 < logprob <= 0.0 for logprob in sampled.logprobs)
    banned = await engine.generate(ids("a"), max_tokens=3, sampling={"temperature": 0.0, "bad_words": ["b"]})
    assert "b" not in text(banned.token_ids)
    past_the_end = await engine.generate(ids("q"), max_tokens=3, sampling={"temperature": 0.0, "ignore_eos": True})
    assert (len(past_the_end.token_ids), past_the_end.finish_reason) == (3, "length")
    with pytest.raises(PermanentError, match="logit_bias"):
        await engine.generate(ids("a"), max_tokens=3, sampling={"logit_bias": {}})
    with pytest.raises(PermanentError, match="presence_penalty"):
        await engine.generate(ids("a"), max_tokens=3, sampling={"presence_penalty": 0.5})


async def test_a_seed_repeats_the_draws(mixing: TransformersEngine) -> None:
    sampling = {"temperature": 1.0, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1}
    one, same, other = [
        (await mixing.generate([1, 2, 3], max_tokens=20, sampling={**sampling, "seed": seed})).token_ids
        for seed in (1, 1, 2)
    ]
    assert one == same != other


async def test_a_prompt_that_fills_the_context_is_refused_and_a_text_ends_there(engine: TransformersEngine) -> None:
    with pytest.raises(PermanentError, match=str(MAX_MODEL_LEN)):
        await engine.generate([ids("x")[0]] * MAX_MODEL_LEN, max_tokens=1)
    answer = await engine.generate(ids("x" * (MAX_MODEL_LEN - 4) + "a"), max_tokens=99)
    assert (text(answer.token_ids), answer.finish_reason) == ("bcd", "length")


async def write(engine: TransformersEngine, context: list[int], max_tokens: int, **options: Any) -> Generation:
    return await engine.generate(context, max_tokens=max_tokens, sampling={"temperature": 0.0}, **options)


async def test_the_past_of_a_trajectory_is_read_once_and_changes_nothing(mixing: TransformersEngine) -> None:
    """Contexts as a relay has them: the turn before, what the other model wrote, and a cut behind a command."""
    prompt = [5, 9, 13, 21]
    first = await write(mixing, prompt, 6, request_id="one")
    assert first.num_cached == 0
    contexts = [
        prompt + first.token_ids + [7, 7, 8],
        prompt + first.token_ids[:3] + [30, 31],
        prompt + first.token_ids[:3] + [30, 31],
        [*prompt[:2], 40, 41, 42],
        [50, 51],
    ]
    cached = [9, 7, 8, 2, 0]
    for context, num_cached in zip(contexts, cached, strict=True):
        kept = await write(mixing, context, 4, request_id="one")
        anew = await write(mixing, context, 4)
        assert kept.token_ids == anew.token_ids
        assert (kept.num_cached, anew.num_cached) == (num_cached, 0)


async def test_no_more_pasts_are_kept_than_told(mixing: TransformersEngine) -> None:
    for name in ("one", "two", "three"):
        await write(mixing, [1, 2, 3], 2, request_id=name)
    cached = {name: (await write(mixing, [1, 2, 3, 4], 1, request_id=name)).num_cached for name in ("three", "two")}
    assert cached == {"three": 3, "two": 3}
    assert (await write(mixing, [1, 2, 3, 4], 1, request_id="one")).num_cached == 0


async def test_a_sliding_window_is_read_anew_where_it_cannot_be_cut_back() -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4, eos_token_id=None)).eval()
    engine = TransformersEngine(model, make_tokenizer())
    first = await write(engine, [1, 2, 3, 4, 5, 6, 7], 5, request_id="one")
    longer = [1, 2, 3, 4, 5, 6, 7, *first.token_ids, 9]
    assert (await write(engine, longer, 3, request_id="one")).token_ids == (await write(engine, longer, 3)).token_ids
    other = await write(engine, [1, 2, 3, 30, 31], 3, request_id="one")
    assert (other.token_ids, other.num_cached) == ((await write(engine, [1, 2, 3, 30, 31], 3)).token_ids, 0)


async def test_a_reader_who_leaves_ends_the_writing(mixing: TransformersEngine) -> None:
    async with aclosing(mixing.stream([1, 2, 3], max_tokens=200, request_id="one")) as pieces:
        assert (await anext(pieces)).finish_reason is None
    assert (await write(mixing, [1, 2, 3], 1, request_id="one")).num_cached == 0, "what was left is not kept"


def test_a_folder_that_is_no_model_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=str(tmp_path)):
        TransformersEngine.load(str(tmp_path), make_tokenizer())


def test_weights_that_are_a_pickle_are_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file

    shutil.copytree(folder, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "model" / "pytorch_model.bin")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        TransformersEngine.load(str(tmp_path / "model"), make_tokenizer())
