r"""Which training questions are also in an evaluation set: equal, sharing long runs of words, or nearly equal. Pure.

Invariant: a question with at least one word overlaps exactly with itself, also in other case or with other blanks.
Time is linear in the training rows, which may be streamed; memory holds the evaluation questions, and the training
questions that share a run of words with one.

How two questions are compared. Both are reduced to words (`relay_verl.data.question_words`). Three looks follow, and
the first that says yes names the overlap's kind:

1. `exact`: the words are equal, instructions on the form of the answer aside.
2. `ngram`: they share runs of 13 words, the length at which GPT-3 (arXiv 2005.14165, appendix C) and many after it look
   for contamination. GPT-3 takes one shared run for contamination. Competition questions share phrases that long, so
   that a share of the runs is asked for: those that both have, over those of the question that has fewer. It is 1.0 if
   one question is the other with words added.
3. `lcs`: a word that is changed in the middle of a question breaks 13 runs. Questions that share shorter runs are
   aligned by their longest common subsequence (`relay_verl.data.alignment`).

What does not count, in the last two:
- known boilerplate (`relay_verl.data.boilerplate`), and figures as Asymptote code;
- a run of words that more than MAX_EVALUATION_QUESTIONS evaluation questions or MAX_TRAINING_QUESTIONS training
  questions have: a benchmark's instructions, or a turn of phrase;
- a question of the same template with other numbers, which is another problem.

Questions of fewer than 13 words are compared exactly only. A Chinese or Japanese character counts as a word. What this
does not find: translations, and free paraphrases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from rapidfuzz.distance import LCSseq

from relay_verl.data.alignment import align
from relay_verl.data.compared_question import ComparedQuestion, read_question
from relay_verl.data.question_words import normalize as normalize
from relay_verl.data.schema import QUESTION_COLUMNS, is_messages, question_of, row_id
from relay_verl.errors import UserError

Kind = Literal["exact", "ngram", "lcs"]
"""Which look finds an overlap, the surest first."""
KINDS: tuple[Kind, ...] = ("exact", "ngram", "lcs")
"""The kinds, the surest first."""
MIN_WORDS = 13
"""Words that a question needs to be compared other than exactly."""
MAX_EVALUATION_QUESTIONS = 5
"""Evaluation questions that may share a run of words before it stops counting."""
MAX_TRAINING_QUESTIONS = 20
"""Training questions that may, where one problem is around in several versions."""

SHORT_RUN = 5
"""Words in a run that two questions must share to be aligned."""
MAX_QUESTIONS_PER_SHORT_RUN = 50
"""Evaluation questions that may share such a run; bounds a row's time."""
MIN_SHORT_RUNS = 3
"""Short runs that they must share."""
MIN_SIMILARITY = 0.6
"""Words in common, over the mean length, that they must have before they are aligned."""
MIN_ALIGNED_SHARE = 0.85
"""Smallest share of an alignment that makes an overlap."""
FEW_WORDS, MIN_ALIGNED_SHARE_OF_FEW = 20, 0.95
"""A question of fewer words is another one as soon as a word of it is."""

_UNKNOWN = "\U0010ffff"


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
    kind: Kind
    """Which look finds it."""
    share: float
    """1.0 if exact; of an ngram, shared runs over the runs of the question that has fewer; else the alignment's."""


def find_overlaps(
    rows: Iterable[Mapping[str, Any]],
    evaluation_rows_by_name: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    ngram: int = 13,
    min_share: float = 0.5,
) -> list[Overlap]:
    """The overlaps of training rows with evaluation sets, in the order of `rows`; at most one a row and set.

    rows: in verl's schema. evaluation_rows_by_name: also rows with a `problem`, `question` or `prompt` as text.
    ngram: words in a long run. min_share: smallest share of the long runs that counts, above 0 and at most 1.

    Raises:
        UserError: a bad number, or an evaluation row without a question.
    """
    index = OverlapIndex(evaluation_rows_by_name, ngram=ngram, min_share=min_share)
    return [overlap for overlaps in index.overlaps_of(rows).values() for overlap in overlaps]


@dataclass(frozen=True)
class _Entry:
    """One evaluation question, of however many sets."""

    text: str
    """Its words that count, a character each."""
    has_figure: bool
    ids: dict[str, str]
    """Its first row in each set that has it."""


@dataclass(frozen=True)
class _Candidate:
    """A training question that is equal to an evaluation question, or shares runs with one."""

    question: ComparedQuestion
    text: str
    """Its words that count, a character each."""
    exact: int | None
    """Number of the entry that it equals."""
    long_runs: frozenset[int]
    """Hashes of runs that some entry has, too."""
    similar: tuple[int, ...]
    """Numbers of entries to align it with."""


class OverlapIndex:
    """Evaluation questions, ready to be compared with."""

    def __init__(
        self, rows_by_name: Mapping[str, Iterable[Mapping[str, Any]]], *, ngram: int = 13, min_share: float = 0.5
    ) -> None:
        """Read every evaluation set once. Raises as `find_overlaps`."""
        if ngram < 1:
            raise UserError(f"ngram={ngram} is not at least 1")
        if not 0 < min_share <= 1:
            raise UserError(f"min_share={min_share} is not above 0 and at most 1")
        self._ngram, self._min_share = ngram, min_share
        self._entries: list[_Entry] = []
        self._characters: dict[str, str] = {}  # word -> what stands for it in a text
        self._exact: dict[str, int] = {}  # key of a question -> number of its entry
        self._long: dict[int, tuple[int, ...]] = {}  # hash of a run -> numbers of entries, more than count if too many
        self._short: dict[int, tuple[int, ...]] = {}
        for benchmark, rows in rows_by_name.items():
            for number, row in enumerate(rows, start=1):
                self._add(benchmark, number, row)
        self._words_by_character = {character: word for word, character in self._characters.items()}

    def overlaps_of(self, rows: Iterable[Mapping[str, Any]]) -> dict[int, list[Overlap]]:
        """The overlaps of training rows by position, from 0: at most one a row and evaluation set, the surest."""
        # Whether a phrase is common among the training questions is known behind the last one, so that those that
        # share any wait until then.
        candidates: dict[int, _Candidate] = {}
        num_questions: Counter[int] = Counter()  # training questions that have a long run
        for position, row in enumerate(rows):
            if candidate := self._candidate(row):
                candidates[position] = candidate
                num_questions.update(candidate.long_runs)
        common = {run for run, num in num_questions.items() if num > MAX_TRAINING_QUESTIONS}
        overlaps = {position: self._judge(candidate, common) for position, candidate in candidates.items()}
        return {position: judged for position, judged in overlaps.items() if judged}

    def _candidate(self, row: Mapping[str, Any]) -> _Candidate | None:
        question = read_question(row_id(row), question_of(row) or "")
        text = "".join(self._characters.get(word, _UNKNOWN) for word in question.words)
        exact = self._exact.get(question.key)
        long_runs = frozenset(run for run in _runs(text, self._ngram) if self._counts(run))
        similar = self._similar(text) if len(text) >= MIN_WORDS else ()
        if exact is None and not long_runs and not similar:
            return None
        return _Candidate(question, text, exact, long_runs, similar)

    def _counts(self, run: int) -> bool:
        return 0 < len(self._long.get(run, ())) <= MAX_EVALUATION_QUESTIONS

    def _similar(self, text: str) -> tuple[int, ...]:
        """Evaluation questions of about these words, in about this order."""
        numbers = (self._short.get(run, ()) for run in _runs(text, SHORT_RUN))
        shared = Counter(chain.from_iterable(some for some in numbers if len(some) <= MAX_QUESTIONS_PER_SHORT_RUN))
        return tuple(
            number
            for number in sorted(number for number, num in shared.items() if num >= MIN_SHORT_RUNS)
            if _similarity(text, self._entries[number].text) >= MIN_SIMILARITY
        )

    def _judge(self, candidate: _Candidate, common: set[int]) -> list[Overlap]:
        """The overlaps of one question: of each evaluation set the surest kind, and of that the largest share."""
        best: dict[str, tuple[int, float, int]] = {}  # benchmark -> rank of the kind, minus the share, number
        for kind, share, number in self._matches(candidate, common):
            rank = (KINDS.index(kind), -share, number)
            for benchmark in self._entries[number].ids:
                best[benchmark] = min(rank, best.get(benchmark, rank))
        id, question = candidate.question.id, candidate.question.question
        return [
            Overlap(id, question, benchmark, self._entries[number].ids[benchmark], KINDS[rank], -share)
            for benchmark, (rank, share, number) in best.items()
        ]

    def _matches(self, candidate: _Candidate, common: set[int]) -> Iterator[tuple[Kind, float, int]]:
        """Every evaluation question that the training question overlaps with: the kind, the share, its number."""
        if candidate.exact is not None:
            yield "exact", 1.0, candidate.exact
        words = candidate.question.words
        num_shared = Counter(number for run in candidate.long_runs - common for number in self._long[run])
        for number in sorted({*num_shared, *candidate.similar} - {candidate.exact}):
            entry = self._entries[number]
            share = num_shared[number] / self._num_comparable_runs(candidate, entry, common)
            if share < self._min_share and number not in candidate.similar:
                continue
            alignment = align(words, [self._words_by_character[character] for character in entry.text])
            # With every run in common one question is a part of the other, and there is nothing that could differ.
            if share >= self._min_share and (share == 1 or alignment.is_same_formula):
                yield "ngram", share, number
            elif number in candidate.similar and alignment.is_same_formula:
                is_short = min(len(words), len(entry.text)) < FEW_WORDS
                if alignment.share >= (MIN_ALIGNED_SHARE_OF_FEW if is_short else MIN_ALIGNED_SHARE):
                    yield "lcs", alignment.share, number

    def _num_comparable_runs(self, candidate: _Candidate, entry: _Entry, common: set[int]) -> int:
        """The runs that count, of the question that has fewer; at least 1."""
        own, theirs = self._num_counting_runs(candidate.text, common), self._num_counting_runs(entry.text, common)
        if candidate.question.has_figure == entry.has_figure:
            return max(min(own, theirs), 1)
        # The text that goes with a figure is often general: then it is the other question that is to be covered.
        return max(theirs if candidate.question.has_figure else own, 1)

    def _num_counting_runs(self, text: str, common: set[int]) -> int:
        """How many runs of a text count, those that no evaluation question has included."""
        runs = set(_runs(text, self._ngram)) - common
        return sum(len(self._long.get(run, ())) <= MAX_EVALUATION_QUESTIONS for run in runs)

    def _add(self, benchmark: str, row_number: int, row: Mapping[str, Any]) -> None:
        question = question_of(row)
        if question is None:
            columns = ", ".join(map(str, row))
            raise UserError(
                f"{benchmark}: row {row_number} has no question in {', '.join(QUESTION_COLUMNS)}; it has {columns}"
            )
        read = read_question(_evaluation_id(row, row_number), question)
        if not read.key:
            return
        # A question that is listed many times is one entry, else its runs would look like instructions.
        number = self._exact.setdefault(read.key, len(self._entries))
        if number < len(self._entries):
            self._entries[number].ids.setdefault(benchmark, read.id)
            return
        text = "".join(self._characters.setdefault(word, _character(len(self._characters))) for word in read.words)
        self._entries.append(_Entry(text, read.has_figure, {benchmark: read.id}))
        _note(self._long, _runs(text, self._ngram), number, MAX_EVALUATION_QUESTIONS)
        if len(text) >= MIN_WORDS:
            _note(self._short, _runs(text, SHORT_RUN), number, MAX_QUESTIONS_PER_SHORT_RUN)


def _runs(text: str, num_words: int) -> Iterator[int]:
    """The hashes of the runs of a text, a character a word."""
    for start in range(len(text) - num_words + 1):
        yield hash(text[start : start + num_words])


def _note(numbers_by_run: dict[int, tuple[int, ...]], runs: Iterable[int], number: int, most: int) -> None:
    """Note that an entry has the runs; those of more than `most` entries stay known as such, and grow no further."""
    only_this = (number,)  # one object for all runs: there are millions, and few are shared
    for run in set(runs):
        numbers = numbers_by_run.get(run, ())
        if len(numbers) <= most:
            numbers_by_run[run] = (*numbers, number) if numbers else only_this


def _similarity(text: str, other: str) -> float:
    total = len(text) + len(other)
    return 2 * LCSseq.similarity(text, other, score_cutoff=int(MIN_SIMILARITY * total / 2)) / total


def _character(number: int) -> str:
    """A character for a word: any but the surrogates, which no text may hold, and _UNKNOWN."""
    code = number + 1
    return chr(code if code < 0xD800 else code + 0x800)


def _evaluation_id(row: Mapping[str, Any], row_number: int) -> str:
    """The row's id in verl's schema, else its column `id` or `unique_id`, else its number from 1."""
    if isinstance(row.get("extra_info"), Mapping) and is_messages(row.get("prompt")):
        return row_id(row)
    return next((str(row[key]) for key in ("id", "unique_id") if row.get(key) is not None), f"row {row_number}")
