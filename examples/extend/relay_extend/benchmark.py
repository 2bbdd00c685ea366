"""A benchmark: questions about weekdays, in a file of this package."""

from __future__ import annotations

from pathlib import Path

from relay_verl.benchmarks.registry import Benchmark
from relay_verl.data.examples import read_columns

WEEKDAYS = Benchmark(
    name="weekdays",
    title="Weekdays",
    hub_id=None,
    find_file=lambda: Path(__file__).with_name("weekdays.jsonl"),
    split="test",
    read=read_columns(is_math=False),
    kind="text",
)
"""`--benchmark weekdays`, or `--benchmark relay_extend.benchmark:WEEKDAYS`."""
