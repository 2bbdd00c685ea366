"""Under which settings a student is measured: its `relay.json`, unless the command line says otherwise."""

import json
from pathlib import Path

import pytest
import verl  # noqa: F401  (loads the plugin)

from relay_verl.checkpoints.relay_file import (
    RELAY_FILE,
    PairSampling,
    RelayFile,
    RelayLimits,
    RelayTemplate,
    WriterSampling,
    write_relay_file,
)
from relay_verl.cli.options import compose_recipe
from relay_verl.cli.student_settings import compose_for_student
from tests.helpers.errors import names, one_line

RELAY = RelayFile(
    policy="fixed_20",
    limits=RelayLimits(512, 3, 64, "drop", "delivered"),
    template=RelayTemplate({"a'b, c=[1]": "x: {y}"}),
    sampling=PairSampling(teacher=WriterSampling(0.5, 0.9, 20)),
)


@pytest.fixture
def student(tmp_path: Path) -> str:
    write_relay_file(tmp_path, RELAY)
    return str(tmp_path)


def test_a_students_own_settings(student: str) -> None:
    run, policy = compose_for_student(student, None, None, None)
    config = run.relay.decoder_config(run.lengths.max_response, greedy=False, vocab_size=None)
    assert policy == "fixed_20"
    assert (config.max_response_tokens, config.max_calls, config.max_tokens_per_call) == (512, 3, 64)
    assert config.fixed_command == "delivered"
    assert config.teacher_sampling == {"temperature": 0.5, "top_p": 0.9, "top_k": 20}
    assert run.prompts.template == {"a'b, c=[1]": "x: {y}"}, "all of it: none of the default recipe's"


def test_the_command_line_wins(student: str) -> None:
    words = ["relay.max_calls=1", "data.apply_chat_template_kwargs.enable_thinking=true"]
    run, _ = compose_for_student(student, None, words, None)
    assert (run.relay.max_calls, run.relay.max_tokens_per_call) == (1, 64)
    assert run.prompts.template == {"enable_thinking": True}


@pytest.mark.parametrize("words", [("relay_tiny", []), (None, ["+recipe=relay_tiny"])])
def test_a_recipe_that_is_named_wins(student: str, words: tuple[str | None, list[str]]) -> None:
    run, policy = compose_for_student(student, *words, None)
    assert run.verl == compose_recipe("relay_tiny", None, None).verl
    assert policy == "fixed_20"


@pytest.mark.parametrize("student", [None, "http://127.0.0.1:8000/v1", "/no/such/folder"])
def test_without_relay_json_it_is_the_recipe(student: str | None) -> None:
    run, policy = compose_for_student(student, None, None, None)
    assert (run.verl, policy) == (compose_recipe(None, None, None).verl, "learned")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / RELAY_FILE).write_text(json.dumps({"limits": {"max_calls": "many"}}))
    line = one_line(compose_for_student, str(tmp_path), None, None, None)
    assert names(line, tmp_path / RELAY_FILE, "limits.max_calls", "many")
