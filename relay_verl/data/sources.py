r"""Datasets of questions: where they are, how they are loaded, and how a row becomes a question and an answer.

SOURCES has those to train on; `relay_verl.benchmarks.registry` has those to evaluate on. A further dataset is one
more entry. Its `read` gets a row as it is and gives back an Example.

DAPO-Math-17k (the paper's training set, 4.1) is around in several layouts, all of which are read:

    hub        BytedTsinghua-SIA/DAPO-Math-17k     prompt = one message: the question inside instructions of its own;
               reward_model.ground_truth = answer; extra_info.index = id. It repeats its 17 thousand questions about
               100 times; `relay_verl.data.prepare` keeps one of each.
    processed  open-r1/DAPO-Math-17k-Processed     prompt = the bare question; solution = answer
    bare       MasterVito/SvS                      as the hub's, with the bare question in the message
    slime      zhuzilin/dapo-math-17k              prompt = one message, with other instructions; label = answer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from relay_verl.data.examples import Example as Example
from relay_verl.data.examples import missing_columns, read_columns
from relay_verl.data.files import find_files, fingerprint_of_file, iter_file
from relay_verl.data.prompts import UnknownWrapperError, unwrap
from relay_verl.data.schema import first_line, question_text, text_id
from relay_verl.errors import UserError, as_user_error, find_known

BATCH_ROWS = 1024
"""Rows of a hub dataset that are in memory at a time."""
HUB_PREFIX = "hub:"
"""What stands before a hub id where a path could stand."""


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A dataset of questions."""

    name: str
    """Its name on the command line, in lower case."""
    hub_id: str | None
    """Its id on the Hugging Face hub; None if it is not there."""
    config: str | None = None
    """Which of the configurations there; None for the only one."""
    split: str
    """The split to load from there."""
    read: Callable[[Mapping[str, Any]], Example]
    """A row as an Example. Raises UnknownWrapperError."""
    rename: Callable[[Mapping[str, Any], str], Mapping[str, Any]] = lambda row, place: row
    """A row and its place to the row under the names that `read` knows. Raises UserError."""

    def check_columns(self, row: Mapping[str, Any], place: str) -> None:
        """Raises UserError if the row has no column of a question, or none of an answer."""
        if missing := missing_columns(row):
            raise UserError(f"{place}: {missing}")


_read_plain = read_columns(has_plain_solutions=True)


def read_dapo_row(row: Mapping[str, Any]) -> Example:
    """A row of DAPO-Math-17k in any layout, or of a file that `relay_verl.data.prepare` wrote from it.

    Raises:
        UnknownWrapperError: the text around the question is not known; quotes it.
    """
    example = _read_plain(row)
    question = unwrap(question_text(row) or "", should_have_wrapper=False)
    id = text_id(question) if example.id == text_id(example.question) else example.id
    return replace(example, question=question, id=id)


SOURCES: dict[str, DatasetSource] = {
    source.name: source
    for source in (
        DatasetSource(
            name="dapo-math-17k",
            hub_id="BytedTsinghua-SIA/DAPO-Math-17k",
            split="train",
            read=read_dapo_row,
        ),
    )
}
"""The datasets by name."""


def find_source(name: str) -> DatasetSource:
    """The dataset of that name, in capitals or not.

    Raises:
        UserError: there is none; lists those there are.
    """
    return find_known("dataset", name, dict(sorted(SOURCES.items())))


@dataclass(frozen=True)
class HubId:
    """A dataset on the Hugging Face hub, given in place of a local copy."""

    id: str
    """OWNER/NAME."""
    config: str | None = None
    """Which of its configurations; None for the only one."""
    split: str | None = None
    """Which split; that of the dataset it stands for if None."""

    def __str__(self) -> str:
        parts = (self.id, f":{self.config}" if self.config else "", f"@{self.split}" if self.split else "")
        return HUB_PREFIX + "".join(parts)


def parse_source(text: str, option: str = "--source") -> Path | HubId:
    """What a command line names as the copy of a dataset: a path, or `hub:OWNER/NAME`, `hub:OWNER/NAME:CONFIG@SPLIT`.

    Raises:
        UserError: a hub id that is not of that form; names `option`.
    """
    if not text.startswith(HUB_PREFIX):
        return Path(text).expanduser()
    name, _, split = text.removeprefix(HUB_PREFIX).partition("@")
    id, _, config = name.partition(":")
    if len(id.split("/")) != 2 or not all(part.strip() for part in id.split("/")):
        raise UserError(f"{option}: {text!r} is not hub:OWNER/NAME, such as hub:MathArena/hmmt_feb_2025@train")
    return HubId(id, config or None, split or None)


@dataclass(frozen=True)
class PlacedRow:
    """A row as it is, and where it stands."""

    row: Mapping[str, Any]
    """Its columns."""
    place: str
    """File or hub id and number, for messages."""
    file: Path | None = None
    """The file it is from; None if it is from the hub."""


@dataclass(frozen=True)
class Loaded:
    """A dataset that is about to be read."""

    rows: Iterator[PlacedRow]
    """Its rows."""
    num_rows: int | None
    """How many there are; None if only reading tells."""
    origin: dict[str, Any]
    """Where they come from, for the manifest."""


def load(source: DatasetSource, path: Path | HubId | None, *, option: str = "--source FILE") -> Loaded:
    """The rows of a local copy, of another dataset on the hub, or of the source's own there if `path` is None.

    Args:
        source: the dataset.
        path: its copy.
        option: how a command line names a local copy.

    Raises:
        UserError: nothing readable is there, or the hub does not give it; while reading, a file that is broken.
    """
    if path is None:
        if source.hub_id is None:
            raise UserError(f"{source.name} is not on the hub; give a local copy with {option}")
        return _load_from_hub(source, HubId(source.hub_id, source.config, source.split), option)
    if isinstance(path, HubId):
        return _load_from_hub(source, replace(path, split=path.split or source.split), option)
    files = find_files(path)
    origin = {"path": str(path), "files": [fingerprint_of_file(file) for file in files]}
    rows = (
        PlacedRow(source.rename(row, place := f"{file}: row {number}"), place, file)
        for file in files
        for number, row in enumerate(iter_file(file), start=1)
    )
    return Loaded(rows, None, origin)


def _load_from_hub(source: DatasetSource, hub: HubId, option: str) -> Loaded:
    import datasets
    from datasets.exceptions import DatasetsError

    names = (hub.id,) if hub.config is None else (hub.id, hub.config)
    with as_user_error(
        (OSError, ValueError, RuntimeError, httpx.HTTPError, DatasetsError),
        lambda error: (
            f"{source.name}: {hub.id} does not come from the hub: {first_line(error)}; give a local copy with {option}"
        ),
    ):
        dataset = datasets.load_dataset(*names, split=hub.split)
    origin = {
        "hub_id": hub.id,
        "config": hub.config,
        "split": hub.split,
        "fingerprint": dataset._fingerprint,
        "files": [{"path": str(url)} for url in dataset.info.download_checksums or ()],
    }
    tables = dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)
    rows = (row for table in tables for row in table.to_pylist())
    placed = (
        PlacedRow(source.rename(row, place := f"{hub.id}: row {number}"), place)
        for number, row in enumerate(rows, start=1)
    )
    return Loaded(placed, len(dataset), origin)


def iter_examples(source: DatasetSource, loaded: Loaded) -> Iterator[Example]:
    """The dataset's rows as examples.

    Raises:
        UserError: the first row has not the columns, or the text around a question is not known.
    """
    is_first = True
    for placed in loaded.rows:
        if is_first:
            source.check_columns(placed.row, placed.place)
            is_first = False
        with as_user_error(UnknownWrapperError, placed.place):
            example = source.read(placed.row)
        yield example
