"""What the README says is there: its commands, its recipes, its files, its keys."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.config.defaults import default_config
from relay_verl.recipes.recipe import recipe_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def found(pattern: str) -> list[str]:
    """All matches in the README, once each; a pattern that no longer matches anything is a mistake in this test."""
    matches = sorted(set(re.findall(pattern, README)))
    assert matches, pattern
    return matches


@pytest.mark.parametrize("target", found(r"`?make ([a-z-]+)"))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", found(r"\+recipe=([a-z0-9_.]+[a-z0-9])"))
def test_recipes_exist(name: str) -> None:
    assert name in recipe_names()


def test_every_recipe_is_named() -> None:
    assert [name for name in recipe_names() if f"`{name}`" not in README] == []


@pytest.mark.parametrize("command", found(r"relay-verl ((?:bench )?[a-z-]+)`?"))
def test_commands_exist(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("link", found(r"\]\((?!http)([^)#]+)\)"))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("key", found(r"\b(relay\.[a-z_]+(?:\.[a-z_]+)*)(?==|`)"))
def test_keys_exist(key: str) -> None:
    base = OmegaConf.create(default_config())
    parent, _, name = key.rpartition(".")
    assert name in OmegaConf.select(base, parent)


@pytest.mark.parametrize("metric", found(r"`(relay/[a-z_]+)"))
def test_metrics_exist(metric: str) -> None:
    assert f'"{metric}' in (ROOT / "relay_verl" / "metrics.py").read_text()
