"""Results folders: which there are, and that only whole ones are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from relay_verl.errors import UserError
from relay_verl.traces.records import write_records
from relay_verl.traces.results import MANIFEST, RESPONSES, find_results, read_result
from tests.helpers.records import record

JOB = {
    "kind": "eval",
    "student": "models/student",
    "teacher": "models/teacher",
    "teacher_name": "big",
    "policy": "learned",
    "row": "1.7b/relay",
}


def write_folder(folder: Path, num_records: int = 3, **manifest: Any) -> Path:
    write_records(folder / RESPONSES, [record(id=str(i)) for i in range(num_records)])
    text = json.dumps({"job": JOB, "num_queries": num_records, "num_resumed": 0, "seconds": 1.0} | manifest)
    (folder / MANIFEST).write_text(text)
    return folder


def error_of(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_result(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# ---- reading ----


def test_a_whole_folder(tmp_path: Path) -> None:
    result = read_result(write_folder(tmp_path / "é [1]"))
    assert [r.id for r in result.records] == ["0", "1", "2"]
    assert (result.folder, result.job) == (tmp_path / "é [1]", JOB)
    assert (result.student, result.teacher, result.teacher_name) == ("models/student", "models/teacher", "big")
    assert (result.policy, result.row) == ("learned", "1.7b/relay")
    assert result.manifest["seconds"] == 1.0


def test_what_a_job_need_not_say(tmp_path: Path) -> None:
    result = read_result(write_folder(tmp_path, job={"student": "s", "policy": "student_alone"}))
    assert (result.teacher, result.teacher_name, result.row) == (None, None, None)


def test_a_folder_without_responses_is_whole_too(tmp_path: Path) -> None:
    assert read_result(write_folder(tmp_path, 0)).records == []


def cut_in_the_middle(data: bytes) -> bytes:
    """As a copy that was stopped leaves it."""
    return data[: len(data) // 2]


def cut_a_middle_line(data: bytes) -> bytes:
    first, middle, last = data.splitlines(keepends=True)
    return first + middle[: len(middle) // 2] + b"\n" + last


DAMAGES = [
    # what happens to the responses, part of the error, why
    (cut_in_the_middle, f"{RESPONSES}, line 2: ", "cut in a line"),
    (cut_a_middle_line, f"{RESPONSES}, line 2: ", "a line cut short between whole ones"),
    (lambda data: data[: data.index(b"\n") + 1], "has 1 responses, but 3 were written", "cut between lines"),
    (lambda data: data + data, "has 6 responses, but 3 were written", "written twice"),
    (lambda data: b"", "has 0 responses, but 3 were written", "emptied"),
    (lambda data: data.replace(b"\n", b"\n\n", 1), f"{RESPONSES}, line 2: ", "an empty line"),
    (lambda data: b"\xff" + data, f"{RESPONSES}, line 1: ", "not UTF-8"),
    (lambda data: data.replace(b'"sample": 0', b'"sample": "0"', 1), f"{RESPONSES}, line 1: sample: ", "another type"),
    (lambda data: data.replace(b'"sample": 0, ', b"", 1), f"{RESPONSES}, line 1: sample: ", "a field is missing"),
]


@pytest.mark.parametrize(("damage", "part", "why"), DAMAGES, ids=[why for *_, why in DAMAGES])
def test_damaged_responses_are_named(tmp_path: Path, damage: Any, part: str, why: str) -> None:
    file = write_folder(tmp_path) / RESPONSES
    data = file.read_bytes()
    file.write_bytes(damage(data))
    assert file.read_bytes() != data
    assert f"{tmp_path}/{part}" in error_of(tmp_path) or f"{file} {part}" in error_of(tmp_path), why


BAD_MANIFESTS = [
    # text of the manifest, part of the error, why
    (b"", "Expecting value", "empty"),
    (b'{"job": {', "Expecting", "cut short"),
    (b"\xff\xfe{", "decode", "no text"),
    (b"[" * 100_000, "recursion", "JSON that is too deep"),
    (b"[1]", "JSON object", "a list"),
    (b"null", "JSON object", "nothing"),
    (b'{"num_queries": 3}', "job is None", "without the job"),
    (b'{"job": [], "num_queries": 3}', "job is []", "a job of another type"),
    (b'{"job": {}}', "num_queries is None", "without the number"),
    (b'{"job": {}, "num_queries": "3"}', "num_queries is '3'", "a number of another type"),
]


@pytest.mark.parametrize(("text", "part", "why"), BAD_MANIFESTS, ids=[why for *_, why in BAD_MANIFESTS])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: bytes, part: str, why: str) -> None:
    write_folder(tmp_path)
    (tmp_path / MANIFEST).write_bytes(text)
    message = error_of(tmp_path)
    assert message.startswith(f"{tmp_path / MANIFEST} is damaged: ")
    assert part in message


@pytest.mark.parametrize("name", [MANIFEST, RESPONSES])
def test_a_folder_that_misses_a_file_is_no_result(tmp_path: Path, name: str) -> None:
    (write_folder(tmp_path) / name).unlink()
    assert error_of(tmp_path) == (
        f"{tmp_path / name}: No such file or directory; {tmp_path} is not a whole result of `relay-verl eval`"
    )


# ---- finding ----


def test_folders_at_and_below_a_path_are_found_in_order(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name) for name in ("b", "a/2", "a/1", "a")]
    assert find_results([tmp_path]) == sorted(folders)
    assert find_results([tmp_path / "b"]) == [tmp_path / "b"]
    assert find_results([tmp_path / "b", tmp_path / "a/1"]) == [tmp_path / "b", tmp_path / "a/1"], "as they are given"


def test_a_folder_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    given = [Path("b"), tmp_path, Path("a/../b"), Path()]
    assert find_results(given) == [Path("b"), tmp_path / "a"], "by whichever way it is named first"


def test_a_path_without_results_is_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere", tmp_path / "a" / RESPONSES):
        with pytest.raises(UserError, match=f"{path} holds no results: no {RESPONSES}"):
            find_results([tmp_path / "a", path])


@pytest.mark.parametrize("has_old", [True, False], ids=["next to an older result", "alone"])
def test_a_run_that_has_not_ended_is_an_error(tmp_path: Path, has_old: bool) -> None:
    write_folder(tmp_path / "a")
    if has_old:
        write_folder(tmp_path / "b")
    (tmp_path / "b" / f"{RESPONSES}.work").mkdir(parents=True)
    with pytest.raises(UserError, match=f"{tmp_path / 'b'}: the evaluation has not ended; .* continues it"):
        find_results([tmp_path])
    assert find_results([tmp_path / "a"]) == [tmp_path / "a"], "one that has ended can be read meanwhile"
