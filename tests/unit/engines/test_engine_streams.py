"""Engines that stream: an endpoint's events, the guard's retries, the pulse of streams, and scripts."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from relay_verl.engines import EndpointEngine, Generation, GuardedEngine, ScriptedEngine
from relay_verl.engines.boundary import stream_within
from relay_verl.engines.deadlines import LOST_FACTOR, DeadlineError, Pulse
from relay_verl.engines.events import read_events
from relay_verl.engines.resilience import CircuitOpenError
from relay_verl.errors import EngineError, PermanentError
from tests.helpers.streaming import HANG, Streaming
from tests.helpers.tokenizers import ByteTokenizer
from tests.helpers.virtual_clock import now, run_virtually

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_token_id
HANG_UP, WAIT = object(), object()


class StreamServer:
    """Answers `/v1/completions` with events, in the pieces of the body that it is told; HANG_UP closes the connection,
    WAIT writes nothing until the client is gone."""

    def __init__(self) -> None:
        self.body: list[Any] = []
        self.status = 200
        self.requests: list[Any] = []
        self.num_connections = 0
        self.is_left = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.num_connections += 1
                super().setup()

            def do_POST(self) -> None:
                server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = server.status, server.body
                if callable(body):
                    status, body = body(server.requests[-1])
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in body:
                    if piece is HANG_UP:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    if piece is WAIT:
                        self.connection.settimeout(30.0)
                        if not self.connection.recv(1):
                            server.is_left.set()
                        return
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[StreamServer]:
    server = StreamServer()
    yield server
    server.stop()


def event(**choice: Any) -> bytes:
    """One event of vLLM's stream."""
    return (
        b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "text": "", "finish_reason": None, **choice}]}).encode()
    )


def usage(num_cached: int | None = 3) -> bytes:
    details = {"prompt_tokens_details": {"cached_tokens": num_cached}} if num_cached is not None else {}
    return b"data: %s\n\n" % json.dumps({"choices": [], "usage": {"prompt_tokens": 5, **details}}).encode()


DONE = b"data: [DONE]\n\n"
LAST = event(token_ids=[8], finish_reason="length")


def engine_of(server: StreamServer, **options: Any) -> EndpointEngine:
    return EndpointEngine(server.url, "big", **{"num_retries": 0, "timeout_s": 20.0, **options})


async def read(stream: Any) -> list[Generation]:
    return [piece async for piece in stream]


# ---- an endpoint ----


async def test_an_endpoints_events_are_the_pieces(server: StreamServer) -> None:
    stop = event(token_ids=[8, 9], finish_reason="stop", stop_reason="</call>")
    server.body = [event(token_ids=[5], prompt_token_ids=[1, 2]), event(token_ids=[6, 7]), stop + usage() + DONE]
    engine = engine_of(server)
    pieces = await read(engine.stream([1, 2], max_tokens=9, stop=["</call>"], sampling={"temperature": 0.0}))
    assert pieces == [
        Generation([5], None, None),
        Generation([6, 7], None, None),
        Generation([8, 9], None, "stop", 3),
    ]
    [sent] = server.requests
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_usage": True})
    assert (sent["prompt"], sent["max_tokens"], sent["stop"]) == ([1, 2], 9, ["</call>"])
    assert (sent["return_token_ids"], sent["include_stop_str_in_output"], sent["temperature"]) == (True, True, 0.0)
    assert sent["top_p"] == 1.0, "neutral, as in `generate`"


ENDINGS = [
    ({"finish_reason": "length"}, "length"),
    ({"finish_reason": "stop", "stop_reason": None}, "eos"),
    ({"finish_reason": "stop", "stop_reason": 7}, "eos"),
    ({"finish_reason": "stop", "stop_reason": "x"}, "stop"),
]


@pytest.mark.parametrize(("choice", "reason"), ENDINGS)
async def test_finish_reasons_of_a_stream(server: StreamServer, choice: dict, reason: str) -> None:
    server.body = [event(token_ids=[5]), event(token_ids=[], **choice), DONE]
    assert await read(engine_of(server).stream([1], max_tokens=9)) == [
        Generation([5], None, None),
        Generation([], None, reason),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_events_may_be_cut_anywhere_and_stand_between_comments(server: StreamServer, size: int) -> None:
    body = b": ping\n\n" + event(token_ids=[5]).replace(b"\n\n", b"\r\n\r\n") + b"event: x\n" + LAST + usage() + DONE
    server.body = [body[start : start + size] for start in range(0, len(body), size)]
    pieces = await read(engine_of(server).stream([1], max_tokens=9))
    assert [piece.token_ids for piece in pieces] == [[5], [8]]


async def test_a_long_line_in_many_chunks_is_copied_once() -> None:
    class Counting(bytes):
        num_copied = 0

        def __radd__(self, other: bytes) -> bytes:
            Counting.num_copied += len(other)
            return other + bytes(self)

    class Body:
        async def iter_bytes(self) -> AsyncGenerator[bytes, None]:
            yield b"data: "
            for _ in range(1000):
                yield Counting(b"x" * 100)
            yield b"\ndata: y\n"

    events = [event async for event in read_events(Body(), 1 << 20)]
    assert events == [b"x" * 100_000, b"y"]
    assert Counting.num_copied <= 100_000


async def test_logprobs_of_a_stream(server: StreamServer) -> None:
    last = event(token_ids=[8], logprobs={"token_logprobs": [-0.5]}, finish_reason="length")
    server.body = [event(token_ids=[5, 6], logprobs={"token_logprobs": [-0.1, -0.2]}), last, DONE]
    pieces = await read(engine_of(server).stream([1], max_tokens=3, sampling={"logprobs": True}))
    assert [piece.logprobs for piece in pieces] == [[-0.1, -0.2], [-0.5]]
    assert server.requests[0]["logprobs"] == 0


async def test_one_connection_serves_one_stream_after_another(server: StreamServer) -> None:
    server.body = [event(token_ids=[5]), LAST, usage(), DONE]
    engine = engine_of(server)
    for _ in range(4):
        async with aclosing(engine.stream([1], max_tokens=9)) as pieces:
            async for piece in pieces:
                if piece.finish_reason is not None:
                    break  # as the decoder does
    assert (len(server.requests), server.num_connections) == (4, 1)


BROKEN = [
    # body, part of the message, whether it would be refused again, why
    ([event(token_ids=[5]), HANG_UP], "", False, "the connection breaks"),
    ([event(token_ids=[5])], "the stream ended before the answer did", False, "no reason"),
    ([event(token_ids=[5]), DONE], "the stream ended before the answer did", False, "only the mark of the end"),
    ([event(text="hi"), DONE], "no token_ids", False, "an endpoint without return_token_ids"),
    ([event(token_ids=[5], finish_reason="abort"), DONE], "finish_reason is 'abort'", False, "given up"),
    ([b'data: {"error": {"message": "on fire", "code": 500}}\n\n', DONE], "HTTP 500: on fire", False, "an error"),
    ([b'data: {"error": {"message": "bad", "code": 400}}\n\n', DONE], "HTTP 400: bad", True, "a late refusal"),
    ([b"data: {not json}\n\n"], "not a completion", False, "no JSON"),
    ([b"data: 7\n\n"], "not a completion", False, "a number"),
    ([b"<html>Welcome</html>"], "the stream ended before", False, "a page"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "part", "is_permanent", "why"), BROKEN, ids=[case[-1] for case in BROKEN])
async def test_a_stream_that_breaks_is_an_error(
    server: StreamServer, body: list, part: str, is_permanent: bool, why: str
) -> None:
    server.body = body
    pieces: list[Generation] = []
    with pytest.raises(EngineError) as failed:
        async for piece in engine_of(server).stream([1], max_tokens=9):
            pieces.append(piece)
    assert part in str(failed.value), why
    assert str(failed.value).startswith(server.url)
    assert isinstance(failed.value, PermanentError) is is_permanent
    assert [piece.token_ids for piece in pieces] == ([[5]] if body[0] == event(token_ids=[5]) else [])


async def test_a_refused_stream_is_permanent_and_a_refused_parameter_is_left_out(server: StreamServer) -> None:
    def answer(request: Any) -> tuple[int, list[Any]]:
        if len(request["prompt"]) > 3:
            return 400, [json.dumps({"error": {"message": "the prompt is too long"}}).encode()]
        if "stream_options" in request:
            return 400, [json.dumps({"error": {"message": "unknown field stream_options"}}).encode()]
        return 200, [LAST, DONE]

    server.body = answer  # type: ignore[assignment]
    engine = engine_of(server)
    with pytest.raises(PermanentError, match="too long"):
        await read(engine.stream([1] * 9, max_tokens=9))
    assert [piece.token_ids for piece in await read(engine.stream([1], max_tokens=9))] == [[8]]


async def test_an_endpoint_that_goes_silent_in_a_stream_is_an_error_and_the_request_ends(server: StreamServer) -> None:
    server.body = [event(token_ids=[5]), WAIT]
    pieces: list[Generation] = []
    with pytest.raises(EngineError, match="Timeout: no more of the answer within 0"):
        async for piece in engine_of(server, timeout_s=0.3).stream([1], max_tokens=9):
            pieces.append(piece)
    assert [piece.token_ids for piece in pieces] == [[5]]
    assert await asyncio.to_thread(server.is_left.wait, 20.0)


async def test_a_reader_who_leaves_ends_the_request_at_the_server(server: StreamServer) -> None:
    server.body = [event(token_ids=[5]), WAIT]
    async with aclosing(engine_of(server).stream([1], max_tokens=9)) as pieces:
        await anext(pieces)
    assert await asyncio.to_thread(server.is_left.wait, 20.0)


# ---- the boundary ----


@pytest.mark.parametrize(
    ("pieces", "part"),
    [
        ([Generation([5], None, None)], "ended before the answer did"),
        ([Generation([5], None, None), 7], "int, not a Generation"),
        ([Generation([5, "x"], None, None)], "'x', which is not a token id"),
        ([Generation([5], [0.1, 0.2], None)], "log-probabilities"),
        ([Generation([5], None, None), Generation([99], None, "eos")], "99"),
        ([asyncio.CancelledError()], "the engine cancelled the request"),
        ([Generation([5], None, None), KeyError("odd")], "KeyError: 'odd'"),
    ],
)
async def test_rubbish_in_a_stream_is_an_error(pieces: list[Any], part: str) -> None:
    async def stream() -> AsyncGenerator[Any, None]:
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    with pytest.raises(EngineError) as failed:
        await read(stream_within(5.0, stream(), max_tokens=9, vocab_size=50))
    assert part in str(failed.value)


async def test_what_follows_the_end_is_not_read() -> None:
    async def stream() -> AsyncGenerator[Generation, None]:
        yield Generation([5], None, "eos")
        yield Generation([6], None, "eos")

    assert await read(stream_within(5.0, stream())) == [Generation([5], None, "eos")]


def test_an_engine_that_ignores_its_cancellation_does_not_hold_its_reader() -> None:
    async def deaf() -> AsyncGenerator[Generation, None]:
        yield Generation([5], None, None)
        while True:
            try:
                await asyncio.sleep(50.0)
            except asyncio.CancelledError:
                continue

    async def ask() -> float:
        with pytest.raises(EngineError, match="no more of the answer within 2 s"):
            await read(stream_within(2.0, deaf()))
        return now()

    loop_time: list[float] = []

    async def main() -> None:
        loop_time.append(await asyncio.wait_for(ask(), 1000.0))

    with pytest.MonkeyPatch.context() as patch:
        # the runner waits for all tasks at its end, which this one never does
        patch.setattr(asyncio.runners, "_cancel_all_tasks", lambda loop: None)
        run_virtually(main())
    assert 2.0 <= loop_time[0] <= 3.0


# ---- the pulse of streams ----


def test_a_stream_that_stalls_fails_though_others_of_its_engine_run() -> None:
    pulse = Pulse()

    async def steady() -> AsyncGenerator[int, None]:
        for number in range(1000):
            await asyncio.sleep(1.0)
            yield number

    async def stalls() -> AsyncGenerator[int, None]:
        yield 0
        await asyncio.Event().wait()

    async def both() -> float:
        others = asyncio.create_task(read(pulse.pieces(10.0, steady())))
        with pytest.raises(DeadlineError, match=f"no more of the answer within {10 * LOST_FACTOR:g} s"):
            await read(pulse.pieces(10.0, stalls()))
        ended_at = now()
        others.cancel()
        return ended_at

    assert run_virtually(both()) == pytest.approx(10 * LOST_FACTOR, abs=1.0)


def test_pieces_are_signs_of_life_for_requests_that_wait() -> None:
    pulse = Pulse()

    async def steady() -> AsyncGenerator[int, None]:
        for number in range(30):
            await asyncio.sleep(1.0)
            yield number

    async def late() -> str:
        await asyncio.sleep(25.0)
        return "served"

    async def both() -> str:
        others = asyncio.create_task(read(pulse.pieces(10.0, steady())))
        answer = await pulse.wait(10.0, late())
        await others
        return answer

    assert run_virtually(both()) == "served"


def test_streams_that_are_answered_overtake_a_request_that_is_lost() -> None:
    """Its reader leaves a stream at the piece that ends it, which is its end all the same."""
    pulse = Pulse()

    async def short() -> AsyncGenerator[Generation, None]:
        yield Generation([5], None, None)
        yield Generation([6], None, "eos")

    async def both() -> float:
        lost = asyncio.create_task(pulse.wait(10.0, asyncio.Event().wait()))
        while not lost.done():
            await asyncio.sleep(1.0)
            await read(stream_within(10.0, short(), pulse=pulse))
        assert isinstance(lost.exception(), DeadlineError)
        return now()

    assert run_virtually(both()) < 20.0


# ---- the guard ----


async def test_a_stream_is_tried_again_until_its_first_piece() -> None:
    failing = ScriptedEngine(TOKENIZER, [EngineError("1"), EngineError("2"), "abc"], chunk=1)
    pieces = await read(GuardedEngine(failing, first_wait_s=0.001).stream([1], max_tokens=3))
    assert [piece.token_ids for piece in pieces] == [[97], [98], [99]]


async def test_a_stream_that_has_begun_is_not_tried_again() -> None:
    engine = Streaming(ScriptedEngine(TOKENIZER, ["abc", "abc"]), trouble_after=3, trouble=EngineError("on fire"))
    pieces: list[Generation] = []
    with pytest.raises(EngineError, match="on fire"):
        async for piece in GuardedEngine(engine, first_wait_s=0.001).stream([1], max_tokens=3):
            pieces.append(piece)
    assert (len(pieces), engine.num_opened) == (2, 1)


async def test_streams_open_the_breaker_and_readers_who_leave_do_not() -> None:
    engine = Streaming(ScriptedEngine(TOKENIZER, lambda context: "abc"), trouble_after=0, trouble=EngineError("down"))
    guarded = GuardedEngine(engine, num_retries=0, breaker_threshold=2, breaker_reset_s=60.0)
    for _ in range(2):
        with pytest.raises(EngineError, match="down"):
            await read(guarded.stream([1], max_tokens=3))
    with pytest.raises(CircuitOpenError):
        await read(guarded.stream([1], max_tokens=3))

    hanging = Streaming(ScriptedEngine(TOKENIZER, lambda context: "abc"), trouble_after=0, trouble=HANG)
    guarded = GuardedEngine(hanging, num_retries=0, breaker_threshold=2, breaker_reset_s=60.0)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await read(stream_within(100.0, guarded.stream([1], max_tokens=3)))
        await asyncio.sleep(0)
    hanging.pieces_left = None
    assert len(await read(guarded.stream([1], max_tokens=3))) == 3, "the circuit is closed"
    for _ in range(2):
        hanging.pieces_left = 0
        with pytest.raises(EngineError):
            await read(stream_within(0.01, guarded.stream([1], max_tokens=3)))
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpenError):
        await read(guarded.stream([1], max_tokens=3))


# ---- scripts ----


async def test_a_scripts_stream_is_its_answer_in_pieces() -> None:
    engine = ScriptedEngine(TOKENIZER, ["abcde"], chunk=2)
    pieces = await read(engine.stream([1], max_tokens=9))
    assert [(piece.token_ids, piece.finish_reason) for piece in pieces] == [
        ([97, 98], None),
        ([99, 100], None),
        ([101, EOS], "eos"),
    ]
    assert [piece.logprobs for piece in pieces] == [[-0.5, -0.5]] * 3


async def test_what_a_reader_of_a_script_leaves_is_written_next() -> None:
    engine = ScriptedEngine(TOKENIZER, ["abcde"], chunk=2)
    async with aclosing(engine.stream([1], max_tokens=9)) as pieces:
        assert (await anext(pieces)).token_ids == [97, 98]
    assert (await engine.generate([1], max_tokens=2)).token_ids == [99, 100]
