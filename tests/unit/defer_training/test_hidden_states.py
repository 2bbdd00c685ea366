"""The hidden states are transformers' own, in the order of the places, whatever the batches and the kills."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from relay_verl.defer_training import hidden_states
from relay_verl.defer_training.hidden_states import compute_hidden_states
from relay_verl.defer_training.labelled_query import LabelledQuery
from relay_verl.errors import JobError

HIDDEN = 16
LENGTHS = [(3, 5), (6, 1), (2, 9), (4, 4)]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=40,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    folder = tmp_path_factory.mktemp("student")
    model = Qwen3ForCausalLM(config)
    torch.nn.init.uniform_(model.model.norm.weight, 0.5, 1.5)  # so that a state before the norm is another one
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def queries() -> list[LabelledQuery]:
    rng = torch.Generator().manual_seed(1)

    def ids(num: int) -> list[int]:
        return torch.randint(1, 40, (num,), generator=rng).tolist()

    return [
        LabelledQuery(1, ids(prompt), ids(length), [0] * length, [1] * length, [0] * length, None, None, 1, 0, 0)
        for prompt, length in LENGTHS
    ]


def compute(queries: list[LabelledQuery], student: Path, folder: Path, **spec: Any) -> torch.Tensor:
    return compute_hidden_states(queries, str(student), folder, {"labels": "a", **spec}, trusts=False, device="cpu")


def test_they_are_the_normed_last_states_before_each_token(
    queries: list[LabelledQuery], student: Path, tmp_path: Path
) -> None:
    states = compute(queries, student, tmp_path / "hidden")
    model = Qwen3ForCausalLM.from_pretrained(student, dtype=torch.float32).eval()
    row = 0
    for query in queries:
        text = query.prompt_ids + query.reference_ids
        with torch.inference_mode():
            expected = model(torch.tensor([text]), output_hidden_states=True).hidden_states[-1][0]
        for place in range(len(query.reference_ids)):
            torch.testing.assert_close(states[row], expected[len(query.prompt_ids) + place - 1], rtol=1e-4, atol=1e-4)
            row += 1
    assert row == len(states) and states.shape[1] == HIDDEN


def test_a_run_that_was_killed_continues(
    queries: list[LabelledQuery], student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compute(queries, student, tmp_path / "whole").clone()
    monkeypatch.setattr(hidden_states, "BATCH_TOKENS", 8)
    forward, num_batches = hidden_states._forward, 0

    def dies(model: Any, batch: Any) -> Any:
        nonlocal num_batches
        num_batches += 1
        if num_batches == 3:
            raise KeyboardInterrupt
        return forward(model, batch)

    monkeypatch.setattr(hidden_states, "_forward", dies)
    with pytest.raises(KeyboardInterrupt):
        compute(queries, student, tmp_path / "killed")
    computed: list[int] = []
    monkeypatch.setattr(
        hidden_states, "_forward", lambda model, batch: (computed.append(len(batch)), forward(model, batch))[1]
    )
    states = compute(queries, student, tmp_path / "killed")
    assert sum(computed) == 2, "two queries were finished"
    torch.testing.assert_close(states, whole, rtol=1e-4, atol=1e-4)
    monkeypatch.undo()
    with pytest.raises(JobError, match="another job"):
        compute(queries, student, tmp_path / "killed", labels="b")
