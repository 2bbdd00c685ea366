"""Whether a run could start here, and what would keep it from that."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from relay_verl.cli.options import TRAIN, ConfigDir, Json, search_path
from relay_verl.cli.output import print_json, results_only

if TYPE_CHECKING:
    from relay_verl.preflight.check import Outcome

app = typer.Typer()
_MARKS = {"passed": ("✓", "green"), "doubtful": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("–", "dim")}


@app.command(rich_help_panel=TRAIN)
def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="What verl's trainer would be given, such as +recipe=relay_1.7b trainer.nnodes=2."),
    ] = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Leave out what needs Ray.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte of the checkpoint that the training would resume at.")
    ] = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
) -> None:
    """Check that a training can start here, and say how to fix what is missing; exit code 1 if a check failed."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from relay_verl.preflight.check import Status
    from relay_verl.preflight.doctor import examine

    console = Console(highlight=False, file=sys.stdout)
    console.soft_wrap = not console.is_terminal  # a pipe gets a line a check
    given = [*(overrides or ()), *search_path(config_dir)]
    counts: Counter[str] = Counter()
    checks: list[dict[str, str]] = []
    for outcome in _quietly(examine(given, with_ray=not no_ray, deep=deep)):
        counts[outcome.status] += 1
        checks.append({"name": outcome.name, "status": str(outcome.status), "text": outcome.text})
        if as_json:
            continue
        mark, style = _MARKS[outcome.status]
        has_line = outcome.status in ("failed", "doubtful")
        detail = "" if has_line or not outcome.text else f"  {outcome.text}"
        console.print(Text.assemble((f"{mark} {outcome.name}", style), (detail, "dim")))
        if has_line:
            text = Text(outcome.text)
            console.print(Padding(text, (0, 0, 0, 4)) if console.is_terminal else Text("    ") + text)
    if as_json:
        print_json({"checks": checks, **{str(status): counts[status] for status in Status}})
        raise typer.Exit(1 if counts[Status.FAILED] else 0)
    doubts = f", {counts['doubtful']} in doubt" if counts["doubtful"] else ""
    console.print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped{doubts}")
    if counts["failed"]:
        raise typer.Exit(1)


def _quietly(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """The outcomes; what the checks print on the way, and Ray and vLLM with them, goes to standard error."""
    while True:
        with results_only():
            outcome = next(outcomes, None)
        if outcome is None:
            return
        yield outcome
