"""What every client of an endpoint does: the teacher and the judge ask a real server over HTTP, and fail alike."""

import asyncio
import logging
import pickle
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from relay_verl.config import read_settings
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import EndpointEngine, GuardedEngine, PermanentError, ScriptedEngine
from relay_verl.engines.failures import Refusal
from relay_verl.errors import EngineError, UserError
from relay_verl.judging.judge import Judge
from tests.helpers.tokenizers import ByteTokenizer

KEY = "sk-very-secret-0123"
SOON = {"Retry-After-Ms": "1"}
PATHS = {"teacher": "/completions", "judge": "/chat/completions"}
CALLERS = list(PATHS)
GOOD = {
    "teacher": {"choices": [{"token_ids": [7, 8], "finish_reason": "length"}]},
    "judge": {"choices": [{"message": {"content": "Yes"}}]},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def make(caller: str, url: str, **options: Any) -> Any:
    """The teacher as training asks it, or the judge."""
    options = {"num_retries": 2, "timeout_s": 20.0, "api_key_env": "TEST_KEY", **options}
    if caller == "judge":
        return Judge(url, "big", first_wait_s=0.001, **options)
    guard = {name: options.pop(name) for name in ("breaker_threshold", "breaker_reset_s") if name in options}
    engine = EndpointEngine(url, "big", **options)
    return GuardedEngine(engine, num_retries=options["num_retries"], first_wait_s=0.001, **guard)


async def ask(asked: Any, num_prompt_tokens: int = 3) -> Any:
    """The answer, or EngineError."""
    if isinstance(asked, Judge):
        return (await asked.ask("What is 7*8?" + "x" * num_prompt_tokens, "56", "56"))["is_correct"]
    sampling = {"temperature": 0.7}
    return (await asked.generate(list(range(num_prompt_tokens)), max_tokens=2, sampling=sampling)).token_ids


ANSWER = {"teacher": [7, 8], "judge": True}


async def error_of(asked: Any, **options: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await ask(asked, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 600
    return caught.value


def error(message: str, status: int = 400, **details: Any) -> tuple[int, Any, dict[str, str]]:
    return status, {"error": {"message": message, **details}}, SOON


# ---- refusals and failures ----

REFUSALS = [
    # status, body, whether every request is refused, why
    (400, {"error": {"message": "bad request"}}, False, "what the request holds"),
    (401, {"error": {"message": "who are you"}}, True, "no key"),
    (403, {"error": {"message": "not for you"}}, True, "another one's key"),
    (404, {"error": {"message": "no such model"}}, True, "another model"),
    (405, {"detail": "Method Not Allowed"}, True, "not an API"),
    (413, b"too large", False, "a proxy's limit"),
    (422, {"detail": [{"loc": ["body", "prompt"], "msg": "bad", "type": "value_error"}]}, False, "FastAPI's words"),
    (400, {"error": {"message": "This model's maximum context length is 64 tokens"}}, False, "vLLM's words"),
    (500, {"error": {"message": "the request exceeds the available context size"}}, False, "an older llama.cpp"),
    (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, False, "OpenAI's code"),
    (429, {"error": {"message": "no money", "code": "insufficient_quota"}}, True, "a moment will not help"),
]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("status", "body", "concerns_all", "why"), REFUSALS, ids=[why for *_, why in REFUSALS])
async def test_a_refusal_is_permanent_and_opens_no_breaker(
    fake_vllm: Any, caller: str, status: int, body: Any, concerns_all: bool, why: str
) -> None:
    fake_vllm.routes["/v1" + PATHS[caller]] = (status, body, SOON)
    asked = make(caller, fake_vllm.url, breaker_threshold=2, breaker_reset_s=60.0)
    for _ in range(5):
        refusal = await error_of(asked)
        assert isinstance(refusal, PermanentError), why
        assert refusal.concerns_all is concerns_all
        assert f"HTTP {status}" in str(refusal)
    tries_a_question = len(fake_vllm.requests) / 5
    assert tries_a_question == (1 if status not in (429, 500) else 3), "openai's client retries these two by status"
    fake_vllm.routes["/v1" + PATHS[caller]] = GOOD[caller]
    assert await ask(asked) == ANSWER[caller], "others are asked for as before"


@pytest.mark.parametrize("caller", CALLERS)
async def test_short_prompts_are_served_between_long_ones(fake_vllm: Any, caller: str) -> None:
    def answer(body: Any) -> Any:
        size = len(body["prompt"]) if caller == "teacher" else len(str(body["messages"])) - 1500
        return error("This model's maximum context length is 64 tokens") if size > 2000 else GOOD[caller]

    fake_vllm.routes["/v1" + PATHS[caller]] = answer
    asked = make(caller, fake_vllm.url, breaker_threshold=2)
    for _ in range(8):
        assert "maximum context length" in str(await error_of(asked, num_prompt_tokens=5000))
    assert len(fake_vllm.requests) == 8, "one try each"
    assert await ask(asked) == ANSWER[caller]


FAILURES = [
    # answer, tries, why
    (error("busy", 429), 3, "too many requests"),
    (error("broken", 500), 3, "it broke"),
    (error("overloaded", 503), 3, "overloaded"),
    (error("conflict", 409), 3, "a lock"),
    (error("late", 408), 3, "a gateway's timeout"),
    ((502, b"<html>Bad Gateway</html>", SOON), 3, "a proxy's page"),
    (b"<html>Welcome</html>", 3, "a page instead of an answer"),
]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("answer", "num_tries", "why"), FAILURES, ids=[why for *_, why in FAILURES])
async def test_a_failure_that_may_pass_is_tried_again_and_opens_the_breaker(
    fake_vllm: Any, caller: str, answer: Any, num_tries: int, why: str
) -> None:
    fake_vllm.routes["/v1" + PATHS[caller]] = answer
    threshold = num_tries if answer == FAILURES[-1][0] and caller == "teacher" else 1
    asked = make(caller, fake_vllm.url, breaker_threshold=threshold, breaker_reset_s=60.0)
    failure = await error_of(asked)
    assert not isinstance(failure, PermanentError), why
    assert len(fake_vllm.requests) == num_tries, "the client's own retries and the guard's do not multiply"
    opened = str(await error_of(asked))
    assert "circuit open" in opened
    assert str(failure) in opened, "the circuit's own message names the cause, too"
    assert len(fake_vllm.requests) == num_tries


@pytest.mark.parametrize("caller", CALLERS)
async def test_retry_after_is_kept_to(fake_vllm: Any, caller: str) -> None:
    asked_at: list[float] = []

    def limited(body: Any) -> Any:
        asked_at.append(time.monotonic())
        return GOOD[caller] if len(asked_at) > 1 else (429, {}, {"Retry-After": "1"})

    fake_vllm.routes["/v1" + PATHS[caller]] = limited
    assert await ask(make(caller, fake_vllm.url)) == ANSWER[caller]
    assert len(asked_at) == 2
    assert asked_at[1] - asked_at[0] >= 0.95


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_deadline_that_ends_retries_says_what_they_failed_with(fake_vllm: Any, caller: str) -> None:
    fake_vllm.routes["/v1" + PATHS[caller]] = (429, {"error": {"message": "slow down"}}, {"Retry-After": "60"})
    text = str(await error_of(make(caller, fake_vllm.url, timeout_s=0.2, num_retries=1)))
    assert "Timeout" in text
    assert "HTTP 429: slow down" in text


# ---- the cause ----


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def tls_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a certificate of its own making."""
    folder: Path = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", folder / "key", "-out", folder / "cert"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> Any:
            connection, address = super().get_request()
            return context.wrap_socket(connection, server_side=True), address

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), _Quiet)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def nobody() -> str:
    """An address where no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_refused_connection_says_so(caller: str, nobody: str) -> None:
    asked = make(caller, f"{nobody}/v1", num_retries=0)
    assert "Connection refused" in str(await error_of(asked))


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
async def test_a_host_that_is_not_known_says_so(caller: str, host: str) -> None:
    assert "DNS: " in str(await error_of(make(caller, f"http://{host}/v1", num_retries=0)))


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_certificate_that_is_not_trusted_says_so(caller: str, tls_url: str) -> None:
    text = str(await error_of(make(caller, tls_url, num_retries=0)))
    assert "TLS: self-signed certificate" in text
    assert "SSL_CERT_FILE" in text


@pytest.mark.parametrize("caller", CALLERS)
async def test_http_and_https_taken_for_each_other_say_so(caller: str, tls_url: str, fake_vllm: Any) -> None:
    assert "https://" in str(await error_of(make(caller, tls_url.replace("https", "http"), num_retries=0)))
    plain = await error_of(make(caller, fake_vllm.url.replace("http:", "https:"), num_retries=0))
    assert "TLS: " in str(plain)
    assert "http://" in str(plain)


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_proxy_that_leads_nowhere_is_named_without_its_password(
    caller: str, nobody: str, fake_vllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = nobody.replace("http://", f"http://me:{KEY}@")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    text = str(await error_of(make(caller, "http://192.0.2.1/v1", num_retries=0)))
    assert f"through the proxy {nobody}" in text
    assert "NO_PROXY" in text
    assert KEY not in text
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fake_vllm.routes["/v1" + PATHS[caller]] = GOOD[caller]
    assert await ask(make(caller, fake_vllm.url)) == ANSWER[caller]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("ALL_PROXY", f"nonsense://me:{KEY}@127.0.0.1:9", "nonsense"),
        ("SSL_CERT_FILE", "/nowhere/certificates", "FileNotFoundError"),
    ],
)
async def test_an_environment_that_no_client_can_be_made_with_is_an_error(
    caller: str, name: str, value: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    failure = await error_of(make(caller, "https://192.0.2.1/v1"))
    assert isinstance(failure, PermanentError)
    assert part in str(failure)
    assert KEY not in str(failure)


# ---- the key ----


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("key", [f"{KEY}\n", f"  {KEY}\r\n", f"{KEY}\t"])
async def test_a_key_is_stripped(fake_vllm: Any, caller: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    fake_vllm.routes["/v1" + PATHS[caller]] = GOOD[caller]
    assert await ask(make(caller, fake_vllm.url)) == ANSWER[caller]
    assert fake_vllm.requests[-1][1]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY}é"])
async def test_a_key_that_no_header_can_carry_is_not_quoted(
    fake_vllm: Any, caller: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    failure = await error_of(make(caller, fake_vllm.url))
    assert isinstance(failure, PermanentError)
    assert "TEST_KEY" in str(failure)
    assert KEY not in str(failure)


ECHOES = [
    # answer, why
    (error(f"Incorrect API key provided: Bearer {KEY}", 401), "OpenAI's words, without its stars"),
    (error(f"rate limit of {KEY}", 429), "a limit by key"),
    (error(f"{'so ' * 96}{KEY}", 400), "at the place where words are cut"),
    (error(f"{'so ' * 76}{KEY}", 400), "near that place"),
    ((500, f"<html>{KEY}</html>".encode(), SOON), "a page"),
    ((422, {"detail": [{"loc": ["header", KEY], "msg": f"bad {KEY}"}]}), "FastAPI's"),
    ([KEY], "an answer that is not one"),
]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("answer", "why"), ECHOES, ids=[why for _, why in ECHOES])
async def test_a_key_that_is_repeated_is_in_nothing_of_ours(
    fake_vllm: Any, caller: str, answer: Any, why: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG, logger="relay_verl")
    monkeypatch.setenv("TEST_KEY", KEY)
    fake_vllm.routes["/v1" + PATHS[caller]] = answer
    asked = make(caller, fake_vllm.url)
    failure: BaseException | None = await error_of(asked)
    while failure is not None:  # what a traceback shows
        assert KEY[:8] not in str(failure), why
        failure = failure.__cause__ or (None if failure.__suppress_context__ else failure.__context__)
    assert KEY.encode() not in pickle.dumps(asked)
    assert KEY not in caplog.text


async def test_a_call_record_does_not_hold_the_key(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    fake_vllm.routes["/v1/completions"] = error(f"Incorrect API key provided: {KEY}", 401)
    tokenizer = ByteTokenizer()
    student = ScriptedEngine(tokenizer, ["a<call>3</call>", "b"])
    limits = RelayConfig(40, max_calls=1, max_tokens_per_call=5)
    decoder = RelayDecoder(student, make("teacher", fake_vllm.url), tokenizer, limits)
    [call] = (await decoder.run([1])).calls
    assert "HTTP 401: Incorrect API key provided: ***" in call.error


# ---- addresses ----


@pytest.mark.parametrize("caller", CALLERS)
async def test_an_address_without_v1_says_so(fake_vllm: Any, caller: str) -> None:
    fake_vllm.routes["/v1" + PATHS[caller]] = GOOD[caller]
    root = fake_vllm.url.removesuffix("/v1")
    for url in (root, f"{root}/"):
        failure = await error_of(make(caller, url))
        assert isinstance(failure, PermanentError)
        assert f"add /v1: {fake_vllm.url}" in str(failure)


@pytest.mark.parametrize("caller", CALLERS)
async def test_another_404_does_not_say_add_v1(fake_vllm: Any, caller: str) -> None:
    del fake_vllm.routes["/v1/models"]
    assert "add /v1" not in str(await error_of(make(caller, fake_vllm.url))), "it is there"
    assert "add /v1" not in str(await error_of(make(caller, fake_vllm.url.removesuffix("/v1")))), "it does not help"


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_whole_request_s_address_says_what_to_leave_out(fake_vllm: Any, caller: str) -> None:
    text = str(await error_of(make(caller, f"{fake_vllm.url}/chat/completions")))
    assert "leave out /chat/completions" in text


async def test_the_list_of_models_says_add_v1_too(fake_vllm: Any) -> None:
    with pytest.raises(PermanentError, match=r"HTTP 404.*add /v1"):
        await EndpointEngine(fake_vllm.url.removesuffix("/v1")).model()


@pytest.mark.parametrize("caller", CALLERS)
async def test_ipv6(caller: str) -> None:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6
        daemon_threads = True

    class Handler(_Quiet):
        def do_POST(self) -> None:
            import json

            self.rfile.read(int(self.headers["Content-Length"]))
            data = json.dumps(GOOD[caller]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    try:
        server = Server(("::1", 0), Handler)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        assert await ask(make(caller, f"http://[::1]:{server.server_port}/v1")) == ANSWER[caller]
    finally:
        server.shutdown()
        server.server_close()


BAD_ADDRESSES = [
    # address, part of the error
    (f"http://me:{KEY}@h/v1", "holds a key or a query"),
    (f"http://h/v1?key={KEY}", "holds a key or a query"),
    ("localhost:8000/v1", "begins with http:// or https://"),
    ("http://h:99999/v1", "a valid port"),
    ("http://[::1/v1", "not an address"),
]


@pytest.mark.parametrize(("url", "part"), BAD_ADDRESSES)
async def test_what_cannot_be_an_address_is_refused_everywhere(url: str, part: str) -> None:
    with pytest.raises(PermanentError, match=part) as caught:  # a student by URL
        await EndpointEngine(url, "big").generate([1], max_tokens=1)
    assert KEY not in str(caught.value)
    with pytest.raises(UserError, match=rf"relay\.teacher\.base_url: .*{part}.*") as refused:
        read_settings({"teacher": {"base_url": url}})
    assert KEY not in str(refused.value)


# ---- parameters that some servers refuse ----

NEW_NAME = error(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    param="max_tokens",
    code="unsupported_parameter",
)
ONE_TEMPERATURE = error(
    "Unsupported value: 'temperature' does not support 0.1 with this model. Only the default (1) value is supported.",
    param="temperature",
    code="unsupported_value",
)


def refuses(*refusals: tuple[str, Any], good: Any) -> Any:
    """Answers with the first refusal whose parameter the body holds."""

    def answer(body: Any) -> Any:
        return next((refusal for name, refusal in refusals if name in body), good)

    return answer


PARAMETERS = [
    # parameter, refusal, what is sent instead, why
    ("max_tokens", NEW_NAME, {"max_completion_tokens"}, "OpenAI's newer models"),
    ("temperature", ONE_TEMPERATURE, set(), "OpenAI's reasoning models"),
    ("top_p", error("Unrecognized request arguments supplied: top_p, top_k"), set(), "a strict server, several"),
    ("top_p", (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_p"],
                                 "msg": "Extra inputs are not permitted"}]}), set(), "pydantic's words"),
    ("top_p", error("`temperature` and `top_p` cannot both be specified for this model."), set(), "one of two"),
    ("top_p", error("Argument not supported on this model: topP"), set(), "in another spelling"),
]  # fmt: skip


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("name", "refusal", "instead", "why"), PARAMETERS, ids=[why for *_, why in PARAMETERS])
async def test_a_parameter_that_is_refused_is_left_out_and_remembered(
    fake_vllm: Any, caller: str, name: str, refusal: Any, instead: set[str], why: str, caplog: Any
) -> None:
    fake_vllm.routes["/v1" + PATHS[caller]] = refuses((name, refusal), good=GOOD[caller])
    asked = make(caller, fake_vllm.url)
    assert await ask(asked) == ANSWER[caller], why
    first, second = (body for _, _, body in fake_vllm.requests)
    assert name in first
    assert name not in second
    assert instead <= second.keys()
    assert ("temperature" in second) == (name != "temperature"), "nothing more than was refused"
    [warning] = caplog.records
    assert name in warning.getMessage()
    for again in (asked, pickle.loads(pickle.dumps(asked))):
        assert await ask(again) == ANSWER[caller]
    assert len(fake_vllm.requests) == 4, "it is learned once"


@pytest.mark.parametrize("caller", CALLERS)
async def test_refused_parameters_come_one_after_another_and_to_many_at_once(fake_vllm: Any, caller: str) -> None:
    refusals = (("max_tokens", NEW_NAME), ("temperature", ONE_TEMPERATURE))
    fake_vllm.routes["/v1" + PATHS[caller]] = refuses(*refusals, good=GOOD[caller])
    asked = make(caller, fake_vllm.url)
    assert await asyncio.gather(*(ask(asked) for _ in range(10))) == [ANSWER[caller]] * 10
    body = fake_vllm.requests[-1][2]
    assert body["max_completion_tokens"]
    assert "temperature" not in body


KEPT = [
    # message, details, why
    ("'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096",
     {"param": "max_tokens"}, "a value that is too large"),
    ("temperature must be non-negative, got -1", {"param": "temperature"}, "a value out of range"),
    ("The model `big` does not exist", {"param": "model"}, "another parameter"),
    ("the prompt format is not supported", {}, "no parameter at all"),
]  # fmt: skip


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("message", "details", "why"), KEPT, ids=[why for *_, why in KEPT])
async def test_a_bad_value_is_an_error_and_not_left_out(
    fake_vllm: Any, caller: str, message: str, details: dict, why: str
) -> None:
    fake_vllm.routes["/v1" + PATHS[caller]] = error(message, **details)
    assert isinstance(await error_of(make(caller, fake_vllm.url)), PermanentError), why
    assert len(fake_vllm.requests) == 1


async def test_an_endpoint_without_token_ids_says_what_it_needs(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/completions"] = {"choices": [{"text": "hi", "finish_reason": "stop"}]}
    assert "return_token_ids" in str(await error_of(make("teacher", fake_vllm.url)))
    assert len(fake_vllm.requests) == 1, "asked again it would answer the same"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b'"text"', b'{"error": null}', b"[1]"])
def test_whatever_an_error_s_body_is_it_is_read(body: bytes) -> None:
    assert str(Refusal.read(500, body)).startswith("HTTP 500")
