"""A stand-in for the Hugging Face hub's API on a local port: enough of it to create a repository, to commit files to it
(small ones in the commit, large ones over LFS), and to read them again."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TOKEN = "hf_of_the_test"
OWNERS = ("me", "lab")


class Hub(ThreadingHTTPServer):
    """What the server holds, and what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.asked: list[str] = []
        self.refuse: dict[str, tuple[int, str]] = {}
        """Status and message of the answer to requests whose path has this in it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Tests are silent."""

    def _answer(self, status: int, content: Any, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        hub, path = self.server, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path}")
        for part, (status, message) in hub.refuse.items():
            if part in path:
                return self._answer(
                    status,
                    {"error": message, "errors": [{"message": message}], "warnings": []},
                    X_Error_Message=message,
                )
        if not path.startswith("/large/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials")
        if path == "/api/whoami-v2":
            return self._answer(200, {"name": OWNERS[0], "orgs": [{"name": name} for name in OWNERS[1:]]})
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or OWNERS[0]}/{asked['name']}"
            is_new = name not in hub.files
            hub.files.setdefault(name, {})
            hub.private.setdefault(name, asked.get("visibility") == "private")
            return self._answer(200 if is_new else 409, {"url": f"{hub.url}/{name}", "id": name})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return self._answer(200, {"files": [self._mode(match[1], file) for file in json.loads(body)["files"]]})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._answer(200, {"objects": [self._place(each) for each in json.loads(body)["objects"]]})
        if match := re.fullmatch(r"/large/([0-9a-f]{64})", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            hub.large[match[1]] = body
            return self._answer(200, {})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", path):
            if match[1] not in hub.files:
                return self._answer(404, {}, X_Error_Code="RepoNotFound")
            return self._answer(200, {"id": match[1], "sha": "0" * 40, "siblings": []})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path):
            content = hub.files.get(match[1], {}).get(match[2])
            if content is None:
                return self._answer(404, {}, X_Error_Code="EntryNotFound")
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._answer(200, content, ETag=etag, X_Repo_Commit="0" * 40)
        return self._answer(404, {"error": path})

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 (http.server calls them so)

    def _mode(self, name: str, file: dict[str, Any]) -> dict[str, Any]:
        """How a file is sent, and the id of what is there under its name."""
        is_large = file["path"].endswith(".safetensors")
        content = self.server.files[name].get(file["path"])
        oid = None
        if content is not None:
            blob = f"blob {len(content)}\0".encode() + content
            oid = hashlib.sha256(content).hexdigest() if is_large else hashlib.sha1(blob).hexdigest()
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _place(self, asked: dict[str, Any]) -> dict[str, Any]:
        oid = asked["oid"]
        actions = {} if oid in self.server.large else {"upload": {"href": f"{self.server.url}/large/{oid}"}}
        return asked | ({"actions": actions} if actions else {})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        hub = self.server
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                hub.commits.append(value["summary"])
            elif line["key"] == "file":
                hub.files[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[name][value["path"]] = hub.large[value["oid"]]
        self._answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{hub.url}/{name}/commit/0"})


@contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch, cache: Any) -> Iterator[Hub]:
    """The stand-in, and huggingface_hub of this process set to use it, with an empty cache and the right token."""
    from huggingface_hub import constants

    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
