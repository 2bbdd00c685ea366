"""Long jobs: killed at any moment they lose nothing; what is damaged is named and made anew; an error is a line."""

import asyncio
import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from threading import RLock
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from relay_verl.data.source import Source
from relay_verl.errors import EngineError, JobError
from relay_verl.files import replacing
from relay_verl.jobs.pool import Pool
from relay_verl.jobs.results import Entry, Results
from relay_verl.jobs.store import JobStore
from tests.helpers.generators import JOBS, SeededEngine, filter_job, run, warmup_job, write_questions

NUM_KILLS = 30
NUM_IN_FLIGHT = 60
"""More answers than four queries at a time ask for: with one more a query has been finished."""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_questions(tmp_path / "questions.parquet", 50)


def ids_of(out: Path) -> list[str]:
    if out.read_bytes()[:4] != b"PAR1":
        return [json.loads(line)["extra_info"]["id"] for line in out.read_text().splitlines()]
    table = pq.read_table(out)
    return table["id"].to_pylist() if "id" in table.column_names else [e["id"] for e in table["extra_info"].to_pylist()]


@pytest.mark.parametrize("kind", JOBS)
def test_killed_thirty_times_the_output_is_byte_for_byte_the_uninterrupted_one(
    kind: str, source: Source, tmp_path: Path
) -> None:
    durations = []
    for again in range(3):  # the first one imports
        whole = tmp_path / f"whole{again}.parquet"
        started = time.monotonic()
        run(JOBS[kind](source, SeededEngine(0.01), max_concurrency=4), source, whole)
        durations.append(time.monotonic() - started)
    wanted = whole.read_bytes()
    fork = multiprocessing.get_context("fork")
    rng = Random(0)
    num_kills = num_finished = num_resumed = 0
    while num_kills < NUM_KILLS:
        out = tmp_path / f"{num_finished}.parquet"
        has_results, says = fork.Pipe(duplex=False)

        def work(out: Path = out, says: Connection = says) -> None:
            os.close(2)
            tqdm.set_lock(RLock())  # its own one is shared with this process, and would stay held by a killed one
            engine = SeededEngine(0.01)
            engine.fail = lambda _: says.send(True) if engine.num_asked == NUM_IN_FLIGHT + 1 else None
            run(JOBS[kind](source, engine, max_concurrency=4), source, out)

        process = fork.Process(target=work)
        process.start()
        if num_kills % 2:  # the others may fall before the first result where starting takes long
            wait([has_results, process.sentinel], timeout=60)
        process.join(rng.uniform(0.0, min(1.0, *durations)))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            num_kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            assert out.read_bytes() == wanted
            num_resumed += json.loads(out.with_name(f"{out.name}.manifest.json").read_text())["num_resumed"]
            num_finished += 1
    out = tmp_path / f"{num_finished}.parquet"
    manifest = run(JOBS[kind](source, SeededEngine(), max_concurrency=4), source, out)
    assert out.read_bytes() == wanted
    assert num_resumed + manifest["num_resumed"] > 0, "the kills fell before the first result"
    assert not out.with_name(f"{out.name}.work").exists()


def test_what_was_finished_is_not_sampled_again(source: Source, tmp_path: Path) -> None:
    def die(prompt: str) -> None:
        if "What is 30?" in prompt:
            raise KeyboardInterrupt

    out = tmp_path / "out.parquet"
    first, second = SeededEngine(fail=die), SeededEngine()
    with pytest.raises(BaseException, match=""):
        run(filter_job(source, first, max_concurrency=1), source, out)
    manifest = run(filter_job(source, second, max_concurrency=1), source, out)
    assert manifest["num_resumed"] == 30
    assert second.num_asked == (50 - 30) * 10
    assert ids_of(out) == [f"q{i}" for i in range(50)]


def test_a_finished_job_does_nothing_twice(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    run(filter_job(source, SeededEngine()), source, out)
    before = out.stat().st_mtime_ns
    engine = SeededEngine()
    run(filter_job(source, engine), source, out)
    assert engine.num_asked == 0
    assert out.stat().st_mtime_ns == before


def test_another_job_does_not_go_on_with_this_one(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(JobError):
        run(filter_job(source, SeededEngine(fail=down), max_failures=1), source, out)
    with pytest.raises(JobError, match=r"stop_at.*None.*0\.5"):
        run(filter_job(source, SeededEngine(), stop_at=0.5), source, out)
    run(filter_job(source, SeededEngine()), source, out)
    with pytest.raises(JobError, match=r"manifest\.json.*kind.*'filter'"):
        run(warmup_job(source, SeededEngine()), source, out)


def test_a_model_that_was_moved_is_the_same_and_one_that_changed_is_not(source: Source, tmp_path: Path) -> None:
    def job(path: str, digest: str | None) -> Any:
        made = filter_job(source, SeededEngine())
        return dataclasses.replace(made, spec={**made.spec, "teacher": path, "teacher_sha256": digest})

    run(job("/here", "aa"), source, tmp_path / "out.parquet")
    run(job("/there", "aa"), source, tmp_path / "out.parquet")
    with pytest.raises(JobError, match=r"teacher_sha256.*'aa'.*'bb'"):
        run(job("/here", "bb"), source, tmp_path / "out.parquet")
    run(job("hub/name", None), source, tmp_path / "hub.parquet")
    with pytest.raises(JobError, match=r"teacher.*'hub/name'.*'hub/other'"):
        run(job("hub/other", None), source, tmp_path / "hub.parquet")


def test_two_processes_do_not_write_one_output(source: Source, tmp_path: Path) -> None:
    job = filter_job(source, SeededEngine())
    with JobStore(tmp_path / "out.parquet", job.spec, job.format):  # noqa: SIM117 (the second is the one that fails)
        with pytest.raises(JobError, match="another process is writing it"):
            run(job, source, tmp_path / "out.parquet")


def down(prompt: str) -> None:
    raise EngineError("no one answers")


def test_a_query_that_fails_leaves_no_result_and_the_others_go_on(source: Source, tmp_path: Path) -> None:
    def fail(prompt: str) -> None:
        if "What is 13?" in prompt:
            raise EngineError("too long")

    out = tmp_path / "out.parquet"
    with pytest.raises(JobError, match=r"1 of 50 queries.*q13: too long"):
        run(filter_job(source, SeededEngine(fail=fail)), source, out)
    assert not out.exists()
    engine = SeededEngine()
    manifest = run(filter_job(source, engine), source, out)
    assert (manifest["num_resumed"], engine.num_asked) == (49, 10)
    assert ids_of(out) == [f"q{i}" for i in range(50)]


def test_whatever_an_engine_raises_fails_its_query_alone(source: Source, tmp_path: Path) -> None:
    def fail(prompt: str) -> None:
        if "What is 13?" in prompt:
            raise ZeroDivisionError("in somebody else's code")

    for kind, job in JOBS.items():
        with pytest.raises(JobError, match=r"1 of 50 queries.*q13: ZeroDivisionError: in some"):
            run(job(source, SeededEngine(fail=fail)), source, tmp_path / f"{kind}.parquet")


def test_a_query_that_takes_too_long_fails_alone(source: Source, tmp_path: Path) -> None:
    job = filter_job(source, SeededEngine(delay_s=30.0), timeout_s=0.05)
    with pytest.raises(JobError, match=r"no answer within 0.05 s"):
        run(job, source, tmp_path / "out.parquet")


def test_a_dead_engine_stops_the_job(source: Source, tmp_path: Path) -> None:
    engine = SeededEngine(fail=down)
    with pytest.raises(JobError, match=r"5 queries.*q\d+: no one answers"):
        run(filter_job(source, engine, max_failures=5, max_concurrency=2), source, tmp_path / "out.parquet")
    assert engine.num_asked <= 7 * 10


# ---- what somebody or something did to the files ----


def stop_in_the_middle(source: Source, out: Path, job: Any = filter_job) -> Path:
    """Leaves the database of 46 finished queries; gives its path."""

    def fail(prompt: str) -> None:
        if any(f"What is {i}?" in prompt for i in range(30, 34)):
            raise EngineError("not now")

    with pytest.raises(JobError):
        run(job(source, SeededEngine(fail=fail)), source, out)
    return out.with_name(f"{out.name}.work") / "results.sqlite"


def change_a_result(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b'{"num_samples": 10') > 9
    path.write_bytes(data.replace(b'{"num_samples": 10', b'{"num_samples": 11', 1))


def overwrite_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)


DAMAGES: list[Any] = [
    # name, what happens to the database, fewest results that are left, why
    ("cut", lambda path: path.write_bytes(path.read_bytes()[:-20]), 0, "a copy that was broken off"),
    ("empty", lambda path: path.write_bytes(b""), 0, "a disk that was full"),
    ("text", lambda path: path.write_text("hello"), 0, "an editor"),
    ("page", overwrite_a_page, 0, "a bad disk"),
    ("changed", change_a_result, 45, "a bad disk, within a result"),
]


@pytest.mark.parametrize("kind", ["filter", "filter as lines"])
@pytest.mark.parametrize(("damage", "num_left", "why"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_a_damaged_database_is_named_and_only_what_it_lost_runs_again(
    damage: Any, num_left: int, why: str, kind: str, source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    job = JOBS[kind]
    run(job(source, SeededEngine()), source, whole)
    damage(stop_in_the_middle(source, out, job))
    engine = SeededEngine()
    manifest = run(job(source, engine), source, out)
    assert out.read_bytes() == whole.read_bytes(), why
    assert num_left <= manifest["num_resumed"] < 46
    assert engine.num_asked == (50 - manifest["num_resumed"]) * 10
    [line] = [record.getMessage() for record in caplog.records if record.name == "relay_verl.jobs.results"]
    assert "results.sqlite is damaged" in line
    assert f"{manifest['num_resumed']} results could be read" in line
    assert "\n" not in line


def test_a_damaged_database_is_kept_until_the_job_ends(source: Source, tmp_path: Path) -> None:
    database = stop_in_the_middle(source, tmp_path / "out.parquet")
    change_a_result(database)
    damaged = database.read_bytes()
    stop_in_the_middle(source, tmp_path / "out.parquet")
    assert database.with_suffix(".damaged").read_bytes() == damaged


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_damage_is_taken_for_a_result(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("results") / "results.sqlite"
    entries = {f"q{i}": Entry({"text": "x" * (7 * i)}) for i in range(120)} | {"r": Entry(refusal="too long")}
    results = Results(path)
    for key, entry in entries.items():
        results.put(key, entry)
    results.close()
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    results = Results(path)
    assert all(results.get(key) in (entry, None) for key, entry in entries.items())
    for key, entry in entries.items():
        results.put(key, entry)
    assert all(results.get(key) == entry for key, entry in entries.items())
    results.close()


OLD_FILES = ["00000.journal", "00000.parquet", "00001.jsonl", "00000.refused"]


@pytest.mark.parametrize("name", OLD_FILES)
def test_a_folder_of_an_earlier_version_is_refused_and_kept(name: str, source: Source, tmp_path: Path) -> None:
    out, engine = tmp_path / "out.parquet", SeededEngine()
    job = filter_job(source, engine)
    work = tmp_path / "out.parquet.work"
    work.mkdir()
    (work / "job.json").write_text(json.dumps(job.spec))
    (work / name).write_bytes(b"results")
    with pytest.raises(JobError, match=r"written by relay_verl 0\.1, .*remove the folder") as refused:
        run(job, source, out)
    assert "\n" not in str(refused.value)
    assert (work / name).read_bytes() == b"results"
    assert engine.num_asked == 0
    shutil.rmtree(work)
    assert run(job, source, out)["num_queries"] == 50


def test_a_folder_in_which_an_earlier_version_finished_nothing_is_continued(source: Source, tmp_path: Path) -> None:
    job = filter_job(source, SeededEngine())
    work = tmp_path / "out.parquet.work"
    work.mkdir()
    (work / "job.json").write_text(json.dumps(job.spec))
    (work / "lock").write_text("process 1 on host a\n")
    assert run(job, source, tmp_path / "out.parquet")["num_queries"] == 50


def test_a_full_disk_is_one_line_and_loses_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit of pages stands in for the disk: it fails alike."""
    out = tmp_path / "out.parquet"
    enter = JobStore.__enter__

    def with_a_small_disk(self: JobStore) -> JobStore:
        enter(self)
        self.results._db.execute("PRAGMA max_page_count = 3")
        return self

    monkeypatch.setattr(JobStore, "__enter__", with_a_small_disk)
    with pytest.raises(JobError, match=r"results\.sqlite: No space left on device; what is finished is saved in"):
        run(warmup_job(source, SeededEngine()), source, out)
    monkeypatch.undo()
    engine = SeededEngine()
    manifest = run(warmup_job(source, engine), source, out)
    assert 1 <= manifest["num_resumed"] < 50
    run(warmup_job(source, SeededEngine()), source, tmp_path / "whole.parquet")
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_disk_that_fills_up_as_the_output_is_written_keeps_the_shards(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(JobError, match=r"out\.parquet: No space left on device.*saved"):
        run(filter_job(source, SeededEngine()), source, out)
    monkeypatch.undo()
    assert not out.exists()
    engine = SeededEngine()
    run(filter_job(source, engine), source, out)
    assert ids_of(out) == [f"q{i}" for i in range(50)]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replacing(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


# ---- file systems that are not a local disk ----


def test_a_name_that_is_too_long_is_said_before_anything_is_sampled(source: Source, tmp_path: Path) -> None:
    """`OUT.manifest.json` is written last (lm-evaluation-harness#1454)."""
    engine = SeededEngine()
    for name, is_too_long in (("x" * 245, True), ("ü" * 120, True), ("x" * 200, False)):
        if is_too_long:
            with pytest.raises(JobError, match=r"name.* \d+ bytes too long"):
                run(filter_job(source, engine), source, tmp_path / name)
            assert engine.num_asked == 0
        else:
            run(filter_job(source, engine), source, tmp_path / name)
            assert ids_of(tmp_path / name) == [f"q{i}" for i in range(50)]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, 524])
def test_a_file_system_without_locks_is_a_warning(
    number: int, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As NFS and Lustre often are (spack#12501, miniwdl#483)."""

    def no_locks(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("relay_verl.files.fcntl.flock", no_locks)
    run(filter_job(source, SeededEngine()), source, tmp_path / "out.parquet")
    assert ids_of(tmp_path / "out.parquet") == [f"q{i}" for i in range(50)]
    [line] = [record.getMessage() for record in caplog.records]
    assert "has no locks" in line


def test_another_error_of_the_lock_is_one(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("relay_verl.files.fcntl.flock", broken)
    with pytest.raises(JobError, match=r"out.parquet.work: Input/output error"):
        run(filter_job(source, SeededEngine()), source, tmp_path / "out.parquet")


def test_a_working_folder_that_cannot_be_removed_does_not_fail_a_finished_job(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS keeps an open file under another name, so that its folder is not empty (nisarqa#152, augur#32)."""

    def not_empty(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    out = tmp_path / "out.parquet"
    monkeypatch.setattr(os, "rmdir", not_empty)
    manifest = run(filter_job(source, SeededEngine()), source, out)
    assert manifest["num_queries"] == 50
    assert ids_of(out) == [f"q{i}" for i in range(50)]
    monkeypatch.undo()
    engine = SeededEngine()
    assert run(filter_job(source, engine), source, out) == manifest
    assert (engine.num_asked, out.with_name("out.parquet.work").exists()) == (0, False)


def test_a_path_that_is_too_long_for_the_database_is_said_before_anything_is_sampled(
    source: Source, tmp_path: Path
) -> None:
    folder, engine = tmp_path / ("a" * 200) / ("b" * 200), SeededEngine()
    with pytest.raises(JobError, match=r"its path is \d+ bytes too long for the database"):
        run(filter_job(source, engine), source, folder / ("c" * 100))
    assert engine.num_asked == 0


@pytest.mark.parametrize("name", ["a b.parquet", "a?x=1&y#z%20.parquet", "ü.parquet", "file:x.parquet"])
def test_a_name_may_have_any_characters(name: str, source: Source, tmp_path: Path) -> None:
    run(filter_job(source, SeededEngine()), source, tmp_path / name)
    assert [file.name for file in sorted(tmp_path.iterdir())] == sorted(
        [name, f"{name}.manifest.json", "questions.parquet"]
    )


# ---- memory and concurrency ----


def test_no_more_queries_are_under_way_than_allowed_and_none_waits_for_another(source: Source, tmp_path: Path) -> None:
    under_way = most = 0
    finished: list[str] = []

    async def process(row: Any) -> dict[str, int]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.3 if row["extra_info"]["id"] == "q0" else 0.001)
        under_way -= 1
        finished.append(row["extra_info"]["id"])
        return {"num_samples": 1, "num_done": 1, "num_correct": 1, "num_tokens": 1}

    job = filter_job(source, SeededEngine(), max_concurrency=5)
    run(type(job)(**{**vars(job), "process": process}), source, tmp_path / "out.parquet")
    assert most == 5
    assert finished[-1] == "q0", "all others went past the slow one"
    assert ids_of(tmp_path / "out.parquet") == [f"q{i}" for i in range(50)]


def test_a_pool_without_processes_works_in_this_one() -> None:
    class Worker:
        async def process(self, row: Any) -> Any:
            return row["x"] + 1

    assert asyncio.run(Pool(Worker, 0, 1).process({"x": 1})) == 2
