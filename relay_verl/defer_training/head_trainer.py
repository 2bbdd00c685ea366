"""Trains a head on places of references: Adam, shuffled batches, early stopping on the held-out loss.

Invariant: the head that comes out has the state of the epoch with the lowest held-out loss, running statistics of its
normalisation included, as a copy that later epochs do not change. A process that is killed continues at the epoch after
the last finished one, with the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from relay_verl.config import DeferTrainingSettings
from relay_verl.defer.head_info import HeadInfo
from relay_verl.defer.heads import WeightedHead, make_head
from relay_verl.defer_training.objectives import Loss, Objective
from relay_verl.defer_training.training_tokens import TrainingTokens, split_rows
from relay_verl.errors import UserError
from relay_verl.files import replacing
from relay_verl.jobs.progress import show_progress

EVALUATED_TOKENS = 65536
"""Most tokens of a batch outside of training."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch did."""

    number: int
    """From 1."""
    is_weak: bool
    """Whether it trained on weak labels, before the objective itself."""
    loss: float
    """Mean loss of its steps."""
    held_out_loss: float
    """The objective on the held-out tokens, behind it."""
    held_out_auc: float
    """Probability that a held-out place where the student may write scores above one where it may not; 0.5 where all
    are alike."""


@dataclass(frozen=True)
class TrainedHead:
    """A head and how it came about."""

    head: WeightedHead
    """In evaluation mode, on CPU, in its best state."""
    epochs: list[Epoch]
    """All that ran."""
    best: int
    """Number of the epoch whose state it has."""
    held_out_scores: Tensor
    """Its scores of the held-out tokens, [num_held_out], ascending."""
    num_train: int
    """Tokens trained on."""


class HeadTrainer:
    """Trains one head.

    Args:
        info: of the head to make.
        objective: of its kind.
        tokens: to train on and to hold out.
        settings: how.
        state_file: where the state of the last epoch is kept; None keeps none.
        device: as torch names it.
    """

    def __init__(
        self,
        info: HeadInfo,
        objective: Objective,
        tokens: TrainingTokens,
        settings: DeferTrainingSettings,
        state_file: Path | None = None,
        device: str = "cpu",
    ):
        self._objective = objective
        self._tokens = tokens
        self._settings = settings
        self._state_file = state_file
        self._device = device
        self._generator = torch.Generator().manual_seed(settings.seed)
        torch.manual_seed(settings.seed)  # the first weights, and what dropout leaves out
        head = make_head(info)
        assert isinstance(head, WeightedHead)
        self._head = head.to(device)
        rate = settings.learning_rate or objective.learning_rate
        self._optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        rows = split_rows(tokens, settings.split, settings.held_out_share, self._generator)
        if not settings.trains_on_rollouts:
            rows = tuple(side[~tokens.is_rolled_out[side]] for side in rows)
        if not all(map(len, rows)):
            raise UserError("relay.defer_training.trains_on_rollouts=false leaves no token to train on, or to hold out")
        self._train_rows, self._held_out_rows = rows
        self._held_out = tokens.answers_at(self._held_out_rows)
        self._epochs: list[Epoch] = []
        self._best = 0
        self._best_state: dict[str, Tensor] = {}

    def train(self, note: Callable[[Epoch], None] = lambda epoch: None) -> TrainedHead:
        """Train to the end; `note` is told of each epoch."""
        self._load()
        most = self._num_weak_epochs + self._settings.max_epochs
        with show_progress(total=most, initial=len(self._epochs), desc="training", unit="epoch") as bar:
            while len(self._epochs) < most and not self._is_over:
                epoch = self._run_epoch(len(self._epochs) + 1)
                self._epochs.append(epoch)
                if not epoch.is_weak and (not self._best or epoch.held_out_loss < self._best_loss):
                    self._best = epoch.number
                    # clones: a state dict shares its tensors with the head, which the next epoch changes
                    self._best_state = {name: value.clone() for name, value in self._head.state_dict().items()}
                self._save()
                note(epoch)
                bar.set_postfix_str(f"held-out loss {epoch.held_out_loss:.4f}", refresh=False)
                bar.update()
        self._head.load_state_dict(self._best_state)
        scores = torch.sigmoid(self._log_odds(self._held_out_rows)).cpu()
        head = self._head.cpu().eval()
        return TrainedHead(head, self._epochs, self._best, scores.sort().values, len(self._train_rows))

    @property
    def _num_weak_epochs(self) -> int:
        return self._settings.num_weak_epochs if self._objective.weak is not None else 0

    @property
    def _best_loss(self) -> float:
        return self._epochs[self._best - 1].held_out_loss

    @property
    def _is_over(self) -> bool:
        """Whether the last epochs brought nothing better."""
        return bool(self._best) and len(self._epochs) - self._best >= self._settings.patience

    def _run_epoch(self, number: int) -> Epoch:
        is_weak = number <= self._num_weak_epochs
        loss_of: Loss = self._objective.loss
        if is_weak:
            assert self._objective.weak is not None
            loss_of = self._objective.weak
        self._head.train()
        order = self._train_rows[torch.randperm(len(self._train_rows), generator=self._generator)]
        total = num = 0.0
        for rows in order.split(self._settings.batch_size):
            if len(rows) < 2 and len(order) > 1:  # one token has no variance to normalise by
                continue
            batch = self._tokens.at(rows).to(self._device)
            self._optimizer.zero_grad()
            loss = loss_of(self._head.log_odds(batch.hidden), batch)
            loss.backward()
            self._optimizer.step()
            total += loss.item() * len(rows)
            num += len(rows)
        log_odds = self._log_odds(self._held_out_rows).cpu()
        held_out_loss = self._objective.loss(log_odds, self._held_out).item()
        return Epoch(number, is_weak, total / num, held_out_loss, auc(log_odds, self._held_out.labels))

    def _log_odds(self, rows: Tensor) -> Tensor:
        """Those of some rows, in evaluation mode."""
        self._head.eval()
        with torch.inference_mode():
            parts = [
                self._head.log_odds(self._tokens.hidden[part].to(self._device)) for part in rows.split(EVALUATED_TOKENS)
            ]
        return torch.cat(parts)

    def _save(self) -> None:
        if self._state_file is None:
            return
        state = {
            "head": self._head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "torch": torch.get_rng_state(),
            "epochs": [asdict(epoch) for epoch in self._epochs],
            "best": self._best,
            "best_state": self._best_state,
        }
        with replacing(self._state_file) as temporary:
            torch.save(state, temporary)

    def _load(self) -> None:
        if self._state_file is None or not self._state_file.is_file():
            return
        state: dict[str, Any] = torch.load(self._state_file, weights_only=True)
        self._head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        self._epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self._best, self._best_state = state["best"], state["best_state"]


def auc(scores: Tensor, labels: Tensor) -> float:
    """Probability that a place of label 1 scores above one of label 0, ties a half; 0.5 where one of them is missing.

    >>> auc(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.0, 1.0, 1.0]))
    1.0
    """
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    if not num_positive or not num_negative:
        return 0.5
    ranks = rankdata(scores.double().numpy())
    above = ranks[labels.bool().numpy()].sum() - num_positive * (num_positive + 1) / 2
    value = above / (num_positive * num_negative)
    return float(value) if math.isfinite(value) else 0.5
