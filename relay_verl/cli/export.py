"""What becomes of a trained student's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay_verl.cli.options import SHARE, user_path
from relay_verl.errors import UserError

app = typer.Typer()

DTYPES = ("auto", "bfloat16", "float32")


@app.command("export", rich_help_panel=SHARE)
def export_(
    checkpoint: Annotated[
        Path, typer.Argument(parser=user_path, help="A global_step_N folder, or a run's folder: its newest whole one.")
    ],
    out: Annotated[Path, typer.Argument(parser=user_path, help="Hugging Face folder to write, with a model card.")],
    dtype: Annotated[
        str, typer.Option(help="Type of the weights: auto is the rollout engine's, else bfloat16 or float32.")
    ] = "auto",
    metrics: Annotated[
        Path | None,
        typer.Option(
            parser=user_path, help="verl's metrics file (logger `file`), for the card: the step and its validation."
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            parser=user_path, help="Results folder of `relay-verl eval` on this student, for the card; repeatable."
        ),
    ] = None,
    keep_adapter: Annotated[
        bool,
        typer.Option("--keep-adapter", help="Of a student under LoRA, write the PEFT adapter instead of merging it."),
    ] = False,
    license: Annotated[
        str | None, typer.Option(help="The hub's name of the licence, for the card; the base model's if not given.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Upload the folder to this repository of the hub, in one commit; the token is HF_TOKEN or that of "
            "`hf auth login`, HF_ENDPOINT another hub.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private if --push creates it.")
    ] = False,
) -> None:
    """Turn a checkpoint into a Hugging Face folder with a model card and relay.json, which says how to use the pair."""
    from relay_verl.checkpoints.export import export
    from relay_verl.checkpoints.push import HubRepository

    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: allowed: {', '.join(DTYPES)}")
    if private and push is None:
        raise UserError("--private: for --push, which creates the repository")
    repository = None if push is None else HubRepository(push, private)
    if repository:
        repository.check()
    source = export(
        checkpoint,
        out,
        dtype=dtype,
        metrics=metrics,
        keep_adapter=keep_adapter,
        results=results or (),
        name=push,
        license=license,
    )
    typer.echo(f"{out} is {source}")
    if repository:
        typer.echo(repository.upload(out, f"{source.name} of a training with relay_verl"))
