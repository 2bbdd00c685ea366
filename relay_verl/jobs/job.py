"""What a long job does with each of its queries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay_verl.config import RelaySettings
from relay_verl.engines.failure_share import KEY
from relay_verl.jobs.formats import Format, Row


@dataclass(frozen=True)
class Job:
    """What to do with each query."""

    spec: Mapping[str, Any]
    """Everything that decides the output, as JSON: inputs with their hashes, models, sampling, seed. A stopped job
    continues only under the same spec."""
    format: Format
    """The output's kind of file."""
    process: Callable[[Row], Awaitable[Any]]
    """A query's result, as JSON. An EngineError or TimeoutError fails this query alone, and a PermanentError leaves it
    out; past `timeout_s` it is cancelled."""
    to_records: Callable[[Row, Any], list[Row]]
    """The output's rows of a query and its result."""
    shard_size: int = 256
    """Queries whose records are in memory at a time when the output is written: a row group of a parquet file."""
    max_concurrency: int = 256
    """Queries under way at a time."""
    timeout_s: float = 3600.0
    """Seconds without a result of any query after which a query fails; like a request to an engine, a query that waits
    while others end is not late (`relay_verl.engines.deadlines`)."""
    summarize: Callable[[Path], Mapping[str, Any]] | None = None
    """Numbers on the whole output, which the manifest gets as its `summary`; None leaves it without."""
    max_failures: int = 32
    """Failures in a row after which the job stops: the engine looks dead."""
    max_failed_share: float = RelaySettings.max_failed_call_share
    """Largest share of the queries, and of what `find_failure` finds, that may fail; see
    `relay_verl.engines.failure_share`."""
    failed_share_key: str = KEY
    """What the user sets it with."""
    find_failure: Callable[[Any], str | None] = lambda result: None
    """Why a part of a result is missing that is not worth the whole, such as the judge's verdict of a response; None
    if it is not missing. The result is kept."""
    parts: str = "parts"
    """What `find_failure` looks at, as a message calls it."""
    engines: Mapping[str, Any] = field(default_factory=dict)
    """Who writes, by the names under which their tokens are shown: student, teacher."""
    count_tokens: Callable[[Any], Mapping[str, int]] = lambda result: {}
    """What each of them wrote of a result."""
    locate: Callable[[Sequence[str]], Mapping[str, str]] = lambda keys: {}
    """Where queries stand, such as a file and a row, by their keys."""
    replace: Callable[[Row, str], Any] | None = None
    """The result of a query, from its row and the cause, at which the server fails each time; None leaves it out."""
