"""Whether an answer is right, by rule; no model is asked.

`grader` decides and starts the worker processes of `crew`, `answers` finds the answer in a response, `compare` and
what it imports decide whether two mathematical expressions are equal. A new notation is added in the reader of its kind
(`latex`, `units`, `name_reader`), with pairs in the tests. Pure but for the worker processes. May import `protocol` and
what is below it.
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
