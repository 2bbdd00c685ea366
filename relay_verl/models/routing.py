"""Which of several teachers answers a response: by the query's data source, then drawn by weight. Pure.

Invariant: one teacher answers all calls of a response, so that its prefix cache holds the response so far, and the same
seed draws the same teacher.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from relay_verl.config import TeacherSettings
from relay_verl.errors import EngineError


def teachers_for(teachers: Sequence[TeacherSettings], data_source: str | None) -> list[TeacherSettings]:
    """Those that may answer a query of this data source: who names it, or if no one does, who names none."""
    naming = [teacher for teacher in teachers if data_source in (teacher.data_sources or ())]
    return naming or [teacher for teacher in teachers if teacher.data_sources is None]


def pick_teacher(teachers: Sequence[TeacherSettings], data_source: str | None, seed: int) -> TeacherSettings:
    """The one that answers a response.

    >>> a, b = TeacherSettings(path="a"), TeacherSettings(path="b", data_sources=("code",))
    >>> pick_teacher([a, b], "math", seed=0).path, pick_teacher([a, b], "code", seed=0).path
    ('a', 'b')

    Args:
        teachers: with weights above 0.
        data_source: of the query; None if the dataset does not say.
        seed: of the draw.

    Raises:
        EngineError: no one answers this data source.
    """
    candidates = teachers_for(teachers, data_source)
    if not candidates:
        raise EngineError(f"no teacher answers data_source={data_source!r}")
    return random.Random(seed).choices(candidates, [teacher.weight for teacher in candidates])[0]
