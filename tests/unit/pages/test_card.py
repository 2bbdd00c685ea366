"""Relay cards: all that was written is on them, as text and within the lines, and what is left out is said."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl import palette
from relay_verl.cli import main as cli
from relay_verl.errors import UserError
from relay_verl.pages.card import COLUMNS, MAX_LINES, WIDTH, make_card
from relay_verl.pages.card_choice import name_kind, pick_instructive
from relay_verl.pages.card_text import call_cell, shorten, to_cells, wrap_cells
from relay_verl.pages.collect import write_card, write_cards
from relay_verl.traces.records import ResponseRecord, write_records
from tests.helpers.records import alone, call, record, student, teacher

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "</text><script>alert(1)</script> &amp; \"'<!-- ]]> \x00\x1b\ufffe\ud800"
    " $\\frac{a}{b} < c & d$ 日本 e\u0301\u2028\u202e"
)
texts = st.text(
    st.one_of(st.characters(), st.sampled_from("ab <>&\n\t\"'\\é中\u0301\x00\u200b")), max_size=300
)  # surrogates too: a file of another program may hold them


def texts_of(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def without_blanks(text: str) -> str:
    return "".join(text.split())


def one(source: str, text: str) -> Any:
    return {"source": source, "text": text, "num_tokens": max(1, len(text) // 4)}


# ---- escaping ----


@given(texts, texts, texts, texts)
def test_whatever_is_written_is_text_of_a_well_formed_picture(question: str, own: str, help: str, answer: str) -> None:
    svg = make_card(
        record(question=question, answer=answer, ground_truth=help, id=question, segments=[student(own), teacher(help)])
    )
    root = ET.fromstring(svg.encode())  # as a file
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {"svg", "title", "style", "rect", "g", "text"}
    for element in root.iter(f"{SVG}rect"):
        assert float(element.attrib["x"]) + float(element.attrib["width"]) <= WIDTH
    for element in root.iter(f"{SVG}text"):
        assert float(element.attrib["x"]) + float(element.attrib["textLength"]) <= WIDTH
        assert not set(element.attrib) - {"x", "y", "class", "textLength", "font-size"}


def test_hostile_text_is_shown_as_it_is() -> None:
    svg = make_card(record(segments=[teacher(HOSTILE)], calls=[]))
    assert "<script" not in svg
    assert "</text><script>alert(1)</script> &amp; \"'<!-- ]]> ␀␛" in "".join(texts_of(svg))


def test_the_picture_needs_nothing_from_elsewhere() -> None:
    svg = make_card(record(question="see http://x.y/z"))
    assert re.findall(r"(?:href|src|url\(|@import|@font-face)", svg) == []
    assert make_card(record()) == make_card(record()), "the same input gives the same bytes"


# ---- lines ----


@given(st.lists(st.tuples(st.sampled_from(["student", "teacher"]), texts), max_size=5), st.integers(4, 100))
def test_lines_hold_all_characters_in_order_and_are_not_too_wide(parts: list[tuple[Any, str]], columns: int) -> None:
    cells = [cell for source, text in parts for cell in to_cells(text, source)]
    lines = wrap_cells(cells, columns)
    assert max(sum(cell.columns for cell in line) for line in lines) <= columns
    wrapped = "".join(cell.text for line in lines for cell in line)
    assert without_blanks(wrapped) == without_blanks("".join(cell.text for cell in cells))
    assert sum(cell.num_chars for cell in cells) == sum(len(text.replace("\r\n", "\n")) for _, text in parts)


@given(st.lists(st.tuples(texts, st.integers(0, 10**6)), min_size=1, max_size=12), st.integers(8, 40))
def test_a_long_response_is_short_on_the_card_and_says_what_is_missing(
    turns: list[tuple[str, int]], max_lines: int
) -> None:
    cells = []
    for text, asked in turns:
        cells += to_cells(text * 3, "student", 50.0)
        cells.append(call_cell(f"<call>{asked}</call>", COLUMNS, is_served=True, num_chars=20, num_tokens=5.0))
        cells += to_cells(text, "teacher", 9.0)
    shown = shorten(cells, max_lines, COLUMNS)
    assert len(wrap_cells(shown, COLUMNS)) <= max_lines
    kept = [cell for cell in shown if cell.style != "gap"]
    rest = iter(cells)
    assert all(any(cell is other for other in rest) for cell in kept), "in order, none twice"
    said = "".join(cell.text for cell in shown if cell.style == "gap")
    assert bool(said) == (len(kept) < len(cells))
    num_calls = sum(cell.style == "call" for cell in kept)
    assert sum(int(num) for num in re.findall(r"and ([\d,]+) calls? left", said)) == len(turns) - num_calls
    num_tokens = sum(int(num.replace(",", "")) for num in re.findall(r"about ([\d,]+) token", said))
    missing = sum(cell.num_tokens for cell in cells) - sum(cell.num_tokens for cell in kept)
    assert abs(num_tokens - missing) <= said.count("about"), "each gap is rounded"


def test_around_the_calls_and_the_ends_the_text_stays() -> None:
    filler = " ".join(f"word{i}" for i in range(2000))
    shown = make_card(
        record(
            segments=[
                student(f"FIRST {filler} ASKS<call>64</call>", 4000),
                teacher(f"HELPS {filler} DONE", 4000),
                student(f" READS {filler} LAST", 4000),
            ],
            calls=[call("served", 64, 64)],
            num_tokens=12000,
            num_teacher_tokens=4000,
        )
    )
    text = " ".join(texts_of(shown))
    places = [text.index(word) for word in ("FIRST", "ASKS", "<call>64</call>", "HELPS", "DONE", "READS", "LAST")]
    assert places == sorted(places)
    assert len(re.findall(r"… about [\d,]+ tokens left out …", text)) == 3
    assert len({element.attrib["y"] for element in ET.fromstring(shown).iter(f"{SVG}text")}) <= MAX_LINES + 16


def test_a_short_response_is_whole() -> None:
    made = record()
    text = "".join(texts_of(make_card(made)))
    assert "left out" not in text
    for part in ("7*8=", "<call>2</call> · asked 2, delivered 2 tokens, 0.25 s", "56", "\\boxed{56}", "What is 7*8?"):
        assert part in text


FACTS = [
    (record(), ["right", "student 8 + teacher 2 tokens", "1 call", "call ratio 20.0%", "0.5 s"]),
    (record(is_correct=False, answer="57"), ["wrong", "57", "56"]),
    (alone(is_correct=False, answer=None, grading="no_answer"), ["no answer", "none", "0 calls", "call ratio 0.0%"]),
    (record(calls=[call("failed", 2)], num_calls=0), ["asked 2, delivered 0 tokens: the teacher failed"]),
    (record(segments=[]), ["empty"]),
]  # fmt: skip


@pytest.mark.parametrize(("made", "facts"), FACTS, ids=["right", "wrong", "no answer", "failed call", "empty"])
def test_what_a_card_says(made: ResponseRecord, facts: list[str]) -> None:
    text = "\n".join(texts_of(make_card(made)))
    assert [fact for fact in facts if fact not in text] == []


def test_colours_are_those_of_the_pages() -> None:
    svg = make_card(record())
    for name in ("teacher", "teacher-line", "call", "good", "ink"):
        assert {palette.LIGHT[name], palette.DARK[name]} <= set(re.findall(r"#\w+", svg))


# ---- which ones ----


def wrong(**changes: Any) -> ResponseRecord:
    return record(is_correct=False, answer="1", **changes)


def test_three_instructive_ones() -> None:
    records = [
        record(id="a", num_tokens=3),  # shorter, but right without a call, too
        alone(id="a", sample=1),
        record(id="b"),
        alone(id="b", sample=1, is_correct=False),
        wrong(id="c", num_tokens=3),  # wrong anyway
        alone(id="c", sample=1, is_correct=False),
        wrong(id="d"),
        alone(id="d", sample=1),
        alone(id="e", condition="student alone", num_tokens=1),
        alone(id="f", num_tokens=5),
    ]
    picked = pick_instructive(records, 3)
    assert [(r.id, name_kind(r)) for r in picked] == [
        ("b", "right with a call"),
        ("d", "wrong with a call"),
        ("f", "right without a call"),
    ]


def test_a_baselines_calls_are_not_the_students() -> None:
    unasked = [call("served", 2, 2) | {"has_command": False}]
    baseline = record(id="x", num_tokens=2, segments=[teacher("56", 2)], calls=unasked)
    assert name_kind(baseline) == "right with the teacher"
    assert [r.id for r in pick_instructive([baseline, record(id="y", num_tokens=300)], 1)] == ["y"]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("cfbn"), st.integers(0, 3), st.booleans()), max_size=12),
    st.integers(1, 9),
)
def test_as_many_as_there_are_and_none_twice(kinds: list[tuple[bool, str, int, bool]], num: int) -> None:
    makers: dict[str, Any] = {
        "c": record,
        "f": lambda **v: alone(calls=[call("failed", 2)], **v),
        "b": lambda **v: record(calls=[], num_calls=1, **v),
        "n": alone,
    }
    records = [
        makers[kind](is_correct=is_correct, id=str(id), sample=i, status="completed" if whole else "student_failed")
        for i, (is_correct, kind, id, whole) in enumerate(kinds)
    ]
    picked = pick_instructive(records, num)
    num_whole = sum(r.is_completed for r in records) or len(records)
    assert len(picked) == min(num, num_whole) == len({r.sample for r in picked})
    available = {name_kind(r) for r in records if r.is_completed or not any(r.is_completed for r in records)}
    for kind, place in (("right with a call", 0), ("wrong with a call", 1), ("right without a call", 2)):
        if kind in available and num > place and len(picked) > place:
            assert name_kind(picked[place]) == kind or kind in {name_kind(r) for r in picked[:place]}


# ---- the command ----


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["relay-verl", "trace", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_records(tmp_path / "r.jsonl", [record(id="a"), record(id="a", sample=1), wrong(id="b"), alone(id="c")])
    return tmp_path / "r.jsonl"


def test_the_command_draws_one_or_a_few(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, results, "--id", "b", "--card", tmp_path / "new" / "card.svg") == 0
    assert "wrong" in texts_of((tmp_path / "new" / "card.svg").read_text())
    assert run(monkeypatch, results, "--id", "a", "--sample", 1, "--card", tmp_path / "new" / "other.svg") == 0
    assert run(monkeypatch, results, "--cards", tmp_path / "cards", "--num", 2) == 0
    names = ["1_right_with_a_call.svg", "2_wrong_with_a_call.svg"]
    assert sorted(file.name for file in (tmp_path / "cards").iterdir()) == names
    assert not (tmp_path / "trace.html").exists()


BAD = [
    (["--id", "zzz", "--card", "x.svg"], "--id: no response has the id 'zzz'"),
    (["--id", "a", "--card", "x.svg"], "--id a: 2 responses fit, expected 1; give --condition and --sample"),
    (["--id", "a", "--sample", "7", "--card", "x.svg"], "--id a: 0 responses fit"),
    (["--card", "x.svg"], "--card and --id: one needs the other"),
    (["--id", "a"], "--card and --id: one needs the other"),
    (["--id", "a", "--card", "x.svg", "--cards", "y"], "--card and --cards: give one"),
    (["--sample", "1"], "--condition and --sample: for --card"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD, ids=[case[1] for case in BAD])
def test_bad_input_of_the_command_is_one_line(
    arguments: list[str], line: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = str(run(monkeypatch, results, *arguments))
    assert said.startswith(f"relay-verl: {line}")
    assert "\n" not in said
    assert [file.name for file in tmp_path.iterdir()] == [results.name]


def test_a_place_that_cannot_be_written_is_one_line(results: Path) -> None:
    for write in (
        lambda: write_card([results], Path("/proc/none/card.svg"), "b"),
        lambda: write_cards([results], Path("/proc/none"), 1),
    ):
        with pytest.raises(UserError, match=r"^--cards?: /proc/none"):
            write()


def test_cards_load_no_torch() -> None:
    code = "import sys, relay_verl.pages.collect; print({'torch', 'verl', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
