"""Queries that can never be answered, in a job's manifest and in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay_verl.jobs.job import Job

MAX_NAMED = 3
"""Most queries that a message names."""


def describe_unanswerable(job: Job, refused: Mapping[str, str]) -> list[dict[str, str]]:
    """The queries that can never be answered, for the manifest."""
    places = job.locate(list(refused)) if refused else {}
    return [{"query": key, "place": places.get(key, key), "cause": cause} for key, cause in refused.items()]


def tell_unanswerable(out: Path, manifest: Mapping[str, Any]) -> str:
    """What a finished output leaves out, with the first cases on a single line; empty if it is whole.

    Args:
        out: the output.
        manifest: its manifest.
    """
    refused = manifest.get("unanswerable") or []
    if not refused:
        return ""
    named = "; ".join(f"{one['place']}: {one['cause']}" for one in refused[:MAX_NAMED])
    more = f"; {len(refused) - MAX_NAMED} more in its manifest" if len(refused) > MAX_NAMED else ""
    return (
        f"{out}: {len(refused)} of {manifest['num_queries']} queries can never be answered and are left out: "
        f"{named}{more}"
    )
