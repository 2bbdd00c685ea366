"""The door by which a vLLM server streams token ids: pieces, errors, clients that leave, servers that die."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay_verl.engines.base import Generation
from relay_verl.errors import EngineError, PermanentError
from relay_verl.models.frame_server import FrameServer
from relay_verl.models.wire import Answer, Request, Sender
from relay_verl.serving.door_engine import DoorEngine
from relay_verl.serving.stream_door import PATH_VARIABLE, StreamDoor, StreamServer, _piece_of


class Server(FrameServer):
    """Writes the prompt again, a token at a time; a prompt of one token asks for trouble."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.num_running = 0
        self.is_held = asyncio.Event()

    async def answer(self, request: Request, sender: Sender) -> None:
        self.requests.append(request)
        self.num_running += 1
        try:
            if request.prompt_ids == [0]:
                sender.send(Answer(request.number, error="too long", is_refusal=True))
            elif request.prompt_ids == [1]:
                sender.send(Answer(request.number, error="out of memory"))
            elif request.prompt_ids == [2]:
                sender.send(Answer(request.number, [2]))
                await self.is_held.wait()
            else:
                for token_id in request.prompt_ids[:-1]:
                    sender.send(Answer(request.number, [token_id], [-0.5]))
                    await asyncio.sleep(0)
                known = {"num_cached_tokens": 7}
                sender.send(Answer(request.number, request.prompt_ids[-1:], [-0.5], "eos", known))
        finally:
            self.num_running -= 1


class Http:
    """The endpoint that answers where there is no door."""

    pulse = None

    async def generate(self, *_: Any, **__: Any) -> Generation:
        return Generation([9], None, "eos")

    async def stream(self, *_: Any, **__: Any) -> Any:
        yield Generation([9], None, "eos")


async def pieces_of(engine: DoorEngine, prompt: list[int], **options: Any) -> list[Generation]:
    async with aclosing(engine.stream(prompt, max_tokens=50, **options)) as pieces:
        return [piece async for piece in pieces]


async def open_door(path: Path) -> tuple[Server, DoorEngine, asyncio.Server]:
    server = Server()
    listening = await asyncio.start_unix_server(server.serve, path)
    return server, DoorEngine(str(path), Http()), listening  # type: ignore[arg-type]


async def test_pieces_are_the_answer_and_errors_are_told_apart(tmp_path: Path) -> None:
    _, engine, listening = await open_door(tmp_path / "door")
    prompts = [list(range(10, 10 + length)) for length in range(2, 30)]
    for prompt, pieces in zip(prompts, await asyncio.gather(*(pieces_of(engine, p) for p in prompts)), strict=True):
        assert [token_id for piece in pieces for token_id in piece.token_ids] == prompt
        assert sum(len(piece.logprobs or ()) for piece in pieces) == len(prompt)
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["eos"]
        assert pieces[-1].num_cached == 7
    with pytest.raises(PermanentError, match="too long"):
        await pieces_of(engine, [0])
    with pytest.raises(EngineError, match="out of memory"):
        await pieces_of(engine, [1])
    listening.close()


async def test_only_stop_strings_need_text_in_the_engine(tmp_path: Path) -> None:
    server, engine, listening = await open_door(tmp_path / "door")
    await pieces_of(engine, [5, 6], sampling={"temperature": 0.5, "logprobs": True})
    await pieces_of(engine, [5, 6], stop=("</call>",))
    first, second = (request.sampling for request in server.requests)
    assert (first["temperature"], first["logprobs"], first["detokenize"]) == (0.5, 0, False)
    assert (second["stop"], second["detokenize"], second["include_stop_str_in_output"]) == (["</call>"], True, True)
    listening.close()


async def test_a_reader_who_leaves_ends_the_request_and_a_dead_server_every_one(tmp_path: Path) -> None:
    server, engine, listening = await open_door(tmp_path / "door")
    async with aclosing(engine.stream([2], max_tokens=50)) as pieces:
        assert (await anext(pieces)).token_ids == [2]
        assert server.num_running == 1
    async with asyncio.timeout(60):
        while server.num_running:
            await asyncio.sleep(0)
    async with aclosing(engine.stream([2], max_tokens=50)) as pieces:
        await anext(pieces)
        listening.close()
        assert engine._connection is not None
        engine._connection._reading.cancel()  # as when the process ends
        with pytest.raises(EngineError, match="gone"):
            await anext(pieces)
    (tmp_path / "door").unlink(missing_ok=True)
    # without a door HTTP answers, and a server that is started again has a new one
    assert [piece.token_ids for piece in await pieces_of(engine, [5, 6])] == [[9]]
    again = await asyncio.start_unix_server(server.serve, tmp_path / "door")
    assert [i for piece in await pieces_of(engine, [5, 6]) for i in piece.token_ids] == [5, 6]
    again.close()


@pytest.mark.parametrize(
    ("reason", "stop_reason", "expected"),
    [("stop", None, "eos"), ("stop", 7, "eos"), ("stop", "</call>", "stop"), ("length", None, "length")],
)
def test_an_engines_output_is_a_piece(reason: str, stop_reason: Any, expected: str) -> None:
    chosen = [{4: SimpleNamespace(logprob=-1.0)}, {5: SimpleNamespace(logprob=-2.0), 6: SimpleNamespace(logprob=-0.1)}]
    choice = SimpleNamespace(token_ids=(4, 5), logprobs=chosen, finish_reason=reason, stop_reason=stop_reason)
    output = SimpleNamespace(outputs=[choice], finished=True, num_cached_tokens=3)
    piece = _piece_of(1, output)
    assert (piece.token_ids, piece.log_probs, piece.stop_reason) == ([4, 5], [-1.0, -2.0], expected)
    assert piece.extra_fields == {"num_cached_tokens": 3}
    choice.logprobs = None
    output.finished = False
    assert _piece_of(1, output) == Answer(1, [4, 5])
    choice.finish_reason, output.finished = "abort", True
    assert _piece_of(1, output).error


async def test_the_middleware_opens_the_door_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "door"))
    (tmp_path / "door").write_text("")  # of a process that was killed
    num_requests = 0

    async def behind(*_: Any) -> None:
        nonlocal num_requests
        num_requests += 1

    door = StreamDoor(behind)
    scope = {"type": "http", "app": SimpleNamespace(state=SimpleNamespace(engine_client=None))}
    for kind in ("lifespan", "http", "http"):
        await door(scope | {"type": kind}, None, None)  # type: ignore[arg-type]
    assert num_requests == 3
    assert (tmp_path / "door").is_socket()
    assert door._listening is not None
    door._listening.close()


async def test_an_error_of_the_engine_is_one_line() -> None:
    sent: list[Answer] = []

    class Refusing:
        def generate(self, *_: Any) -> Any:
            raise ValueError("1 validation error\n  prompt\n    too long")

    door: Any = object.__new__(StreamServer)
    door._engine, door._dead_error, door._in_pieces = Refusing(), RuntimeError, None
    door._make_params, door._make_prompt = dict, list
    await door.answer(Request(1, "name", [5], {}), SimpleNamespace(send=sent.append))
    assert [(each.error, each.is_refusal) for each in sent] == [
        ("ValueError: 1 validation error prompt too long", True)
    ]
