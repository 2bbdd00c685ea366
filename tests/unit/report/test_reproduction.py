"""What reproduces: the attempts as data, the page with and without results of ours, and a command for each cell."""

import csv
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from relay_verl.benchmarks.registry import BENCHMARKS
from relay_verl.cli.main import app
from relay_verl.recipes.attempts import RELEASED_CHECKPOINT, RELEASED_ROW, attempts, attempts_at, sources
from relay_verl.recipes.departures import departures
from relay_verl.recipes.paper import find_row, paper
from relay_verl.recipes.recipe import recipe_names
from relay_verl.report.cell_commands import cell_commands
from relay_verl.report.comparison import NOT_MEASURED
from relay_verl.report.document import Table, document_to_markdown
from relay_verl.report.groups import Groups
from relay_verl.report.reproduction import gains_table, number_rows, reproduction_document
from relay_verl.traces.results import MANIFEST
from tests.helpers.results import make, read, row_of

SIX = paper().groups["average"]


def test_the_attempts_are_those_of_the_three_issues() -> None:
    assert [source.name for source in sources()] == ["issue 1", "issue 2", "issue 3"]
    assert [source.url.rpartition("/")[2] for source in sources()] == ["1", "2", "3"]
    assert all(set(SIX) <= one.values.keys() for one in attempts())
    assert len({(one.label, one.row) for one in attempts()}) == len(attempts()) == 8


def test_means_are_over_whole_sets() -> None:
    [one] = attempts_at("0.6b/relay")
    assert one.values["average"] == pytest.approx(sum(one.values[name] for name in SIX) / 6)
    assert "call_ratio" not in one.values, "the source gives none"
    [released] = attempts_at(RELEASED_ROW)
    assert released.values["call_ratio"] == pytest.approx(0.2233, abs=1e-4)


def test_gains_are_by_the_same_hand() -> None:
    """Issue 2's student against issue 2's base model, not against the paper's."""
    gains = row_of(gains_table(Groups(())), "Qwen3-0.6B, RelayLLM (Difficulty-Aware)")
    assert (gains["paper"][0], gains["issue 2"][0], gains["ours"][0]) == ("+5.87", "-0.04", NOT_MEASURED)
    [released] = [
        cells for name, cells in row_of(gains_table(Groups(())), "Qwen3-1.7B, RelayLLM (Simple)").items() if "3" in name
    ]
    assert released[0] == "base model not measured"


def test_without_results_every_cell_of_ours_is_empty() -> None:
    rows = list(number_rows(Groups(())))
    ours = [row for row in rows if row["by"] == "ours"]
    assert len(ours) == sum(len(entry.values) for entry in paper().entries)
    assert {(row["percent"], row["low"], row["high"]) for row in ours} == {("", "", "")}
    assert sorted(row["percent"] for row in rows if row["by"] == "paper") == sorted(
        value for entry in paper().entries for value in entry.values.values()
    )
    text = document_to_markdown(reproduction_document(Groups(())))
    assert "Nothing of ours was measured yet." in text
    assert all(source.url.split("//")[1] in text for source in sources())


def thinks(folder: Path) -> None:
    manifest = folder / MANIFEST
    manifest.write_text(
        manifest.read_text().replace('"kind": "eval"', '"kind": "eval", "template": {"enable_thinking": true}')
    )


def row_names(table: Table, label: str) -> list[str]:
    """Who has a line under one label, in order."""
    (lines,) = [group for group in table.groups if group[0][0] == label]
    return [line[1] for line in lines]


def test_ours_stands_next_to_the_attempts_in_both_modes(tmp_path: Path) -> None:
    make(tmp_path / "base", "0.6b/base", policy="student_alone", right=4, benchmarks=SIX)
    make(tmp_path / "plain", "0.6b/relay", right=6, tokens=2, benchmarks=SIX)
    thinks(make(tmp_path / "thinking", "0.6b/relay", right=8, tokens=2, benchmarks=SIX))
    groups = read(tmp_path)
    assert [(group.words, group.is_thinking) for group in groups.groups] == [
        ("student alone", False),
        ("trained relay", False),
        ("trained relay, thinking", True),
    ]
    tables = [block for section in reproduction_document(groups).sections for block in section.blocks]
    table = next(block for block in tables if block.title.startswith("Table 1: Qwen3-0.6B"))
    assert isinstance(table, Table)
    names = row_names(table, "RelayLLM (Difficulty-Aware)")
    interval = ["95% interval", "difference"]
    assert names == ["paper", "issue 2", "ours", *interval, "ours, thinking", *interval]
    gains = row_of(gains_table(groups), "Qwen3-0.6B, RelayLLM (Difficulty-Aware)")
    assert gains["ours"][0] == "+20.00"
    [average] = [
        row
        for row in number_rows(groups)
        if (row["by"], row["row"], row["table"], row["measure"]) == ("ours", "0.6b/relay", "Table 1", "Average")
    ]
    assert average["percent"] == 60


def test_thinking_alone_is_ours_and_says_so(tmp_path: Path) -> None:
    thinks(make(tmp_path / "thinking", "0.6b/relay", right=8, tokens=2, benchmarks=SIX))
    group = read(tmp_path).find("0.6b/relay")
    assert group is not None and group.words == "trained relay, thinking"


# ---- the command for each cell ----

COMMANDS = [(one.row, one.evaluate) for one in cell_commands()]


def test_every_row_with_a_number_has_its_commands() -> None:
    rows = {entry.row for entry in paper().entries}
    assert {row.partition(",")[0] for row, _ in COMMANDS} == rows
    assert all(bool(one.train) == bool(find_row(one.row).recipe) for one in cell_commands() if "," not in one.row)
    assert [row for row, command in COMMANDS if RELEASED_CHECKPOINT in command] == [
        f"{RELEASED_ROW}, {RELEASED_CHECKPOINT} as the paper says",
        f"{RELEASED_ROW}, {RELEASED_CHECKPOINT} as the release does",
    ]


@pytest.mark.parametrize(("row", "command"), COMMANDS, ids=[row for row, _ in COMMANDS])
def test_the_command_of_a_row_is_read_and_covers_its_cells(row: str, command: str) -> None:
    words = shlex.split(command)
    assert words[:2] == ["relay-verl", "eval"]
    evaluate = get_command(app).commands["eval"]  # type: ignore[attr-defined]
    options = evaluate.make_context("eval", words[2:]).params
    name = row.partition(",")[0]
    assert options["row"] == name
    assert set(options["benchmark"]) <= BENCHMARKS.keys()
    if "release" not in row:
        entries = [entry for entry in paper().entries if entry.row == name]
        assert {benchmark for entry in entries for benchmark in entry.values} & BENCHMARKS.keys() <= set(
            options["benchmark"]
        )
        assert {entry.policy for entry in entries} - {None} <= set(options["policy"])
    else:
        assert options["thinking"] is ("--thinking" in command)


@pytest.mark.parametrize("command", [one.train for one in cell_commands() if one.train])
def test_the_recipe_of_a_row_exists(command: str) -> None:
    [name] = {word for word in command.replace("+recipe=", "--recipe ").split() if word in recipe_names()}
    assert name in recipe_names()


# ---- the command ----


def test_the_page_is_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["reproduction", "--out", str(tmp_path / "page")])
    assert done.exit_code == 0, done.exception
    page = (tmp_path / "page" / "reproduction.html").read_text()
    assert all(departure.what.replace("'", "&#39;") in page for departure in departures())
    assert "<svg" in (tmp_path / "page" / "reproduction_averages.svg").read_text()
    with open(tmp_path / "page" / "reproduction.csv", newline="") as file:
        assert {row["by"] for row in csv.DictReader(file)} == {"paper", "ours", *(one.label for one in attempts())}


def test_the_documented_page_is_the_one_that_is_written() -> None:
    """`relay-verl reproduction --out FOLDER` writes it anew."""
    documented = Path(__file__).parents[3] / "relay_verl" / "report" / "reproduction.md"
    assert documented.read_text() == document_to_markdown(reproduction_document(Groups(())))
