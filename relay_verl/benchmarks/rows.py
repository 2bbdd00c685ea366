r"""A row of a benchmark's copy as a row of verl's schema. Pure.

Invariant: `RowReader.read_row` gives a row that can be asked and graded, or None for a copy of one before it, or raises
a UserError that names the row's place.

A row in verl's schema keeps its prompt, with one exception: known instructions that ask for the answer outside a box
(DAPO's `Answer: $Answer`) are replaced by the paper's, since the grader reads boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relay_verl.benchmarks.readers import CHOICE_ANSWERS, GPQA_OPTIONS, task_of_file
from relay_verl.data.examples import TEXT_ANSWERS, Reader, Row, missing_columns
from relay_verl.data.prompts import wrap
from relay_verl.data.schema import COLUMNS, CopyFinder, boxless_question, check_row, text_id, to_row, truth_fields
from relay_verl.data.sources import PlacedRow
from relay_verl.data.truths import truth_of
from relay_verl.errors import UserError
from relay_verl.grading import KINDS, Kind


@dataclass(kw_only=True)
class RowReader:
    """Reads the rows of one copy of a benchmark, in order."""

    name: str
    """The benchmark."""
    read: Reader
    """How a row in no schema of ours is read."""
    kind: Kind
    """How its answers are graded."""
    split: str
    """Its split, for the rows."""
    any_of: bool = False
    """Whether one answer of a list is enough."""
    has_tasks: bool = False
    """Whether a file's name may say which task its rows belong to."""
    keeps_sources: bool = False
    """Whether rows in verl's schema keep their data source."""
    copies: CopyFinder = field(default_factory=CopyFinder)
    """Which rows repeat one before them."""
    num_rewrapped: int = 0
    """Prompts whose instructions were replaced."""
    _question_ids: Counter[str] = field(default_factory=Counter)

    def read_row(self, placed: PlacedRow) -> dict[str, Any] | None:
        """The row in verl's schema; None for a copy.

        Raises:
            UserError: columns are missing, or it has no question or no answer; names its place.
        """
        row = placed.row
        if all(column in row for column in COLUMNS) and not isinstance(row["prompt"], str):
            checked = self._from_schema(row, placed.place)
        else:
            checked = self._from_columns(placed)
        return None if self.copies.is_copy(checked) else checked

    def warnings(self, place: str) -> Iterator[str]:
        """What was done with the rows, a line each."""
        if self.copies.num_copies:
            num_queries = self.copies.num_queries
            yield (
                f"{place}: {num_queries + self.copies.num_copies} rows are {num_queries} questions; copies with the "
                "same id, prompt and answer are asked once"
            )
        if self.num_rewrapped:
            yield (
                f"{place}: {self.num_rewrapped} prompts ask for the answer outside a box, where the grader does not "
                "look; the paper's instruction replaces theirs"
            )

    def _from_schema(self, row: Row, place: str) -> dict[str, Any]:
        """A row of verl's schema, under the benchmark's name and with a way to be graded."""
        checked = check_row(row, place, any_of=self.any_of)
        reward_model = {name: value for name, value in checked["reward_model"].items() if name != "any_of"}
        checked["reward_model"] = reward_model | truth_fields(truth_of(checked["reward_model"]))
        ability = checked.get("ability")
        checked["ability"] = ability if ability in KINDS else self.kind
        checked["prompt"] = self._with_a_box(checked["prompt"])
        if not self.keeps_sources:
            checked["data_source"] = self.name
        return checked

    def _with_a_box(self, prompt: list[dict[str, str]]) -> list[dict[str, str]]:
        question = boxless_question(prompt)
        if question is None:
            return prompt
        self.num_rewrapped += 1
        return [*prompt[:-1], {**prompt[-1], "content": wrap(question)}]

    def _from_columns(self, placed: PlacedRow) -> dict[str, Any]:
        """A row of any other layout. Where two rows ask the same and have no ids of their own, the second one gets a
        number behind its id."""
        row, place = placed.row, placed.place
        answers = (*CHOICE_ANSWERS, *GPQA_OPTIONS[:1]) if self.kind == "choice" else TEXT_ANSWERS
        if missing := missing_columns(row, answers):
            raise UserError(f"{place}: {missing}; or verl's schema with {', '.join(COLUMNS)}")
        example = self.read(row)
        if not example.question:
            raise UserError(f"{place} has no question")
        if example.answer is None:
            raise UserError(f"{place} (id {example.id!r}) has no answer that {self.name} can be graded by")
        id = example.id
        if id == text_id(example.question):
            self._question_ids[id] += 1
            id = id if self._question_ids[id] == 1 else f"{id}-{self._question_ids[id]}"
        task = (example.task or task_of_file(placed.file)) if self.has_tasks else None
        return to_row(
            data_source=self.name,
            question=example.question,
            ground_truth=example.answer,
            id=id,
            ability=self.kind,
            split=self.split,
            **({"task": task} if task else {}),
        )
