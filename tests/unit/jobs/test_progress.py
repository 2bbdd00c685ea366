"""What the bar of a long job counts and says, on a virtual clock."""

import asyncio
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data import teacher_filter
from relay_verl.data import warmup_generator as warmup_samples
from relay_verl.engines import Generation, GuardedEngine
from relay_verl.engines.boundary import ask_within
from relay_verl.engines.load import EngineLoad
from relay_verl.evaluation.worker import count_tokens
from relay_verl.jobs import Job, progress, run_job
from relay_verl.jobs.formats import JsonLines
from relay_verl.jobs.progress import LINE_S, ProgressBar, TokenMeter
from tests.helpers.generators import JOBS, SeededEngine, run, write_questions
from tests.helpers.records import record
from tests.helpers.virtual_clock import now, run_virtually


class Server:
    """An engine that publishes its counter: so many tokens a second, for whoever asks."""

    def __init__(self, tokens_per_s: float = 10.0, before: int = 1000):
        self.is_up = True
        self._tokens_per_s = tokens_per_s
        self._before = before

    async def load(self) -> EngineLoad | None:
        if not self.is_up:
            return None
        return EngineLoad(num_written=self._before + int(self._tokens_per_s * now()), num_read=7)

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, **_: Any) -> Generation:
        await asyncio.sleep(max_tokens / self._tokens_per_s)
        return Generation([97] * max_tokens, None, "length")


class Endpoint:
    """An engine that says nothing of itself."""

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, **_: Any) -> Generation:
        return Generation([97] * max_tokens, None, "length")


async def turn(engine: Any, num_tokens: int) -> None:
    """One answer of an engine, as the decoder asks for it."""
    await ask_within(60.0, lambda: engine.generate([1], max_tokens=num_tokens), pulse=engine.pulse)


# ---- the counting ----


def test_a_server_is_counted_while_it_writes() -> None:
    async def watch() -> list[dict[str, int]]:
        meter = TokenMeter({"student": GuardedEngine(Server()), "teacher": Server(1.0)}, now)
        counts = []
        for _ in range(3):
            await meter.read()
            counts.append(meter.num_tokens)
            await asyncio.sleep(100.0)
        return counts

    assert run_virtually(watch()) == [
        {"student": 0, "teacher": 0},  # what it wrote before is another job's
        {"student": 1000, "teacher": 100},
        {"student": 2000, "teacher": 200},
    ]


def test_an_engine_without_a_counter_is_counted_at_the_end_of_a_turn() -> None:
    async def watch() -> list[int]:
        engine = GuardedEngine(Endpoint())
        await turn(engine, 50)  # another job's
        meter, counts = TokenMeter({"teacher": engine}, now), []
        for num_tokens in (5, 7):
            await turn(engine, num_tokens)
            counts.append(meter.num_tokens["teacher"])
        meter.add_result({"teacher": 9})  # the response of which these turns were a part
        return [*counts, meter.num_tokens["teacher"]]

    assert run_virtually(watch()) == [5, 12, 12]


def test_where_workers_in_ray_ask_results_are_counted() -> None:
    meter = TokenMeter({"student": GuardedEngine(Endpoint()), "teacher": GuardedEngine(Endpoint())})
    for _ in range(3):
        meter.add_result({"student": 40, "teacher": 2, "no one": 1})
    assert meter.num_tokens == {"student": 120, "teacher": 6}


def test_a_server_that_cannot_be_asked_at_first_is_counted_from_then_on() -> None:
    async def watch() -> list[int]:
        server = Server()
        server.is_up = False
        meter, counts = TokenMeter({"student": server}, now), []
        for is_up in (False, True, True, False):
            server.is_up = is_up
            await meter.read()
            meter.add_result({"student": 3})
            counts.append(meter.num_tokens["student"])
            await asyncio.sleep(10.0)
        return counts

    counts = run_virtually(watch())
    assert counts[0] == 3
    assert counts == sorted(counts), "it never goes back"
    assert counts[2] == counts[3] == 103, "and what is known stays known"


def test_a_model_that_is_both_is_counted_once() -> None:
    engine = GuardedEngine(Endpoint())
    meter = TokenMeter({"student": engine, "teacher": engine})
    meter.add_result({"student": 4, "teacher": 6})
    assert meter.num_tokens == {"student+teacher": 10}


@given(st.lists(st.tuples(st.floats(0.1, 100.0), st.integers(0, 500), st.booleans()), max_size=20))
def test_counts_never_fall_and_rates_are_never_negative(steps: list[tuple[float, int, bool]]) -> None:
    async def watch() -> None:
        server = Server(3.0)
        meter, last = TokenMeter({"student": server}, now), 0
        for seconds, num_tokens, is_up in steps:
            server.is_up = is_up
            await asyncio.sleep(seconds)
            meter.add_result({"student": num_tokens})
            await meter.read()
            assert meter.num_tokens["student"] >= last
            last = meter.num_tokens["student"]
            assert "-" not in meter.describe()

    run_virtually(watch())


def test_what_a_record_and_the_generators_results_count() -> None:
    response = record()
    counts = count_tokens(response.to_dict())
    assert sum(counts.values()) == response.num_tokens
    assert counts["teacher"] == response.num_teacher_tokens
    assert teacher_filter.count_tokens({"num_samples": 2, "num_tokens": 34}) == 34
    rows = [{"sample": s, "placement": p, "num_own_tokens": 10 + s} for s in range(2) for p in range(3)]
    assert warmup_samples.count_tokens(rows) == 21, "each response once"


# ---- the bar ----


class Terminal(io.StringIO):
    """A terminal, as far as a file can be one."""

    def isatty(self) -> bool:
        return True


def show(file: io.StringIO, seconds: float, *, every_s: float = 1.0) -> list[str]:
    """What a job of 48 queries shows that takes so many seconds, of which none ends before the last."""

    async def work() -> None:
        meter = TokenMeter({"student": Server(26.0), "teacher": Server(3.0)}, now)
        async with ProgressBar("out/responses.jsonl", 48, meter, file) as bar:
            bar.num_under_way = 48
            await asyncio.sleep(seconds)
            bar.update(48)

    run_virtually(work())
    return re.split(r"[\r\n]+", file.getvalue().strip())


def test_off_a_terminal_it_is_a_line_now_and_then() -> None:
    file = io.StringIO()
    lines = show(file, 10 * LINE_S + 1.0)
    assert "\r" not in file.getvalue()
    assert file.getvalue().endswith("\n")
    assert len(lines) == 1 + 10 + 1, "the first one, one every LINE_S, the last one"
    assert "0/48" in lines[0]
    assert "48/48" in lines[-1]


def test_it_moves_while_no_query_ends() -> None:
    lines = show(io.StringIO(), 10 * LINE_S + 1.0)[1:-1]
    assert all("0/48" in line and "48 under way" in line for line in lines)
    counts = [re.findall(r"(student|teacher) ([0-9.]+k?) tokens ([0-9.]+)/s", line) for line in lines]
    assert counts[0] == [("student", "780", "26.0"), ("teacher", "90.0", "3.0")]
    assert len({str(count) for count in counts}) == len(counts), "each line says something new"
    assert {rate for count in counts for _, _, rate in count} == {"26.0", "3.0"}


def test_the_last_line_is_about_the_whole_job() -> None:
    last = show(io.StringIO(), 200.0)[-1]
    assert re.findall(r"(\w+) ([0-9.]+k?) tokens ([0-9.]+)/s", last) == [
        ("student", "5.20k", "26.0"),
        ("teacher", "600", "3.0"),
    ]


def test_on_a_terminal_it_is_one_line_drawn_again() -> None:
    file = Terminal()
    show(file, 60.0)
    drawn = file.getvalue().split("\r")
    assert "\n" not in "".join(drawn[:-1])
    assert len([text for text in drawn if "under way" in text]) >= 60.0 / progress.REFRESH_S - 1


def test_a_job_without_engines_shows_its_queries() -> None:
    file = io.StringIO()

    async def work() -> None:
        async with ProgressBar("judge", 2, TokenMeter({}, now), file) as bar:
            bar.num_under_way = 2
            await asyncio.sleep(LINE_S + 1.0)
            bar.update(2)

    run_virtually(work())
    assert "2 under way" in file.getvalue()
    assert "tokens" not in file.getvalue()


# ---- the jobs ----


def test_a_job_whose_engine_writes_for_hours_before_the_first_query_ends_is_alive(tmp_path: Path) -> None:
    async def process(row: Any) -> dict[str, int]:
        await asyncio.sleep(3 * 3600.0)
        return {}

    job = Job(
        {"kind": "test"}, JsonLines(), process, lambda row, result: [result], timeout_s=600.0, engines={"s": Server()}
    )
    manifest = run_virtually(run_job(job, [("a", {})], 1, tmp_path / "out.jsonl"))
    assert manifest["num_queries"] == 1


@pytest.mark.parametrize("kind", JOBS)
def test_a_job_says_what_it_wrote(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_questions(tmp_path / "questions.parquet", 5)
    results: list[Any] = []
    job = JOBS[kind](source, SeededEngine(), engines={"who": Endpoint()}, count_tokens=_noting(results))
    run(job, source, tmp_path / "out.parquet")
    assert len(results) == 5
    assert "who 35.0 tokens" in capsys.readouterr().err


def _noting(results: list[Any]) -> Any:
    def count(result: Any) -> dict[str, int]:
        results.append(result)
        return {"who": 7}

    return count
