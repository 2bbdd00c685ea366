"""A real headless Chromium, driven by Playwright: what a page shows, and what it asks the network for.

The browser is the machine's own; where there is none, the test is skipped. A page that works on after it is loaded says
so with `aria-busy="true"` on an element, and is waited for.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
TIMEOUT_MS = 120_000.0
READY = "document.readyState === 'complete' && !document.querySelector('[aria-busy=true]')"
DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Opened(NamedTuple):
    """What a page looks like once it is ready."""

    dom: str
    """Its document as HTML."""
    screenshot: Path
    """A PNG of the window, next to the page."""


class Tab:
    """An open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        """Addresses the page asked for, itself included."""
        self.errors: list[str] = []
        """What went wrong in it: exceptions, and what its security policy refused."""
        page.set_default_timeout(TIMEOUT_MS)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def wait(self) -> None:
        """Wait until the page is loaded, idle and drawn."""
        self.page.wait_for_function(READY)
        self.evaluate(DRAWN)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited, as plain data."""
        return self.page.evaluate(expression)

    def press(self, key: str) -> None:
        """Press and release a key, such as 'j' or 'ArrowRight'."""
        self.page.keyboard.press(key)

    @property
    def dom(self) -> str:
        """The document as it is now, as HTML."""
        return str(self.evaluate("document.documentElement.outerHTML"))

    def screenshot(self, path: Path) -> Path:
        """Write a picture of the window as PNG."""
        self.page.screenshot(path=path)
        return path


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the browser; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=TIMEOUT_MS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_address(
    browser: Browser, url: str, width: int = 1280, height: int = 900, *, is_dark: bool = False
) -> Iterator[Tab]:
    """Open an address in a tab of its own, which shares nothing with others.

    Args:
        browser: from `open_browser`.
        url: of the page.
        width, height: size of the window in pixels.
        is_dark: whether the reader prefers dark colours.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if is_dark else "light",
        is_mobile=width < 600,
    )
    try:
        tab = Tab(context.new_page())
        tab.page.goto(url)
        tab.wait()
        yield tab
    finally:
        context.close()


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
    url = path.resolve().as_uri() + (f"#{fragment}" if fragment else "")
    with open_browser() as browser, open_address(browser, url, width, height, is_dark=is_dark) as tab:
        yield tab


def open_page(path: Path, fragment: str = "", width: int = 1280, height: int = 900, *, is_dark: bool = False) -> Opened:
    """Open a page from disk, and say what it looks like once it is ready; see `open_tab`."""
    with open_tab(path, fragment, width, height, is_dark=is_dark) as tab:
        return Opened(tab.dom, tab.screenshot(path.with_suffix(f".{width}x{height}{'.dark' * is_dark}.png")))
