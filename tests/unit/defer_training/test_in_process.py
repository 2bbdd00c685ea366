"""The whole chain in one process, on models whose next token depends on the last one alone: labels, a head, and a
routed response that is the teacher's where the student would be wrong."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from relay_verl.config import DeferTrainingSettings
from relay_verl.data.schema import to_row
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer.loaded_head import LoadedHead
from relay_verl.defer_training.head_trainer import HeadTrainer
from relay_verl.defer_training.hidden_states import compute_hidden_states
from relay_verl.defer_training.labelled_query import COLUMN, LabelledQuery
from relay_verl.defer_training.labeller import GREEDY, Labeller
from relay_verl.defer_training.labels import LabelSource
from relay_verl.defer_training.objectives import OBJECTIVES
from relay_verl.defer_training.relabeller import Relabeller
from relay_verl.defer_training.training_tokens import make_tokens
from relay_verl.deferral import Deferral
from relay_verl.engines.transformers_engine import TransformersEngine
from relay_verl.policies import make_policy
from tests.helpers.chain_models import save_chain
from tests.helpers.tokenizers import EOS

ANSWER = "s\\boxed{7}"
MOVES = dict(zip("?" + ANSWER, [*ANSWER, EOS], strict=True))
"""What the teacher writes behind each character."""
RESERVED = 1
"""A byte that no text here has."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The student says 8 where the teacher says 7, and ends its box likewise."""
    folder = tmp_path_factory.mktemp("pair")
    students = MOVES | {"{": "8", "8": "}"}
    return save_chain(folder / "student", students, "x"), save_chain(folder / "teacher", MOVES, "x")


def engine(folder: Path, tokenizer: Any, head: LoadedHead | None = None) -> TransformersEngine:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return TransformersEngine(model, tokenizer, head=head)


def question(number: int) -> dict[str, Any]:
    row = to_row(data_source="test", question="?", ground_truth="7", id=str(number))
    return row | {"prompt": [{"role": "user", "content": f"{'z' * number}?"}]}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_chain(kind: HeadKind, pair: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pair[0])
    student, teacher = (engine(folder, tokenizer) for folder in pair)
    limits: dict[str, Any] = {"max_tokens": 30, "max_context": 200, "template": {}, "wants_logprobs": True}
    options = {"num_tries": 2, "rollout_tokens": 20, "sampling": {"temperature": 0.7}, "seed": 0}
    labeller = Labeller(student, teacher, tokenizer, **limits, **options)
    rows = [question(number) for number in range(8)]
    queries = [LabelledQuery(**asyncio.run(labeller.process(row))) for row in rows]
    for query in queries:
        assert tokenizer.decode(query.reference_ids) == ANSWER + EOS
        place = ANSWER.index("7")
        assert [i for i, value in enumerate(query.values) if not value] == [place]
        assert query.sources[place] == LabelSource.TEACHER
        assert query.student_logprobs is not None and query.teacher_logprobs is not None
        assert query.student_logprobs[place] < -10 < -0.01 < query.teacher_logprobs[place]

    hidden = compute_hidden_states(queries, str(pair[0]), tmp_path / "hidden", {}, trusts=False, device="cpu")
    tokens = make_tokens(queries, hidden, needs_logprobs=True, path="labels")
    settings = DeferTrainingSettings(learning_rate=0.01, batch_size=16, max_epochs=60, patience=60)
    trained = HeadTrainer(HeadInfo(kind, hidden.shape[1]), OBJECTIVES[kind], tokens, settings).train()
    assert trained.epochs[trained.best - 1].held_out_auc in (0.5, 1.0), "0.5 where no 7 is held out"

    routed = engine(pair[0], tokenizer, LoadedHead(trained.head.for_inference(), RESERVED))
    config = RelayConfig(max_response_tokens=30, max_calls=None, max_tokens_per_call=5)
    config = replace(config, teacher_sampling=GREEDY, deferral=Deferral(RESERVED, 0.5))
    decoder = RelayDecoder(routed, teacher, tokenizer, config)
    prompt = queries[0].prompt_ids
    trajectory = asyncio.run(decoder.run(prompt, sampling=GREEDY, policy=make_policy("deferred_0.5")))
    assert tokenizer.decode(trajectory.response_ids) == ANSWER + EOS
    assert trajectory.num_teacher_tokens == 1
    alone = asyncio.run(decoder.run(prompt, sampling=GREEDY, policy=make_policy("deferred_0")))
    assert tokenizer.decode(alone.response_ids) == ANSWER.replace("7", "8") + EOS

    # at a place that a rollout decides the student is wrong alone, and right with this head
    undecided = replace(
        queries[0],
        sources=[LabelSource.ROLLOUT, *queries[0].sources[1:]],
        values=[0, *queries[0].values[1:]],
    )
    relabeller = Relabeller(
        routed, teacher, tokenizer, config=config, policy="deferred_0.5", iteration=2, max_context=200
    )
    again = LabelledQuery(**asyncio.run(relabeller.process(rows[0] | {COLUMN: undecided.to_dict()})))
    assert (again.values[0], again.num_teacher_tokens, again.iteration) == (1, 1, 2)
