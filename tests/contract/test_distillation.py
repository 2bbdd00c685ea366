"""verl's distillation as we use it: where it looks for scores, and what a score without mass does to its loss."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from relay_verl.trainer.teacher_scores import NO_MASS
from tests.helpers.warm_python import WarmPython

PROMPT, RESPONSE, TOPK, VOCABULARY = 3, 4, 2, 11


def nested(rows: torch.Tensor) -> torch.Tensor:
    """One sequence as verl's trainer gives them."""
    return torch.nested.as_nested_tensor([rows], layout=torch.jagged)


def losses(logprobs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's loss at each position of a sequence, [length], and the gradient of its sum by the logits, [length, v]."""
    from verl.trainer.distillation.fsdp.losses import compute_forward_kl_topk

    torch.manual_seed(0)
    length = len(logprobs)
    logits = torch.randn(1, length, VOCABULARY, requires_grad=True)
    ids = torch.randint(0, VOCABULARY, (length, TOPK), dtype=torch.int32)
    config: Any = SimpleNamespace(distillation_loss=SimpleNamespace(log_prob_min_clamp=None, use_chunked_topk=False))
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
