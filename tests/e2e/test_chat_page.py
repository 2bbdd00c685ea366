"""The chat page in a real browser, from a real server over a scripted pair."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.image import imread
from playwright.sync_api import Browser, Request, expect

from relay_verl import palette
from tests.helpers.browser import Tab, open_address, open_browser
from tests.helpers.pupil import END, HOSTILE, NUM_ASKED, TEACHER, WORD, make_engines
from tests.helpers.serving import RuleEngine, make_app, make_service, serving

pytestmark = pytest.mark.e2e

PARTS = "[...document.querySelectorAll('.answer:last-child .text > span')]"
PIECES = f"{PARTS}.map((part) => [part.className.split(' ')[0], part.textContent])"
NOTES = f"{PARTS}.filter((part) => part.matches('.call')).map((part) => part.dataset.note)"


class Served(NamedTuple):
    """A page's server."""

    url: str
    """Its address."""
    student: RuleEngine
    """Writes."""
    teacher: RuleEngine
    """Answers calls."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    student, teacher = make_engines(delay_s=0.002)
    with serving(make_app(make_service(student, teacher))) as url:
        yield Served(url, student, teacher)


@pytest.fixture
def tab(browser: Browser, served: Served) -> Iterator[Tab]:
    with open_address(browser, served.url) as tab:
        yield tab
        assert tab.evaluate("window.hit") is None
        assert [url for url in tab.requests if not url.startswith(served.url)] == []


def ask(tab: Tab, question: str, *, is_awaited: bool = True) -> None:
    tab.page.locator("#model:enabled").wait_for()
    tab.page.fill("#message", question)
    tab.press("Enter")
    if is_awaited:
        expect(tab.page.locator("#stop")).to_be_hidden(timeout=60_000)
        tab.wait()


def bodies_of(tab: Tab) -> list[dict[str, Any]]:
    """What the page sends from now on, one body a question."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.post_data:
            bodies.append(json.loads(request.post_data))

    tab.page.on("request", note)
    return bodies


def test_each_word_has_its_author(tab: Tab) -> None:
    bodies = bodies_of(tab)
    ask(tab, "please ask")
    assert tab.evaluate(PIECES) == [
        ["student", "I ask. "],
        ["call", f"<call>{NUM_ASKED}</call>"],
        ["teacher", TEACHER],
        ["student", END],
    ]
    assert tab.evaluate(NOTES) == [f"{NUM_ASKED} of {NUM_ASKED}"]
    numbers = tab.page.inner_text(".answer .facts").split(" · ")
    assert numbers[2].startswith(f"teacher {NUM_ASKED} (")
    assert int(numbers[0].split()[0]) == NUM_ASKED + int(numbers[1].split()[1])
    ask(tab, "and now?")
    assert tab.page.inner_text("#totals p").split(" · ")[3] == "1 call", "both answers are counted"
    said = [{"role": "user", "content": "please ask"}, {"role": "assistant", "content": f"I ask. {TEACHER}{END}"}]
    assert bodies[1]["messages"] == [*said, {"role": "user", "content": "and now?"}]
    assert "max_teacher_tokens" not in bodies[1]["relay"]
    tab.page.click("#clear")
    ask(tab, "and now?")
    assert bodies[2]["messages"] == bodies[1]["messages"][2:]
    assert tab.errors == []


def test_the_budget_and_the_alias_reach_the_server(tab: Tab) -> None:
    bodies = bodies_of(tab)
    tab.page.locator("#model:enabled").wait_for()
    assert tab.evaluate("[...document.querySelectorAll('option')].map((option) => option.text)")[:2] == [
        "pair",
        "pair:teacher-free",
    ]
    tab.page.fill("#budget", "0")
    ask(tab, "please ask")
    assert bodies[-1]["relay"] == {"show_commands": True, "max_teacher_tokens": 0}
    assert tab.evaluate(NOTES) == ["not served"]
    assert tab.page.locator(".call.unserved").count() == 1
    tab.page.select_option("#model", "pair:student")
    assert tab.page.is_disabled("#budget")
    tab.page.select_option("#model", "pair:fixed-20")
    tab.page.fill("#budget", "3")
    ask(tab, "please ask")
    assert (bodies[-1]["model"], bodies[-1]["relay"]["max_teacher_tokens"]) == ("pair:fixed-20", 50)
    assert tab.errors == []


@pytest.mark.parametrize("by_key", [True, False])
def test_stopping_ends_the_engines_work(tab: Tab, served: Served, by_key: bool) -> None:
    ask(tab, "a long one", is_awaited=False)
    tab.page.locator(".answer .text .student").wait_for()
    assert served.student.num_running == 1
    tab.press("Escape") if by_key else tab.page.click("#stop")
    tab.wait()
    assert "stopped" in tab.page.inner_text(".answer .facts")
    assert tab.page.inner_text(".answer .text").startswith("I write")
    for _ in range(200):
        if served.student.num_running == 0:
            break
        tab.page.wait_for_timeout(50)
    assert served.student.num_running == 0
    ask(tab, "and now?")
    assert tab.page.locator(".problem").count() == 0


def test_failures_are_shown_and_can_be_tried_again(tab: Tab, served: Served) -> None:
    served.teacher.is_dead = True
    try:
        ask(tab, "please ask")
        assert tab.evaluate(NOTES) == ["failed"]
        assert "1 failed call" in tab.page.inner_text("#totals")
    finally:
        served.teacher.is_dead = False
    ask(tab, "a long one", is_awaited=False)
    tab.page.locator(".answer:last-child .text .student").wait_for()
    served.student.is_dead = True
    try:
        tab.page.locator(".problem").wait_for()
    finally:
        served.student.is_dead = False
    assert tab.page.inner_text(".problem").startswith("the student does not answer")
    bodies = bodies_of(tab)
    tab.page.fill("#budget", "0")
    tab.page.click(".again")
    tab.page.locator(".problem").wait_for(state="detached")
    tab.press("Escape")
    tab.wait()
    assert len(bodies[0]["messages"]) == 3, "the failed turn is left out"
    assert tab.page.locator(".user").count() == 2


def test_a_server_that_is_not_there_can_be_asked_again(browser: Browser, served: Served) -> None:
    with open_address(browser, served.url) as tab:
        tab.page.route("**/v1/**", lambda route: route.abort())
        ask(tab, "please ask")
        assert tab.page.inner_text(".problem") == "the server does not answer"
        tab.page.unroute_all()
        tab.page.click(".again")
        tab.page.locator(".answer .text .teacher").wait_for()


def test_a_key_is_asked_for(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_SERVE_API_KEY", "one-key,another-key")
    with serving(make_app(make_service(*make_engines()))) as url, open_address(browser, url) as tab:
        for key in ("wrong-key", "another-key"):
            tab.page.locator("#key-form").wait_for()
            tab.page.fill("#key", key)
            tab.press("Enter")
        ask(tab, "please ask")
        assert tab.page.is_hidden("#key-form")
        assert tab.page.inner_text(".answer .text .teacher") == TEACHER
        assert "another-key" not in tab.dom


def test_hostile_text_is_text(tab: Tab) -> None:
    ask(tab, f"hostile {HOSTILE}")
    assert tab.evaluate(PIECES) == [["student", HOSTILE]]
    assert tab.evaluate("document.querySelector('.user .text').textContent") == f"hostile {HOSTILE}".strip()
    assert tab.evaluate("document.querySelectorAll('img, #log script').length") == 0
    assert tab.errors == []


@pytest.mark.parametrize(("width", "is_dark"), [(360, False), (768, True), (1280, False), (1280, True), (2560, False)])
def test_the_page_fits_and_the_teachers_words_stand_out(
    browser: Browser, served: Served, width: int, is_dark: bool, tmp_path: Path
) -> None:
    with open_address(browser, served.url, width, is_dark=is_dark) as tab:
        ask(tab, f"one word {WORD}")
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        rights = tab.evaluate(
            "[...document.querySelectorAll('button, select, input, textarea, .message, .text > span')]"
            ".filter((box) => box.offsetWidth).map((box) => box.getBoundingClientRect().right)"
        )
        assert max(rights) <= width
        pixels = np.rint(imread(tab.screenshot(tmp_path / "page.png"))[..., :3] * 255)
    colour = (palette.DARK if is_dark else palette.LIGHT)["teacher"]
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    # 10 characters of about 9 x 19 pixels, less their ink
    assert int((np.abs(pixels - channels).max(axis=2) <= 1).sum()) > 800
