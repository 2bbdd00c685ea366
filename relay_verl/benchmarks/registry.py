"""Benchmarks by name: where their questions are, how a response is sampled and how it is graded.

Paper: RelayLLM (arXiv 2601.05167), 4.2 (six of mathematics: greedy pass@1, and avg@32 on AIME) and 5.1 (three of other
domains). The prompt is C.1's for all; `relay_verl.data.prompts.with_options` says what multiple choice adds to it.

Invariant: every row that `load_benchmark` gives has a prompt, an answer, and an id that no other row of it has.

A further benchmark is one more entry of BENCHMARKS. One of another package is a `Benchmark` that `--benchmark` names as
`pkg.module:NAME`, or an entry point of the group `relay_verl.benchmarks` (see `examples/extend`).

The last four before the tiny world are not the paper's; their hub ids, configurations and columns are those of their
dataset cards. The paper does not say which copies it read. Its values for Olympiad-Bench are multiples of 1/675, and
the hub's OE_TO_maths_en_COMP has 674 rows: to compare to the last digit, give a copy of 675 with
`--source olympiadbench=PATH`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay_verl.benchmarks.readers import read_choice, read_gpqa
from relay_verl.benchmarks.rows import RowReader
from relay_verl.data.examples import read_columns
from relay_verl.data.sources import DatasetSource, HubId, load, parse_source
from relay_verl.errors import UserError, suggest
from relay_verl.extensions import FORM, Registry
from relay_verl.grading import Kind

GREEDY: Mapping[str, Any] = {"temperature": 0.0}
"""Sampling of pass@1 (4.2)."""
SAMPLED: Mapping[str, Any] = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
"""Sampling of avg@32. The paper does not say at what temperature: these are our choice, and what Qwen3's authors advise
for its non-thinking mode."""
TINY = "tiny"
"""The benchmark whose rows keep their data source: its families of questions, such as tiny/add."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(DatasetSource):
    """A dataset to evaluate on. Its name is the `data_source` of its rows."""

    title: str
    """What the paper's tables call it."""
    kind: Kind = "math"
    """How its answers are graded; reaches the grader as the rows' `ability`."""
    num_samples: int = 1
    """Responses a question."""
    sampling: Mapping[str, Any] = field(default_factory=lambda: dict(GREEDY))
    """How they are sampled, as vLLM names it."""
    any_of: bool = False
    """Whether one answer of a list is enough; else all of them are wanted, as in OlympiadBench."""
    find_file: Callable[[], Path] | None = None
    """Its file, read where no other copy is given, if it is not on the hub."""
    has_tasks: bool = False
    """Whether its questions belong to tasks, over which the harmonic mean is reported, too."""


@dataclass(frozen=True)
class Questions:
    """A benchmark that is loaded."""

    rows: list[dict[str, Any]]
    """Its questions in verl's schema."""
    origin: dict[str, Any]
    """Where they come from, for the manifest."""
    warnings: tuple[str, ...] = ()
    """What was done with the rows that whoever loads them should know, a line each."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the rows in hexadecimal: the same questions have the same, from wherever they come."""
        digest = hashlib.sha256()
        for row in self.rows:
            extra = {name: value for name, value in row["extra_info"].items() if name != "index"}  # a row's number
            digest.update(json.dumps({**row, "extra_info": extra}, sort_keys=True, default=str).encode() + b"\n")
        return digest.hexdigest()


_READ = read_columns()


def _tiny_file() -> Path:
    """The tiny world's test file, where the tiny recipes look for it, too."""
    folder = os.environ.get("RELAY_TINY_DIR")
    return (Path(folder) if folder else Path.home() / ".cache" / "relay_verl" / "tiny") / "test.parquet"


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="minerva",
            title="Minerva",
            hub_id="math-ai/minervamath",
            split="test",
            read=read_columns(any_of=True),
            any_of=True,  # copies with lists have several spellings of one answer there
        ),
        Benchmark(name="math-500", title="MATH500", hub_id="HuggingFaceH4/MATH-500", split="test", read=_READ),
        Benchmark(
            name="gsm8k",
            title="GSM8K",
            hub_id="openai/gsm8k",
            config="main",
            split="test",
            read=_READ,
        ),
        Benchmark(
            name="olympiadbench",
            title="Olympiad",
            hub_id="Hothan/OlympiadBench",
            config="OE_TO_maths_en_COMP",
            split="train",  # the only one
            read=read_columns(with_context=True),  # its tolerances (column `error`) are not used
        ),
        Benchmark(
            name="aime-2025",
            title="AIME25",
            hub_id="math-ai/aime25",
            split="test",
            read=_READ,
            num_samples=32,
            sampling=dict(SAMPLED),
        ),
        Benchmark(
            name="aime-2024",
            title="AIME24",
            hub_id="HuggingFaceH4/aime_2024",
            split="train",  # the only one
            read=_READ,
            num_samples=32,
            sampling=dict(SAMPLED),
        ),
        Benchmark(
            name="bbeh",
            title="BBEH",
            hub_id="BBEH/bbeh",
            split="train",  # the only one
            read=read_columns(is_math=False),
            kind="text",
            has_tasks=True,
        ),
        Benchmark(
            name="mmlu-pro",
            title="MMLU-Pro",
            hub_id="TIGER-Lab/MMLU-Pro",
            split="test",
            read=read_choice,
            kind="choice",
        ),
        Benchmark(
            name="supergpqa",
            title="SuperGPQA",
            hub_id="m-a-p/SuperGPQA",
            split="train",  # the only one
            read=read_choice,
            kind="choice",
        ),
        Benchmark(
            name="gsm8k-platinum",
            title="GSM8K-Platinum",
            hub_id="madrylab/gsm8k-platinum",
            split="test",
            read=_READ,
        ),
        Benchmark(
            name="gpqa-diamond",
            title="GPQA-Diamond",
            hub_id="Idavidrein/gpqa",  # gated: its terms have to be accepted there
            config="gpqa_diamond",
            split="train",  # the only one
            read=read_gpqa,
            kind="choice",
        ),
        Benchmark(
            name="aime-2026",
            title="AIME26",
            hub_id="MathArena/aime_2026",
            split="train",  # the only one
            read=_READ,
            num_samples=32,
            sampling=dict(SAMPLED),
        ),
        Benchmark(
            name="hmmt",
            title="HMMT25",
            hub_id="MathArena/hmmt_feb_2025",  # February 2025; other years with --source hmmt=hub:MathArena/...
            split="train",  # the only one
            read=_READ,
            num_samples=32,
            sampling=dict(SAMPLED),
        ),
        Benchmark(name=TINY, title="tiny world", hub_id=None, split="test", read=_READ, find_file=_tiny_file),
    )
}
"""Our benchmarks by name, the paper's in the order of its tables."""
REGISTRY: Registry[Benchmark] = Registry(
    kind="benchmark",
    group="relay_verl.benchmarks",
    entries=BENCHMARKS,
    accept=lambda candidate, name: candidate if isinstance(candidate, Benchmark) else None,
    expected="a relay_verl.benchmarks.registry.Benchmark",
    other_forms=("a file of your own",),
)


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, in capitals or not, or at `pkg.module:NAME`.

    Raises:
        UserError: there is none, or it has the name of one of ours; lists those there are.
    """
    if ":" not in name and name.lower() not in REGISTRY:
        raise UserError(
            f"unknown benchmark {name!r}; allowed: {', '.join(REGISTRY.names())}, {FORM}, or a file of your own"
            f"{suggest(name, REGISTRY.names())}"
        )
    benchmark = REGISTRY.find(name if ":" in name else name.lower())
    if BENCHMARKS.get(benchmark.name, benchmark) is not benchmark:
        raise UserError(f"benchmark: {name!r} is called {benchmark.name!r}, as one of ours is; give it another name")
    return benchmark


def parse_sources(values: Iterable[str]) -> dict[str, Path | HubId]:
    """The copies that a command line names, by benchmark.

    Args:
        values: of the repeated option `--source`, each NAME=PATH or NAME=hub:OWNER/NAME (see
            `relay_verl.data.sources.parse_source`).

    Raises:
        UserError: a value is not of that form, names no benchmark, or one that another value names.
    """
    sources: dict[str, Path | HubId] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name.strip() or not path.strip():
            raise UserError(f"--source: {value!r} is not NAME=PATH, such as math-500=math_500.jsonl")
        benchmark = find_benchmark(name.strip())
        if benchmark.name in sources:
            raise UserError(f"--source: {benchmark.name} has two copies: {sources[benchmark.name]} and {path.strip()}")
        sources[benchmark.name] = parse_source(path.strip())
    return sources


def load_benchmark(benchmark: Benchmark, source: Path | HubId | None, *, limit: int | None = None) -> Questions:
    """The benchmark's questions in verl's schema.

    Args:
        benchmark: which one.
        source: a copy in any layout that `relay_verl.data.columns` knows, or in verl's schema, whose prompts are kept;
            None for its own file (the tiny world's is in RELAY_TINY_DIR), or else the hub's.
        limit: how many questions to take, from the first on; None for all.

    Raises:
        UserError: the hub or the file does not give them, columns are missing, a row has no question or no answer,
            two questions share an id, or there are none.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; {benchmark.name} needs at least 1 question")
    option = f"--source {benchmark.name}=PATH"
    if source is None and benchmark.find_file is not None:
        source = benchmark.find_file()
    if isinstance(source, Path) and not source.exists():
        raise UserError(f"{benchmark.name}: {source} does not exist; give another copy with {option}")
    loaded = load(benchmark, source, option=option)
    reader = RowReader(
        name=benchmark.name,
        read=benchmark.read,
        kind=benchmark.kind,
        split=benchmark.split,
        any_of=benchmark.any_of,
        has_tasks=benchmark.has_tasks,
        keeps_sources=benchmark.name == TINY,
    )
    rows: list[dict[str, Any]] = []
    for placed in loaded.rows:
        if (row := reader.read_row(placed)) is not None:
            rows.append(row)
        if len(rows) == limit:
            break
    where = f"{benchmark.name}: {source or benchmark.hub_id}"
    if not rows:
        raise UserError(f"{where} has no rows")
    reader.copies.check_ids(where)
    return Questions(rows, loaded.origin, tuple(reader.warnings(where)))
