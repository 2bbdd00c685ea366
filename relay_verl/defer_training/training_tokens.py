"""The tokens that a head is trained on, as tensors, and which of them are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relay_verl.config.defer_training_settings import Split
from relay_verl.defer_training.labelled_query import LabelledQuery
from relay_verl.defer_training.labels import LabelSource
from relay_verl.errors import UserError


@dataclass(frozen=True)
class TrainingTokens:
    """Places of references, one a row."""

    hidden: Tensor
    """What the head reads, [num_tokens, hidden_size]."""
    labels: Tensor
    """1.0 where the student may write, [num_tokens]."""
    needs_teacher: Tensor
    """1.0 where the teacher alone has the reference's token: Co-LLM's weak label, [num_tokens]."""
    is_rolled_out: Tensor
    """Where a rollout decides the label, [num_tokens]."""
    logprobs: Tensor | None
    """Log-probability of the reference's token under student and teacher, [num_tokens, 2]; None if they are unknown."""
    queries: Tensor
    """Number of the query, [num_tokens]."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: Tensor) -> TrainingTokens:
        """Some rows."""
        return replace(self.answers_at(rows), hidden=self.hidden[rows])

    def answers_at(self, rows: Tensor) -> TrainingTokens:
        """Some rows without their hidden states, which are large: what a loss reads."""
        logprobs = None if self.logprobs is None else self.logprobs[rows]
        others = (self.needs_teacher[rows], self.is_rolled_out[rows], logprobs, self.queries[rows])
        return TrainingTokens(self.hidden[:0], self.labels[rows], *others)

    def to(self, device: str) -> TrainingTokens:
        """On a device."""
        logprobs = None if self.logprobs is None else self.logprobs.to(device)
        others = (self.needs_teacher.to(device), self.is_rolled_out.to(device), logprobs, self.queries.to(device))
        return TrainingTokens(self.hidden.to(device), self.labels.to(device), *others)


def make_tokens(
    queries: Sequence[LabelledQuery], hidden: Tensor, *, needs_logprobs: bool, path: object
) -> TrainingTokens:
    """All places of all references.

    Args:
        queries: in the order of `hidden`.
        hidden: see `relay_verl.defer_training.hidden_states`.
        needs_logprobs: whether the objective reads them.
        path: of the labels, for a message.

    Raises:
        UserError: log-probabilities are needed and are not there.
    """
    labels = torch.tensor([value for query in queries for value in query.values], dtype=torch.float32)
    sources = torch.tensor([source for query in queries for source in query.sources])
    numbers = [number for number, query in enumerate(queries) for _ in query.reference_ids]
    logprobs: Tensor | None = None
    if needs_logprobs:
        columns = [
            [value for query in queries for value in getattr(query, name) or ()]
            for name in ("student_logprobs", "teacher_logprobs")
        ]
        if any(len(column) != len(labels) for column in columns):
            raise UserError(
                f"{path}: has no log-probabilities, which a collm head is trained on: write it again with "
                "`relay-verl defer-data --logprobs`"
            )
        logprobs = torch.tensor(columns).T.contiguous()
    weak = (sources == LabelSource.TEACHER).float()
    return TrainingTokens(hidden, labels, weak, sources == LabelSource.ROLLOUT, logprobs, torch.tensor(numbers))


def split_rows(tokens: TrainingTokens, split: Split, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows to train on and those that are held out, each in a random order.

    Args:
        tokens: of which.
        split: 'token': rows at random; 'query': those of whole queries.
        share: that is held out, of the rows or of the queries; at least one of either stays on each side.
        generator: of the draws.

    Raises:
        UserError: there are fewer than two of what is split.
    """
    num = len(tokens) if split == "token" else int(tokens.queries.max()) + 1
    if num < 2:
        raise UserError(f"relay.defer_training.split={split}: needs at least 2, got {num}")
    order = torch.randperm(num, generator=generator)
    num_held_out = min(max(1, round(share * num)), num - 1)
    if split == "token":
        return order[num_held_out:], order[:num_held_out]
    rows = torch.randperm(len(tokens), generator=generator)
    is_held_out = torch.isin(tokens.queries[rows], order[:num_held_out])
    return rows[~is_held_out], rows[is_held_out]
