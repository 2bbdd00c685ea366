"""Serving a trained pair behind OpenAI's HTTP API."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from relay_verl.cli.options import TALK, user_path
from relay_verl.errors import UserError

app = typer.Typer()
_GIB = 1 << 30


@app.command(rich_help_panel=TALK)
def serve(
    student: Annotated[
        str | None,
        typer.Argument(help="Student: a folder or a hub id. With --student-url its tokenizer and relay.json are read."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Teacher: a folder or a hub id, with the student's tokenizer.")
    ] = None,
    student_url: Annotated[
        str | None,
        typer.Option(help="Address of a vLLM server that has the student already; its key is RELAY_STUDENT_API_KEY."),
    ] = None,
    teacher_url: Annotated[
        str | None,
        typer.Option(
            help="Address of a vLLM server that has the teacher already, which may serve several students; its key is "
            "RELAY_TEACHER_API_KEY."
        ),
    ] = None,
    student_model: Annotated[str | None, typer.Option(help="The student's name at its address.")] = None,
    teacher_model: Annotated[str | None, typer.Option(help="The teacher's name at its address.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of the tokenizer, where only addresses are given.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The pair's name to clients.", show_default="the student's folder")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    no_key: Annotated[
        bool,
        typer.Option("--no-key", help="Let other machines in without a key: RELAY_SERVE_API_KEY is not needed."),
    ] = False,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of a web page that may call the API from a browser; repeatable.")
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the student's context; as many as fit if not given."),
    ] = None,
    teacher_max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the teacher's context, likewise.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Format of weights and activations, as vLLM names it.")] = "auto",
    student_gpus: Annotated[
        str | None, typer.Option(help="GPUs of the student, such as 0 or 0,1: it is split over them.")
    ] = None,
    teacher_gpus: Annotated[
        str | None,
        typer.Option(help="GPUs of the teacher; by default both have one each, and share it where there is one."),
    ] = None,
    teacher_port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Loopback port of the teacher's server, for other students' --teacher-url."
        ),
    ] = 0,
    kv_cache_gb: Annotated[
        float | None,
        typer.Option(min=0.01, help="GiB of each model's cache; on CPU 2, on a GPU what is left, if not given."),
    ] = None,
    student_args: Annotated[
        str, typer.Option(help="Further arguments of the student's `vllm serve`, as one text.")
    ] = "",
    teacher_args: Annotated[str, typer.Option(help="Further arguments of the teacher's.")] = "",
    defer_head: Annotated[
        str | None,
        typer.Option(
            help="Folder of the student's defer head, which asks the teacher where its score is low: the model "
            "NAME:deferred, or NAME:deferred-TAU for another threshold."
        ),
    ] = None,
    defer_tokens: Annotated[int, typer.Option(min=1, help="Tokens that the teacher writes when the head asks.")] = 1,
    max_concurrency: Annotated[
        int, typer.Option(min=1, help="Responses that are written at a time; further ones wait.")
    ] = 256,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Responses that may wait; past that a request gets 429.")
    ] = 1024,
    teacher_tokens_per_minute: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens that the teacher may write in a minute for all clients together."),
    ] = None,
    request_timeout: Annotated[float, typer.Option(min=1, help="Seconds a request may take.")] = 600.0,
    start_timeout: Annotated[float, typer.Option(min=1, help="Seconds until a model answers.")] = 1800.0,
    shutdown_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that running requests have to end on SIGTERM or Ctrl-C.")
    ] = 30.0,
    logs: Annotated[
        Path | None,
        typer.Option(parser=user_path, help="Folder of the models' logs; a new one for temporary files if not given."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code in the models' folders.")
    ] = False,
) -> None:
    """Serve a student and its teacher behind OpenAI's HTTP API, with a chat page; starts vLLM for both and keeps it
    running."""
    from relay_verl.checkpoints.relay_file import RelayFile, read_relay_file
    from relay_verl.config import DeferSettings
    from relay_verl.logs import install
    from relay_verl.models.address import is_endpoint
    from relay_verl.preflight.serving_checks import check_access, check_pair, place
    from relay_verl.serving.pair_options import PairOptions, read_model, with_head
    from relay_verl.serving.pair_server import PairServer
    from relay_verl.serving.settings import ServeSettings
    from relay_verl.serving.vllm_server import parse_more
    from relay_verl.serving.web_server import listen

    settings = ServeSettings(
        host=host,
        port=port,
        max_concurrency=max_concurrency,
        max_queue=max_queue,
        teacher_tokens_per_minute=teacher_tokens_per_minute,
        request_timeout_s=request_timeout,
        shutdown_timeout_s=shutdown_timeout,
        allow_origins=tuple(allow_origin or ()),
    )
    writer = read_model(
        "student",
        student if student_url is None or (student is not None and is_endpoint(student)) else None,
        student_url,
        student_model,
        gpus=_gpus(student_gpus),
        max_model_len=max_model_len,
        more=parse_more("--student-args", student_args),
    )
    if writer is None:
        raise UserError("student: give a folder, a hub id, or --student-url")
    answerer = read_model(
        "teacher",
        teacher,
        teacher_url,
        teacher_model,
        port=teacher_port,
        gpus=_gpus(teacher_gpus),
        max_model_len=teacher_max_model_len,
        more=parse_more("--teacher-args", teacher_args),
    )
    folder = None if student is None or is_endpoint(student) else student
    reads = tokenizer or folder
    if reads is None:
        raise UserError("--tokenizer: give the student's folder or hub id: an address does not say what it reads")
    options = PairOptions(
        writer,
        answerer,
        reads,
        logs,
        dtype=dtype,
        cache_bytes=None if kv_cache_gb is None else int(kv_cache_gb * _GIB),
        start_timeout_s=start_timeout,
        trust_remote_code=trust_remote_code,
    )
    check_access(settings, needs_no_key=no_key)
    # the port is taken from here on, so that two commands at once do not both load their models
    listener = listen(host, port)
    loaded = check_pair(options)
    if defer_head is not None:
        options = with_head(options, DeferSettings(defer_head, defer_tokens), loaded)
    placements = place(options)
    relay = RelayFile() if folder is None else read_relay_file(folder)
    install()
    logging.getLogger("relay_verl.serving").setLevel(logging.INFO)
    called = name or _name_of(folder or reads)

    def announce(url: str) -> None:
        typer.echo(f"{called} is served at {url}/v1, with a page to chat at {url}/")

    PairServer(options, settings, relay, loaded, placements, listener, called, announce).run()


def _gpus(text: str | None) -> tuple[str, ...]:
    """The GPUs of an option, as `CUDA_VISIBLE_DEVICES` names them."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _name_of(model: str) -> str:
    """What clients call a model in a folder or on the hub.

    >>> _name_of("runs/relay/student/"), _name_of("Qwen/Qwen3-1.7B")
    ('student', 'Qwen3-1.7B')
    """
    return Path(model).name or Path(model).resolve().name
