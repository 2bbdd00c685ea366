"""Paths reach Hydra as they are, whatever characters they have, and what Hydra cannot read is a one-line error."""

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra_plugins.relay_verl.searchpath import refuse_unreadable
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.errors import UserError
from relay_verl.pipeline.processes import trainer_folders
from relay_verl.recipes.compose import compose, compose_overrides
from relay_verl.recipes.grammar import check_single_values, override, parse, quote
from relay_verl.recipes.recipe import find_recipe
from tests.helpers.errors import one_line

NAMES = [
    "relay (copy)",
    "a, b",
    "x=1",
    "n#1",
    "it's",
    'say "x"',
    "a & b",
    "~me",
    "odd dir ü",
    "用户",
    "relay [2]",
    "{a}",
    "a:b",
    "back\\slash\\",
    "$home",
    "null",
    "100%",
    " lead",
]
PATHS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=40,
)
UNREADABLE = [
    "relay.teacher.path=/models/big (copy)",
    "relay.teacher.path=/models/n#1",
    "relay.teacher.path=/models/用户",
    "relay.teacher.path=~/models/big",
    "relay.teacher.path=/models/it's",
    "relay.teacher.path=/models/x=1",
    "relay.teacher.path=[/models/a",
    "relay.teacher.base_url=http://[::1]:8000/v1",
]


@given(PATHS)
def test_hydra_reads_what_was_quoted(text: str) -> None:
    if "${" in text:
        with pytest.raises(UserError):
            quote(text)
        return
    (parsed,) = parse([override("a.b", text)])
    assert parsed.value() == text
    assert not parsed.is_sweep_override()
    assert OmegaConf.create({"k": parsed.value()}).k == text, "the composed config has it, too"


@given(st.lists(PATHS.filter(lambda text: "${" not in text), max_size=3))
def test_quoted_texts_may_stand_in_a_list(texts: list[str]) -> None:
    (parsed,) = parse([f"k=[{','.join(map(quote, texts))}]"])
    assert parsed.value() == texts


def test_a_folder_that_no_quoting_keeps_is_named() -> None:
    assert one_line(override, "a", "/data/${x}/q").startswith("/data/${x}/q: ")


@pytest.mark.parametrize("name", NAMES)
def test_a_trainer_of_the_pipeline_writes_into_any_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    config = compose("relay_tiny", trainer_folders(folder / "checkpoints", folder)[:1])
    assert config.trainer.default_local_dir == str(folder / "checkpoints")
    assert parse(trainer_folders(folder / "checkpoints", folder))[1].value() == str(folder / "hydra")


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_finds_recipes_in_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name / "recipe"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\n# Mine.\ndefaults: [relay_tiny]\ndata:\n  seed: 77\n")
    asked: list[list[str]] = []
    monkeypatch.setattr("relay_verl.preflight.doctor.examine", lambda words, **options: asked.append(words) or iter(()))
    result = CliRunner().invoke(app, ["doctor", "--no-ray", "--config-dir", str(folder.parent), "+recipe=mine"])
    assert result.exit_code == 0, result.output
    assert compose_overrides(asked[0]).data.seed == 77


@pytest.mark.parametrize("word", UNREADABLE)
def test_an_unreadable_word_comes_with_the_way_to_write_it(word: str) -> None:
    line = one_line(compose, "relay_tiny", [word])
    assert line.startswith(f"{word}: Hydra cannot read the value (")
    (advice,) = shlex.split(line.rpartition("quote it: ")[2])
    (parsed,) = parse([advice])
    assert f"{parsed.key_or_group}={parsed.value()}" == word


def test_a_comma_is_not_taken_for_a_sweep() -> None:
    word = "relay.teacher.path=/models/a,b"
    line = one_line(compose, "relay_tiny", [word])
    (advice,) = shlex.split(line.rpartition("write ")[2])
    check_single_values([advice])
    assert compose("relay_tiny", [advice]).relay.teacher.path == "/models/a,b"


@pytest.mark.parametrize("word", ["relay.teacher.path", "two words", "key value=1"])
def test_a_word_that_is_no_override(word: str) -> None:
    assert one_line(parse, [word]).startswith(f"{word}: Hydra cannot ")


@pytest.mark.parametrize("command", ["filter", "warmup-data"])
def test_every_command_says_it(command: str, tmp_path: Path) -> None:
    from tests.helpers.generators import write_questions

    write_questions(tmp_path / "q.parquet", 2)
    words = [command, "--recipe", "relay_tiny", "--data", str(tmp_path / "q.parquet"), "--out", str(tmp_path / "o")]
    words += ["--student", "/no"] if command == "warmup-data" else []
    result = CliRunner().invoke(app, [*words, "relay.teacher.path=/models/big (copy)"])
    assert isinstance(result.exception, UserError)


def test_verls_trainer_says_it_before_hydra_does(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["+recipe=relay_tiny", "relay.teacher.path=/models/big (copy)", "--config-dir", "/x (copy)"]
    refuse_unreadable(words)  # under another program, such as this test's, they are not Hydra's
    monkeypatch.setitem(
        sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name="verl.trainer.main_ppo"))
    )
    with pytest.raises(SystemExit, match=r"^relay_verl: relay\.teacher\.path=/models/big \(copy\): ") as end:
        refuse_unreadable(words)
    assert "\n" not in str(end.value)
    refuse_unreadable(["+recipe=relay_tiny", "--config-dir", "/x (copy)", "data.seed=1"])
    refuse_unreadable(["-m", "data.seed=1,2"])
    with pytest.raises(SystemExit, match=r"^relay_verl: data\.train_files=a,b\.parquet: Hydra reads several values"):
        refuse_unreadable(["data.train_files=a,b.parquet"])


# ---- recipes as editors leave them ----


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_a_recipe_may_begin_with_a_byte_order_mark(mark: str, tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    folder.mkdir()
    text = "# @package _global_\n# Mine.\ndefaults: [relay_tiny]\ndata:\n  seed: 77\n"
    (folder / "mine.yaml").write_text(mark + text, encoding="utf-8")
    found = find_recipe("mine", [folder])
    assert (found.description, found.parent) == ("Mine.", "relay_tiny")
    config = compose_overrides([f"hydra.searchpath=[{quote(f'file://{tmp_path}')}]", "+recipe=mine"])
    assert config.data.seed == 77
    assert "recipe" not in config


def test_a_config_of_a_users_own_app_may_have_one_too(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("a: 1\n", encoding="utf-8-sig")
    with initialize_config_dir(str(tmp_path), version_base=None):
        assert hydra_compose("app") == {"a": 1}


def test_a_recipe_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    file = tmp_path / "recipe" / "mine.yaml"
    file.write_text("# Mine.\n", encoding="utf-16")
    assert one_line(find_recipe, "mine", [file.parent]).startswith(f"{file}: expected a file in UTF-8")
