"""What differs from the authors' release is said once: the README's table is the list of departures, word for word."""

import re

import pytest

from relay_verl.cli.main import app
from relay_verl.recipes.compose import compose
from relay_verl.recipes.departures import departures
from relay_verl.recipes.recipe import recipe_names
from tests.helpers.pages import README

TITLE = "## What differs from the authors' release"


def test_the_readmes_table_is_the_list_of_departures() -> None:
    section = README.read_text().partition(TITLE)[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert rows == [departure.row for departure in departures()]


def test_a_departure_has_a_switch_or_a_reason_against_one() -> None:
    assert [one.what for one in departures() if one.switch and one.no_switch] == []


SWITCHES = [(one.what, code) for one in departures() for code in re.findall(r"`([^`]+)`", one.switch)]


@pytest.mark.parametrize(("what", "code"), SWITCHES, ids=[what for what, _ in SWITCHES])
def test_every_switch_is_taken(what: str, code: str) -> None:
    """Keys compose with the recipe, recipes exist, and options are those of a command."""
    words = code.split()
    if words[0].startswith("--"):
        from typer.main import get_command

        options = {name for each in get_command(app).commands["eval"].params for name in each.opts}  # type: ignore[attr-defined]
        assert words[0] in options
    elif words[0].startswith("+recipe="):
        assert words[0].removeprefix("+recipe=") in recipe_names()
    else:
        config = compose("relay_1.7b", words)
        for word in words:
            key, _, value = word.partition("=")
            node = config
            for part in key.split("."):
                node = node[part]
            assert str(node).lower() == value
