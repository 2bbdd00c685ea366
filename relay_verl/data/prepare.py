r"""A training dataset as a file in verl's schema: loaded, deduplicated, free of the evaluation sets' questions.

Paper: RelayLLM (arXiv 2601.05167), 4.1 (DAPO-Math-17k) and C.1 (the prompt).

Invariant: every row that is read is either written or named with its reason in `OUT.dropped.jsonl`; the counts in
`OUT.manifest.json` add up. Each of the three files is either the old one or the whole new one, and the manifest, which
holds the SHA-256 of the other two, is written last.

A row is dropped if
- it has no question or no answer, or text that is not Unicode;
- its answer is one that the grader can match with nothing (see `is_gradable`);
- a row has its question, blanks aside, and an answer that the grader calls another one: neither can be trusted, and
  all copies go;
- a row before it has its id or its question;
- its question overlaps with an evaluation set (see `relay_verl.data.overlap`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from relay_verl.data.copies import QuestionCopies
from relay_verl.data.dropped import DroppedRows, DropReason
from relay_verl.data.files import find_files, fingerprint_of_file, iter_file
from relay_verl.data.overlap import KINDS, OverlapIndex
from relay_verl.data.schema import name_few, to_row, write_parquet
from relay_verl.data.sources import DatasetSource, Example, HubId, find_source, iter_examples, load, parse_source
from relay_verl.data.truths import Truth
from relay_verl.errors import UserError
from relay_verl.files import replace_file, sha256_of, writing
from relay_verl.grading import MAX_ANSWER_CHARS, last_boxed
from relay_verl.jobs.progress import show_progress
from relay_verl.versions import versions


@dataclass(frozen=True)
class PreparedReport:
    """What became of a dataset."""

    name: str
    """The dataset."""
    out: Path
    """The file written."""
    num_read: int
    """Rows of the source."""
    num_written: int
    """Rows of `out`."""
    num_dropped: dict[str, int]
    """Rows dropped, by reason."""
    first_dropped: dict[str, list[str]]
    """Ids of the first rows dropped, by reason, each id once."""
    num_contradicted: int = 0
    """Questions whose copies have different answers."""
    num_overlaps: dict[str, int] = field(default_factory=dict)
    """Rows dropped as overlaps, by the look that finds them, the surest first."""

    def summary(self) -> str:
        """A few lines for people."""
        lines = [f"{self.name}: {self.num_written} of {self.num_read} rows written to {self.out}"]
        for reason, num in self.num_dropped.items():
            lines.append(f"  dropped: {num} {reason} ({name_few(self.first_dropped[reason])}){self._detail(reason)}")
        return "\n".join(lines)

    def _detail(self, reason: str) -> str:
        if reason == DropReason.CONTRADICTION:
            return f": all copies of {self.num_contradicted} questions that have several answers"
        return f": {_counts(self.num_overlaps)}" if reason == DropReason.OVERLAP else ""


def prepare(
    name: str | DatasetSource,
    out: Path | str,
    *,
    source: Path | HubId | str | None = None,
    evaluation: Sequence[Path | str] = (),
    ngram: int = 13,
    min_share: float = 0.5,
) -> PreparedReport:
    """Write the dataset `name` to the parquet file `out`; shows a progress bar.

    name: a dataset's name, or one of the user's own (`relay_verl.data.own`), of which `source` says where it is.
    source: a local copy, a file or a folder, or another one on the hub; the hub's own if None.
    evaluation: files or folders of evaluation sets.
    ngram, min_share: see `relay_verl.data.overlap.find_overlaps`.

    Raises:
        UserError: a name, file, column, wrapper or number cannot work, or if no row is left.
    """
    dataset = find_source(name) if isinstance(name, str) else name
    out, path = Path(out), parse_source(source) if isinstance(source, str) else source
    sets = [Path(file) for file in evaluation]
    check_out(out, [path, *sets] if isinstance(path, Path) else sets)
    index = OverlapIndex(_evaluation_rows(sets), ngram=ngram, min_share=min_share)
    loaded = load(dataset, path)
    progress = show_progress(iter_examples(dataset, loaded), desc=dataset.name, unit="row", total=loaded.num_rows)
    dropped = DroppedRows()
    # All distinct questions come first: a later copy may contradict, and a phrase is common only among many.
    copies = QuestionCopies()
    for example in progress:
        defect = _defect(example)
        if defect is not None:
            dropped.add(example.id, defect, answer=example.answer)
        else:
            copies.add(example)
    examples = list(copies.settle(dropped))
    overlaps = index.overlaps_of(
        {"problem": example.question, "extra_info": {"id": example.id}} for example in examples
    )
    rows: list[dict[str, Any]] = []
    num_overlaps: Counter[str] = Counter()
    for position, example in enumerate(examples):
        if position in overlaps:
            num_overlaps[min((overlap.kind for overlap in overlaps[position]), key=KINDS.index)] += 1
            dropped.add(
                example.id,
                DropReason.OVERLAP,
                question=example.question,
                overlaps=[
                    {key: value for key, value in asdict(overlap).items() if key not in ("id", "question")}
                    for overlap in overlaps[position]
                ],
            )
            continue
        rows.append(
            to_row(
                data_source=dataset.name,
                question=example.question,
                ground_truth=example.answer or "",
                id=example.id,
                split=dataset.split,
                index=len(rows),
            )
        )
    num_read = len(rows) + dropped.num.total()
    if not num_read:
        raise UserError(f"{dataset.name}: {path or dataset.hub_id} has no rows")
    if not rows:
        raise UserError(f"{dataset.name}: none of {num_read} rows is left; dropped: {_counts(dropped.num)}")
    report = PreparedReport(
        name=dataset.name,
        out=out,
        num_read=num_read,
        num_written=len(rows),
        num_dropped=dict(dropped.num),
        first_dropped=dropped.first,
        num_contradicted=copies.num_contradicted,
        num_overlaps={kind: num_overlaps[kind] for kind in KINDS if kind in num_overlaps},
    )
    evaluation_files = [fingerprint_of_file(file) for path in sets for file in find_files(path)]
    options = {"evaluation": evaluation_files, "ngram": ngram, "min_share": min_share}
    _write_all(report, rows, dropped, loaded.origin, options)
    return report


def _counts(num: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in num.items())


def is_gradable(answer: Truth) -> bool:
    r"""Whether the grader can match a response with it: its braces match, it is not too long, and it says something.

    Of several accepted answers, one has to be.

    >>> is_gradable(r"\frac{1}{2}"), is_gradable(r"\frac{1}{2"), is_gradable("?")
    (True, False, False)
    """
    if not isinstance(answer, str):
        return any(map(is_gradable, answer))
    says_something = any(character.isalnum() or character in "∞∅" for character in answer)
    is_whole = last_boxed(answer) is not None or last_boxed(rf"\boxed{{{answer}}}") == answer.strip()
    return says_something and is_whole and len(answer) <= MAX_ANSWER_CHARS


def _defect(example: Example) -> DropReason | None:
    """What is wrong with an example by itself."""
    if not example.question:
        return DropReason.NO_QUESTION
    if example.answer is None:
        return DropReason.NO_ANSWER
    try:
        f"{example.question}{example.answer}{example.id}".encode()
    except UnicodeEncodeError:
        return DropReason.NO_UNICODE
    return None if is_gradable(example.answer) else DropReason.UNGRADABLE


def check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Raises UserError if `out` is not a name for a parquet file, or would be an input of the next run."""
    if out.suffix != ".parquet" or out.is_dir():
        raise UserError(f"{out} is not the name of a parquet file; give one that ends in .parquet")
    for path in inputs:
        if path.resolve() in (out.resolve(), *out.resolve().parents):
            raise UserError(f"{out} is, or lies in, {path}, which is read; choose another place")


def _evaluation_rows(evaluation: Sequence[Path]) -> dict[str, Iterator[Mapping[str, Any]]]:
    """The rows of each evaluation set, under its path as given. Raises UserError at once if one is not there."""
    files = {str(path): find_files(path) for path in evaluation}
    return {name: (row for file in parts for row in iter_file(file)) for name, parts in files.items()}


def _write_all(
    report: PreparedReport,
    rows: Sequence[Mapping[str, Any]],
    dropped: DroppedRows,
    origin: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    out = report.out
    write_parquet(out, rows)
    dropped_file = out.with_name(f"{out.name}.dropped.jsonl")
    with writing():
        replace_file(dropped_file, "".join(dropped.lines()).encode())
        manifest = {
            **asdict(report),
            "out": str(out),
            "source": dict(origin),
            "options": dict(options),
            "sha256": {file.name: sha256_of(file) for file in (out, dropped_file)},
            "versions": versions(),
        }
        replace_file(out.with_name(f"{out.name}.manifest.json"), (json.dumps(manifest, indent=2) + "\n").encode())
