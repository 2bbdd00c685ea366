"""A real headless Chromium that opens one page from disk: its DOM, its picture, what it asked the network for.

Chromium is driven through its DevTools protocol over a pair of pipes (file descriptors 3 and 4 of the browser), so that
no port is opened and the browser ends when the pipes do. A page that works on after it is loaded says so with
`aria-busy="true"` on an element, and is waited for.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 120.0


class Opened(NamedTuple):
    """What a page looks like once it is ready."""

    dom: str
    """Its document as HTML."""
    screenshot: Path
    """A PNG of the window, next to the page."""


class Tab:
    """An open page."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._buffer = commands, answers, b""
        self._num_sent, self._session = 0, ""
        self.requests: list[str] = []
        """Addresses the page asked for, itself included."""
        self.errors: list[str] = []
        """What went wrong in it: exceptions, and what its security policy refused."""

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the protocol and wait for its answer."""
        self._num_sent += 1
        number, deadline = self._num_sent, time.monotonic() + TIMEOUT_S
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._read(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"the browser did not answer within {TIMEOUT_S:.0f} s")
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(params["entry"]["text"])

    def open(self, url: str, width: int, height: int, is_dark: bool) -> None:
        """Open a page in a new tab and wait until it is ready."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=url)
        self.wait()

    def wait(self) -> None:
        """Wait until the page is loaded, idle and drawn."""
        ready = "document.readyState === 'complete' && !document.querySelector('[aria-busy=true]')"
        deadline = time.monotonic() + TIMEOUT_S
        while not self.evaluate(f"location.href !== 'about:blank' && {ready}"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the page was not ready within {TIMEOUT_S:.0f} s")
            time.sleep(0.05)
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited, as plain data."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "exception"))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, such as 'j' or 'ArrowRight'."""
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    @property
    def dom(self) -> str:
        """The document as it is now, as HTML."""
        return str(self.evaluate("document.documentElement.outerHTML"))

    def screenshot(self, path: Path) -> Path:
        """Write a picture of the window as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
        return path


@contextmanager
def open_tab(
    path: Path, fragment: str = "", width: int = 1280, height: int = 900, *, is_dark: bool = False
) -> Iterator[Tab]:
    """Open a page from disk; skips the test where there is no browser.

    Args:
        path: the HTML file.
        fragment: what follows '#' in its address.
        width, height: size of the window in pixels.
        is_dark: whether the reader prefers dark colours.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    to_browser, from_browser = os.pipe(), os.pipe()  # four descriptors in rising order: the last is neither 3 nor 4

    def pipes() -> None:
        os.dup2(to_browser[0], 3)
        os.dup2(from_browser[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        process = subprocess.Popen(
            [browser, *flags, "--remote-debugging-pipe", "--no-first-run", f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=pipes,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            tab = Tab(to_browser[1], from_browser[0])
            tab.open(path.resolve().as_uri() + (f"#{fragment}" if fragment else ""), width, height, is_dark)
            yield tab
        finally:
            os.close(to_browser[1])
            os.close(from_browser[0])
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def open_page(path: Path, fragment: str = "", width: int = 1280, height: int = 900, *, is_dark: bool = False) -> Opened:
    """Open a page from disk, and say what it looks like once it is ready; see `open_tab`."""
    with open_tab(path, fragment, width, height, is_dark=is_dark) as tab:
        return Opened(tab.dom, tab.screenshot(path.with_suffix(f".{width}x{height}{'.dark' * is_dark}.png")))
