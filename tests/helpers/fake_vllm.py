"""An imitation of vLLM's HTTP server on loopback, and of chat APIs that refuse an assistant prefix."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFILL = "This model does not support assistant message prefill. The conversation must end with a user message."


def chat_route(
    response: str, *, refuses_prefix: str = "", num_hidden: int = 0, **choice: Any
) -> Callable[[dict[str, Any]], Any]:
    """`/v1/chat/completions` of a teacher that would write `response` and nothing else, a character a token: it
    continues what of that is written, as an assistant's last message or between the tags of an explanation.

    Args:
        response: the whole response.
        refuses_prefix: its words, with HTTP 400, to a chat that an assistant's message ends; it takes one if empty.
        num_hidden: tokens of reasoning that it bills, beyond what `max_tokens` allows.
        choice: other fields of the answer's choice.
    """

    def answer(body: dict[str, Any]) -> Any:
        last = body["messages"][-1]
        is_continued = body.get("continue_final_message") or last.get("prefix")
        if last["role"] == "assistant" and (refuses_prefix or not is_continued):
            return 400, {"error": {"message": refuses_prefix or "the last message is the assistant's", "code": 400}}
        if body.get("continue_final_message") and body.get("add_generation_prompt", True):
            return 400, {"error": {"message": "Cannot set both continue_final_message and add_generation_prompt"}}
        explained = re.search(r"<answer>(.*)</answer>", last["content"], re.DOTALL)
        written = last["content"] if last["role"] == "assistant" else explained[1] if explained else ""
        if not response.startswith(written):
            return 500, {"error": {"message": f"{written!r} is not the beginning of {response!r}"}}
        rest = response[len(written) :]
        limit = body["max_tokens"]
        usage = {
            "prompt_tokens": sum(len(message["content"]) for message in body["messages"]),
            "completion_tokens": min(len(rest), limit) + num_hidden,
            "prompt_tokens_details": {"cached_tokens": 3},
        }
        plain = {
            "index": 0,
            "message": {"role": "assistant", "content": rest[:limit]},
            "finish_reason": "length" if len(rest) > limit else "stop",
            "stop_reason": None,
        }
        return {"id": "1", "object": "chat.completion", "model": "big", "choices": [plain | choice], "usage": usage}

    return answer


class FakeVllm:
    """Answers each path with a JSON value, a status with one (and headers), raw bytes, or a function of the request's
    body."""

    def __init__(self, port: int = 0) -> None:
        self.routes: dict[str, Any] = {"/v1/models": {"object": "list", "data": [{"id": "big", "object": "model"}]}}
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                fake.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answer = fake.routes.get(self.path, (404, {"error": {"message": "no such path"}}))
                answer = answer(body) if callable(answer) else answer
                status, value, *headers = answer if isinstance(answer, tuple) else (200, answer)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                kind = "text/html" if isinstance(value, bytes) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                for name, text in headers[0].items() if headers else ():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256  # connections that may wait; 5 is the default, and the others are turned away

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients may hang up

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
