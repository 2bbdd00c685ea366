"""The learning curve of a head as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from relay_verl.pictures import NEITHER, RELAY, STUDENT, dress, mark_steps, new_figure, save


class EpochLike(Protocol):
    """See `relay_verl.defer_training.head_trainer.Epoch`, whose module needs torch."""

    @property
    def number(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def is_weak(self) -> bool: ...
    @property
    def held_out_loss(self) -> float: ...
    @property
    def held_out_auc(self) -> float: ...


def draw_learning_curve(epochs: Sequence[EpochLike], best: int, out: Path, title: str) -> None:
    """Losses, and how well held-out places are told apart, by epoch; the epoch that was kept is marked.

    Args:
        epochs: in order, at least one.
        best: number of the one that was kept.
        out: the picture.
        title: a line above the panels.
    """
    numbers = [epoch.number for epoch in epochs]
    own = [epoch for epoch in epochs if not epoch.is_weak]  # a weak epoch's loss is another quantity
    with new_figure(8.5, 3.4, title) as figure:
        losses, aucs = figure.subplots(1, 2)
        losses.plot(
            [epoch.number for epoch in own], [epoch.loss for epoch in own], ".-", color=STUDENT, label="training"
        )
        losses.plot(numbers, [epoch.held_out_loss for epoch in epochs], ".-", color=RELAY, label="held out")
        aucs.plot(numbers, [epoch.held_out_auc for epoch in epochs], ".-", color=RELAY)
        for axis in (losses, aucs):
            axis.axvline(best, color=NEITHER, linewidth=1.1, linestyle=(0, (1, 1.6)), label=f"kept: epoch {best}")
            mark_steps(axis, 1, max(2, len(epochs)))
        losses.legend()
        dress(losses, "Loss", x="epoch", y="a token")
        dress(aucs, "Places told apart", x="epoch", y="area under the ROC curve")
        save(figure, out)
