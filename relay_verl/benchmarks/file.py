"""A benchmark as a file in verl's schema, for a trainer's validation or for `relay-verl eval --source`.

Invariant: the file and its manifest are each either the old one or the whole new one; the manifest, which holds the
file's SHA-256, is written last. `load_benchmark` reads the file back as the same questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from relay_verl.benchmarks.registry import Benchmark, load_benchmark
from relay_verl.data.golds import IsReadable, warn_of_unreadable
from relay_verl.data.prepare import check_out
from relay_verl.data.schema import write_parquet
from relay_verl.data.sources import HubId
from relay_verl.files import replace_file, sha256_of, writing
from relay_verl.versions import versions


def write_benchmark(
    benchmark: Benchmark, out: Path, source: Path | HubId | None = None, *, is_readable: IsReadable
) -> str:
    """Write all questions of a benchmark to the parquet file `out`, and a manifest; gives a few lines for people.

    Args:
        benchmark: which one.
        out: the parquet file.
        source: see `relay_verl.benchmarks.registry.load_benchmark`.
        is_readable: whether the grader can read an answer, for a warning on those that it cannot.

    Raises:
        UserError: the benchmark cannot be loaded, or `out` cannot be written or is what is read.
    """
    check_out(out, [source] if isinstance(source, Path) else [])
    questions = load_benchmark(benchmark, source)
    unreadable = warn_of_unreadable(benchmark.name, questions.rows, is_readable)
    warnings = [*questions.warnings, *([unreadable] if unreadable else [])]
    write_parquet(out, _numbered(questions.rows))
    manifest = {
        "name": benchmark.name,
        "out": str(out),
        "num_written": len(questions.rows),
        "questions_sha256": questions.sha256,
        "warnings": warnings,
        "source": questions.origin,
        "sha256": {out.name: sha256_of(out)},
        "versions": versions(),
    }
    manifest_file = out.with_name(f"{out.name}.manifest.json")
    with writing():
        replace_file(manifest_file, (json.dumps(manifest, indent=2) + "\n").encode())
    lines = [f"{benchmark.name}: {len(questions.rows)} questions written to {out}", *(f"  {text}" for text in warnings)]
    return "\n".join(lines)


def _numbered(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the integer `index` that verl reads, and with one type of answer in all of them."""
    rows = list(rows)
    has_lists = any("any_of" in row["reward_model"] for row in rows)
    numbered = []
    for index, row in enumerate(rows):
        reward_model = dict(row["reward_model"])
        if has_lists and isinstance(reward_model["ground_truth"], str):
            reward_model |= {"ground_truth": [reward_model["ground_truth"]], "any_of": True}
        extra_info = {**row["extra_info"], "index": index}
        numbered.append({**row, "reward_model": reward_model, "extra_info": extra_info})
    return numbered
