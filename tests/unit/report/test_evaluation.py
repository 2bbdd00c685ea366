"""Records, table, curves and page of an evaluation."""

import json
import math
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from relay_verl.grading import Verdict, VerdictStatus
from relay_verl.pages.page import make_pieces, write_page
from relay_verl.report.curves import NUM_STEPS_TO_SMOOTH, PANELS, plot_curves, read_log
from relay_verl.report.summary_table import gap_recovered, summaries_to_markdown, summarize
from relay_verl.traces.records import ResponseRecord, decode_parts, read_records, write_records
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment
from tests.helpers.records import alone, call, record, student, teacher

HOSTILE = "</script><b>\"'&amp;<!-- \u2028\u2029\x85\x0b\r\n{{ 7 * 7 }} {% raw %} 日本 \x00 |"


# ---- records ----


def test_a_record_of_a_trajectory() -> None:
    trajectory = RelayTrajectory(
        prompt_ids=[1],
        segments=[Segment("student", [97, 98], [-0.1, -0.2]), Segment("teacher", [99]), Segment("student", [100])],
        status=RelayStatus.COMPLETED,
        calls=[
            CallRecord(CallOutcome.FAILED, 9, 0, 1, 2.0, "refused"),
            CallRecord(CallOutcome.SERVED, 5, 1, 2, 0.5, num_context=20, num_cached=16),
            CallRecord(CallOutcome.MALFORMED),
        ],
    )
    made = ResponseRecord.of(
        trajectory,
        Verdict(False, None, VerdictStatus.NO_ANSWER),
        condition="relay",
        benchmark="tiny/mul",
        id="7",
        question="q",
        ground_truth="56",
        started_at=2.0,
        latency_s=np.float32(1.5),  # type: ignore[arg-type]
        join=bytes,
    )
    assert made.segments == [student("ab", 2), teacher("c", 1), student("d", 1)]
    assert [c["outcome"] for c in made.calls] == ["failed", "served", "malformed"]
    assert made.calls[1] == {
        "outcome": "served",
        "num_requested": 5,
        "num_delivered": 1,
        "position": 2,
        "latency_s": 0.5,
        "num_context": 20,
        "num_cached": 16,
        "has_command": True,
    }
    assert (made.status, made.is_correct, made.answer, made.grading) == ("completed", False, None, "no_answer")
    assert (made.num_tokens, made.num_teacher_tokens, made.num_calls, made.latency_s) == (4, 1, 1, 1.5)
    assert (made.text, made.call_ratio, made.has_called, made.is_completed) == ("abcd", 0.25, True, True)
    assert ResponseRecord.from_json(made.to_json()) == made


def test_round_trip_of_hostile_text(tmp_path: Path) -> None:
    records = [record(id=HOSTILE, question=HOSTILE, answer=HOSTILE, segments=[student(HOSTILE)]), record(answer=None)]
    assert all(r.to_json().isascii() and len(r.to_json().splitlines()) == 1 for r in records)
    path = tmp_path / "new" / "records.jsonl"
    write_records(path, records)
    assert read_records(path) == records
    write_records(path, records[:1])
    assert read_records(path) == records[:1]
    assert [p.name for p in path.parent.iterdir()] == ["records.jsonl"]  # no temporary file stays behind


def test_a_record_without_a_task_is_what_it_was_before_there_were_tasks() -> None:
    assert "task" not in json.loads(record().to_json())
    assert ResponseRecord.from_json(record().to_json()) == record()
    of_bbeh = record(task="boardgame qa")
    assert json.loads(of_bbeh.to_json())["task"] == "boardgame qa"
    assert ResponseRecord.from_json(of_bbeh.to_json()) == of_bbeh


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [record()])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_records(path, [record(latency_s=math.nan)])
    assert read_records(path) == [record()]
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def edited(**changes: Any) -> str:
    return json.dumps(json.loads(record().to_json()) | changes)


BAD_LINES = [
    ("{", "Invalid JSON", "cut short"),
    ("", "Invalid JSON", "a blank line"),
    ("[]", "should be an object", "no object"),
    (edited(extra=1), "extra: ", "an unknown field"),
    (json.dumps({"condition": "relay"}), "benchmark: ", "a missing field"),
    (edited(num_tokens="10"), "num_tokens: ", "a text for a number"),
    (edited(is_correct=1), "is_correct: ", "a number for a truth value"),
    (edited(latency_s=math.nan), "latency_s: ", "NaN"),
    (edited(segments=[{"source": "judge", "text": "", "num_tokens": 0}]), "segments.0.source: ", "an unknown writer"),
    (edited(calls=[{"outcome": "served"}]), "calls.0.num_requested: ", "half a call"),
]


@pytest.mark.parametrize(("line", "message", "why"), BAD_LINES, ids=[case[2] for case in BAD_LINES])
def test_a_bad_line_is_named(line: str, message: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{record().to_json()}\n{line}\n")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}, line 2: .*{message}") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)


# ---- the table ----


def three_conditions() -> list[ResponseRecord]:
    return [
        alone(condition="student alone", benchmark="tiny/add"),
        alone(condition="student alone", is_correct=False),
        alone(condition="student alone", is_correct=False),
        alone(condition="student alone", is_correct=False),
        alone(condition="student alone"),
        record(),  # rho = 0.2
        record(num_tokens=30, num_teacher_tokens=15, is_correct=False, status="student_failed"),  # rho = 0.5
        record(calls=[call("failed", 3)], num_calls=0, num_teacher_tokens=0),  # asked in vain: it called, rho = 0
        alone(),
        alone(condition="teacher alone"),
    ]


def test_summary_computed_by_hand() -> None:
    of_student, relay, of_teacher = summarize(three_conditions())
    assert [s.condition for s in (of_student, relay, of_teacher)] == ["student alone", "relay", "teacher alone"]
    assert of_student.accuracy == {"tiny/add": 1.0, "tiny/mul": 0.25}
    assert of_student.overall_accuracy == pytest.approx(2 / 5)  # over responses
    assert of_student.mean_accuracy == pytest.approx((1.0 + 0.25) / 2)  # over benchmarks
    assert of_student.call_rate == {"tiny/add": 0.0, "tiny/mul": 0.0}
    assert (of_student.call_ratio, of_student.pooled_call_ratio) == (0.0, 0.0)
    assert (relay.num_responses, relay.num_failed) == (4, 1)
    assert relay.accuracy == {"tiny/mul": 0.75}
    assert relay.call_rate == {"tiny/mul": 0.75}
    assert relay.overall_call_rate == 0.75
    assert relay.call_ratio == pytest.approx((0.2 + 0.5 + 0.0 + 0.0) / 4)
    assert relay.pooled_call_ratio == pytest.approx((2 + 15) / (10 + 30 + 10 + 10))
    assert relay.average_call_ratio == relay.pooled_call_ratio, "one benchmark"
    two = summarize([*three_conditions()[5:9], alone(condition="relay", benchmark="tiny/add")])[0]
    assert two.average_call_ratio == pytest.approx((17 / 60 + 0) / 2)
    assert two.pooled_call_ratio == pytest.approx(17 / 70)


def test_empty_responses_have_a_call_ratio_of_zero() -> None:
    (summary,) = summarize([alone(segments=[], num_tokens=0)])
    assert (summary.call_ratio, summary.pooled_call_ratio) == (0.0, 0.0)
    assert summarize([]) == []


def cells_of(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines()]


def test_markdown() -> None:
    markdown = summaries_to_markdown(
        summarize(three_conditions()), {"tiny/add": "add", "tiny/mul": "mul", "relay": "RelayLLM"}
    )
    header, rule, of_student, relay, of_teacher = cells_of(markdown)
    assert header == [
        "condition",
        "add accuracy by rule (%)",
        "mul avg@1/4 accuracy by rule (%)",
        "average accuracy by rule (%)",
        "add call rate (%)",
        "mul call rate (%)",
        "average call ratio (%)",
        "pooled call ratio (%)",
        "mean call ratio (%)",
        "responses",
        "not completed",
    ]
    assert rule[0].startswith(":-") and all(cell.endswith("-:") for cell in rule[1:])
    assert of_student == ["student alone", "100.0", "25.0", "62.5", "0.0", "0.0", "0.00", "0.00", "0.00", "5", "0"]
    # an average over fewer benchmarks is not one to compare
    assert relay == ["RelayLLM", "–", "75.0", "–", "–", "75.0", "–", "28.33", "17.50", "4", "1"]
    assert of_teacher == ["teacher alone", "–", "100.0", "–", "–", "0.0", "–", "0.00", "0.00", "1", "0"]
    assert len({len(line) for line in markdown.splitlines()}) == 1  # aligned as text, too


def test_markdown_of_hostile_names_stays_a_table() -> None:
    header, _, row = cells_of(summaries_to_markdown(summarize([alone(condition="a|b\nc")])))
    assert row[0] == "a\\|b c"
    assert header == [
        "condition",
        "tiny/mul accuracy by rule (%)",
        "tiny/mul call rate (%)",
        "pooled call ratio (%)",
        "mean call ratio (%)",
        "responses",
    ]  # one benchmark needs no average; all are completed


def test_accuracy_by_judge_is_shown_where_every_response_has_its_verdict() -> None:
    says = {"reply": "", "error": ""}
    judged = [record(id=str(i), judge={"is_correct": i > 0, **says}) for i in range(4)]
    header, _, row = cells_of(summaries_to_markdown(summarize(judged)))
    cells = dict(zip(header, row, strict=True))
    assert cells["tiny/mul accuracy by rule (%)"] == "100.0"
    assert cells["tiny/mul accuracy by judge (%)"] == "75.0"
    for unheard in (record(id="5"), record(id="5", judge={"is_correct": None, **says})):
        assert not any("judge" in cell for cell in cells_of(summaries_to_markdown(summarize([*judged, unheard])))[0])
    assert not any(
        "judge" in cell for cell in cells_of(summaries_to_markdown(summarize([record(benchmark="bbeh")])))[0]
    )


def test_bbeh_shows_its_official_score_where_tasks_are_known() -> None:
    records = [alone(benchmark="bbeh", id=str(i), task="ab"[i % 2], is_correct=i % 2 == 0) for i in range(4)]
    header, _, row = cells_of(summaries_to_markdown(summarize(records)))
    cells = dict(zip(header, row, strict=True))
    assert cells["bbeh accuracy by rule (%)"] == "50.0"
    assert cells["bbeh harmonic mean accuracy by rule (%)"] == "2.0"  # 2 / (1/101 + 1/1)
    without = cells_of(summaries_to_markdown(summarize([*records, alone(benchmark="bbeh", id="9")])))[0]
    assert not any("harmonic" in cell for cell in without)


def test_gap_recovered() -> None:
    summaries = summarize(three_conditions())
    roles = {"student": "student alone", "teacher": "teacher alone", "relay": "relay"}
    assert gap_recovered(summaries, **roles, benchmark="tiny/mul") == pytest.approx((0.75 - 0.25) / (1.0 - 0.25))
    assert math.isnan(gap_recovered(summaries, **roles | {"student": "teacher alone"}, benchmark="tiny/mul"))
    with pytest.raises(ValueError, match="relay: 'x' is not one of 'student alone', 'relay', 'teacher alone'"):
        gap_recovered(summaries, **roles | {"relay": "x"}, benchmark="tiny/mul")
    with pytest.raises(ValueError, match="benchmark: 'tiny/add' is not one of 'tiny/mul', the benchmarks of 'teacher"):
        gap_recovered(summaries, **roles, benchmark="tiny/add")


# ---- curves ----


def write_log(path: Path, num_steps: int = 12, tail: str = "", metrics: Any = None) -> Path:
    names = [series.metric for panel in PANELS for series in panel.series] if metrics is None else metrics
    steps = [{"step": s, "data": dict.fromkeys(names, s / (num_steps * 3))} for s in range(1, num_steps + 1)]
    path.write_text("".join(f"{json.dumps(step)}\n" for step in steps) + tail)
    return path


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path / "log.jsonl", 2, '{"step": 3, "data": {"relay/acc', ["a"]))
    assert log == {1: {"a": 1 / 6}, 2: {"a": 2 / 6}}


def test_lines_of_one_step_are_merged(tmp_path: Path) -> None:
    lines = [{"step": 1, "data": {"a": 0.0}}, {"step": 2, "data": {"a": 1.0}}, {"step": 2, "data": {"b": 3.0}}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))  # the last line is whole without its break
    assert list(read_log(tmp_path / "log.jsonl").items()) == [(1, {"a": 0.0}), (2, {"a": 1.0, "b": 3.0})]


def test_a_run_that_was_resumed_has_no_step_of_the_attempt_before(tmp_path: Path) -> None:
    """It logged 4 steps, was resumed behind step 1 and has come to step 3 (wandb#6728)."""
    steps = [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (2, 0.9), (3, 0.95)]
    lines = [{"step": step, "data": {"relay/accuracy": value, f"old/{i}": 1}} for i, (step, value) in enumerate(steps)]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    log = read_log(tmp_path / "log.jsonl")
    assert {step: data["relay/accuracy"] for step, data in log.items()} == {1: 0.1, 2: 0.9, 3: 0.95}
    assert "old/1" not in log[2], "nothing of the abandoned step is left in it"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_a_log_ends_with_the_step_that_was_logged_last(steps: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_text("".join(json.dumps({"step": s, "data": {"n": i}}) + "\n" for i, s in enumerate(steps)))
        log = read_log(path)
    assert list(log) == sorted(log)
    assert list(log)[-1] == steps[-1]
    numbers = [data["n"] for data in log.values()]
    assert numbers == sorted(numbers), "no step is of an attempt that a later one abandoned"


BAD_LOGS = [
    ('{"step": 1}\n{"step": 2, "data": {}}\n', r"log\.jsonl, line 1: ", "a line without data"),
    ('{"step": 1, "data": {}}\nrubbish\n', r"log\.jsonl, line 2: ", "a last line that is whole and bad"),
    ("[]\n{}", r"log\.jsonl, line 1: ", "not an object"),
    ("", "no step is logged yet", "empty"),
    ('{"step', "no step is logged yet", "the first line is half written"),
]


@pytest.mark.parametrize(("text", "message", "why"), BAD_LOGS, ids=[case[2] for case in BAD_LOGS])
def test_a_bad_log_is_named(text: str, message: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        plot_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_one_run_makes_a_png_and_an_svg(tmp_path: Path) -> None:
    out = tmp_path / "pictures" / "curves.png"
    plot_curves(write_log(tmp_path / "log.jsonl", tail='{"st'), out, "A <title> & $more$ {")
    assert sorted(p.name for p in out.parent.iterdir()) == ["curves.png", "curves.svg"]
    pixels = imread(out)
    assert pixels.shape[0] > 600 and pixels.shape[1] > 1000
    coloured = pixels[..., :3].max(axis=2) - pixels[..., :3].min(axis=2) > 0.3
    assert coloured.mean() > 0.01  # lines and areas, next to the grey frame
    first = out.with_suffix(".svg").read_bytes()
    plot_curves(tmp_path / "log.jsonl", out, "A <title> & $more$ {")
    assert out.with_suffix(".svg").read_bytes() == first  # the same log gives the same picture


def test_runs_of_different_length_and_metrics_lie_on_top_of_each_other(tmp_path: Path) -> None:
    logs = {
        "relay": write_log(tmp_path / "a.jsonl"),
        "one step": write_log(tmp_path / "b.jsonl", 1),
        "no relay": write_log(tmp_path / "c.jsonl", 30, metrics=["critic/score/mean"]),
        "null": write_log(tmp_path / "d.jsonl", 1, '{"step": 2, "data": {"relay/accuracy": null, "x": "text"}}\n'),
    }
    plot_curves(logs, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 20_000


def test_a_log_without_relay_metrics_is_drawn(tmp_path: Path) -> None:
    plot_curves(write_log(tmp_path / "log.jsonl", 1, metrics=["perf/time"]), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_curves({}, tmp_path / "none.png")


RUNS = [(1, True), (10, True), (NUM_STEPS_TO_SMOOTH - 1, True), (NUM_STEPS_TO_SMOOTH, False), (200, False)]


@pytest.mark.parametrize(("num_steps", "is_as_it_was"), RUNS)
def test_a_short_run_is_drawn_as_it_was(
    num_steps: int, is_as_it_was: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = [series.metric for panel in PANELS for series in panel.series]
    values = [float(step % 2) / 3 for step in range(1, num_steps + 1)]
    log = [{"step": i, "data": dict.fromkeys(metrics, value)} for i, value in enumerate(values, start=1)]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in log))
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    panels = {axis.get_title(loc="left"): axis for axis in drawn[0].axes}
    lines = [line for line in panels["Accuracy"].lines if line.get_linestyle() != "None"]
    assert len(lines) == 1
    assert (list(lines[0].get_ydata()) == values) is is_as_it_was
    assert (lines[0].get_marker() == "o") is is_as_it_was
    assert len(panels["Scenarios"].patches) == (3 * num_steps if is_as_it_was else 0), "a bar a step, or areas"
    low, high = panels["Accuracy"].get_xlim()
    assert (low < 1 and high > num_steps) or not is_as_it_was, "no point is cut"


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", 2)
    code = (
        "import sys, pathlib; import relay_verl.pages.page, relay_verl.traces.records\n"
        "from relay_verl.report import curves, summary_table\n"
        f"curves.plot_curves(pathlib.Path({str(log)!r}), pathlib.Path({str(tmp_path / 'c.png')!r}))\n"
        "sys.exit(not {'matplotlib.pyplot', 'torch', 'verl', 'ray', 'sympy'}.isdisjoint(sys.modules))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=120).returncode == 0


# ---- the page ----


class Page(HTMLParser):
    """What an HTML parser sees of a page: its tags, its text, its data."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[str] = []
        self.text, self._json = "", ""
        self.links: list[str] = []
        self._is_data = False
        self.feed(path.read_text(encoding="utf-8"))
        self.data = json.loads(self._json, parse_constant=lambda name: pytest.fail(f"{name} is not a JSON"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self._is_data = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        if self._is_data:
            self._json += data
        elif self.tags and self.tags[-1] not in ("script", "style"):
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._is_data = False


def test_the_page_carries_every_response(tmp_path: Path) -> None:
    write_page(three_conditions(), tmp_path / "new" / "page.html", "Samples", names={"tiny/mul": "products"})
    page = Page(tmp_path / "new" / "page.html")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]
    assert page.links == [] and "url(" not in (tmp_path / "new" / "page.html").read_text()  # nothing from outside
    assert len(page.data["responses"]) == 10
    assert page.data["names"] == {"tiny/mul": "products"}
    relayed = page.data["responses"][5]
    assert [(piece["kind"], piece["text"]) for piece in relayed["pieces"]] == [
        ("student", "7*8="),
        ("call", "<call>2</call>"),
        ("teacher", "56"),
        ("student", " \\boxed{56}"),
    ]
    assert relayed["bar"] == [["student", 6], ["teacher", 2], ["student", 2]]
    assert [r["verdict"] for r in page.data["responses"][4:8]] == ["correct", "correct", "not completed", "correct"]
    assert [r["called"] for r in page.data["responses"][4:9]] == [False, True, True, True, False]
    words = page.text.split()
    assert {"Samples", "17.50", "28.33", "products", "completed"} <= set(words)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    harmless, hostile = tmp_path / "harmless.html", tmp_path / "hostile.html"
    nasty = record(
        condition=HOSTILE,
        benchmark=HOSTILE,
        id=HOSTILE,
        question=HOSTILE,
        ground_truth=HOSTILE,
        answer=HOSTILE,
        segments=[student(HOSTILE), teacher(HOSTILE)],
    )
    write_page([record()], harmless, "title")
    write_page([nasty], hostile, HOSTILE, names={HOSTILE: HOSTILE})
    page = Page(hostile)
    assert page.tags == Page(harmless).tags  # nothing became markup
    (shown,) = page.data["responses"]
    assert [shown[key] for key in ("condition", "benchmark", "id", "question", "truth", "answer")] == [HOSTILE] * 6
    assert [piece["text"] for piece in shown["pieces"]] == [HOSTILE, HOSTILE]
    assert "{{ 7 * 7 }}" in page.text  # a title is not a template


def test_the_script_writes_text_nodes_only(tmp_path: Path) -> None:
    write_page([record()], tmp_path / "page.html", "title")
    html = (tmp_path / "page.html").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html)


def test_limit_per_condition_and_benchmark(tmp_path: Path) -> None:
    records = [alone(condition=c, benchmark=b, id=str(i)) for i in range(3) for c in "xy" for b in "pq"]
    write_page(records, tmp_path / "page.html", "title", limit_per_condition=2)
    page = Page(tmp_path / "page.html")
    assert [r["id"] for r in page.data["responses"]] == ["0"] * 4 + ["1"] * 4
    assert "12 responses, of which 8 are" in page.text
    assert page.text.split().count("6") == 4  # both forms of the table count all responses of each condition


def test_nan_never_reaches_the_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_page([record(latency_s=math.nan)], tmp_path / "page.html", "title")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_evaluation_is_a_page(tmp_path: Path) -> None:
    write_page([], tmp_path / "page.html", "title")
    assert Page(tmp_path / "page.html").data["responses"] == []


VERDICTS = [
    ({"is_correct": True}, "correct", "right"),
    ({"is_correct": False}, "wrong", "judged"),
    ({"is_correct": False, "grading": "no_answer"}, "no answer", "nothing to judge"),
    ({"is_correct": False, "grading": "timeout"}, "timeout", "not judged in time"),
    ({"is_correct": False, "status": "teacher_failed"}, "not completed", "cut off"),
]


@pytest.mark.parametrize(("changes", "verdict", "why"), VERDICTS, ids=[case[2] for case in VERDICTS])
def test_verdicts(changes: dict[str, Any], verdict: str, why: str, tmp_path: Path) -> None:
    write_page([record(**changes)], tmp_path / "page.html", "title")
    assert Page(tmp_path / "page.html").data["responses"][0]["verdict"] == verdict


def test_every_command_is_told_its_fate() -> None:
    made = record(
        segments=[
            student("<call>0</call> <call>x</call> <call>9</call><call>20</call>.", 30),
            teacher("<call>1</call> in the teacher's text is not a command", 12),
            student("<call>5</call> <call>7</call>", 12),
        ],
        calls=[call("zero"), call("failed", 9), call("served", 20, 12), call("malformed"), call("over_limit", 5)],
    )
    pieces = make_pieces(made)
    assert "".join(piece["text"] for piece in pieces) == made.text
    assert [(p["text"], p["tip"], p["note"]) for p in pieces if p["kind"] == "call"] == [
        ("<call>0</call>", "asked 0, delivered 0 tokens: nothing to ask for", "zero"),
        ("<call>9</call>", "asked 9, delivered 0 tokens: the teacher failed", "failed"),
        ("<call>20</call>", "asked 20, delivered 12 tokens, 0.25 s", "12 of 20"),
        ("<call>5</call>", "asked 5, delivered 0 tokens: no call was left or allowed", "over limit"),
        ("<call>7</call>", "asked 7, delivered 0 tokens: the response was full", "not served"),
    ]
    assert [p["tip"] for p in pieces if p["kind"] == "teacher"] == ["teacher: 12 tokens"]


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=6))
def test_a_character_cut_between_authors_is_whole_in_the_text(parts: list[bytes]) -> None:
    """As where a call ends in the middle of one: each segment decoded by itself shows two replacement characters."""
    assert "".join(decode_parts(parts)) == b"".join(parts).decode("utf-8", errors="replace")
    assert len(decode_parts(parts)) == len(parts)


def test_a_record_of_a_character_that_both_authors_wrote() -> None:
    first, second, third = b"\xe4\xb8\xad", b"\xc3\xa9", b"\xf0\x9f"
    segments = [
        Segment("student", [*first[:1]]),
        Segment("teacher", [*first[1:], *second[:1]]),
        Segment("student", [*second[1:], *third]),
    ]
    made = ResponseRecord.of(
        RelayTrajectory([1], segments, RelayStatus.COMPLETED),
        Verdict(False, None, VerdictStatus.NO_ANSWER),
        **dict.fromkeys(("condition", "benchmark", "id", "question", "ground_truth"), "x"),  # type: ignore[arg-type]
        started_at=0.0,
        latency_s=0.0,
        join=bytes,
    )
    assert [segment["text"] for segment in made.segments] == ["", "中", "é\ufffd"]
    assert made.num_teacher_tokens == 3
