"""Whether a run could start here, and what would keep it from that."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
_MARKS = {"passed": ("✓", "green"), "doubtful": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("–", "dim")}


@app.command()
def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="What the trainer would be given, such as +recipe=relay_1.7b trainer.nnodes=2."),
    ] = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Leave out what needs Ray.")] = False,
    config_dir: Annotated[
        Path | None, typer.Option(help="Folder with a recipe/ of your own, as for the trainer.")
    ] = None,
) -> None:
    """Check that a run can start here, each check with what mends it; exit code 1 if one failed."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from relay_verl.overrides import quote
    from relay_verl.preflight.doctor import examine

    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal  # a pipe gets a line a check
    given = list(overrides or ())
    if config_dir is not None:
        given.append(f"hydra.searchpath=[{quote(f'file://{config_dir.absolute()}')}]")
    counts: Counter[str] = Counter()
    for outcome in examine(given, with_ray=not no_ray):
        counts[outcome.status] += 1
        mark, style = _MARKS[outcome.status]
        has_line = outcome.status in ("failed", "doubtful")
        beside = "" if has_line or not outcome.text else f"  {outcome.text}"
        console.print(Text.assemble((f"{mark} {outcome.name}", style), (beside, "dim")))
        if has_line:
            text = Text(outcome.text)
            console.print(Padding(text, (0, 0, 0, 4)) if console.is_terminal else Text("    ") + text)
    doubts = f", {counts['doubtful']} in doubt" if counts["doubtful"] else ""
    console.print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped{doubts}")
    if counts["failed"]:
        raise typer.Exit(1)
