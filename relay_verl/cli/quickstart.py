"""The whole chain on a tiny pair of models, from a checkout or from an installed wheel.

Its scripts are examples/tiny; the wheel has them as `relay_verl_tiny`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from relay_verl.cli.options import START, user_path

app = typer.Typer()
_INSTALLED = "relay_verl_tiny"


@app.command(rich_help_panel=START)
def quickstart(
    out: Annotated[Path, typer.Option(parser=user_path, help="Folder for everything that it makes.")] = Path(
        "outputs/quickstart"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = 80,
) -> None:
    """See it work without a GPU or a download: build two tiny models, train one to ask the other, measure both, in
    about 20 minutes on two CPU cores."""
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    from relay_verl.preflight.install_checks import check_engine

    check_engine()
    sys.path.insert(0, str(tiny_folder()))  # they are scripts, which import one another by their names
    import_module("quickstart").run(out.resolve(), seed, steps)


def tiny_folder() -> Path:
    """Where the tiny world's scripts are.

    Raises:
        FileNotFoundError: this installation lacks them.
    """
    spec = find_spec(_INSTALLED)
    installed = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    in_checkout = Path(__file__).parents[2] / "examples" / "tiny"
    for folder in (*installed, in_checkout):
        if (folder / "quickstart.py").is_file():
            return folder
    raise FileNotFoundError(f"the quickstart's scripts ({_INSTALLED}) are not installed; reinstall relay-verl")
