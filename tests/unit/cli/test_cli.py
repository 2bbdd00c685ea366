"""The command line as such: help, groups, versions, suggestions, JSON, exit codes, and what an error looks like."""

import inspect
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay_verl.benchmarks.registry import find_benchmark
from relay_verl.cli import bench, data
from relay_verl.cli import evaluate as evaluation
from relay_verl.cli import main as cli
from relay_verl.cli.options import compose_recipe, name_recipe, user_path
from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.policies import make_policy
from relay_verl.recipes.compose import compose
from relay_verl.recipes.composed import SECTIONS, compose_all, compose_quickly, quote
from relay_verl.recipes.layers import own_keys
from relay_verl.recipes.paper import find_row
from relay_verl.recipes.recipe import find_recipe, recipe_folders, recipe_names
from relay_verl.weights import find_model

ROOT = Path(__file__).parents[3]
OWN = "# @package _global_\n# Mine.\ndefaults:\n  - relay_tiny\nrelay:\n  max_calls: 5\n"


def run(*words: str) -> Any:
    return CliRunner().invoke(cli.app, list(words))


def main(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    program = [sys.executable, "-m", "relay_verl", *words]
    return subprocess.run(program, env=os.environ | variables, capture_output=True, text=True, timeout=300)


# ---- paths ----


def paths_of(app: Any) -> Iterator[tuple[str, Any]]:
    """Each option and argument of a command that is a path, with what typer knows of it."""
    for group in app.registered_groups:
        yield from paths_of(group.typer_instance)
    for command in app.registered_commands:
        hints = get_type_hints(command.callback, include_extras=True)
        for name, hint in hints.items():
            if "Path" in str(hint) and name != "return":
                yield f"{command.callback.__name__} {name}", hint.__metadata__[0]


def test_every_path_of_every_command_may_begin_with_a_tilde() -> None:
    found = dict(paths_of(cli.app))
    assert {
        "eval_ out",
        "export_ checkpoint",
        "quickstart out",
        "data out",
        "get out",
        "judge results",
    } <= found.keys()
    assert [name for name, option in found.items() if option.parser is not user_path] == []


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In `--out=~/x` the shell leaves it as it is."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (home / "own.csv").write_text("question,answer\nWhat is 1+1?,2\n")
    done = run("data", "~/own.csv", "--out=~/made/train.parquet")
    assert done.exit_code == 0, done.output
    assert (home / "made" / "train.parquet").is_file()
    assert not (tmp_path / "~").exists()


# ---- help ----


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version(flag: str) -> None:
    done = run(flag)
    assert done.exit_code == 0
    assert re.fullmatch(r"relay-verl \d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("words", [[], ["eval"], ["bench"], ["bench", "rollout"], ["models", "get"], ["quickstart"]])
def test_h_is_help_everywhere(words: list[str]) -> None:
    short, long = run(*words, "-h"), run(*words, "--help")
    assert short.exit_code == 0
    assert short.stdout == long.stdout and "Usage:" in short.stdout


def test_every_command_stands_in_a_group() -> None:
    text = run("-h").stdout
    for group in ("Start", "Data", "Train", "Evaluate", "Share"):
        assert f" {group} " in text
    assert "─ Commands ─" not in text
    assert "--install-completion" in text


def test_the_help_needs_no_paper() -> None:
    """Words that only the paper explains."""
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
    names += [c.name for group in (data.app, evaluation.app) for c in group.registered_commands if c.name]
    text = "\n".join(run(*words, "-h").stdout for words in ([], *([name] for name in names)))
    assert not re.search(r"vanilla|independence|exploration|who calls\b|what is drawn", text, re.IGNORECASE)


# ---- recipes named in either way, from any folder ----


def test_every_command_that_takes_a_recipe_takes_it_in_every_way() -> None:
    found = 0
    for app in (data.app, evaluation.app, bench.app):
        for command in app.registered_commands:
            parameters = inspect.signature(command.callback).parameters
            if "recipe" in parameters:
                found += 1
                assert {"config_dir", "overrides"} <= set(parameters), command.callback
    assert found >= 6


def test_one_recipe_in_two_spellings() -> None:
    assert name_recipe("a", ["+recipe=a", "x=1"]) == ("a", ["x=1"])
    assert name_recipe(None, ["x=1"]) == (None, ["x=1"])
    with pytest.raises(UserError, match="a and b at once"):
        name_recipe("a", ["+recipe=b"])


def test_a_folder_of_ones_own_under_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's (mine), = [1] #2 $x ünï 日本"
    (folder / "recipe").mkdir(parents=True)
    (folder / "recipe" / "mine.yaml").write_text(OWN)
    config = compose_recipe(None, ["+recipe=mine", "data.seed=4"], folder).verl
    assert (config.relay.max_calls, config.data.seed) == (5, 4)
    assert [row["name"] for row in json.loads(run("recipes", "--json", "--config-dir", str(folder)).stdout)].count(
        "mine"
    ) == 1
    text = run("recipes", "mine", "--against", "relay_tiny", "--config-dir", str(folder)).stdout
    assert "relay.max_calls: null -> 5" in text


def test_a_config_dir_without_recipes(tmp_path: Path) -> None:
    for words in (["recipes"], ["filter", "--data", "x.parquet", "--out", "y.parquet"]):
        done = run(*words, "--config-dir", str(tmp_path))
        assert isinstance(done.exception, UserError) and "--config-dir" in str(done.exception)


@given(st.text(st.characters(exclude_characters="\x00\n\r/$\\", exclude_categories=["Cs"]), min_size=1))
def test_a_quoted_text_is_read_back_by_hydra(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    [override] = OverridesParser.create().parse_overrides([f"hydra.searchpath=[{quote(f'file:///{text}')}]"])
    assert override.value() == [f"file:///{text}"]


# ---- the table in a third of the time ----


ODD = {
    "package": "# @package relay\ndefaults:\n  - _self_\nmax_calls: 5\n",
    "mapping": "# @package _global_\ndefaults:\n  - relay_tiny\n  - /relay@relay: base\nrelay:\n  max_calls: 5\n",
    "first": "# @package _global_\ndefaults:\n  - _self_\n  - relay_tiny\nrelay:\n  max_calls: 5\n",
}


@pytest.mark.parametrize("kind", ["package", "first"])
def test_a_recipe_in_an_odd_form_is_composed_as_hydra_does(kind: str, tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "odd.yaml").write_text(ODD[kind])
    recipe = find_recipe("odd", [tmp_path / "recipe"])
    quick, whole = (composed([recipe], [tmp_path / "recipe"])["odd"] for composed in (compose_quickly, compose_all))
    assert quick == {section: whole[section] for section in SECTIONS if section in whole}


def test_a_recipe_that_refers_to_a_part_that_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All recipes are composed whole then, here two of them."""
    monkeypatch.setattr("relay_verl.recipes.recipe.recipe_names", lambda also: ["relay_tiny", "far"])
    (tmp_path / "recipe").mkdir()
    text = "# @package _global_\ndefaults:\n  - relay_1.7b\ntrainer:\n  n_gpus_per_node: ${reward.num_workers}\n"
    (tmp_path / "recipe" / "far.yaml").write_text(text)
    done = run("recipes", "--json", "--config-dir", str(tmp_path))
    assert done.exit_code == 0, done.exception
    assert [row["name"] for row in json.loads(done.stdout)] == ["relay_tiny", "far"]


@pytest.mark.parametrize("text", ["# @package _global_\ndefaults: [\n", "- relay_tiny\n", "relay_tiny\n"])
@pytest.mark.parametrize("words", [["recipes"], ["recipes", "broken"], ["bench", "rollout", "+recipe=broken"]])
def test_a_broken_recipe_is_named(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "broken.yaml").write_text(text)
    error = run(*words, "--config-dir", str(tmp_path)).exception
    assert isinstance(error, UserError)
    assert str(tmp_path / "recipe" / "broken.yaml") in str(error) and "\n" not in str(error)


def test_layers_that_only_hydra_understands(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    for kind in ("package", "mapping"):
        path = tmp_path / f"{kind}.yaml"
        path.write_text(ODD[kind])
        assert own_keys(path, [folder.parent for folder in recipe_folders()]) is None


# ---- misspelt names ----

MISSPELT = [
    (find_recipe, "relay_1.7", "relay_1.7b"),
    (find_benchmark, "math500", "math-500"),
    (make_policy, "studentalone", "student_alone"),
    (make_policy, "fixed20", "fixed_20"),
    (find_row, "1.7b/relai", "1.7b/relay"),
    (find_model, "qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-instruct"),
    (lambda name: read_settings({"max_cals": 3}), "max_cals", "max_calls"),
    (lambda name: compose(name), "relay_tinny", "relay_tiny"),
]


@pytest.mark.parametrize(("find", "name", "meant"), MISSPELT, ids=[case[1] for case in MISSPELT])
def test_a_misspelt_name_is_suggested(find: Any, name: str, meant: str) -> None:
    with pytest.raises((UserError, ValueError)) as error:
        find(name)
    assert f"did you mean {meant!r}?" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_misspelt_dataset_is_suggested() -> None:
    error = run("data", "dapo-math-17", "--out", "x.parquet").exception
    assert isinstance(error, UserError) and "did you mean 'dapo-math-17k'?" in str(error)


# ---- JSON ----


def test_json_of_the_small_commands() -> None:
    assert json.loads(run("version", "--json").stdout)["python"]
    [first, *_] = json.loads(run("models", "list", "--json").stdout)
    assert {"name", "hub_id", "licence"} <= first.keys()
    one = json.loads(run("recipes", "+recipe=relay_1.7b_simple", "--json").stdout)
    assert one["command"] == "python -m verl.trainer.main_ppo +recipe=relay_1.7b_simple"
    assert {"key": "relay.reward.kind", "before": None, "after": "simple"} in one["changes"]


def test_json_of_all_recipes() -> None:
    rows = {row["name"]: row for row in json.loads(run("recipes", "--json").stdout)}
    assert set(rows) == set(recipe_names())
    relay = rows["relay_1.7b"]
    assert (relay["paper_accuracy_percent"], relay["paper_call_ratio_percent"]) == (49.52, 1.07)
    assert (relay["num_trainer_gpus"], relay["num_teacher_gpus"], relay["teacher"]) == (4, 1, "Qwen/Qwen3-8B")
    assert rows["relay_tiny"]["is_cpu"] and rows["relay_tiny"]["trainer_gib"] is None


# ---- errors and exit codes ----


class OwnError(RuntimeError):
    pass


OwnError.__module__ = "relay_verl.somewhere"


def test_an_error_in_one_line() -> None:
    assert cli.line_of(OwnError("the disk is full")) == "the disk is full"
    assert cli.line_of(ExceptionGroup("several", [OwnError("the disk is full")])) == "the disk is full"
    line = cli.line_of(KeyError("prompt\nids"))
    assert line.startswith("unexpected error: KeyError: ") and "--debug" in line and "\n" not in line
    assert len(cli.line_of(ValueError("x" * 10_000))) < 500
    assert "no message" in cli.line_of(ValueError())


@pytest.mark.parametrize("words", [["version"], ["--debug", "version"], ["version", "--debug"]])
def test_an_unexpected_error_has_a_traceback_only_with_debug(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise ZeroDivisionError("of our own making")

    monkeypatch.setattr("relay_verl.versions.versions", fails)
    monkeypatch.setattr(sys, "argv", ["relay-verl", *words])
    monkeypatch.setenv("RELAY_DEBUG", "0")
    if "--debug" in words:
        with pytest.raises(ZeroDivisionError) as error:
            cli.main()
        assert "fails" in "".join(traceback.format_exception(error.value))
    else:
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert str(end.value.code).startswith("relay-verl: unexpected error: ZeroDivisionError: of our own making")


def test_exit_codes() -> None:
    for words, code in ((["recipes", "relay_1.7bb"], 1), (["bogus"], 2)):
        done = main(*words)
        assert done.returncode == code, words
        assert done.stdout == "" and done.stderr
        assert "Traceback" not in done.stderr
    for words, code in ((["version"], 0), (["data"], 2), (["--no-such"], 2)):
        assert run(*words).exit_code == code, words


def test_an_interrupted_command_says_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        error = KeyboardInterrupt()
        error.add_note("3 of 9 queries are saved")
        raise error

    monkeypatch.setattr("relay_verl.versions.versions", interrupted)
    done = run("version")
    assert done.exit_code == 130
    assert done.stderr == "relay-verl: interrupted: 3 of 9 queries are saved\n"


def test_bars_go_through_one_door() -> None:
    """Elsewhere than on a terminal each of them is a line every half minute."""
    own = {"relay_verl/jobs/progress.py", "relay_verl/pipeline/training.py"}  # both print by hand
    for path in [*(ROOT / "relay_verl").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        if str(path.relative_to(ROOT)) not in own:
            assert not re.search(r"\btqdm\(", path.read_text()), path
