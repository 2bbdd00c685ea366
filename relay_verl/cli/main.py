"""relay-verl: the command line for everything but the training itself, which is verl's own command.

Exit codes: 0 done; 1 an error of the input or of the run, in a one-line message; 2 a command line that cannot be read;
130 Ctrl-C. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relay_verl.cli import (
    bench,
    chat,
    data,
    defer,
    demo,
    doctor,
    evidence,
    frontier,
    models,
    quickstart,
    recipes,
    report,
    serve,
)
from relay_verl.cli import (
    evaluate as evaluation,
)
from relay_verl.cli import (
    export as checkpoints,
)
from relay_verl.cli.options import EVALUATE, START, Json
from relay_verl.cli.output import print_json
from relay_verl.jobs import interruption
from relay_verl.secrets import hide_in_text

DEBUG = "--debug"
DEBUG_VARIABLE = "RELAY_DEBUG"
MAX_CHARS = 300
"""Most characters of another project's error that a message quotes."""


class RelayGroup(TyperGroup):
    """Takes `--debug` anywhere on the line, and tells what an interrupted command has kept."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        if DEBUG in args[:end]:
            args = [DEBUG, *(word for word in args[:end] if word != DEBUG), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with interruption.reported("relay-verl"):
            return super().invoke(ctx)


app = typer.Typer(
    cls=RelayGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A small model that asks a large one for tokens: its data, its evaluation, its checkpoints. Training itself "
    "is verl's own command: python -m verl.trainer.main_ppo +recipe=NAME.",
    epilog="Exit codes: 0 done, 1 an error, 2 a command line that cannot be read, 130 Ctrl-C.",
)
# the order in which the help lists the groups
app.add_typer(demo.app)
app.add_typer(quickstart.app)
app.add_typer(models.app, name="models", rich_help_panel=START)
app.add_typer(data.app)
app.add_typer(recipes.app)
app.add_typer(doctor.app)
app.add_typer(evaluation.app)
app.add_typer(report.app)
app.add_typer(evidence.app)
app.add_typer(defer.app)
app.add_typer(frontier.app)
app.add_typer(bench.app, name="bench", rich_help_panel=EVALUATE)
app.add_typer(serve.app)
app.add_typer(chat.app)
app.add_typer(checkpoints.app)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from relay_verl.versions import find_version

        typer.echo(f"relay-verl {find_version('relay-verl')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help=f"Show the traceback of an error; anywhere on the line, or {DEBUG_VARIABLE}=1.")
    ] = False,
) -> None:
    # vLLM logs to standard output, where results belong; in Ray's workers and in the quickstart's stages, too
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    if not sys.stderr.isatty():  # the hub's own bars are redrawn in place
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"  # in the processes of the quickstart, too


@app.command(rich_help_panel=START)
def version(json: Json = False) -> None:
    """Print the versions that matter for a report."""
    from relay_verl.versions import versions

    if json:
        print_json(versions())
        return
    for name, number in versions().items():
        typer.echo(f"{name} {number}")


def is_debug() -> bool:
    """Whether errors are to be shown with their traceback."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def line_of(error: BaseException) -> str:
    """The message of an error that left a command; of one that is not ours with its kind and how to see more."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if type(error).__module__.partition(".")[0] == "relay_verl":
        return str(error)
    if "ray" in sys.modules:  # it may wrap an error of ours
        from relay_verl.trainer import ending

        if (line := ending.line_of(error)) is not None:
            return line
    text = " ".join(str(error).split())
    shown = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."
    return f"unexpected error: {type(error).__name__}: {shown or 'no message'}; {DEBUG} shows where it comes from"


def main() -> None:
    """Console entry point; an error is a one-line message."""
    for stream in (sys.stdout, sys.stderr):  # a locale without a letter must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:
        if is_debug():
            raise
        sys.exit(f"relay-verl: {hide_in_text(line_of(error))}")
