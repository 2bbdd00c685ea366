"""A benchmark of the user's own: a file where `--benchmark` takes a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay_verl.benchmarks.readers import read_choice
from relay_verl.benchmarks.registry import BENCHMARKS, REGISTRY, Benchmark, find_benchmark
from relay_verl.data.columns import OPTIONS, has_any
from relay_verl.data.examples import read_columns
from relay_verl.data.files import find_files, iter_file
from relay_verl.data.own import OwnColumns, find_own, own_name
from relay_verl.data.sources import HUB_PREFIX, HubId
from relay_verl.errors import UserError
from relay_verl.extensions import is_address

USUAL = OwnColumns()
"""Columns of the usual names."""


def is_named(value: str) -> bool:
    """Whether a value is `pkg.module:NAME` and neither a file nor a dataset on the hub."""
    return is_address(value) and not value.startswith(HUB_PREFIX) and not Path(value).exists()


def find_benchmarks(
    values: Sequence[str], columns: OwnColumns = USUAL
) -> tuple[list[Benchmark], dict[str, Path | HubId]]:
    """The benchmarks that a command line names, and where those of the user's own are, by name.

    Args:
        values: of the repeated option `--benchmark`: a name, FILE, hub:OWNER/NAME, or one of these as NAME=FILE.
        columns: of the user's own.

    Raises:
        UserError: no such benchmark or file, one without a question or an answer in its first row, columns where
            nothing has them, or two benchmarks of one name.
    """
    benchmarks: dict[str, Benchmark] = {}
    own: dict[str, Path | HubId] = {}
    for value in dict.fromkeys(values):
        name, source = "", None
        first, _, rest = value.partition("=")
        if rest and not Path(value).expanduser().exists():
            name, source = first, find_own(rest)
            if source is None:
                raise UserError(f"--benchmark {value!r}: {rest} does not exist")
        elif value.lower() not in REGISTRY and not is_named(value):
            source = find_own(value)
        benchmark = find_benchmark(value) if source is None else _own(name, source, columns)
        if benchmark.name in benchmarks:
            raise UserError(
                f"--benchmark: {benchmark.name} twice: {own.get(benchmark.name, benchmark.name)} and {value}; give one "
                "as NAME=FILE with a name of its own"
            )
        benchmarks[benchmark.name] = benchmark
        if source is not None:
            own[benchmark.name] = source
    if columns.is_given and not own:
        raise UserError("--question-column and --answer-column are for a --benchmark of your own, which is a file")
    return list(benchmarks.values()), own


def _own(name: str, source: Path | HubId, columns: OwnColumns) -> Benchmark:
    """Graded as multiple choice where the first row has options, as mathematics otherwise."""
    known = (name or source.stem).lower() if isinstance(source, Path) else ""
    if known in BENCHMARKS:
        raise UserError(
            f"--benchmark {source}: {known} is a benchmark: give its copy as --benchmark {known} --source "
            f"{known}={source}, or a file of your own as NAME={source} with another name"
        )
    chosen = own_name(name or None, source, list(BENCHMARKS), "--benchmark NAME=FILE:")
    first: Mapping[str, Any] | None = None
    if isinstance(source, Path):
        file = find_files(source)[0]
        first = next(iter_file(file), None)
        if first is not None:
            first = columns.rename(first, f"{file}: row 1")
    is_choice = first is not None and has_any(first, OPTIONS)
    return Benchmark(
        name=chosen,
        title=chosen,
        hub_id=None,
        split="test",
        read=read_choice if is_choice else read_columns(has_plain_solutions=True),
        kind="choice" if is_choice else "math",
        rename=columns.rename,
    )
