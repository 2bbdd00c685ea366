"""The shipped pair at work, in seconds and without a download: its responses on the terminal and on a page."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay_verl.cli.demo_screen import DemoScreen
from relay_verl.cli.options import START, Json, user_path
from relay_verl.cli.output import print_json, results_only
from relay_verl.errors import UserError, as_user_error
from relay_verl.versions import is_installed

if TYPE_CHECKING:
    from relay_verl.demo.demo_question import DemoQuestion
    from relay_verl.demo.shipped_pair import ShippedPair
    from relay_verl.traces.records import ResponseRecord

app = typer.Typer()
NEEDED = ("torch", "transformers")
"""Packages that are imported once the questions are known."""
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""Variables that say where a browser shows a page; without them a browser of the terminal would take its place."""


@app.command(rich_help_panel=START)
def demo(
    question: Annotated[
        list[str] | None,
        typer.Option(help="Question of the pair's world, such as 7*8; repeatable. Drawn if none is given."),
    ] = None,
    num_questions: Annotated[int, typer.Option("--num-questions", "-n", min=1, help="How many are drawn.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    out: Annotated[Path, typer.Option(parser=user_path, help="The page of responses, an HTML file.")] = Path(
        "outputs/demo.html"
    ),
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser, where there is a screen.")
    ] = True,
    pair: Annotated[
        Path | None,
        typer.Option(
            parser=user_path, help="Folder of another pair, such as a quickstart's demo/.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """See a trained pair at work in seconds: a tiny student writes and asks its teacher for tokens, on the CPU and
    without a download."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if missing := [name for name in NEEDED if not is_installed(name)]:
        raise UserError(f"{' and '.join(missing)}: not installed; pip install {' '.join(missing)}")
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; expected a file, such as {out / 'demo.html'}")
    with as_user_error(ModuleNotFoundError, lambda error: f"{error.name}: not installed; pip install relay-verl"):
        from relay_verl.demo.demo_question import draw_questions, find_question
        from relay_verl.demo.shipped_pair import read_pair

        shipped = read_pair(pair)
        if question:
            asked = [find_question(text, shipped.questions) for text in question]
        else:
            asked = draw_questions(shipped.questions, num_questions, seed)
        screen = DemoScreen(shipped.card, is_shown=not as_json)
        records = _ask(shipped, asked, screen)
        with as_user_error(OSError, lambda error: f"--out: {out}: {error.strerror}"):
            _write_page(shipped, records, out)
    page = out.absolute()
    if as_json:
        responses = [record.to_dict() for record in records]
        print_json({"page": str(page), "pair": str(shipped.folder.absolute()), "responses": responses})
        return
    is_opened = open_page and has_screen() and webbrowser.open(page.as_uri())
    screen.finish(records, page, is_opened=is_opened)


def has_screen() -> bool:
    """Whether a browser with a window can be opened here."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in SCREENS)


def _ask(shipped: ShippedPair, asked: Sequence[DemoQuestion], screen: DemoScreen) -> list[ResponseRecord]:
    """Every question under every condition; the trained relay's responses are shown while they are written."""
    from relay_verl.demo.demo_relay import CONDITIONS, RELAY, open_relay

    screen.begin()
    records = []
    with results_only(), open_relay(shipped.folder) as relay:  # transformers may write to standard output
        for question in asked:
            screen.show_question(question)
            answers = [
                relay.ask(question, condition, *([screen.show_delta] if condition is RELAY else []))
                for condition in CONDITIONS
            ]
            screen.show_answers(answers)
            records += answers
    return records


def _write_page(shipped: ShippedPair, records: Sequence[ResponseRecord], out: Path) -> None:
    from relay_verl.demo.demo_relay import RELAY
    from relay_verl.pages.page import write_page

    card: Any = shipped.card
    title = f"{card.title}: a student that asks its teacher"
    kinds = {record.benchmark for record in records}
    names, notes = ({kind: text for kind, text in texts.items() if kind in kinds} for texts in (card.names, card.notes))
    write_page(records, out, title, names=names, notes=notes, lead=RELAY.name)
