"""What engines say of the tokens of a text: the greedy tokens and log-probabilities of a forward pass, in the forms of
vLLM's endpoint and of verl's server."""

import asyncio
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from relay_verl.engines.base import Generation
from relay_verl.engines.prompt_scores import PARAMETER, PromptScores, read_endpoint_scores, read_verl_scores
from relay_verl.engines.scoring import score_prompt
from relay_verl.engines.transformers_engine import TransformersEngine
from relay_verl.errors import EngineError, PermanentError
from tests.helpers.tokenizers import ByteTokenizer

TEXT = [5, 9, 5, 200, 31, 7]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return Qwen3ForCausalLM(config).eval()


def test_transformers_engine_says_what_a_forward_pass_says(model: Any) -> None:
    engine = TransformersEngine(model, ByteTokenizer())
    scores = asyncio.run(score_prompt(engine, TEXT, wants_logprobs=True, timeout_s=60))
    with torch.inference_mode():
        laws = torch.log_softmax(model(torch.tensor([TEXT])).logits[0], dim=-1)
    assert scores.best_ids == laws[:-1].argmax(-1).tolist()
    assert scores.logprobs == pytest.approx([float(laws[i, TEXT[i + 1]]) for i in range(len(TEXT) - 1)], abs=1e-4)
    greedy = asyncio.run(engine.generate(TEXT[:3], max_tokens=1, sampling={"temperature": 0.0}))
    assert (greedy.token_ids, greedy.prompt) == ([scores.best_ids[2]], None)  # type: ignore[index]


def test_verls_server_says_one_thing_at_a_time() -> None:
    top = {"prompt_ids": [[3], [4], [0]], "prompt_logprobs": [[-0.1], [-0.2], [0.0]]}
    assert read_verl_scores(top, 1) == PromptScores([3, 4], None)
    assert read_verl_scores(top, 0) == PromptScores(None, [-0.1, -0.2])
    assert read_verl_scores({"global_steps": 1}, 1) is None


def test_an_endpoint_names_the_best_and_the_own_token() -> None:
    own_is_best = {"9": {"logprob": -0.5, "rank": 1, "decoded_token": "x"}}
    other_is_best = {"5": {"logprob": -4.0, "rank": 30}, "8": {"logprob": -0.25, "rank": 1}}
    places = [None, own_is_best, other_is_best]
    assert read_endpoint_scores(places, [1, 9, 5], 1) == PromptScores([9, 8], [-0.5, -4.0])
    assert read_endpoint_scores(places, [1, 9, 5], 0) == PromptScores(None, [-0.5, -4.0])
    assert read_endpoint_scores(places, [1, 9, 6], 1) == PromptScores([9, 8], None)
    assert read_endpoint_scores(None, [1, 9, 5], 1) is None


class Server:
    """Gives the scores that it has, one kind at a time as verl's server."""

    def __init__(self, *scores: PromptScores | None):
        self._scores = list(scores)
        self.asked: list[int] = []

    async def generate(self, prompt_ids: list[int], *, sampling: Any, **_: Any) -> Generation:
        self.asked.append(sampling[PARAMETER])
        return Generation([1], None, "length", prompt=self._scores.pop(0))


def ask(server: Server, *, wants_logprobs: bool) -> PromptScores:
    return asyncio.run(score_prompt(server, [1, 2, 3], wants_logprobs=wants_logprobs, timeout_s=60, writer="student"))


def test_a_second_prefill_only_where_it_is_needed() -> None:
    best, own = PromptScores([2, 3], None), PromptScores(None, [-1.0, -2.0])
    both = PromptScores([2, 3], [-1.0, -2.0])
    server = Server(best, own)
    assert ask(server, wants_logprobs=True) == both and server.asked == [1, 0]
    server = Server(both)
    assert ask(server, wants_logprobs=True) == both and server.asked == [1]
    server = Server(best)
    assert ask(server, wants_logprobs=False) == best and server.asked == [1]


def test_an_engine_that_cannot_say_it() -> None:
    with pytest.raises(PermanentError, match=PARAMETER):
        ask(Server(None), wants_logprobs=False)
    with pytest.raises(EngineError, match="the student answered 1 scores for 3 tokens"):
        ask(Server(PromptScores([2], None)), wants_logprobs=False)
