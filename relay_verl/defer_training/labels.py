"""The label of each place of a reference answer: whether the student may write there (CITER). Pure.

    the student's greedy token is the reference's             1   source STUDENT
    else the teacher's is                                     0   source TEACHER
    else, neither is: whether a rollout from there is right  0/1  source ROLLOUT

Entry t is about the reference's token t, behind the prompt and the tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class LabelSource(IntEnum):
    """What decides a label."""

    STUDENT = 0
    """The student has the reference's token."""
    TEACHER = 1
    """The teacher alone has it."""
    ROLLOUT = 2
    """Neither has it: a rollout decides, and a later iteration decides anew."""


@dataclass(frozen=True)
class Labels:
    """The labels of one reference of `length` tokens."""

    sources: list[int]
    """`LabelSource` of each place, [length]."""
    values: list[int]
    """1: the student may write; 0: the teacher has to, [length]. 0 where a rollout has yet to decide."""

    @property
    def open_places(self) -> list[int]:
        """The places that a rollout decides."""
        return [place for place, source in enumerate(self.sources) if source == LabelSource.ROLLOUT]

    def decided(self, is_right: Sequence[bool]) -> Labels:
        """The same with the rollouts' verdicts, one for each of `open_places`."""
        values = list(self.values)
        for place, verdict in zip(self.open_places, is_right, strict=True):
            values[place] = int(verdict)
        return Labels(self.sources, values)


def label_places(reference: Sequence[int], student: Sequence[int], teacher: Sequence[int]) -> Labels:
    """The labels before any rollout.

    Args:
        reference: the reference's tokens, [length].
        student, teacher: the greedy token of each model at each place, [length].

    >>> label_places([5, 6, 7], student=[5, 0, 0], teacher=[5, 6, 1])
    Labels(sources=[0, 1, 2], values=[1, 0, 0])
    """
    sources = [
        int(LabelSource.STUDENT if own == token else LabelSource.TEACHER if other == token else LabelSource.ROLLOUT)
        for token, own, other in zip(reference, student, teacher, strict=True)
    ]
    return Labels(sources, [int(source == LabelSource.STUDENT) for source in sources])
