"""What a command prints: a result on standard output, for people or as JSON, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import typer


def print_json(value: Any) -> None:
    """A result for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """What is printed in here, by Ray and vLLM too, goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
