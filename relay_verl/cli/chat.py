"""Asking a trained pair: one prompt, or a chat."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from relay_verl.cli.options import TALK, Json
from relay_verl.cli.output import print_json, results_only
from relay_verl.cli.reply_screen import ReplyScreen
from relay_verl.errors import UserError

if TYPE_CHECKING:
    from relay_verl.pair.talk import Pair, Question, Reply

app = typer.Typer()
DEFAULT_URL = "http://127.0.0.1:8000"

Student = Annotated[str | None, typer.Option(help="Student to load here: a folder or a hub id.")]
Teacher = Annotated[str | None, typer.Option(help="Its teacher, likewise.")]
DEFAULT_ENGINE = "transformers"
Engine = Annotated[
    str | None,
    typer.Option(help="What runs the two models here: transformers or vllm.", show_default=DEFAULT_ENGINE),
]
Url = Annotated[
    str | None, typer.Option(help="Running server to ask, such as `relay-verl serve`.", show_default=DEFAULT_URL)
]
Model = Annotated[str | None, typer.Option(help="The pair's name at the server; the first that it lists if not given.")]
Alias = Annotated[
    str | None,
    typer.Option(help="Who writes: teacher-free, student, teacher, or fixed-N; as the pair was trained if not given."),
]
Budget = Annotated[int | None, typer.Option(min=0, help="Most tokens that the teacher writes in an answer.")]
MaxCalls = Annotated[int | None, typer.Option(min=0, help="Most calls in an answer.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer, commands included.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature of both models.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the sampling.")]
System = Annotated[str | None, typer.Option(help="System message.")]
Commands = Annotated[
    bool | None,
    typer.Option("--commands/--no-commands", help="Show the student's commands in the text; on a terminal by default."),
]
DEFAULT_KEY_ENV = "RELAY_SERVE_API_KEY"
KeyEnv = Annotated[
    str | None,
    typer.Option("--api-key-env", help="Environment variable with the server's key.", show_default=DEFAULT_KEY_ENV),
]


@app.command(rich_help_panel=TALK)
def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    student: Student = None,
    teacher: Teacher = None,
    engine: Engine = None,
    url: Url = None,
    model: Model = None,
    alias: Alias = None,
    budget: Budget = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    commands: Commands = None,
    api_key_env: KeyEnv = None,
    as_json: Json = False,
) -> None:
    """Ask a pair one question and watch who writes which word: models of this machine, or a running server."""
    from relay_verl.pair.talk import Question

    if prompt == "-":
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise UserError("PROMPT: expected a text, got an empty one")
    pair = _open_pair(student, teacher, engine, url, api_key_env)
    screen = ReplyScreen(shows_commands=commands)
    with _running(pair) as runner:
        name = runner.run(_name_of(pair, model))
        asked = Question(
            [*_opening(system), {"role": "user", "content": prompt}],
            f"{name}:{alias}" if alias else name,
            max_tokens,
            budget,
            max_calls,
            temperature,
            seed,
        )
        reply = runner.run(_generate(pair, asked, screen, is_shown=not as_json))
    if as_json:
        print_json(
            {
                "model": asked.model,
                "text": reply.text,
                "parts": [piece._asdict() for piece in reply.pieces],
                "finish_reason": reply.finish_reason,
                "usage": reply.usage,
            }
        )


@app.command(rich_help_panel=TALK)
def chat(
    student: Student = None,
    teacher: Teacher = None,
    engine: Engine = None,
    url: Url = None,
    model: Model = None,
    alias: Alias = None,
    budget: Budget = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    commands: Commands = None,
    api_key_env: KeyEnv = None,
) -> None:
    """Chat with a pair on the terminal; /budget, /alias and /quit while it runs."""
    from relay_verl.cli.chat_loop import ChatLoop
    from relay_verl.pair.talk import Question

    pair = _open_pair(student, teacher, engine, url, api_key_env)
    with _running(pair) as runner:
        name = runner.run(_name_of(pair, model))
        chosen = f"{name}:{alias}" if alias else name
        asked = Question(_opening(system), chosen, max_tokens, budget, max_calls, temperature, seed)
        ChatLoop(pair, runner, asked, name, ReplyScreen(shows_commands=commands)).run()


@contextmanager
def _running(pair: Pair) -> Iterator[asyncio.Runner]:
    """An event loop to ask the pair in, which is closed with it."""
    with asyncio.Runner() as runner:
        try:
            yield runner
        finally:
            runner.run(pair.aclose())


def _open_pair(
    student: str | None, teacher: str | None, engine: str | None, url: str | None, api_key_env: str | None
) -> Pair:
    """The pair that the options name.

    Raises:
        UserError: they contradict each other, or name what cannot be a model or a server.
    """
    if student is None:
        if teacher is not None:
            raise UserError("--teacher: is loaded together with --student; a running server has its own teacher")
        if engine is not None:
            raise UserError(f"--engine: {engine} runs models that are loaded here; a running server has its own engine")
        from relay_verl.pair.served_pair import ServedPair

        return ServedPair(url or DEFAULT_URL, api_key_env=api_key_env or DEFAULT_KEY_ENV)
    if url is not None:
        raise UserError("--url: a running server has its own models; leave it out, or --student")
    if api_key_env is not None:
        raise UserError(f"--api-key-env: {api_key_env}: models that are loaded here need no server's key")
    from relay_verl.models.address import is_endpoint, name_of
    from relay_verl.pair.loaded_pair import LoadedPair
    from relay_verl.pair.relay_pair import RelayPair

    if engine is not None and all(is_endpoint(model) for model in (student, teacher) if model is not None):
        raise UserError(f"--engine: {engine} runs models of folders and hub ids, and these run at addresses")
    with results_only():  # vLLM and transformers write to standard output
        pair = RelayPair.load(student, teacher, engine=engine or DEFAULT_ENGINE)
    return LoadedPair(pair, name_of(student), has_teacher=teacher is not None)


async def _name_of(pair: Pair, model: str | None) -> str:
    """The pair's name; `model` if that is given.

    Raises:
        UserError: the server lists no model.
    """
    if model is not None:
        return model
    names = await pair.model_names()
    if not names:
        raise UserError("--model: the server lists none; name one")
    return names[0]


def _opening(system: str | None) -> list[dict[str, str]]:
    return [] if system is None else [{"role": "system", "content": system}]


async def _generate(pair: Pair, asked: Question, screen: ReplyScreen, *, is_shown: bool) -> Reply:
    """The whole reply, shown while it comes.

    Raises:
        EngineError: the pair does not answer.
    """
    reply = pair.ask(asked)
    started = time.monotonic()
    try:
        async for piece in reply:
            if is_shown:
                screen.show(piece)
    finally:
        if is_shown and reply.pieces:
            screen.end_line()
    if is_shown:
        screen.finish(reply, f"{time.monotonic() - started:.1f} s")
    return reply
