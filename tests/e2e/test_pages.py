"""The pages in a real browser: what they show, what they ask for, what happens to hostile text."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from matplotlib.image import imread

from relay_verl.pages.page import write_page
from relay_verl.traces.records import ResponseRecord
from tests.helpers.browser import Tab, open_page, open_tab
from tests.helpers.records import alone, call, record, student, teacher

pytestmark = pytest.mark.e2e

TEACHER = {False: (255, 239, 207), True: (66, 50, 15)}
"""The colour behind the teacher's text in `page.css`, by whether the reader prefers dark colours."""
NO, YES = {"is_correct": False, "reply": "No", "error": ""}, {"is_correct": True, "reply": "Yes", "error": ""}


def some_records() -> list[ResponseRecord]:
    """Two conditions, two benchmarks, and every scenario; the id of each response says what it is."""
    return [
        record(id="solvable", benchmark="p"),
        alone(id="solvable", benchmark="p", sample=1, judge=NO),
        record(id="dependent", benchmark="p", calls=[call("served", 9, 2)], judge=YES),
        alone(id="dependent", benchmark="p", sample=1, is_correct=False),
        alone(id="unsolvable", benchmark="q", is_correct=False, grading="no_answer", answer=None),
        record(id="cut", benchmark="q", is_correct=False, status="student_failed", num_calls=2),
        alone(id="solvable", benchmark="p", condition="student alone"),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(some_records(), path, "Responses", names={"p": "plain questions"})
    return path


def shown(tab: Tab) -> list[str]:
    """The cards in the list: condition, id, and sample if there are several."""
    id = "card.querySelector('.id') ?? card.closest('.question').querySelector('.id')"
    names = f"[card.querySelector('strong'), {id}, card.querySelector('.sample')].map((p) => p?.textContent ?? '')"
    cards = tab.evaluate(f"[...document.querySelectorAll('#list article')].map((card) => {names})")
    return [" ".join(filter(None, card)) for card in cards]


RELAY = [
    "relay solvable sample 1 of 2",
    "relay solvable sample 2 of 2",
    "relay dependent sample 1 of 2",
    "relay dependent sample 2 of 2",
    "relay unsolvable",
    "relay cut",
]
ALONE = "student alone solvable"
BY_QUESTION = [*RELAY[:2], ALONE, *RELAY[2:4], RELAY[5], RELAY[4]]
"""Question by question: first those on which the relay called, its own responses before the others'."""
VIEWS: list[tuple[dict[str, str], list[str], str]] = [
    ({}, BY_QUESTION, "all"),
    ({"condition": "student alone"}, [ALONE], "a value with a blank"),
    ({"benchmark": "q"}, [RELAY[5], RELAY[4]], "benchmark"),
    ({"verdict": "correct"}, [*RELAY[:2], ALONE, RELAY[2]], "right"),
    ({"verdict": "wrong"}, [RELAY[3]], "judged wrong"),
    ({"verdict": "no answer"}, [RELAY[4]], "nothing to judge"),
    ({"verdict": "not completed"}, [RELAY[5]], "cut off"),
    ({"judge": "disagrees"}, [RELAY[1]], "rule and judge disagree"),
    ({"judge": "agrees"}, [RELAY[2]], "rule and judge agree"),
    ({"scenario": "student-solvable"}, [*RELAY[:2], ALONE], "right without a call, with its other samples"),
    ({"scenario": "teacher-dependent"}, RELAY[2:4], "right only with a call"),
    ({"scenario": "teacher-unsolvable"}, [], "never right, but one response is not a measurement"),
    ({"calls": "some"}, [RELAY[0], RELAY[2], RELAY[5]], "called"),
    ({"calls": "none"}, [RELAY[1], ALONE, RELAY[3], RELAY[4]], "did not call"),
    ({"calls": "several"}, [RELAY[5]], "called twice"),
    ({"calls": "short"}, [RELAY[2]], "got 2 of 9"),
    ({"search": "id:solvable"}, [*RELAY[:2], ALONE], "one question, not the ids that contain it"),
    ({"search": "BOXED{56}"}, [RELAY[0], RELAY[2], RELAY[5]], "text of the response, whatever its case"),
    ({"order": "recorded"}, [*RELAY, ALONE], "as recorded"),
    ({"benchmark": "p", "verdict": "correct", "scenario": "student-solvable"}, [*RELAY[:2], ALONE], "three at once"),
    ({"scenario": "teacher-dependent", "condition": "student alone"}, [], "none fits"),
    ({"verdict": "timeout"}, [], "a value that nothing here has"),
    ({"calls": "toString"}, [], "a name that every object of JavaScript knows"),
    ({"unknown": "x", "order": "__proto__"}, BY_QUESTION, "an unknown filter and order"),
]


def test_each_view_shows_exactly_its_responses(page: Path) -> None:
    with open_tab(page) as tab:
        for view, wanted, why in VIEWS:
            tab.evaluate(f"void (location.hash = {urlencode(view)!r})")
            tab.wait()
            assert shown(tab) == wanted, why
            number = tab.evaluate("document.getElementById('count').textContent")
            assert number == {0: "No response fits.", 1: "1 response of 7", 7: "7 responses"}.get(
                len(wanted), f"{len(wanted)} responses of 7"
            )
        assert tab.errors == []


def test_a_link_opens_its_view(page: Path) -> None:
    dom, screenshot = open_page(page, "scenario=teacher-dependent&verdict=wrong")
    assert dom.count("<article") == 1 and "1 response of 7" in dom
    assert imread(screenshot).shape[:2] == (900, 1280)


def test_a_choice_is_counted_and_kept_in_the_address(page: Path) -> None:
    with open_tab(page) as tab:
        tab.evaluate(
            "const select = document.querySelector('[name=scenario]'); select.value = 'student-solvable';"
            "select.dispatchEvent(new Event('input', { bubbles: true }))"
        )
        tab.wait()
        assert tab.evaluate("location.hash") == "#scenario=student-solvable"
        assert shown(tab) == [*RELAY[:2], ALONE]
        labels = tab.evaluate("[...document.querySelectorAll('option')].map((option) => option.text)")
        assert {"student-solvable (3)", "teacher-dependent (2)", "teacher-unsolvable (0)"} <= set(labels)  # to choose
        assert {"relay (2)", "plain questions (3)", "wrong (0)"} <= set(labels)  # of those chosen
        tab.evaluate("document.getElementById('reset').click()")
        tab.wait()
        assert shown(tab) == BY_QUESTION


def test_keys_step_between_responses(page: Path) -> None:
    at = "[...document.querySelectorAll('article')].indexOf(document.activeElement)"
    with open_tab(page, height=500) as tab:
        for key, wanted in (("j", 0), ("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0)):
            tab.press(key)
            assert tab.evaluate(at) == wanted, key
        assert tab.evaluate("document.getElementById('place').textContent") == "at 1"
        top, bar = tab.evaluate(
            "[document.activeElement, document.getElementById('status')].map((e) => e.getBoundingClientRect())"
            ".map((box, i) => (i ? box.bottom : box.top))"
        )
        assert bar <= top < 100  # in view, and not below the bar
        tab.press("/")
        tab.press("j")  # typed, not a step
        assert tab.evaluate("document.activeElement.value") == "j"


def count_pixels(screenshot: Path, colour: tuple[int, int, int]) -> int:
    pixels = np.rint(imread(screenshot)[..., :3] * 255)
    return int((np.abs(pixels - np.array(colour)).max(axis=2) <= 1).sum())


@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (1280, True), (400, False), (400, True)])
def test_the_teachers_words_stand_out(width: int, is_dark: bool, tmp_path: Path) -> None:
    pages = {}
    for name, segments in {
        "teacher": [student("I ask. <call>30</call>", 9), teacher("So it is fifty-six. " * 8, 30)],
        "student": [student("I ask. <call>30</call>" + "So it is fifty-six. " * 8, 39)],
    }.items():
        served = record(segments=segments, calls=[call("served", 30, 30)])
        pages[name] = tmp_path / f"{name}.html"
        write_page([served], pages[name], "Responses")
    numbers = {}
    for name, path in pages.items():
        dom, screenshot = open_page(path, "", width, 1400, is_dark=is_dark)
        (body,) = re.findall(r'<div id="list">(.*)</div>', dom, re.DOTALL)
        assert len(re.findall(r'<span class="teacher" title="teacher: 30 tokens">So it is fifty-six', body)) == (
            name == "teacher"
        )
        assert re.search(r'<span class="call" title="asked 30, delivered 30 tokens[^>]*data-note="30 of 30"', body)
        numbers[name] = count_pixels(screenshot, TEACHER[is_dark])
    # 160 characters of about 8 x 17 pixels, less their ink; the legend alone is on both pages
    assert numbers["teacher"] - numbers["student"] > 7_000
    with open_tab(pages["teacher"], width=width) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out


CONDITIONS = ["student alone", "untrained relay", "trained relay", "teacher alone"]
WIDTHS = [390, 768, 1280, 1920]


def four_conditions(benchmarks: list[str]) -> list[ResponseRecord]:
    """Three questions of each benchmark under four conditions; only the trained relay calls, on the last question."""
    end = "That is all.<|im_end|>"
    records = []
    for condition in CONDITIONS:
        for benchmark in benchmarks:
            for number in range(3):
                facts: dict[str, Any] = {"condition": condition, "benchmark": benchmark, "id": f"{benchmark} {number}"}
                calls = condition == "trained relay" and number == 2
                segments = [student("7*8=<call>30</call>", 9), teacher("56", 6), student(end, 5)]
                one = record(segments=segments, calls=[call("served", 30, 6)], **facts)
                records.append(one if calls else alone(segments=[student(end, 9)], **facts))
    return records


PAGES: dict[str, tuple[list[ResponseRecord], dict[str, Any]]] = {
    "four conditions": (four_conditions(["tiny/add", "tiny/mul", "tiny/hash"]), {"names": {"tiny/add": "additions"}}),
    "nine benchmarks with long names": (four_conditions([f"a benchmark-with-a-long-name-{i}" for i in range(9)]), {}),
    "many conditions": (
        [
            record(condition=f"trained relay, fixed {i} tokens, of a long name", benchmark=b, id=str(i))
            for i in range(14)
            for b in "pqr"
        ],
        {},
    ),
    "a training": (
        [record(condition=f"step {i}", sample=s) for i in range(30) for s in range(8)],
        {"is_training": True},
    ),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_at_any_width(name: str, width: int, tmp_path: Path) -> None:
    records, options = PAGES[name]
    write_page(records, tmp_path / "page.html", "A title that is long enough to be broken on a phone", **options)
    measure = (
        "[document.documentElement.scrollWidth, ...[...document.querySelectorAll('#table, .part, td, th, caption')]"
        ".filter((box) => box.offsetWidth).map((box) => box.getBoundingClientRect().right)]"
    )
    with open_tab(tmp_path / "page.html", width=width) as tab:
        folded = tab.evaluate("[...document.querySelectorAll('details')].map((part) => part.open)")
        assert folded == [False] * (2 if name == "a training" else 1), "a table of many steps is folded"
        tab.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        tab.wait()
        page_width, *rights = tab.evaluate(measure)
        assert page_width == width, "the page does not scroll sideways"
        assert rights and max(rights) <= width, "every cell is in the window"
        scrolls = (
            "[...document.querySelectorAll('#table, .part')].filter((box) => box.scrollWidth > box.clientWidth + 1)"
        )
        assert tab.evaluate(f"{scrolls}.length") == 0, "and none in a part that scrolls"
        assert tab.errors == []


@pytest.mark.parametrize(("width", "num_columns"), [(390, 1), (768, 2), (1280, 2), (1920, 4)])
def test_the_page_opens_on_calls_and_the_conditions_are_side_by_side(
    width: int, num_columns: int, tmp_path: Path
) -> None:
    records, options = PAGES["four conditions"]
    write_page(records, tmp_path / "page.html", "title", lead="trained relay", notes={"tiny/add": "sums"}, **options)
    lefts = (
        "[...document.querySelectorAll('.question:first-child article')].map((box) => box.getBoundingClientRect().x)"
    )
    with open_tab(tmp_path / "page.html", width=width) as tab:
        assert len(set(tab.evaluate(lefts))) == num_columns
        first = tab.evaluate("document.querySelector('.question').textContent")
        order = sorted(CONDITIONS, key=lambda name: first.index(name))
        assert order == ["trained relay", "student alone", "untrained relay", "teacher alone"]
        assert tab.evaluate("document.querySelector('article .call').dataset.note") == "6 of 30 · call limit"
        assert "max_tokens_per_call" in tab.evaluate("document.querySelector('article .call').title")
        text = tab.evaluate("document.getElementById('list').textContent")
        assert "<|im_end|>" not in text and "That is all.∎" in text
        assert tab.evaluate("document.querySelector('article .end').title") == "end of the text: <|im_end|>"
        assert "sums" in tab.evaluate("document.querySelector('dl').textContent")


def test_a_training_opens_on_its_last_step(tmp_path: Path) -> None:
    records, options = PAGES["a training"]
    write_page(records, tmp_path / "page.html", "title", **options)
    with open_tab(tmp_path / "page.html") as tab:
        steps = tab.evaluate("[...document.querySelectorAll('article strong')].map((part) => part.textContent)")
    assert steps[:8] == ["step 29"] * 8 and steps[8] == "step 28"


HOSTILE = (
    "</script></textarea><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
    "<style>@import url(http://127.0.0.1:9/a.css)</style><!-- <iframe src='http://127.0.0.1:9/'> {{ 7 * 7 }} \x00\u2028"
)


def test_hostile_text_is_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    fields = ["condition", "benchmark", "id", "question", "ground_truth", "answer"]
    texts: dict[str, Any] = dict.fromkeys(fields, HOSTILE)
    judge: Any = {"is_correct": False, "reply": HOSTILE, "error": HOSTILE}
    nasty = record(**texts, judge=judge, segments=[student(HOSTILE), teacher(HOSTILE)])
    harmless, hostile = tmp_path / "harmless.html", tmp_path / "hostile.html"
    write_page([record(judge={**judge, "reply": "No", "error": "x"})], harmless, "title")
    write_page([nasty], hostile, HOSTILE, names={HOSTILE: HOSTILE})
    tags = "[...document.querySelectorAll(':not(span)')].map((element) => element.localName)"  # a span may be a call
    texts_of = "[...document.querySelectorAll('article .text')].map((element) => element.textContent)"
    with open_tab(harmless) as tab:
        wanted = tab.evaluate(tags)
    with open_tab(hostile, urlencode({"search": "onerror", "condition": HOSTILE})) as tab:
        found = tab.evaluate(tags)
        tab.press("j")
        assert (tab.evaluate("typeof window.hit"), len(tab.requests), tab.errors) == ("undefined", 1, [])
        assert tab.requests[0].startswith(hostile.as_uri())
        assert tab.evaluate(texts_of) == [HOSTILE, HOSTILE * 2, HOSTILE, HOSTILE, HOSTILE, HOSTILE]
    assert found == wanted


def test_ten_thousand_responses_are_usable(tmp_path: Path) -> None:
    def text(index: int) -> str:
        return " ".join(f"step {index} {word}" for word in range(180))  # some 2,000 characters

    records = [
        record(id=str(i), benchmark="pq"[i % 2], is_correct=i % 4 == 0, segments=[student(text(i)), teacher(" It is.")])
        for i in range(10_000)
    ]
    path = tmp_path / "page.html"
    assert write_page(records, path, "Many") == 10_000
    with open_tab(path) as tab:  # has a time limit
        assert tab.evaluate("document.getElementById('count').textContent") == "10,000 responses"
        assert tab.evaluate("document.querySelectorAll('article').length") == 100  # not all at once
        for view, said in (
            ("verdict=correct&benchmark=p", "2,500 responses of 10,000"),
            ("verdict=correct&benchmark=q", "No response fits."),
            ("search=id:77", "1 response of 10,000"),
        ):
            tab.evaluate(f"void (location.hash = {view!r})")
            tab.wait()
            assert tab.evaluate("document.getElementById('count').textContent") == said
        tab.evaluate("void (location.hash = 'search=step+9999+179')")
        tab.wait()
        assert shown(tab) == ["relay 9999"]
        tab.evaluate("void (location.hash = '')")
        tab.wait()
        tab.evaluate("document.querySelector('article:last-child').focus()")
        tab.press("j")  # past the hundredth
        assert tab.evaluate("document.getElementById('place').textContent") == "at 101"
        assert tab.errors == []
