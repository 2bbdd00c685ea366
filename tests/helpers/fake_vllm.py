"""An imitation of vLLM's HTTP server on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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
