"""What `relay-verl trace` reads, and what it puts into the page."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.cli.main import main
from relay_verl.errors import UserError
from relay_verl.pages.collect import read_responses, write_trace
from relay_verl.pages.page import write_page
from relay_verl.traces.pieces import make_pieces
from relay_verl.traces.records import CallText, JudgeText, ResponseRecord, write_records
from relay_verl.traces.results import MANIFEST, RESPONSES
from tests.helpers.records import alone, call, record, student, teacher


def write_result(folder: Path, records: list[ResponseRecord]) -> Path:
    write_records(folder / RESPONSES, records)
    (folder / MANIFEST).write_text(json.dumps({"job": {"kind": "eval"}, "num_queries": len(records)}))
    return folder


def entries_of(page: Path) -> list[dict[str, Any]]:
    (data,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    responses: list[dict[str, Any]] = json.loads(data)["responses"]
    return responses


# ---- where responses come from ----


def test_folders_and_files_in_the_order_given(tmp_path: Path) -> None:
    write_result(tmp_path / "results" / "b", [record(condition="b")])
    write_result(tmp_path / "results" / "a", [record(condition="a"), record(condition="a", sample=1)])
    write_records(tmp_path / "plain.jsonl", [record(condition="plain")])  # without a manifest
    records = read_responses([tmp_path / "plain.jsonl", tmp_path / "results", tmp_path / "results" / "b"])
    assert [(r.condition, r.sample) for r in records] == [("plain", 0), ("a", 0), ("a", 1), ("b", 0)]  # b only once


def test_conditions_of_one_name_are_told_apart_by_their_source(tmp_path: Path) -> None:
    for seed in ("seed_1", "seed_2"):
        write_result(tmp_path / seed / "relay", [record(), record(condition=f"only in {seed}")])
    assert [r.condition for r in read_responses([tmp_path])] == [
        "relay (seed_1/relay)",
        "only in seed_1",
        "relay (seed_2/relay)",
        "only in seed_2",
    ]


def test_a_single_source_keeps_its_names(tmp_path: Path) -> None:
    records = [record(), alone(condition="student alone"), record(sample=1)]
    assert read_responses([write_result(tmp_path, records)]) == records


def cut(path: Path) -> Path:
    write_records(path, [record(), record()])
    path.write_bytes(path.read_bytes()[:-40])
    return path


def with_cut(folder: Path) -> Path:
    write_result(folder, [record(), record()])
    cut(folder / RESPONSES)
    return folder


def without_manifest(folder: Path) -> Path:
    write_records(folder / RESPONSES, [record()])
    return folder


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BAD_SOURCES: list[tuple[Any, str, str]] = [
    (lambda t: t / "none", "none: no such file or folder", "a path that is not there"),
    (lambda t: t, "holds no results: no responses.jsonl in it or below", "a folder without results"),
    (lambda t: cut(t / "cut.jsonl"), r"cut\.jsonl, line 2: Invalid JSON", "a file whose last line is cut"),
    (lambda t: with_cut(t / "r"), r"r/responses\.jsonl, line 2: Invalid JSON", "results whose last line is cut"),
    (lambda t: without_manifest(t / "r"), r"r/responses\.jsonl\.manifest\.json: No such file", "a run without its end"),
    (lambda t: written(t / "empty.jsonl", b""), r"empty\.jsonl holds no responses", "an empty file"),
    (lambda t: write_result(t / "r", []), "r holds no responses", "empty results"),
    (lambda t: written(t / "x.jsonl", b"\xff\xfe\n"), r"x\.jsonl, line 1: ", "bytes that are not text"),
]


@pytest.mark.parametrize(("make", "message", "why"), BAD_SOURCES, ids=[case[2] for case in BAD_SOURCES])
def test_bad_sources_are_named_in_one_line(make: Any, message: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        write_trace([make(tmp_path)], tmp_path / "trace.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace.html").exists()


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    source = written(tmp_path / "one.jsonl", f"{record().to_json()}\n".encode())
    with pytest.raises(UserError, match=r"--out: .*one\.jsonl/trace\.html: "):
        write_trace([source], source / "trace.html")


# ---- the command ----


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["relay-verl", "trace", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    code: int | str | None = ended.value.code
    return code


def test_the_command_says_where_and_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_result(tmp_path / "r", [record(id=str(i)) for i in range(5)])
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, folder, "--limit", 3) == 0
    assert re.fullmatch(r"trace\.html: 3 responses, 0\.\d MB\n", capsys.readouterr().out)
    assert [entry["id"] for entry in entries_of(tmp_path / "trace.html")] == ["0", "1", "2"]
    assert run(monkeypatch, folder, "--out", "new/page.html") == 0
    assert len(entries_of(tmp_path / "new" / "page.html")) == 5


def test_the_command_ends_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cut(tmp_path / "cut.jsonl")
    monkeypatch.chdir(tmp_path)
    assert str(run(monkeypatch, path)).startswith(f"relay-verl: {path}, line 2: ")
    assert [p.name for p in tmp_path.iterdir()] == ["cut.jsonl"]


# ---- what the page knows of a response ----

SCENARIOS = [
    ([record(), alone()], "student-solvable", "one is right without a call"),
    ([record(), alone(is_correct=False)], "teacher-dependent", "the right one called"),
    ([record(is_correct=False), alone(is_correct=False)], "teacher-unsolvable", "none is right"),
    (
        [record(calls=[call("failed", 3)], num_calls=0), alone(is_correct=False)],
        "teacher-dependent",
        "the right one asked in vain",
    ),
    ([alone(is_correct=False), alone(is_correct=False)], "", "none is right, but no teacher was asked"),
    ([record(is_correct=False)], "", "one response says nothing"),
    ([alone(condition="student alone", is_correct=False), record()], "teacher-dependent", "of two conditions together"),
    ([alone(condition="student alone"), record(is_correct=False)], "student-solvable", "and not the relay's alone"),
    (
        [record(is_correct=False), record(condition="teacher alone", calls=[])],
        "teacher-dependent",
        "the teacher alone is right",
    ),
    ([record(is_correct=False), alone(condition="student alone", is_correct=False)], "teacher-unsolvable", "together"),
]


@pytest.mark.parametrize(("samples", "scenario", "why"), SCENARIOS, ids=[case[2] for case in SCENARIOS])
def test_scenario_of_a_question(samples: list[ResponseRecord], scenario: str, why: str, tmp_path: Path) -> None:
    write_page(samples, tmp_path / "page.html", "title")
    assert {entry["scenario"] for entry in entries_of(tmp_path / "page.html")} == {scenario}


def test_scenarios_keep_conditions_benchmarks_and_questions_apart(tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [{"condition": "c", "is_correct": False}, {"benchmark": "b"}, {"id": "i"}]
    records = [record(), *(alone(**other) for other in others), record(sample=1, is_correct=False)]
    assert write_page(records, tmp_path / "page.html", "title", limit_per_condition=1) == 3
    entries = entries_of(tmp_path / "page.html")
    assert [(e["scenario"], e["right"], e["samples"]) for e in entries] == [
        ("teacher-dependent", 1, 2),  # the second sample is not shown, but counts
        ("teacher-dependent", 0, 1),  # a single sample: of both conditions together
        ("", 1, 1),  # nothing else is known of its question
    ]


def test_steps_of_a_training_are_not_put_together(tmp_path: Path) -> None:
    steps = [record(condition="step 1", is_correct=False), alone(condition="step 2")]
    write_page(steps, tmp_path / "page.html", "title", is_training=True)
    assert [entry["scenario"] for entry in entries_of(tmp_path / "page.html")] == ["", ""]


JUDGES = [
    (None, True, None, "not asked"),
    (True, True, "agrees", "both say right"),
    (False, False, "agrees", "both say wrong"),
    (True, False, "disagrees", "only the judge says right"),
    (False, True, "disagrees", "only the rule says right"),
    ("?", True, "none", "the judge gave no verdict"),
]


@pytest.mark.parametrize(("judged", "is_correct", "view", "why"), JUDGES, ids=[case[3] for case in JUDGES])
def test_what_the_judge_says_of_the_rule(judged: Any, is_correct: bool, view: Any, why: str, tmp_path: Path) -> None:
    judge: JudgeText | None = None
    if judged is not None:
        judge = {"is_correct": None if judged == "?" else judged, "reply": "Yes.", "error": "late"}
    write_page([record(is_correct=is_correct, judge=judge)], tmp_path / "page.html", "title")
    (entry,) = entries_of(tmp_path / "page.html")
    assert entry["judge"] == (judge and {**judge, "view": view})


SHORT = [
    ([call("served", 2, 2)], False, "it got all"),
    ([call("served", 9, 2)], True, "it got less"),
    ([call("failed", 9)], True, "it got nothing"),
    ([call("zero")], False, "it asked for nothing"),
    ([], True, "its command came when the response was full"),
    ([call("served", 9, 2) | {"has_command": False}, call("served", 2, 2)], False, "only the baseline's call got less"),
]


@pytest.mark.parametrize(("calls", "is_short", "why"), SHORT, ids=[case[2] for case in SHORT])
def test_who_asked_for_more_than_it_got(calls: list[CallText], is_short: bool, why: str, tmp_path: Path) -> None:
    write_page([record(calls=calls)], tmp_path / "page.html", "title")
    assert entries_of(tmp_path / "page.html")[0]["short"] is is_short


CUTS = [
    ([student("a<call>9</call>"), teacher("b", 2), student("c")], [(9, 2)], ["call limit"], "the response continues"),
    ([student("a<call>9</call>"), teacher("b", 2)], [(9, 2)], ["response full"], "nothing follows"),
    ([student("a<call>9</call>"), teacher("b<|im_end|>", 2)], [(9, 2)], ["end of text"], "the teacher ended it"),
    ([student("a<call>2</call>"), teacher("b", 2), student("c")], [(2, 2)], [None], "it got all"),
    (
        [student("a<call>9</call>"), teacher("b", 2), student("<call>9</call>"), teacher("c", 4), student("d")],
        [(9, 2), (9, 4)],
        ["teacher stopped", "call limit"],
        "another call got more",
    ),
]


@pytest.mark.parametrize(("segments", "calls", "cuts", "why"), CUTS, ids=[case[3] for case in CUTS])
def test_a_call_that_got_less_says_why(segments: Any, calls: Any, cuts: list[str | None], why: str) -> None:
    made = record(segments=segments, calls=[call("served", asked, got) for asked, got in calls])
    assert [piece.get("cut") for piece in make_pieces(made) if piece["kind"] == "call"] == cuts


ENDS = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>", "<end_of_turn>", "<|im_end|>\n", "<|im_end|><|endoftext|>"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("author", [student, teacher])
def test_the_token_that_ends_a_text_is_a_piece_of_its_own(author: Any, end: str) -> None:
    made = record(segments=[student("ask"), author(f"That is all.{end}")], calls=[])
    *others, last = make_pieces(made)
    assert (last["kind"], last["text"]) == ("end", end)
    assert "".join(piece["text"] for piece in [*others, last]) == made.text
    assert not any(end in piece["text"] for piece in others)


@given(st.lists(st.sampled_from(["<|im_end|>", "<call>3</call>", "x", "</s>", "\n", "<|im_end"]), max_size=6))
def test_pieces_joined_are_the_response(parts: list[str]) -> None:
    made = record(segments=[student("".join(parts)), teacher("".join(reversed(parts)))], calls=[call("served", 3, 1)])
    assert "".join(piece["text"] for piece in make_pieces(made)) == made.text


def test_every_call_says_what_it_asked_for_and_got() -> None:
    full, less = make_pieces(record())[1], make_pieces(record(calls=[call("served", 20, 2)]))[1]
    assert (full["note"], full["tip"]) == ("2 of 2", "asked 2, delivered 2 tokens, 0.25 s")
    assert (less["note"], less["tip"]) == ("2 of 20", "asked 20, delivered 2 tokens, 0.25 s")


def test_calls_without_a_command_stand_before_their_tokens() -> None:
    """A baseline calls at token 0, in vain at token 8, and at token 12; the student's own command stands between."""

    def uncommanded(outcome: str, asked: int, delivered: int, position: int) -> CallText:
        return call(outcome, asked, delivered) | {"has_command": False, "position": position}

    made = record(
        segments=[teacher("ab", 3), student("c<call>4</call>", 5), student("d", 4), teacher("e", 2), student("f", 1)],
        calls=[
            uncommanded("served", 5, 3, 0),
            call("failed", 4),
            uncommanded("failed", 6, 0, 8),
            uncommanded("served", 2, 2, 12),
        ],
    )
    pieces = make_pieces(made)
    assert "".join(piece["text"] for piece in pieces) == made.text
    assert [(p["kind"], p["text"] or p["note"]) for p in pieces] == [
        ("call", "3 of 5"),
        ("teacher", "ab"),
        ("student", "c"),
        ("call", "<call>4</call>"),
        ("student", "d"),
        ("call", "failed"),
        ("call", "2 of 2"),
        ("teacher", "e"),
        ("student", "f"),
    ]
    assert pieces[0]["tip"] == "no command of the student's: asked 5, delivered 3 tokens, 0.25 s"
    assert pieces[3]["note"] == "failed"
