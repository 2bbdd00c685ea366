"""The files that people and tools expect at the top of a repository: they parse, and they agree with each other."""

import re
import subprocess
import xml.etree.ElementTree as ET
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay_verl.rewards import difficulty_aware_reward, simple_reward
from relay_verl.types import RelayStatus, RelayTrajectory, Segment
from tests.helpers.pages import ROOT

YAML_FILES = sorted(
    path
    for folder in (".github", "recipes", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".yml", ".yaml"}
)
SVG = "{http://www.w3.org/2000/svg}"


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture(scope="module")
def setup_cfg() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_files_parse(path: Path) -> None:
    assert all(document is not None for document in yaml.safe_load_all(path.read_text()))


def test_the_citation_has_the_keys_of_its_format(setup_cfg: ConfigParser) -> None:
    """CFF 1.2.0 requires these four keys; the paper is the README's."""
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == setup_cfg["metadata"]["version"]
    assert citation["license"] == setup_cfg["metadata"]["license"] == "Apache-2.0"
    [paper] = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert all({"family-names", "given-names"} == author.keys() for author in paper["authors"])
    readme = (ROOT / "README.md").read_text()
    assert paper["url"] in readme
    assert paper["title"] in " ".join(readme.split())
    assert paper["authors"][0]["family-names"] in readme


def test_the_changelog_begins_with_this_version(setup_cfg: ConfigParser) -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(version for version in versions if version != "Unreleased") == setup_cfg["metadata"]["version"]


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert re.findall(r"^   ([1-9])\. ", text, re.MULTILINE) == list("123456789")
    assert "APPENDIX: How to apply the Apache License to your work." in text


def test_each_step_of_the_workflow_is_a_make_target() -> None:
    workflow = load(".github/workflows/ci.yml")
    makefile = (ROOT / "Makefile").read_text()
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert sorted(runs) == sorted(line for line in (ROOT / ".ci/run").read_text().splitlines() if line[:5] == "make ")
    for run in runs:
        [target] = re.findall(r"^make ([a-z-]+)$", run)
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_hooks_are_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\nlint:")[2].partition("\n\n")[0]
    [repository] = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook["entry"] for hook in repository["hooks"]}
    assert set(hooks) == {"ruff", "ruff-format", "codespell", "mypy", "import-linter"}
    for entry in hooks.values():
        program = entry.removeprefix(".venv/bin/").removesuffix(" --fix")
        assert f"$(VENV)/bin/{program}" in recipe


def test_issue_forms_have_the_keys_that_github_requires() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            assert set(form) <= {"blank_issues_enabled", "contact_links"}
            continue
        assert {"name", "description", "body"} <= form.keys()
        assert all({"type", "attributes"} <= item.keys() for item in form["body"])


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE) == targets
    assert subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=120).stdout == listed


def test_the_picture_of_a_relay_is_what_the_code_computes() -> None:
    """The masks, charges, rho and rewards drawn in the README's figure, against the types and rewards themselves."""
    root = ET.parse(ROOT / ".github/relay.svg").getroot()
    boxes = [box.get("class", "") for box in root.iter(f"{SVG}rect") if box.get("y") == "70"]
    rows = {
        name: [int(text.text or "") for text in root.iter(f"{SVG}text") if name in text.get("class", "").split()]
        for name in ("mask", "charge")
    }
    is_teacher = [box == "t" for box in boxes]
    student, rest = is_teacher.index(True), len(boxes) - is_teacher[::-1].index(True)
    segments = [
        Segment("student", list(range(student))),
        Segment("teacher", list(range(student, rest))),
        Segment("student", list(range(rest, len(boxes)))),
    ]
    trajectory = RelayTrajectory([], segments, RelayStatus.COMPLETED)
    assert rows["mask"] == trajectory.response_mask
    assert rows["charge"] == [int(value) for value in is_teacher]
    drawn = " ".join(root.itertext())
    rho = trajectory.call_ratio
    assert f"{trajectory.num_teacher_tokens} of {len(boxes)} tokens = {rho:.2f}" in drawn
    [with_call] = simple_reward([True], [rho])
    assert difficulty_aware_reward([True, True], [True, False], [rho, 0.0]) == [with_call, 1.5]
    assert f"1 − ρ = {with_call:.2f}, right without a call 1.5" in drawn


def test_the_picture_has_colours_for_dark_pages() -> None:
    style = ET.parse(ROOT / ".github/relay.svg").getroot().findtext(f"{SVG}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    fills = {
        name: re.findall(r"^ *(\.[a-z]+) \{ fill: #", part, re.MULTILINE)
        for name, part in {"light": light, "dark": dark}.items()
    }
    assert fills["light"] == fills["dark"]
