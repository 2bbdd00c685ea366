"""Is this answer right? `grade` judges a response by rule; see `relay_verl.grading.grader`.

The README of the room has the rules and a table of its files. May import `protocol` and what is below it.
"""

from relay_verl.grading.answers import boxed_answer, last_boxed
from relay_verl.grading.grader import (
    KINDS,
    MAX_ANSWER_CHARS,
    Grader,
    Kind,
    Verdict,
    VerdictStatus,
    grade,
    grade_async,
    kind_of,
)

__all__ = [
    "KINDS",
    "MAX_ANSWER_CHARS",
    "Grader",
    "Kind",
    "Verdict",
    "VerdictStatus",
    "boxed_answer",
    "grade",
    "grade_async",
    "kind_of",
    "last_boxed",
]
