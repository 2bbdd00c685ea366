r"""Is this answer right? Math, multiple choice and plain text, judged by rule, in a process that can be killed.

Paper: RelayLLM (arXiv 2601.05167), section 3.2.1, the rule-based verifier whose yes or no is the reward's 1[correct].
Appendix C.2's LLM judge is separate and not here.

Invariant: `grade` returns a Verdict for whatever it is given. It never raises and never hangs, from any thread, from
asyncio, in a fork or a Ray actor, and one answer's fate never touches the next one's.

How an answer is found, in time linear in the response:
- The response is read without its commands, well-formed or not: a command never changes a verdict, wherever it stands.
- It is the content of the last complete, non-empty `\boxed{...}` with balanced braces (`\{` and `\}` are not braces).
  Boxes at the end that only a comma, `and` or `or` joins are one list, on both sides.
- Math or text without a box is `no_answer`: stray numbers are not graded.
- Multiple choice without a box may say "answer is (B)" or "Answer: B"; the last one counts.

How it is judged:
- Choice letters, equal texts and plain integers are decided right here; plain text is, too, in
  `relay_verl.grading.text`.
- Everything else goes to `relay_verl.grading.math_worker`, a subprocess with a limit of processor time. It is a process
  since a comparison can take long, and a signal cannot stop every operation nor reach another thread.
- An answer above MAX_ANSWER_CHARS is wrong and is sent nowhere.
- Of several accepted answers one must be right.
"""

import asyncio
import functools
import logging
import os
import re
import typing
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from relay_verl.grading.answers import boxed_answer, choice_letter, stated_choice, trim
from relay_verl.grading.crew import WorkerCrew, WorkerLostError
from relay_verl.grading.text import is_same_text
from relay_verl.protocol import strip_attempted_calls

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 4096
"""Longest answer or ground truth that is compared, in characters."""
MAX_INLINE_CHARS = 1 << 16
"""Longest response that `grade_async` scans on the event loop (a few milliseconds); longer ones go to its threads."""

Kind = Literal["math", "choice", "text"]
"""How an answer is judged. Text is for what is not mathematics, such as `yes, no`, which is a list with an order."""
KINDS: tuple[Kind, ...] = typing.get_args(Kind)


def kind_of(ability: object) -> Kind:
    """How a row of verl's schema is graded, by its `ability`: one of KINDS, or math."""
    return next((kind for kind in KINDS if kind == ability), "math")


class VerdictStatus(StrEnum):
    """How the grading of one response ended."""

    GRADED = "graded"
    """`is_correct` is a judgement."""
    NO_ANSWER = "no_answer"
    """The response holds no answer of this kind."""
    TIMEOUT = "timeout"
    """The comparison used up its processor time."""
    ERROR = "error"
    """The grader failed, or was given no usable ground truth or kind; the log says why."""


@dataclass(frozen=True)
class Verdict:
    """What the grader says of one response. Only a `graded` one can be correct."""

    is_correct: bool
    answer: str | None
    """The answer as the response has it without its commands, cut at MAX_ANSWER_CHARS; for a choice its upper-case
    letter."""
    status: VerdictStatus


_INTEGER = re.compile(r"[+-]?[0-9]+")


def _decide_here(response: object, ground_truth: object, kind: Kind) -> Verdict | tuple[str, str, str]:
    """The verdict, or what the worker has to compare: the answer as written, its text and the truth's, both trimmed."""
    if not isinstance(response, str):
        return _error(f"response must be a str, not {type(response).__name__}")
    if not isinstance(ground_truth, str):
        return _error(f"ground_truth must be a str, not {type(ground_truth).__name__}")
    if kind not in KINDS:
        return _error(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    response = strip_attempted_calls(response)
    answer = boxed_answer(response)
    truth = boxed_answer(ground_truth, is_truth=True) or ground_truth
    if kind == "choice":
        true_letter = choice_letter(truth)
        if true_letter is None:
            return _error(f"the ground truth of a choice must be a letter, not {truth[:80]!r}")
        letter = choice_letter(answer) if answer else stated_choice(response)
        answer = letter or answer  # a box without a letter is a wrong answer, not a missing one
        if answer is None:
            return Verdict(False, None, VerdictStatus.NO_ANSWER)
        return Verdict(letter == true_letter, answer[:MAX_ANSWER_CHARS], VerdictStatus.GRADED)
    if answer is None:
        return Verdict(False, None, VerdictStatus.NO_ANSWER)
    if max(len(answer), len(truth)) > MAX_ANSWER_CHARS:
        return Verdict(False, answer[:MAX_ANSWER_CHARS], VerdictStatus.GRADED)
    if kind == "text":
        return Verdict(is_same_text(answer, truth), answer, VerdictStatus.GRADED)
    trimmed, truth = trim(answer), trim(truth)
    if not truth:
        return _error("the ground truth is empty", answer)
    if trimmed == truth:
        return Verdict(True, answer, VerdictStatus.GRADED)
    if _INTEGER.fullmatch(trimmed) and _INTEGER.fullmatch(truth):
        return Verdict(int(trimmed) == int(truth), answer, VerdictStatus.GRADED)
    return answer, trimmed, truth


def _error(reason: str, answer: str | None = None) -> Verdict:
    logger.warning("relay_verl.grading: %s", reason)
    return Verdict(False, answer, VerdictStatus.ERROR)


def _any_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The right one; else one that is not a judgement, which might have been right; else any."""
    if not verdicts:
        return _error("there is not a single accepted answer")
    undecided = (verdict for verdict in verdicts if verdict.status is not VerdictStatus.GRADED)
    return next((verdict for verdict in verdicts if verdict.is_correct), None) or next(undecided, verdicts[0])


def _close_own_crew(crews: dict[int, WorkerCrew]) -> None:
    crew = crews.get(os.getpid())
    if crew:
        crew.close()


class Grader:
    """Grades responses with worker processes of its own. Thread-safe, fork-safe, usable from several event loops.

    A worker starts when it is first needed and is started again after a timeout or a crash. `close`, the end of the
    program and garbage collection end all of them.

        with Grader(timeout_s=2.0) as grader:
            grader.grade(r"so \boxed{0.5}", r"\frac{1}{2}").is_correct
    """

    def __init__(self, *, timeout_s: float = 5.0, num_workers: int = 4, start_timeout_s: float = 60.0) -> None:
        """Start nothing yet. Raises ValueError for a value that is not positive.

        timeout_s: seconds of processor time one comparison may take.
        num_workers: most worker processes at a time, about 60 MB each; further answers wait for a free one.
        start_timeout_s: seconds a worker may take to start; past them the answer's status is `error`.
        """
        settings = {"timeout_s": timeout_s, "num_workers": num_workers, "start_timeout_s": start_timeout_s}
        for name, value in settings.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        self._timeout_s = timeout_s
        self._num_workers = num_workers
        self._start_timeout_s = start_timeout_s
        self._crews: dict[int, WorkerCrew] = {}  # by process id
        weakref.finalize(self, _close_own_crew, self._crews)  # also runs at exit

    def grade(self, response: str, ground_truth: str | Sequence[str], kind: Kind = "math") -> Verdict:
        """Judge one response against a truth, or several of which one must be right. Never raises."""
        if isinstance(ground_truth, (list, tuple)):
            return _any_of([self._grade_one(response, truth, kind) for truth in ground_truth])
        return self._grade_one(response, ground_truth, kind)

    async def grade_async(self, response: str, ground_truth: str | Sequence[str], kind: Kind = "math") -> Verdict:
        """Like `grade`, without blocking the event loop. At most `num_workers` comparisons run at a time."""
        if isinstance(ground_truth, (list, tuple)):
            each = (self._grade_one_async(response, truth, kind) for truth in ground_truth)
            return _any_of(await asyncio.gather(*each))
        return await self._grade_one_async(response, ground_truth, kind)

    def is_readable(self, ground_truth: str) -> bool | None:
        """Whether a mathematical truth parses; if not, only an answer of the very same spelling is right. None if the
        worker could not say."""
        try:
            truth = trim(boxed_answer(ground_truth, is_truth=True) or ground_truth)
            is_plain = _INTEGER.fullmatch(truth) is not None
            return is_plain or self._crew().ask("is_readable", [truth], self._timeout_s)
        except (TimeoutError, WorkerLostError, OSError):
            return None

    def close(self) -> None:
        """End the workers. Afterwards, what only a worker can compare has the status `error`."""
        self._crew().close()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _grade_one(self, response: str, ground_truth: object, kind: Kind) -> Verdict:
        try:
            decided = _decide_here(response, ground_truth, kind)
            return decided if isinstance(decided, Verdict) else self._compare(*decided)
        except Exception as error:  # the promise: no answer ends a training run
            return _error(repr(error))

    async def _grade_one_async(self, response: str, ground_truth: object, kind: Kind) -> Verdict:
        try:
            run = functools.partial(asyncio.get_running_loop().run_in_executor, self._crew().threads)
            if isinstance(response, str) and len(response) > MAX_INLINE_CHARS:
                return await run(self._grade_one, response, ground_truth, kind)
            decided = _decide_here(response, ground_truth, kind)
            return decided if isinstance(decided, Verdict) else await run(self._compare, *decided)
        except Exception as error:  # as in `_grade_one`
            return _error(repr(error))

    def _crew(self) -> WorkerCrew:
        pid = os.getpid()
        crew = self._crews.get(pid)
        return crew or self._crews.setdefault(pid, WorkerCrew(self._num_workers, self._start_timeout_s))

    def _compare(self, answer: str, trimmed: str, truth: str) -> Verdict:
        try:
            is_correct = self._crew().ask("is_equivalent", [trimmed, truth], self._timeout_s)
        except TimeoutError:
            return Verdict(False, answer, VerdictStatus.TIMEOUT)
        except (WorkerLostError, OSError) as error:
            return _error(str(error), answer)
        return Verdict(is_correct, answer, VerdictStatus.GRADED)


@functools.cache
def _default_grader() -> Grader:
    return Grader()


def grade(response: str, ground_truth: str | Sequence[str], kind: Kind = "math") -> Verdict:
    r"""Judge one response with the process's default Grader. Never raises; a comparison is cut off after 5 seconds of
    processor time.

    response: the model's text; its commands do not count.
    ground_truth: plain text or LaTeX, bare, in `$...$` or in a `\boxed{}`; or several, of which one must be right.
    kind: `math`, `choice` for a letter A to Z, or `text`.

    >>> grade(r"Half of it: \boxed{4}.", "4")
    Verdict(is_correct=True, answer='4', status=<VerdictStatus.GRADED: 'graded'>)
    >>> grade("The answer is (B).", "B", kind="choice").is_correct
    True
    """
    return _default_grader().grade(response, ground_truth, kind)


async def grade_async(response: str, ground_truth: str | Sequence[str], kind: Kind = "math") -> Verdict:
    """`grade` for use inside an event loop, such as a Ray actor's."""
    return await _default_grader().grade_async(response, ground_truth, kind)
