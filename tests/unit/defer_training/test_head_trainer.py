"""What a head minimises, which state is kept, and that a killed training is the same training."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.config import DeferTrainingSettings
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer_training import head_trainer
from relay_verl.defer_training.head_trainer import HeadTrainer, TrainedHead, auc
from relay_verl.defer_training.objectives import OBJECTIVES, label_loss, marginal_loss, weak_loss
from relay_verl.defer_training.training_tokens import TrainingTokens, split_rows
from relay_verl.errors import UserError

HIDDEN = 8


def make_tokens(num: int = 400, *, num_queries: int = 20, noise: float = 0.2) -> TrainingTokens:
    """Places whose label is the sign of their first coordinate, up to some noise."""
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(num, HIDDEN, generator=rng)
    flipped = torch.rand(num, generator=rng) < noise
    labels = ((hidden[:, 0] > 0) ^ flipped).float()
    logprobs = torch.stack([torch.where(labels > 0, -0.1, -3.0), torch.full((num,), -0.4)], dim=1)
    rolled_out = torch.arange(num) % 5 == 0
    return TrainingTokens(hidden, labels, 1 - labels, rolled_out, logprobs, torch.arange(num) % num_queries)


SETTINGS = DeferTrainingSettings(learning_rate=0.01, batch_size=32, max_epochs=30, patience=5)


def train(kind: HeadKind = HeadKind.CITER, state: Path | None = None, **changes: Any) -> TrainedHead:
    settings = replace(SETTINGS, **changes)
    return HeadTrainer(HeadInfo(kind, HIDDEN), OBJECTIVES[kind], make_tokens(), settings, state).train()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_head_learns_where_the_student_may_write(kind: HeadKind) -> None:
    trained = train(kind)
    best = trained.epochs[trained.best - 1]
    assert best.held_out_auc > 0.65
    assert best.held_out_loss == min(epoch.held_out_loss for epoch in trained.epochs if not epoch.is_weak)
    tokens = make_tokens()
    with torch.inference_mode():
        scores = trained.head(tokens.hidden)
    assert scores[tokens.hidden[:, 0] > 1].mean() > scores[tokens.hidden[:, 0] < -1].mean() + 0.2


@pytest.mark.parametrize("split", ["token", "query"])
def test_the_best_state_is_kept_with_its_running_statistics(split: Any) -> None:
    """At so large a rate the last epochs are worse than the best one; the release saves the last one's weights."""
    changes: dict[str, Any] = {"learning_rate": 0.5, "patience": 6, "split": split}
    trainer = HeadTrainer(
        HeadInfo(HeadKind.CITER, HIDDEN), OBJECTIVES[HeadKind.CITER], make_tokens(), replace(SETTINGS, **changes)
    )
    states = []
    trained = trainer.train(lambda epoch: states.append({k: v.clone() for k, v in trainer._head.state_dict().items()}))
    assert trained.best == len(trained.epochs) - 6 or len(trained.epochs) == 30
    kept, last = trained.head.state_dict(), states[-1]
    assert all(torch.equal(kept[name], states[trained.best - 1][name]) for name in kept)
    assert not torch.equal(kept["layers.1.running_mean"], last["layers.1.running_mean"])
    assert int(kept["layers.1.num_batches_tracked"]) < int(last["layers.1.num_batches_tracked"])


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_killed_training_continues_with_the_same_draws(kind: HeadKind, tmp_path: Path, monkeypatch: Any) -> None:
    whole = train(kind)
    run_epoch = HeadTrainer._run_epoch

    def dies(trainer: HeadTrainer, number: int) -> Any:
        if number == 4:
            raise KeyboardInterrupt
        return run_epoch(trainer, number)

    monkeypatch.setattr(HeadTrainer, "_run_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        train(kind, tmp_path / "state.pt")
    monkeypatch.undo()
    torch.manual_seed(77)  # another process has drawn other numbers
    resumed = train(kind, tmp_path / "state.pt")
    assert resumed.epochs == whole.epochs and resumed.best == whole.best
    for name, value in whole.head.state_dict().items():
        assert torch.equal(value, resumed.head.state_dict()[name]), name


def test_the_weak_labels_come_first() -> None:
    trained = train(HeadKind.COLLM, num_weak_epochs=2, max_epochs=3, patience=9)
    assert [epoch.is_weak for epoch in trained.epochs] == [True, True, False, False, False]
    assert trained.best > 2
    assert not any(epoch.is_weak for epoch in train(HeadKind.CITER, max_epochs=2).epochs)


@given(st.floats(-8, 8), st.floats(-6, -0.01), st.floats(-6, -0.01))
def test_the_marginal_likelihood_is_that_of_the_mixture(odds: float, student: float, teacher: float) -> None:
    batch = TrainingTokens(*[torch.zeros(1)] * 4, torch.tensor([[student, teacher]]), torch.zeros(1))
    share = 1 / (1 + math.exp(-odds))
    expected = -math.log(share * math.exp(student) + (1 - share) * math.exp(teacher))
    assert float(marginal_loss(torch.tensor([odds]), batch)) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_the_other_losses() -> None:
    batch = TrainingTokens(
        torch.zeros(2, 1), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.zeros(2), None, torch.zeros(2)
    )
    odds = torch.tensor([2.0, -1.0])
    expected = -(math.log(1 / (1 + math.exp(-2))) + math.log(1 - 1 / (1 + math.exp(1)))) / 2
    assert float(label_loss(odds, batch)) == pytest.approx(expected)
    assert float(weak_loss(odds, batch)) == pytest.approx(expected), "where the teacher alone is right it writes"


@given(st.integers(2, 60), st.integers(2, 9), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_has_every_row_once(num: int, num_queries: int, share: float, seed: int) -> None:
    tokens = make_tokens(num, num_queries=min(num, num_queries))
    for split in ("token", "query"):
        train_rows, held_out = split_rows(tokens, split, share, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
        assert sorted([*train_rows.tolist(), *held_out.tolist()]) == list(range(num))
        assert len(train_rows) and len(held_out)
        if split == "query":
            assert not set(tokens.queries[train_rows].tolist()) & set(tokens.queries[held_out].tolist())


def test_one_token_cannot_be_split() -> None:
    with pytest.raises(UserError, match=r"relay.defer_training.split=token: needs at least 2, got 1"):
        split_rows(make_tokens(1), "token", 0.2, torch.Generator())


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auc_counts_pairs(places: list[tuple[int, bool]]) -> None:
    above = [(x > y) + (x == y) / 2 for x, one in places for y, zero in places if one and not zero]
    expected = sum(above) / len(above) if above else 0.5
    scores, labels = (torch.tensor([float(place[index]) for place in places]) for index in (0, 1))
    assert auc(scores, labels) == pytest.approx(expected)


def test_places_that_rollouts_decide_may_be_left_out() -> None:
    trainer = HeadTrainer(
        HeadInfo(HeadKind.CITER, HIDDEN),
        OBJECTIVES[HeadKind.CITER],
        make_tokens(),
        replace(SETTINGS, trains_on_rollouts=False, max_epochs=1),
    )
    rows = torch.cat([trainer._train_rows, trainer._held_out_rows])
    assert sorted(rows.tolist()) == [row for row in range(400) if row % 5]
    assert trainer.train().num_train < 320


def test_a_last_batch_of_one_token_is_left_out() -> None:
    assert head_trainer.EVALUATED_TOKENS > 1
    trained = train(batch_size=319, max_epochs=1)  # 320 tokens to train on
    assert trained.num_train == 320 and math.isfinite(trained.epochs[0].loss)
