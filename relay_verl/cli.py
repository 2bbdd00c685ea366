"""relay-verl: the command line beside verl's own entry points."""

from __future__ import annotations

import io
import sys

import typer

from relay_verl.commands import bench, checkpoints, data, doctor, evaluation, models, recipes
from relay_verl.config import ConfigError
from relay_verl.jobs.store import JobError
from relay_verl.secrets import hide_in_text

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Token-level relay between a small and a large model."
)
app.add_typer(data.app)
app.add_typer(evaluation.app)
app.add_typer(checkpoints.app)
app.add_typer(recipes.app)
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")
app.add_typer(doctor.app)


@app.command()
def version() -> None:
    """Print the versions that matter for a report."""
    from relay_verl.versions import versions

    for name, number in versions().items():
        typer.echo(f"{name} {number}")


def main() -> None:
    """Console entry point; a bad input is one line."""
    for stream in (sys.stdout, sys.stderr):  # a locale without a letter must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ConfigError, JobError) as error:
        sys.exit(f"relay-verl: {hide_in_text(str(error))}")
