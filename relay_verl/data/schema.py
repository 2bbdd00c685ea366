"""verl's dataset schema: its rows, and parquet files of them. Pure: no torch, Ray, verl.

Invariant: every row that `iter_rows` yields has a prompt of messages, an answer that the grader can use, and a text at
`extra_info.id`; no two rows of a dataset share that id.

A row, whose prompt is the paper's (RelayLLM, arXiv 2601.05167, C.1)::

    data_source   dapo-math-17k
    prompt        [{role: user, content: "What is 7*8?\\nPlease reason step by step, ..."}]
    ability       math
    reward_model  {style: rule, ground_truth: "56"}
    extra_info    {id: "9a9b...", split: train, index: 0}

A ground truth of any other form is read as `relay_verl.data.truths` says. Where a list names several answers of which
one is enough, its row says so, in files of ours and of others: `reward_model {ground_truth: ["0.5", "1/2"], any_of:
true}`. Without `any_of` all of them are wanted.

Copies: verl's way to spell avg@32 is a file with each row 32 times. Rows that have the same id, prompt and answer are
one query for filter, warm-up and evaluation; verl's trainer and its validation take every row of their files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from relay_verl.data.columns import QUESTIONS, values_of
from relay_verl.data.parquet import is_hidden as is_hidden
from relay_verl.data.parquet import iter_parquet, parquet_files
from relay_verl.data.parquet import write_parquet as write_parquet
from relay_verl.data.prompts import PROMPT_SUFFIX as PROMPT_SUFFIX
from relay_verl.data.prompts import quote, strip_wrapper, wrap
from relay_verl.data.truths import Truth, UnusableTruthError, truth_of
from relay_verl.errors import UserError, as_user_error
from relay_verl.errors import first_line as first_line
from relay_verl.messages import content_text

COLUMNS = ("data_source", "prompt", "reward_model")
"""Columns that a dataset must have; `extra_info` and `ability` may be missing."""
QUESTION_COLUMNS = QUESTIONS
"""Where a row of any dataset may have its question, the first that says something."""
_ASKS_FOR_BOX = re.compile(r"(?<!you do not need to use a )\\boxed")
MAX_NAMED = 3
"""Most rows that a message names."""


def to_row(
    *,
    data_source: str,
    question: str,
    ground_truth: Truth,
    id: str,
    ability: str = "math",
    split: str = "train",
    **extra: Any,
) -> dict[str, Any]:
    """One row; `extra` goes to `extra_info`, where verl looks for an integer `index`.

    A question that carries a known instruction already gets the paper's in its place, never both.

    >>> to_row(data_source="tiny", question="7*8?", ground_truth="56", id="a", index=0)["extra_info"]
    {'id': 'a', 'split': 'train', 'index': 0}
    """
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": wrap(strip_wrapper(question))}],
        "ability": ability,
        "reward_model": {"style": "rule", **truth_fields(ground_truth)},
        "extra_info": {"id": str(id), "split": split, **extra},
    }


def truth_fields(truth: Truth) -> dict[str, Any]:
    """A truth as fields of `reward_model`.

    >>> truth_fields("2"), truth_fields(("0.5", "1/2"))
    ({'ground_truth': '2'}, {'ground_truth': ['0.5', '1/2'], 'any_of': True})
    """
    return {"ground_truth": truth} if isinstance(truth, str) else {"ground_truth": list(truth), "any_of": True}


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """All rows of a parquet file, or of the parquet files in a folder, in order of their names.

    Raises:
        UserError: as `iter_rows`.
    """
    return list(iter_rows(path))


def iter_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """The rows of `read_rows`, BATCH_ROWS of them in memory at a time. Each has its id at `extra_info.id`.

    Of rows that are copies of one another (see the module) the first is yielded.

    Raises:
        UserError: nothing there, no parquet file, no rows, a missing column, a prompt that is not a list of messages, a
            row without a usable answer; and behind the last row, ids that different queries have. Rows count from 1 in
            each file.
    """
    path = Path(path)
    copies = CopyFinder()
    for file in parquet_files(path):
        for number, row in enumerate(iter_parquet(file, COLUMNS), start=1):
            checked = check_row(row, f"{file}: row {number}")
            if not copies.is_copy(checked):
                yield checked
    if not copies.num_queries:
        raise UserError(f"{path} has no rows")
    copies.check_ids(str(path))


class CopyFinder:
    """Tells copies of a query from queries that only share its id."""

    def __init__(self) -> None:
        self.num_copies = 0
        self._asked: dict[str, bytes] = {}  # id -> hash of prompt and answer
        self._repeated: dict[str, None] = {}

    @property
    def num_queries(self) -> int:
        """Different queries so far."""
        return len(self._asked)

    def is_copy(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that `check_row` gave back repeats the id, the prompt and the answer of one before it."""
        id = row["extra_info"]["id"]
        query = repr((_messages(row), row["reward_model"]["ground_truth"]))
        asked = hashlib.blake2b(query.encode(errors="surrogatepass"), digest_size=8).digest()
        first = self._asked.setdefault(id, asked)
        if first is asked:
            return False
        if first == asked:
            self.num_copies += 1
            return True
        self._repeated[id] = None
        return False

    def check_ids(self, place: str) -> None:
        """Raises UserError if different queries share an id."""
        if self._repeated:
            raise UserError(
                f"{place}: {len(self._repeated)} ids occur more than once with another prompt or answer: "
                f"{name_few(self._repeated)}"
            )


def check_row(row: Mapping[str, Any], place: str, *, any_of: bool = False) -> dict[str, Any]:
    """The row, which has COLUMNS, with its id and its answer as texts.

    In a file whose `reward_model` has a field `any_of`, every answer is a list of texts, so that its column has one
    type. any_of: whether one element of a list is enough where the row does not say.

    Raises:
        UserError: a prompt that is not a list of messages, or no usable answer; names `place`.
    """
    if not is_messages(row["prompt"]):
        shown = quote(str(row["prompt"]), 80)
        raise UserError(f"{place}: the prompt is not a list of messages with role and content: {shown}")
    id = row_id(row)
    given = row["reward_model"]
    has_field = isinstance(given, Mapping) and "any_of" in given
    if isinstance(given, Mapping) and given.get("any_of") is None:
        given = {**given, "any_of": any_of}
    with as_user_error(UnusableTruthError, f"{place} (id {id!r}) has no answer in reward_model.ground_truth"):
        truth = truth_of(given)
    reward_model: dict[str, Any] = {**row["reward_model"], **truth_fields(truth)}
    if has_field and isinstance(truth, str):
        reward_model |= {"ground_truth": [truth], "any_of": given["any_of"]}
    extra = row.get("extra_info")
    return {
        **row,
        "reward_model": reward_model,
        "extra_info": {**(extra if isinstance(extra, Mapping) else {}), "id": id},
    }


def dataset_schema(path: Path | str) -> Any:
    """The arrow schema of what `iter_rows` yields: the first file's, with the id that each row is given, and with
    answers as texts.

    Raises:
        UserError: no parquet file there, or one with other columns than the first.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, *others = parquet_files(Path(path))
    schema = pq.read_schema(first).remove_metadata()
    for other in others:
        if not pq.read_schema(other).remove_metadata().equals(schema):
            raise UserError(f"{other} has other columns than {first}")
    index = schema.get_field_index("extra_info")
    known = schema.field(index).type if index >= 0 else None
    fields = [f for f in known if f.name != "id"] if known is not None and pa.types.is_struct(known) else []
    extra_info = pa.field("extra_info", pa.struct([pa.field("id", pa.string()), *fields]))
    schema = schema.set(index, extra_info) if index >= 0 else schema.append(extra_info)
    index = schema.get_field_index("reward_model")
    if index >= 0 and pa.types.is_struct(schema.field(index).type):
        schema = schema.set(index, pa.field("reward_model", _text_answers(schema.field(index).type)))
    return schema


def _text_answers(reward_model: Any) -> Any:
    """The arrow type of `reward_model` behind `check_row`: a text, or a list of texts where there is an `any_of`."""
    import pyarrow as pa

    fields = {field.name: field.type for field in reward_model}
    fields["ground_truth"] = pa.list_(pa.string()) if "any_of" in fields else pa.string()
    return pa.struct(list(fields.items()))


def row_id(row: Mapping[str, Any]) -> str:
    """The id of a row: `extra_info.id`, else `extra_info.index`, else the SHA-1 of its prompt."""
    extra = row.get("extra_info")
    if isinstance(extra, Mapping):
        for key in ("id", "index"):
            if extra.get(key) not in (None, ""):
                return str(extra[key])
    return text_id(repr(_messages(row)))


def _messages(row: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return [(message.get("role"), message.get("content")) for message in row["prompt"]]


def text_id(text: str) -> str:
    """An id that depends on a text alone."""
    return hashlib.sha1(text.encode(errors="surrogatepass")).hexdigest()


def question_of(row: Mapping[str, Any]) -> str | None:
    """The question of a row of any dataset, without a known wrapper; None if no column of QUESTION_COLUMNS has one."""
    text = question_text(row)
    return None if text is None else strip_wrapper(text)


def question_text(row: Mapping[str, Any]) -> str | None:
    """The same as it stands there, of messages the last one that a user wrote."""
    for value in values_of(row, QUESTION_COLUMNS):
        if is_messages(value):
            value = next((content_text(m["content"]) for m in reversed(value) if m["role"] == "user"), None)
        if isinstance(value, str) and value.strip():
            return value
    return None


def boxless_question(prompt: Sequence[Mapping[str, Any]]) -> str | None:
    """The question of messages whose known instructions ask for no box, where alone the grader looks; else None."""
    text = (content_text(prompt[-1]["content"]) or "").strip()
    question = strip_wrapper(text)
    return question if question != text and not _ASKS_FOR_BOX.search(text.replace(question, "")) else None


def is_messages(prompt: object) -> TypeGuard[list[Mapping[str, Any]]]:
    """Whether this is a list of at least one message, each with a text at `role` and at `content`, where a list of text
    parts is one, too (`relay_verl.messages`)."""
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(
            isinstance(message, Mapping)
            and isinstance(message.get("role"), str)
            and content_text(message.get("content")) is not None
            for message in prompt
        )
    )


def plain_answer(value: object) -> str | None:
    """An answer as text: a text that is not blank, or a number; None for all else."""
    if isinstance(value, str):
        return value.strip() or None
    is_number = (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value
    )  # NaN is not an answer
    return str(value) if is_number else None


def name_few(names: Iterable[str]) -> str:
    """The first names of many, as a message lists them."""
    listed = list(names)
    return ", ".join(map(repr, listed[:MAX_NAMED])) + (", ..." if len(listed) > MAX_NAMED else "")
