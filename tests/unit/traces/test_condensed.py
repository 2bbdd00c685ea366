"""Results as small data files: what they keep, and that an edited one or one of other questions is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.errors import UserError
from relay_verl.report import write_report
from relay_verl.report.statistics import accuracy, average_call_ratio, call_rate
from relay_verl.traces.condensed import condense
from relay_verl.traces.question_table import QUESTIONS, find_questions, read_questions, write_questions
from relay_verl.traces.records import ResponseRecord, write_records
from relay_verl.traces.results import MANIFEST, RESPONSES, find_results, read_result
from relay_verl.traces.sealed import read_sealed, seal
from tests.helpers.made_results import keep_result, world, write_result
from tests.helpers.records import call, student, teacher

WORLD = world(20)


def relay(number: int) -> tuple[bool, int, int]:
    return number % 3 == 0, 40 + number, number % 4


def write(tmp_path: Path, **changes: object) -> Path:
    return write_result(tmp_path / "results" / "relay-1", WORLD, "relay", relay, seed=1, **changes)


def kept_of(record: ResponseRecord) -> ResponseRecord:
    """What a data file keeps of a record."""
    calls = [{**one, "latency_s": 0.0, "num_context": 0, "num_cached": None} for one in record.calls]
    segments = [{**one, "text": ""} for one in record.segments]
    return replace(
        record,
        condition="relay learned",
        question="",
        ground_truth="",
        answer=None,
        segments=segments,
        calls=calls,
        num_prompt_tokens=0,
        latency_s=0.0,
    )


def test_a_data_file_has_all_that_tables_count(tmp_path: Path) -> None:
    folder = write(tmp_path)
    file = keep_result(tmp_path / "data", WORLD, folder)
    assert file.name == "relay-1.learned.teacher.csv"
    whole, small = read_result(folder), read_result(file)
    assert [kept_of(record) for record in whole.records] == list(small.records)
    for measure in (accuracy, average_call_ratio, call_rate):
        names = ["tiny/add", "tiny/mul"]
        assert measure([small.records], names).value == measure([whole.records], names).value
    assert (small.row, small.training_seed, small.policy) == ("tiny/relay", 1, "learned")
    assert (small.job["student_sha256"], small.job["student"]) == ("relay1", "relay"), "no path of this machine"
    assert small.responses_sha256 == whole.responses_sha256
    assert small.is_condensed and not whole.is_condensed


def test_calls_that_were_not_served_or_cut_short_are_kept(tmp_path: Path) -> None:
    folder = write(tmp_path)
    records = list(read_result(folder).records)
    calls = [
        call("malformed") | {"position": 0},
        call("served", 9, 4) | {"position": 5},
        call("over_limit", 3) | {"position": 0},
    ]
    segments = [student("a", 5), teacher("b", 4), student("c", 3)]
    records[0] = replace(records[0], calls=calls, segments=segments, num_tokens=12, num_teacher_tokens=4, num_calls=1)
    records[1] = replace(records[1], status="student_failed", is_correct=False, error="the prompt fills the context")
    write_records(folder / RESPONSES, records)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["output_sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    first, second, *_ = read_result(keep_result(tmp_path / "data", WORLD, folder)).records
    assert first == kept_of(records[0])
    assert not second.is_completed and not second.is_correct


def test_a_report_is_made_of_data_files_alone(tmp_path: Path) -> None:
    file = keep_result(tmp_path / "data", WORLD, write(tmp_path))
    of_folder = write_report([tmp_path / "results"], tmp_path / "one")
    of_file = write_report([file.parent], tmp_path / "other")
    line = next(line for line in of_file.splitlines() if line.startswith("| trained relay"))
    assert (
        line.split("|")[2:6]
        == next(other for other in of_folder.splitlines() if other.startswith("| trained relay")).split("|")[2:6]
    )
    assert "What it took" not in of_file, "a data file does not say"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_was_edited_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = seal({"job": {"row": "tiny/relay"}, "n": 2}, "right,tokens\n1,40\n0,41\n")
    path = tmp_path / "file.csv"
    place = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.sampled_from([byte for byte in b'01ab,"\n' if byte != content[place]]))
    path.write_bytes(content[:place] + bytes([other]) + content[place + 1 :])
    with pytest.raises(UserError, match=r"file\.csv"):
        read_sealed(path)


def test_an_edited_line_is_refused_by_name(tmp_path: Path) -> None:
    file = keep_result(tmp_path / "data", WORLD, write(tmp_path))
    file.write_text(file.read_text().replace("\n0,", "\n1,", 1))
    with pytest.raises(UserError, match=rf"{file.name} was edited after it was written"):
        read_result(file)


def test_edited_responses_are_refused_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path)
    path = folder / RESPONSES
    path.write_text(path.read_text().replace('"is_correct": false', '"is_correct": true', 1))
    with pytest.raises(UserError, match=r"responses\.jsonl was edited after it was written"):
        read_result(folder)


def test_responses_to_another_version_of_the_questions_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, benchmarks={"tiny": {"sha256": "0" * 64, "num_samples": 1}})
    with pytest.raises(UserError, match=r"relay-1: benchmarks\.tiny\.sha256: 0+: expected [0-9a-f]{64}"):
        condense(read_result(folder), WORLD, tmp_path / "data")
    file = keep_result(tmp_path / "data", WORLD, write(tmp_path / "whole"))
    write_questions(file.parent, replace(WORLD, world={"tiny": "1" * 64}))
    with pytest.raises(UserError, match=r"benchmarks\.tiny\.sha256: .* another version"):
        read_result(file)


def test_responses_to_fewer_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny/.*/q-\d+: expected responses to the same questions"):
        condense(read_result(write(tmp_path)), replace(world(21), world=WORLD.world), tmp_path / "data")


def test_a_result_without_a_row_has_no_data_file(tmp_path: Path) -> None:
    result = read_result(write(tmp_path))
    without = replace(result, manifest={**result.manifest, "job": {**result.job, "row": None}})
    with pytest.raises(UserError, match="row: null"):
        condense(without, WORLD, tmp_path / "data")


def test_questions_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = write_questions(tmp_path, WORLD)
    assert read_questions(path) == WORLD
    assert WORLD.facts["grade"][:5] == [1, 2, 3, 4, 5]
    assert set(WORLD.facts) == {"family", "grade", "needed"}
    assert find_questions([tmp_path]) == WORLD
    write_questions(tmp_path / "other", replace(WORLD, world={"tiny": "1" * 64}))
    with pytest.raises(UserError, match="two versions of the questions"):
        find_questions([tmp_path])


def test_data_files_and_folders_are_found(tmp_path: Path) -> None:
    folder = write(tmp_path)
    file = keep_result(tmp_path / "data", WORLD, folder)
    (tmp_path / "results" / "frontier.csv").write_text("not,ours\n")
    assert find_results([tmp_path]) == [file, folder]
    assert find_results([file]) == [file]
    assert find_results([tmp_path], needs_texts=True) == [folder]
    with pytest.raises(UserError, match="data holds no results"):
        find_results([file.parent], needs_texts=True)


def test_the_command_condenses_and_says_how_small(tmp_path: Path) -> None:
    questions = tmp_path / "test.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{n}+1?", "answer": str(n + 1)}) + "\n" for n in range(5)))
    from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
    from relay_verl.traces.question_table import facts_of

    facts = facts_of({"gsm8k": load_benchmark(find_benchmark("gsm8k"), questions)})
    write_result(tmp_path / "results", facts, "relay", relay, seed=2)
    words = ["condense", str(tmp_path / "results"), "--out", str(tmp_path / "data"), "--source", f"gsm8k={questions}"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [QUESTIONS, "relay-2.learned.teacher.csv"]
