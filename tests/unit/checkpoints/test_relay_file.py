"""`relay.json`: what is written is read again, and what is wrong in it is named."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.checkpoints.relay_file import (
    MAX_BYTES,
    RELAY_FILE,
    PairSampling,
    RelayFile,
    RelayLimits,
    RelayTemplate,
    TrainedTeacher,
    WriterSampling,
    read_relay_file,
    write_relay_file,
)
from relay_verl.config import RelaySettings
from tests.helpers.errors import names, one_line

RELAY_FILES = st.builds(
    RelayFile,
    policy=st.sampled_from(["learned", "teacher_free", "fixed_20", "random_0.1", "router_0.5"]),
    limits=st.builds(
        RelayLimits,
        max_response_tokens=st.integers(1, 10**6),
        max_calls=st.none() | st.integers(0, 100),
        max_tokens_per_call=st.integers(20, 10**5),
        on_teacher_failure=st.sampled_from(["continue", "drop", "fail"]),
    ),
    teacher=st.builds(TrainedTeacher, st.none() | st.text(), st.none() | st.text()),
    template=st.builds(
        RelayTemplate, st.dictionaries(st.sampled_from("ab"), st.booleans() | st.text()), st.none() | st.text()
    ),
    sampling=st.builds(
        PairSampling,
        *2 * [st.builds(WriterSampling, st.none() | st.floats(0, 2), st.none() | st.floats(0.01, 1), st.none())],
    ),
)


@given(relay=RELAY_FILES)
def test_what_is_written_is_read_again(relay: RelayFile, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("student")
    write_relay_file(folder, relay)
    again = read_relay_file(folder)
    assert again.relay_verl is not None
    for part in ("policy", "limits", "teacher", "template", "sampling", "format"):
        assert getattr(again, part) == getattr(relay, part)


def test_a_folder_without_one_has_the_defaults_and_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        relay = read_relay_file(tmp_path)
    assert RELAY_FILE in caplog.text and str(tmp_path) in caplog.text
    assert relay == RelayFile()
    config, settings = relay.decoder_config(), RelaySettings()
    for name in ("max_calls", "max_tokens_per_call", "on_teacher_failure", "fixed_command"):
        assert getattr(config, name) == getattr(settings, name)
    assert config.teacher_sampling == settings.teacher.sampling()


def test_a_key_that_is_missing_has_its_default(tmp_path: Path) -> None:
    (tmp_path / RELAY_FILE).write_text('{"limits": {"max_calls": 2}}')
    relay = read_relay_file(str(tmp_path))
    assert relay == RelayFile(limits=RelayLimits(max_calls=2))
    config = relay.decoder_config(max_response_tokens=5, vocab_size=7)
    assert (config.max_calls, config.max_response_tokens, config.vocab_size) == (2, 5, 7)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"limits": {"max_calls": -1}}, ["limits.max_calls", -1]),
        ({"limits": {"max_cals": 1}}, ["limits.max_cals", "'max_calls'"]),
        ({"limits": {"max_tokens_per_call": 0}}, ["limits.max_tokens_per_call", 0]),
        ({"limits": {"max_response_tokens": True}}, ["limits.max_response_tokens", True]),
        ({"limits": {"on_teacher_failure": "ignore"}}, ["limits.on_teacher_failure", "ignore", "continue"]),
        ({"limits": None}, ["limits", None]),
        ({"max_calls": 1}, ["max_calls", "limits"]),
        ({"policy": "pkg.module:Name"}, ["policy", "pkg.module:Name"]),
        ({"policy": "lerned"}, ["policy", "lerned", "learned"]),
        ({"policy": "fixed_20", "limits": {"max_tokens_per_call": 10}}, ["policy", "fixed_20", 10]),
        ({"template": {"chat_template_kwargs": {"tokenize": False}}}, ["chat_template_kwargs", "tokenize"]),
        ({"template": {"system": 3}}, ["template.system", 3]),
        ({"sampling": {"student": {"temperature": float("nan")}}}, ["sampling.student.temperature", "nan"]),
        ({"sampling": {"teacher": {"top_k": 0}}}, ["sampling.teacher.top_k", 0]),
        ({"format": 0}, ["format", 0]),
        ({"format": 2, "relay_verl": "9.1", "new": 1}, ["format", 2, "9.1"]),
        ([1], ["[1]"]),
    ],
)
def test_what_is_wrong_is_named(values: Any, said: list[object], tmp_path: Path) -> None:
    (tmp_path / RELAY_FILE).write_text(json.dumps(values))
    assert names(one_line(read_relay_file, tmp_path), tmp_path / RELAY_FILE, *said)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b" " * (MAX_BYTES + 1)])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / RELAY_FILE).write_bytes(content)
    assert names(one_line(read_relay_file, tmp_path), tmp_path / RELAY_FILE)


def test_a_policy_of_code_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_policy.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / RELAY_FILE).write_text('{"policy": "hostile_policy:Policy"}')
    assert "hostile_policy" in one_line(read_relay_file, tmp_path)
