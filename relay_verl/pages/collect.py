"""`relay-verl trace`: the responses of some results as one page to read (`relay_verl.pages.page`), or some of them
as pictures (`relay_verl.pages.card`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from relay_verl.errors import UserError, as_user_error
from relay_verl.files import replace_file
from relay_verl.pages.card import make_card
from relay_verl.pages.card_choice import name_kind, pick_instructive
from relay_verl.pages.page import write_page
from relay_verl.recipes.paper import paper
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.sources import condition_names, lead_of, read_sources, title_of

MAX_NAMED = 6
"""Most responses that a message names."""


def write_trace(paths: Sequence[Path], out: Path, *, title: str | None = None, limit: int | None = None) -> int:
    """Write the page of all responses in `paths`.

    Args:
        paths: results folders, folders that hold such, JSONL files of responses, or a training's folder of such files.
        out: the HTML file; its folder is made.
        title: the page's heading; by default it names the models or the training.
        limit: most responses of each condition and benchmark; None shows all.

    Returns:
        How many responses the page shows.

    Raises:
        UserError: a path has no results or a line that is not a response, or `out` cannot be written.
    """
    sources = read_sources(paths)
    records = [record for source in sources for record in source.records]
    facts = paper().benchmarks
    benchmarks = {record.benchmark for record in records} & facts.keys()
    with _naming(out, "--out"):
        return write_page(
            records,
            out,
            title or title_of(sources),
            names={**{name: facts[name].title for name in sorted(benchmarks)}, **condition_names(sources)},
            notes={name: about for name in sorted(benchmarks) if (about := facts[name].about)},
            lead=lead_of(sources),
            is_training=all(source.is_training for source in sources),
            limit_per_condition=limit,
        )


def write_card(
    paths: Sequence[Path], out: Path, id: str, *, condition: str | None = None, sample: int | None = None
) -> ResponseRecord:
    """Write one response as a picture (`relay_verl.pages.card`); gives the response.

    Args:
        paths: see `write_trace`.
        out: the SVG file; its folder is made.
        id: the question's.
        condition, sample: which response to it, where there are several.

    Raises:
        UserError: as `write_trace` does; also where no response or more than one is meant.
    """
    of_question = [record for record in read_responses(paths) if record.id == id]
    if not of_question:
        raise UserError(f"--id: no response has the id {id!r}; `relay-verl trace` without --card shows the ids")
    meant = [r for r in of_question if condition in (None, r.condition) and sample in (None, r.sample)]
    if len(meant) != 1:
        names = ", ".join(f"{r.condition} (sample {r.sample})" for r in of_question[:MAX_NAMED])
        more = f" and {len(of_question) - MAX_NAMED} more" if len(of_question) > MAX_NAMED else ""
        raise UserError(
            f"--id {id}: {len(meant)} responses fit, expected 1; give --condition and --sample of one of: {names}{more}"
        )
    _write_svg(out, meant[0], "--card")
    return meant[0]


def write_cards(paths: Sequence[Path], folder: Path, num: int) -> list[Path]:
    """Write `num` instructive responses as pictures (`relay_verl.pages.card_choice`); gives the files, which are
    named by what they show.

    Raises:
        UserError: as `write_trace` does.
    """
    picked = pick_instructive(read_responses(paths), num)
    files = [folder / f"{i}_{name_kind(record).replace(' ', '_')}.svg" for i, record in enumerate(picked, start=1)]
    for file, record in zip(files, picked, strict=True):
        _write_svg(file, record, "--cards")
    return files


def _write_svg(out: Path, record: ResponseRecord, option: str) -> None:
    with _naming(out, option):
        replace_file(out, make_card(record).encode())


def _naming(out: Path, option: str) -> AbstractContextManager[None]:
    """A block that writes the file of a command's option: an OSError in it becomes a UserError that names both."""
    return as_user_error(OSError, lambda error: f"{option}: {out}: {error.strerror}")


def read_responses(paths: Sequence[Path]) -> list[ResponseRecord]:
    """All responses in `paths`; see `relay_verl.traces.sources`."""
    return [record for source in read_sources(paths) for record in source.records]
