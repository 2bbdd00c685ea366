"""`relay-verl trace`: the responses of some results as one page to read (`relay_verl.evaluation.page`), or some of them
as pictures (`relay_verl.evaluation.card`).

Invariant: a condition on the page is one condition of one source. Where two sources name a condition alike, such as two
seeds of one recipe, the page adds the source's name to it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from relay_verl.config import ConfigError
from relay_verl.evaluation.card import make_card
from relay_verl.evaluation.card_choice import name_kind, pick_instructive
from relay_verl.evaluation.page import write_page
from relay_verl.evaluation.records import ResponseRecord, read_records
from relay_verl.evaluation.results import find_results, read_result
from relay_verl.files import replace_file

MAX_NAMED = 6
"""Most responses that a message names."""


def write_trace(paths: Sequence[Path], out: Path, *, limit: int | None = None) -> int:
    """Write the page of all responses in `paths`.

    Args:
        paths: results folders, folders that hold such, JSONL files of responses, or a training's folder of such files.
        out: the HTML file; its folder is made.
        limit: most responses of each condition and benchmark; None shows all.

    Returns:
        How many responses the page shows.

    Raises:
        ConfigError: a path has no results or a line that is no response, or `out` cannot be written.
    """
    records = read_responses(paths)
    try:
        return write_page(records, out, "relay_verl: responses", limit_per_condition=limit)
    except OSError as error:
        raise ConfigError(f"--out: {out}: {error.strerror}") from None


def write_card(
    paths: Sequence[Path], out: Path, id: str, *, condition: str | None = None, sample: int | None = None
) -> ResponseRecord:
    """Write one response as a picture (`relay_verl.evaluation.card`); gives the response.

    Args:
        paths: see `write_trace`.
        out: the SVG file; its folder is made.
        id: the question's.
        condition, sample: which response to it, where there are several.

    Raises:
        ConfigError: as `write_trace` does; also where no response or more than one is meant.
    """
    of_question = [record for record in read_responses(paths) if record.id == id]
    if not of_question:
        raise ConfigError(f"--id: no response has the id {id!r}; `relay-verl trace` without --card shows the ids")
    meant = [r for r in of_question if condition in (None, r.condition) and sample in (None, r.sample)]
    if len(meant) != 1:
        names = ", ".join(f"{r.condition} (sample {r.sample})" for r in of_question[:MAX_NAMED])
        more = f" and {len(of_question) - MAX_NAMED} more" if len(of_question) > MAX_NAMED else ""
        raise ConfigError(
            f"--id {id}: {len(meant)} responses fit, expected 1; give --condition and --sample of one of: {names}{more}"
        )
    _write_svg(out, meant[0], "--card")
    return meant[0]


def write_cards(paths: Sequence[Path], folder: Path, num: int) -> list[Path]:
    """Write `num` instructive responses as pictures (`relay_verl.evaluation.card_choice`); gives the files, which are
    named by what they show.

    Raises:
        ConfigError: as `write_trace` does.
    """
    picked = pick_instructive(read_responses(paths), num)
    files = [folder / f"{i}_{name_kind(record).replace(' ', '_')}.svg" for i, record in enumerate(picked, start=1)]
    for file, record in zip(files, picked, strict=True):
        _write_svg(file, record, "--cards")
    return files


def _write_svg(out: Path, record: ResponseRecord, option: str) -> None:
    try:
        replace_file(out, make_card(record).encode())
    except OSError as error:
        raise ConfigError(f"{option}: {out}: {error.strerror}") from None


def read_responses(paths: Sequence[Path]) -> list[ResponseRecord]:
    """All responses in `paths`, each source once, in the order given; see `write_trace`.

    Raises:
        ConfigError: a path has no results, or a line is no response (names file and line).
    """
    sources: dict[Path, Sequence[ResponseRecord]] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        for source in _sources(path):
            resolved = source.resolve()
            if resolved in sources:
                continue
            sources[resolved] = _read(source)
            if not sources[resolved]:
                raise ConfigError(f"{source} holds no responses")
    return _tell_apart(sources)


def _sources(path: Path) -> Sequence[Path]:
    """Results folders, a training's folder of samples, or a file of responses at a path."""
    return find_results([path]) if path.is_dir() and not _of_training(path) else [path]


def _of_training(folder: Path) -> list[Path]:
    """The files of a training's samples, step by step (`relay_verl.samples`)."""
    return sorted(folder.glob("step_*.jsonl"))


def _read(source: Path) -> Sequence[ResponseRecord]:
    if not source.is_dir():
        return _read_file(source)
    files = _of_training(source)
    return [record for file in files for record in _read_file(file)] if files else read_result(source).records


def _read_file(path: Path) -> list[ResponseRecord]:
    try:
        return read_records(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _tell_apart(sources: Mapping[Path, Sequence[ResponseRecord]]) -> list[ResponseRecord]:
    num_sources = Counter(name for records in sources.values() for name in {record.condition for record in records})
    common = Path(os.path.commonpath(sources)) if len(sources) > 1 else Path()
    told_apart = []
    for source, records in sources.items():
        for record in records:
            is_shared = num_sources[record.condition] > 1
            name = f"{record.condition} ({source.relative_to(common).as_posix()})" if is_shared else record.condition
            told_apart.append(replace(record, condition=name))
    return told_apart
