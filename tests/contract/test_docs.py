"""What the pages name exists: make targets, recipes, commands, links and their headings, keys, metrics."""

import ast
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.config.defaults import default_config
from relay_verl.recipes.recipe import recipe_names
from relay_verl.serving.request_fields import RelayOptions
from tests.helpers.pages import CONTRIBUTING, PAGES, README, RECIPES, ROOT, anchors, matches, values


@pytest.mark.parametrize("target", values(r"(?:^|`)make ([a-z-]+)") + values(r"(?m)^make ([a-z-]+)"))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", values(r"\+recipe=([a-z0-9_.]+[a-z0-9])(?!,)"))
def test_recipes_exist(name: str) -> None:
    assert name in recipe_names()


def test_the_table_names_every_recipe_and_no_other() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", RECIPES.read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", " ".join(rows))) == recipe_names()


@pytest.mark.parametrize("command", values(r"relay-verl ((?:bench |models )?[a-z-]+)\b(?!\))"))
def test_commands_exist(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("page", "link"), matches(r"\]\((?!http)([^)]+)\)"))
def test_links_lead_somewhere(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


@pytest.mark.parametrize("key", values(r"\b(relay\.(?!json\b)[a-z_]+(?:\.[a-z_]+)*)(?==|`)"))
def test_keys_exist(key: str) -> None:
    # a file, a field of an answer, and those of a request
    if key in ("relay.json", "relay.parts") or key.removeprefix("relay.") in RelayOptions.model_fields:
        return
    base = OmegaConf.create(default_config())
    parent, _, name = key.rpartition(".")
    assert name in OmegaConf.select(base, parent)


@pytest.mark.parametrize("metric", values(r"`(relay/[a-z_]+)"))
def test_metrics_exist(metric: str) -> None:
    sources = [path.read_text() for path in (ROOT / "relay_verl" / "trainer").glob("*.py")]
    assert any(f'"{metric}' in source for source in sources)


def test_every_room_with_a_page_is_linked_from_the_readme() -> None:
    rooms = {path.parent.name for path in PAGES if path.parent.parent.name == "relay_verl"}
    assert rooms == set(re.findall(r"\]\(relay_verl/([a-z_]+)/README\.md\)", README.read_text()))


def test_the_readme_names_every_room() -> None:
    layout = README.read_text().partition("## Layout")[2].partition("## Licence")[0]
    rooms = {path.parent.name for path in (ROOT / "relay_verl").glob("[a-z]*/__init__.py")}
    assert rooms - set(re.findall(r"[`\[]([a-z_]+)[`\]]", layout)) == set()


def test_every_room_says_what_it_may_import() -> None:
    rooms = (ROOT / "relay_verl").glob("[a-z]*/__init__.py")
    docstrings = {path.parent.name: ast.get_docstring(ast.parse(path.read_text())) or "" for path in rooms}
    assert [name for name, text in docstrings.items() if "May import" not in " ".join(text.split())] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 180


ANSWERS = re.findall(r"^\| [^|]+ \| \[[^]]+\]\(([^)]+)\), `([^`]+)`", CONTRIBUTING.read_text(), re.MULTILINE)
"""File and name of each row of "Where things are"."""


def test_a_newcomers_questions_have_answers() -> None:
    assert len(ANSWERS) >= 16


@pytest.mark.parametrize(("path", "name"), ANSWERS)
def test_things_are_where_the_contributors_page_says(path: str, name: str) -> None:
    """A Python file defines the name at the start of a line (a method: indented); another file has it as text."""
    text = (ROOT / path).read_text()
    if Path(path).suffix == ".py":
        assert re.search(rf"^ *(?:async )?(?:def |class )?{name}\b *[=:(]", text, re.MULTILINE)
    else:
        assert name in text
