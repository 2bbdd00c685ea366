"""verl's distillation as we use it: where it looks for scores, and what a score without mass does to its loss."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from relay_verl.distillation import CALL_FREE
from relay_verl.trainer.teacher_scores import NO_MASS
from tests.helpers.real_tokenizers import tokenizer_called, tokens_of
from tests.helpers.warm_python import WarmPython

PROMPT, RESPONSE, TOPK, VOCABULARY = 3, 4, 2, 11
BEGINS = [2, 7, 10]
"""Ids that stand for those that begin a command."""


def nested(rows: torch.Tensor) -> torch.Tensor:
    """One sequence as verl's trainer gives them."""
    return torch.nested.as_nested_tensor([rows], layout=torch.jagged)


def draw(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The student's logits, [1, length, vocabulary], and the tokens that the teacher scored, [length, k]."""
    torch.manual_seed(0)
    logits = torch.randn(1, length, VOCABULARY, requires_grad=True)
    return logits, torch.randint(0, VOCABULARY, (length, TOPK), dtype=torch.int32)


def losses(
    logprobs: torch.Tensor, mode: str = "forward_kl_topk", teacher: str = ""
) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's loss at each position of a sequence, [length], and the gradient of its sum by the logits, [length, v]."""
    import verl.trainer.distillation.losses  # noqa: F401 (loads the plugin)
    from verl.trainer.distillation.fsdp.losses import compute_forward_kl_topk

    logits, ids = draw(len(logprobs))
    loss_config = SimpleNamespace(log_prob_min_clamp=None, use_chunked_topk=False, loss_mode=mode)
    teachers = {"default": SimpleNamespace(model_path=teacher)}
    config: Any = SimpleNamespace(distillation_loss=loss_config, teacher_models=teachers)
    outputs: Any = compute_forward_kl_topk(logits, nested(logprobs), nested(ids), config, "thd")
    # what verl.trainer.distillation.losses does to them before it adds them up
    loss = outputs["distillation_losses"][0].clamp_min(0.0)
    loss.sum().backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad[0]


def test_without_mass_loss_and_gradient_are_exactly_zero() -> None:
    logprobs = torch.tensor([[-0.1, -2.5]] * (PROMPT + RESPONSE))
    logprobs[4] = NO_MASS
    loss, gradient = losses(logprobs)
    assert loss[4] == 0
    assert (gradient[4] == 0).all()
    others = [row for row in range(PROMPT + RESPONSE) if row != 4]
    assert (loss[others] > 0).all(), "and that is what the test would see otherwise"
    assert gradient[others].abs().sum(-1).min() > 0


def test_a_student_that_may_call_is_compared_as_if_no_command_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is the KL from the student's law without the tokens that begin a command, whose logits it leaves alone;
    one that the teacher thinks likely stays."""
    from relay_verl.trainer import call_free_loss

    monkeypatch.setattr(call_free_loss, "CHUNK", 3)  # the last chunk is smaller
    monkeypatch.setattr(call_free_loss, "command_beginnings_at", lambda path: BEGINS if path == "teacher" else [])
    logprobs = torch.tensor([[-0.1, -2.5]] * (PROMPT + RESPONSE))
    logprobs[4] = NO_MASS
    logits, ids = draw(len(logprobs))
    assert any(set(BEGINS) & set(row) for row in ids.tolist()), "a teacher that writes such a token, too"
    loss, gradient = losses(logprobs, CALL_FREE, "teacher")
    for position, row in enumerate(ids.tolist()):
        left_out = sorted(set(BEGINS) - set(row))
        law = logits.detach()[0, position].index_fill(0, torch.tensor(left_out), float("-inf")).log_softmax(-1)
        terms = logprobs[position].exp() * (logprobs[position] - law[ids[position].long()])
        assert loss[position] == pytest.approx(terms.sum().clamp_min(0).item(), abs=1e-5)
        assert gradient[position, left_out].abs().max() < 1e-6
    assert gradient[4].abs().max() == 0
    without, own = losses(logprobs)
    assert (without >= loss - 1e-6).all() and own[0, BEGINS].abs().max() > 1e-3, "verl's own pulls them down"


@pytest.mark.parametrize("name", ["qwen3", "smollm2", "cl100k", "mistral"])
def test_every_token_behind_which_a_command_can_continue_begins_one(name: str) -> None:
    from relay_verl.trainer.call_free_loss import command_beginnings

    tokenizer, tokens = tokenizer_called(name), tokens_of(name)
    begins = command_beginnings(tokenizer)
    assert 0 < len(begins) < len(tokenizer) / 100
    for before in ("", "so ", "is\n", "2 ", "."):
        pieces = tokens.pieces(tokenizer.encode(f"{before}<call>20</call>", add_special_tokens=False))
        number = next(number for number, piece in enumerate(pieces) if b"<" in piece)
        token_id = tokenizer.encode(f"{before}<call>20</call>", add_special_tokens=False)[number]
        assert token_id in begins, (before, pieces)


def test_a_clamp_would_give_it_mass() -> None:
    """Why `log_prob_min_clamp` is refused in a run with calls."""
    assert torch.tensor(NO_MASS).clamp_min(-10.0).exp() > 0


def test_a_row_is_about_the_next_token() -> None:
    """verl takes the losses of a response from the rows one before its tokens'."""
    from tensordict import TensorDict
    from verl.workers.utils.padding import no_padding_2_padding

    rows = torch.arange(PROMPT + RESPONSE, dtype=torch.float32)
    data = TensorDict(
        {
            "prompts": nested(torch.zeros(PROMPT)),
            "responses": nested(torch.zeros(RESPONSE)),
            "input_ids": nested(torch.zeros(PROMPT + RESPONSE)),
        },
        batch_size=[1],
    )
    taken = no_padding_2_padding(nested(rows), data)
    assert taken[0].tolist() == [float(PROMPT - 1 + index) for index in range(RESPONSE)]


ANSWER = """
from types import SimpleNamespace
from verl.workers.rollout.vllm_rollout.utils import extract_prompt_logprobs
def said(*pairs):
    return {id_: SimpleNamespace(logprob=value, rank=rank) for rank, (id_, value) in enumerate(pairs, start=1)}
output = SimpleNamespace(prompt_logprobs=[None, said((7, -0.1), (3, -2.0)), said((5, -0.2), (1, -3.0))])
fields = {}
extract_prompt_logprobs(output, 2, fields)
print(fields)
"""


def test_the_servers_answer_is_shifted_by_one(warm_python: WarmPython) -> None:
    """vLLM says nothing of a prompt's first token, and verl puts an empty row behind the last one."""
    done = warm_python.run("-c", ANSWER, env={"VERL_PLATFORM": "cpu"})
    expected = {
        "prompt_ids": [[7, 3], [5, 1], [0, 0]],
        "prompt_logprobs": [[-0.1, -2.0], [-0.2, -3.0], [0.0, 0.0]],
    }
    assert done.stdout.splitlines()[-1:] == [str(expected)], done.stderr[-1000:]


def test_scores_are_a_rows_own_fields() -> None:
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

    scores = {"teacher_ids": torch.zeros(5, 2, dtype=torch.int32), "teacher_logprobs": torch.zeros(5, 2)}
    output = AgentLoopOutput(
        prompt_ids=[1, 2, 3], response_ids=[4, 5], response_mask=[1, 1], metrics=AgentLoopMetrics(), extra_fields={}
    )
    output.extra_fields |= scores
    row = output.as_dict()
    assert scores.keys() <= row.keys()
    assert not scores.keys() & row["extra_fields"].keys()


def test_the_losses_over_likeliest_tokens_are_those_that_we_know() -> None:
    from verl.trainer.distillation.losses import DISTILLATION_SETTINGS_REGISTRY

    from relay_verl.distillation import TOPK_LOSSES

    assert {name for name, each in DISTILLATION_SETTINGS_REGISTRY.items() if each.use_topk} == set(TOPK_LOSSES)


@pytest.mark.parametrize("loss", ["k1", "k3"])
def test_an_estimate_has_no_value_without_loss(loss: str) -> None:
    """Why estimates are refused in a run with calls: a log-probability that is far off is not one that is left out."""
    from verl.trainer.ppo.core_algos import kl_penalty

    assert kl_penalty(torch.tensor([-1.0]), torch.tensor([NO_MASS]), loss).abs() > 1
