r"""Which training questions are also in an evaluation set: equal, or sharing long runs of words. Pure.

Invariant: a question with at least one word overlaps exactly with itself, also in other case or with other blanks.
Time is linear in the training rows, which may be streamed; memory holds the evaluation questions alone.

How two questions are compared:
- Both are reduced to words by `words_of`: letters, numbers and operators in order. Unicode variants, case, blanks,
  punctuation and LaTeX's spacing and fonts are gone; `3+5` and `3-5` stay apart.
- Equal words are an `exact` overlap.
- Else their runs of 13 words are compared, the length at which GPT-3 (arXiv 2005.14165, appendix C) and many after it
  look for contamination. GPT-3 takes one shared run for contamination. Competition questions share phrases that long
  ("where m and n are relatively prime positive integers, find m+n"), so that a share of the runs is asked for: those
  that both have, over those of the question that has fewer. It is 1.0 if one question is the other with words added.
- Runs that more than MAX_QUESTIONS_PER_NGRAM questions have are a benchmark's instructions, and do not count.
- Questions of fewer than 13 words are compared exactly only. A Chinese or Japanese character counts as a word.

Runs are kept as 64-bit hashes. What this does not find: translations, and paraphrases.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from relay_verl.config import ConfigError
from relay_verl.data.schema import QUESTION_COLUMNS, is_messages, question_of, row_id

MAX_QUESTIONS_PER_NGRAM = 50
"""Evaluation questions that may share a run of words before it stops counting; also what bounds a row's time."""

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SPACING = re.compile(
    r"\\\\|\\[,;:!> ()\[\]]"
    r"|\\(?:q?quad|left|right|displaystyle|textstyle|limits|text|textbf|textit|mathrm|mathbf|mathit)(?![a-z])"
)
_FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
_COMMAND = re.compile(r"\\([a-z]+)")
_WORD = re.compile(rf"\d+|[{_CJK}]|[^\W\d_{_CJK}]+|[-+*/=<>^!%|×÷±\u2200-\u22ff]")


@dataclass(frozen=True)
class Overlap:
    """A training question that an evaluation set has too."""

    id: str
    """The training row's id."""
    question: str
    """Its question."""
    benchmark: str
    """The evaluation set."""
    benchmark_id: str
    """The evaluation row's id."""
    kind: Literal["exact", "ngram"]
    """Whether the words are equal, or only share runs."""
    share: float
    """Shared runs over the runs of the question that has fewer; 1.0 if exact."""


def words_of(question: str) -> list[str]:
    r"""The words that a question is compared by.

    >>> words_of("Find  $\\left(\\dfrac{1}{2}\\right)^2$, please."), words_of("2x−1")
    (['find', 'frac', '1', '2', '^', '2', 'please'], ['2', 'x', '-', '1'])
    """
    text = unicodedata.normalize("NFD", question).casefold()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _SPACING.sub(" ", text.replace("\u2212", "-").replace("\u2044", "/"))
    return _WORD.findall(_COMMAND.sub(r" \1 ", _FRACTION.sub(r"\\frac", text)))


def normalize(question: str) -> str:
    """The words with a blank between; `normalize(normalize(q)) == normalize(q)`."""
    return " ".join(words_of(question))


def find_overlaps(
    rows: Iterable[Mapping[str, Any]],
    evaluation_rows_by_name: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    ngram: int = 13,
    min_share: float = 0.5,
) -> list[Overlap]:
    """The overlaps of training rows with evaluation sets, in the order of `rows`; at most one a row and set.

    rows: in verl's schema. evaluation_rows_by_name: also rows with a `problem`, `question` or `prompt` as text.
    ngram: words in a run. min_share: smallest share that counts, above 0 and at most 1.

    Raises:
        ConfigError: a bad number, or an evaluation row without a question.
    """
    index = OverlapIndex(evaluation_rows_by_name, ngram=ngram, min_share=min_share)
    return [overlap for row in rows for overlap in index.overlaps_of(row)]


@dataclass(frozen=True)
class _Entry:
    """One evaluation question."""

    benchmark: str
    id: str


class OverlapIndex:
    """Evaluation questions, ready to be compared with."""

    def __init__(
        self, rows_by_name: Mapping[str, Iterable[Mapping[str, Any]]], *, ngram: int = 13, min_share: float = 0.5
    ) -> None:
        """Read every evaluation set once. Raises as `find_overlaps`."""
        if ngram < 1:
            raise ConfigError(f"ngram={ngram} is not at least 1")
        if not 0 < min_share <= 1:
            raise ConfigError(f"min_share={min_share} is not above 0 and at most 1")
        self._ngram, self._min_share = ngram, min_share
        self._entries: list[_Entry] = []
        self._exact: dict[str, tuple[int, ...]] = {}  # normalized question -> numbers of entries, one a benchmark
        self._having: dict[int, tuple[int, ...]] = {}  # hash of a run -> numbers of entries
        for benchmark, rows in rows_by_name.items():
            for number, row in enumerate(rows, start=1):
                self._add(benchmark, number, row)
        self._common = {run for run, having in self._having.items() if len(having) > MAX_QUESTIONS_PER_NGRAM}
        for run in self._common:
            del self._having[run]
        self._num_runs = Counter(number for having in self._having.values() for number in having)

    def overlaps_of(self, row: Mapping[str, Any]) -> list[Overlap]:
        """The overlaps of one training row, at most one an evaluation set: an exact one, else the largest share."""
        question = question_of(row) or ""
        words = words_of(question)
        best = {self._entries[number].benchmark: (1.0, number) for number in self._exact.get(" ".join(words), ())}
        exact = set(best)
        for share, number in self._shares(words):
            benchmark = self._entries[number].benchmark
            if benchmark not in exact and share >= self._min_share and share > best.get(benchmark, (0.0, 0))[0]:
                best[benchmark] = (share, number)
        return [
            Overlap(
                id=row_id(row),
                question=question,
                benchmark=benchmark,
                benchmark_id=self._entries[number].id,
                kind="exact" if benchmark in exact else "ngram",
                share=share,
            )
            for benchmark, (share, number) in best.items()
        ]

    def _shares(self, words: list[str]) -> Iterator[tuple[float, int]]:
        """Every evaluation question that has a run of these words: the share, and the question's number."""
        runs = set(self._runs(words)) - self._common
        shared = Counter(number for run in runs for number in self._having.get(run, ()))
        for number in sorted(shared):
            yield shared[number] / min(len(runs), self._num_runs[number]), number

    def _runs(self, words: list[str]) -> Iterator[int]:
        for start in range(len(words) - self._ngram + 1):
            yield hash(tuple(words[start : start + self._ngram]))

    def _add(self, benchmark: str, row_number: int, row: Mapping[str, Any]) -> None:
        question = question_of(row)
        if question is None:
            columns = ", ".join(map(str, row))
            raise ConfigError(
                f"{benchmark}: row {row_number} has no question in {', '.join(QUESTION_COLUMNS)}; it has {columns}"
            )
        words = words_of(question)
        normalized = " ".join(words)
        known = self._exact.get(normalized, ())
        # A set that lists each question many times has it once here, else its runs would look like instructions.
        if not words or any(self._entries[number].benchmark == benchmark for number in known):
            return
        number = len(self._entries)
        only_this = (number,)
        self._entries.append(_Entry(benchmark, _evaluation_id(row, row_number)))
        self._exact[normalized] = (*known, number)
        for run in set(self._runs(words)):
            having = self._having.get(run)
            if having is None:
                self._having[run] = only_this
            elif len(having) <= MAX_QUESTIONS_PER_NGRAM:
                self._having[run] = (*having, number)


def _evaluation_id(row: Mapping[str, Any], row_number: int) -> str:
    """The row's id in verl's schema, else its column `id` or `unique_id`, else its number from 1."""
    if isinstance(row.get("extra_info"), Mapping) and is_messages(row.get("prompt")):
        return row_id(row)
    return next((str(row[key]) for key in ("id", "unique_id") if row.get(key) is not None), f"row {row_number}")
