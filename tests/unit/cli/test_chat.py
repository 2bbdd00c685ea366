"""`relay-verl generate` and `relay-verl chat`, over a running server and over two models of this process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay_verl.cli.main import app, line_of
from relay_verl.cli.reply_screen import ReplyScreen
from relay_verl.pair.talk import Piece, PieceKind
from tests.helpers.chain_models import save_pair
from tests.helpers.pupil import END, NUM_ASKED, TEACHER, make_engines
from tests.helpers.serving import RuleEngine, make_app, make_service, serving

TEXT = f"I ask. {TEACHER}{END}"
COMMAND = f"<call>{NUM_ASKED}</call>"


@pytest.fixture(scope="module")
def engines() -> tuple[RuleEngine, RuleEngine]:
    return make_engines()


@pytest.fixture(scope="module")
def url(engines: tuple[RuleEngine, RuleEngine]) -> Iterator[str]:
    with serving(make_app(make_service(*engines))) as url:
        yield url


def run(*words: str, input: str | None = None) -> Any:
    return CliRunner().invoke(app, list(words), input=input)


def error_of(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 1
    line = line_of(result.exception)
    assert "\n" not in line
    return line


def test_a_file_gets_the_text_alone(url: str) -> None:
    result = run("generate", "please ask", "--url", url)
    assert (result.exit_code, result.stdout) == (0, f"{TEXT}\n")
    assert f"teacher {NUM_ASKED} (" in result.stderr
    assert run("generate", "-", "--url", url, "--commands", input="please ask").stdout.startswith(f"I ask. {COMMAND}")


def test_json_says_who_wrote_what(url: str) -> None:
    answer = json.loads(run("generate", "please ask", "--url", f"{url}/v1", "--json").stdout)
    assert answer["text"] == TEXT
    assert [(part["kind"], part["text"]) for part in answer["parts"]] == [
        ("student", "I ask. "),
        ("command", COMMAND),
        ("teacher", TEACHER),
        ("student", END),
    ]
    relay = answer["usage"]["relay"]
    assert (answer["model"], answer["finish_reason"], relay["teacher_tokens"]) == ("pair", "stop", NUM_ASKED)
    assert answer["usage"]["completion_tokens"] == relay["student_tokens"] + relay["teacher_tokens"]


@pytest.mark.parametrize("options", [["--alias", "student"], ["--budget", "0"], ["--max-calls", "0"]])
def test_calls_can_be_turned_off(url: str, options: list[str]) -> None:
    answer = json.loads(run("generate", "please ask", "--url", url, "--json", *options).stdout)
    assert answer["usage"]["relay"]["teacher_tokens"] == 0
    assert TEACHER not in answer["text"]


def test_what_cannot_be_asked_is_one_line(url: str, tmp_path: Path) -> None:
    assert error_of("generate", " ", "--url", url).startswith("PROMPT:")
    assert error_of("generate", "x", "--url", url, "--student", "a").startswith("--url:")
    assert error_of("generate", "x", "--teacher", "a").startswith("--teacher:")
    assert error_of("generate", "x", "--url", "nowhere").startswith("--url:")
    assert error_of("generate", "x", "--student", str(tmp_path)).startswith("student:")
    assert "fixed-0" in error_of("generate", "x", "--url", url, "--alias", "fixed-0")
    assert "127.0.0.1:9" in error_of("chat", "--url", "http://127.0.0.1:9")


def test_a_chat_keeps_what_was_said_and_obeys(url: str, engines: tuple[RuleEngine, RuleEngine]) -> None:
    lines = [
        "please ask",
        "/budget 0",
        "please ask",
        "/budget off",
        "/alias student",
        "please ask",
        "/alias off",
        "/quit",
    ]
    result = run("chat", "--url", url, "--no-commands", input="\n".join(lines))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == TEXT
    assert result.stdout.count(TEACHER) == 1
    assert "model: pair:student" in result.stderr


@pytest.mark.parametrize("line", ["/budget -1", "/budget many", "/alias nothing", "/nothing", "/budget 9999999999999"])
def test_a_line_that_cannot_be_obeyed_changes_nothing(url: str, line: str) -> None:
    result = run("chat", "--url", url, input=f"{line}\nplease ask")
    assert result.exit_code == 0
    assert line.split()[0] in result.stderr
    assert TEACHER in result.stdout


def test_a_chat_survives_an_answer_that_fails(url: str, engines: tuple[RuleEngine, RuleEngine]) -> None:
    result = run("chat", "--url", url, "--max-tokens", "5000", input="please ask\n/clear\n/quit\nnot read")
    assert result.exit_code == 0
    assert "max_completion_tokens" in result.stderr or "max_tokens" in result.stderr


def test_two_folders_are_loaded_and_asked(tmp_path: Path) -> None:
    student, teacher = save_pair(tmp_path)
    pair = ["--student", str(student), "--teacher", str(teacher)]
    answer = json.loads(run("generate", "b", *pair, "--max-tokens", "12", "--seed", "0", "--json").stdout)
    assert answer["usage"]["relay"]["teacher_tokens"] == 3
    assert [part["kind"] for part in answer["parts"]] == ["student", "command", "teacher", "student"]
    alone = json.loads(run("generate", "b", *pair, "--max-tokens", "12", "--alias", "student", "--json").stdout)
    assert alone["usage"]["relay"]["teacher_tokens"] == 0


def test_a_terminal_does_not_obey_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = ReplyScreen()
    screen.show(Piece(PieceKind.TEACHER, "\x1b]0;title\x07 56 [red]"))
    screen.show(Piece(PieceKind.COMMAND, COMMAND))
    shown = capsys.readouterr().out
    assert "\x1b]0" not in shown
    assert "\x07" not in shown
    assert "56 [red]" in shown
    assert "\x1b[4;33m" in shown, "the teacher's words are underlined and amber"
    assert COMMAND in shown


def test_a_stream_that_breaks_off_is_one_line_and_does_not_end_a_chat() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})  # and no more

    with serving(app) as url:  # type: ignore[arg-type]
        line = error_of("generate", "x", "--url", url, "--model", "pair")
        chat = run("chat", "--url", url, "--model", "pair", input="x\n/budget 5\n")
    assert line.startswith(url)
    assert chat.exit_code == 0
    assert "at most 5" in chat.stderr


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--engine", "vllm"], "--engine"),
        (["--student", "http://127.0.0.1:1/v1", "--engine", "vllm"], "--engine"),
        (["--student", "x", "--api-key-env", "KEY"], "--api-key-env"),
    ],
)
def test_an_option_without_effect_is_refused(command: str, words: list[str], option: str) -> None:
    prompt = ["hi"] if command == "generate" else []
    assert error_of(command, *prompt, *words).startswith(f"{option}:")
