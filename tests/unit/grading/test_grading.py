r"""What the grader calls right, and that no answer and no dying process makes it raise, hang or misjudge the next.

The tables of cases, with the reason next to each, are in `grading_cases`. Hostile cases use a Grader with a short
deadline.
"""

import asyncio
import dataclasses
import doctest
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl import grading
from relay_verl.grading import (
    MAX_ANSWER_CHARS,
    Grader,
    Verdict,
    VerdictStatus,
    answers,
    crew,
    grade,
    grade_async,
    grader,
    last_boxed,
)
from tests.helpers.grading_cases import CASES, HOSTILE_CASES, KNOWN_MISJUDGED, GradingCase
from tests.helpers.killing import is_running

ROOT = Path(grading.__file__).resolve().parent.parent.parent
HANGS = r"\boxed{\sum_{k=1}^{24000}(\frac{k}{3})!}"
"""Takes 45 seconds on a core that is not busy."""


@pytest.fixture(scope="module")
def patient() -> Iterator[Grader]:
    with Grader(timeout_s=30.0, num_workers=1) as grader:
        yield grader


@pytest.fixture(scope="module")
def hasty() -> Iterator[Grader]:
    with Grader(timeout_s=0.5, num_workers=2) as grader:
        yield grader


def worker_pids(grader: Grader) -> list[int]:
    crew = grader._crew()
    return [worker.process.pid for worker in [*crew._idle, *crew._busy]]


def wait_until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition does not come true"
        time.sleep(0.01)


# ---- verdicts ----


def ids(cases: list[GradingCase]) -> list[str]:
    return [f"{case.category}: {case.why}" for case in cases]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_verdict(patient: Grader, case: GradingCase) -> None:
    status = VerdictStatus.NO_ANSWER if case.answer is None else VerdictStatus.GRADED
    answer = case.answer and case.answer[:MAX_ANSWER_CHARS]
    verdict = patient.grade(case.response, case.ground_truth, case.kind)
    assert verdict == Verdict(case.is_correct, answer, status), case.why
    if case.kind == "math":
        assert answers.boxed_answer(case.response) == case.answer, case.why


@pytest.mark.parametrize("case", KNOWN_MISJUDGED, ids=ids(KNOWN_MISJUDGED))
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="known: see the case's own reason")
def test_known_misjudged(patient: Grader, case: GradingCase) -> None:
    verdict = patient.grade(case.response, case.ground_truth, case.kind)
    if verdict.status != VerdictStatus.GRADED:
        pytest.fail(f"{verdict.status} is not a judgement", pytrace=False)  # not an AssertionError: this fails the test
    assert verdict.is_correct == case.is_correct, case.why


NAMED_CATEGORIES = [
    "fractions",
    "roots",
    "units",
    "intervals",
    "sets",
    "percentages",
    "mixed numbers",
    "trailing text",
    "several boxes",
    "empty box",
    "unbalanced braces",
    "multiple choice",
]


def test_the_table_is_large_and_has_both_verdicts_everywhere() -> None:
    pairs = {(case.response, case.ground_truth, case.kind) for case in [*CASES, *KNOWN_MISJUDGED]}
    assert len(pairs) == len(CASES) + len(KNOWN_MISJUDGED), "a pair is there twice"
    assert len(CASES) >= 150
    num_right = Counter(case.category for case in CASES if case.is_correct)
    num_wrong = Counter(case.category for case in CASES if not case.is_correct)
    for category in NAMED_CATEGORIES:
        assert num_right[category] + num_wrong[category] >= 8, category
        assert min(num_right[category], num_wrong[category]) >= 3, category
    assert all(case.why for case in CASES)


AGREEMENT = [sys.executable, str(ROOT / "tests" / "grading_agreement.py")]


def test_the_agreement_program_prints_its_table(tmp_path: Path) -> None:
    table = subprocess.run(
        [*AGREEMENT, "--category", "mixed numbers"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert table.returncode == 0, table.stderr
    header, _, row, *_ = table.stdout.splitlines()
    num_pairs = sum(case.category == "mixed numbers" for case in CASES)
    assert re.fullmatch(
        r"\| category \| pairs \| wanted right \| relay_verl \| math-verify [\d.]+ \| mathruler( [\d.]+)? \|", header
    )
    assert row.startswith(f"| mixed numbers | {num_pairs} | 12 | {num_pairs} | ")


def test_the_agreement_program_names_the_categories() -> None:
    asked = subprocess.run(
        [*AGREEMENT, "--category", "essays"], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240
    )
    assert asked.returncode == 2
    assert "mixed numbers" in asked.stderr


# ---- junk ----

JUNK_CASES: list[tuple[Any, Any, Any, str]] = [
    (None, "4", "math", "no response"),
    (b"\\boxed{4}", "4", "math", "bytes"),
    (["\\boxed{4}"], "4", "math", "a list"),
    (r"\boxed{4}", 4, "math", "an integer as truth"),
    (r"\boxed{4}", None, "choice", "no truth"),
    (r"\boxed{4}", "", "math", "an empty truth"),
    (r"\boxed{4}", " . ", "math", "a truth that is only a full stop"),
    (r"\boxed{B}", "12", "choice", "a truth that is not a letter"),
    (r"\boxed{4}", "4", "essay", "an unknown kind"),
    (r"\boxed{4}", "4", ["math"], "a kind that is not a string"),
]


@pytest.mark.parametrize(("response", "truth", "kind", "why"), JUNK_CASES, ids=[case[3] for case in JUNK_CASES])
def test_junk_is_an_error_and_is_logged(
    response: Any, truth: Any, kind: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert grade(response, truth, kind).status == VerdictStatus.ERROR, why
    assert asyncio.run(grade_async(response, truth, kind)).status == VerdictStatus.ERROR, why
    assert "relay_verl.grading" in caplog.text


BIG = 1_000_000
LONG_CASES = [
    ("{" * BIG, "opening braces"),
    ("}" * BIG, "closing braces"),
    (r"\boxed{" + "{" * BIG, "a box that opens a million braces"),
    (r"\boxed{" + "{}" * (BIG // 2) + "}", "a box with half a million pairs"),
    (r"\boxed{" * (BIG // 7), "boxes that never close"),
    (r"\boxed{" * (BIG // 8) + "1" + "}" * (BIG // 8), "boxes in boxes"),
    (r"\boxed{" + " " * BIG, "blanks in a box that never closes"),
    (r"\boxed" + " " * BIG, "blanks after the command"),
    ("\\" * BIG + r"\boxed{4", "backslashes"),
    ("answer is " * (BIG // 10), "statements without a letter"),
    ("answer" + " " * BIG, "blanks after the word"),
    ("answer is" + "*" * BIG, "asterisks in a statement"),
    (r"\boxed{" + "\\a" * (BIG // 2) + "}", "a million characters of commands"),
]


@pytest.mark.parametrize(("response", "why"), LONG_CASES, ids=[case[1] for case in LONG_CASES])
@pytest.mark.parametrize(("kind", "truth"), [("math", "2"), ("choice", "B")])
def test_a_megabyte_takes_linear_time(response: str, why: str, kind: Any, truth: str) -> None:
    start = time.process_time()
    assert not grade(response, truth, kind).is_correct, why
    assert time.process_time() - start < 2.0, why  # 0.3 s at most; quadratic time would be hours


texts = st.text(st.characters(codec=None, categories=None), max_size=60)
mathlike = st.text(st.sampled_from(list("0123456789xyi+-*/^_(){}[]|,;.=<>%$!&~ \\\n\0")), max_size=25)
commands = st.lists(st.sampled_from([r"\frac", r"\sqrt", r"\boxed", r"\text", r"\left", "{", "}", "1", "x", "^"]))
any_answers = texts | mathlike | commands.map("".join)


@settings(max_examples=50, deadline=None)
@given(any_answers, any_answers, st.sampled_from(["math", "choice"]), st.booleans())
def test_never_raises(hasty: Grader, response: str, truth: str, kind: Any, is_boxed: bool) -> None:
    verdict = hasty.grade(rf"\boxed{{{response}}}" if is_boxed else response, truth, kind)
    assert isinstance(verdict, Verdict)
    assert verdict.status == VerdictStatus.GRADED or not verdict.is_correct


# ---- hostile answers, dying processes ----


def wait_until_graded(grader: Grader) -> None:
    """A normal answer is judged right; again on a machine so busy that even this one misses the deadline."""
    wait_until(lambda: grader.grade(r"\boxed{0.5}", "1/2").is_correct)


@pytest.mark.parametrize(("answer", "why"), HOSTILE_CASES, ids=[case[1] for case in HOSTILE_CASES])
def test_hostile_answers_end_and_leave_the_grader_usable(hasty: Grader, answer: str, why: str) -> None:
    wait_until_graded(hasty)  # also starts a worker
    verdict = hasty.grade(rf"\boxed{{{answer}}}", "7")
    assert (verdict.is_correct, verdict.answer) == (False, answer.strip()[:MAX_ANSWER_CHARS]), why
    assert verdict.status in (VerdictStatus.TIMEOUT, VerdictStatus.GRADED), why
    wait_until_graded(hasty)


def test_a_timeout_is_a_status_and_the_next_answer_is_graded() -> None:
    with Grader(timeout_s=1.5, num_workers=1) as grader:
        assert grader.grade(HANGS, "7") == Verdict(False, last_boxed(HANGS), VerdictStatus.TIMEOUT)
        assert worker_pids(grader) == []
        assert grader.grade(r"\boxed{0.5}", "1/2").is_correct


def test_a_hostile_ground_truth_is_a_timeout(hasty: Grader) -> None:
    assert hasty.grade(r"\boxed{x+7}", HANGS).status == VerdictStatus.TIMEOUT


def test_a_worker_killed_while_idle_costs_no_answer(patient: Grader) -> None:
    for signal_number in (signal.SIGKILL, signal.SIGTERM):
        assert patient.grade(r"\boxed{0.5}", "1/2").is_correct
        (pid,) = worker_pids(patient)
        os.kill(pid, signal_number)
        assert patient.grade(r"\boxed{0.5}", "1/2") == Verdict(True, "0.5", VerdictStatus.GRADED)
        assert worker_pids(patient) != [pid]


def test_a_worker_killed_at_work_is_an_error_and_the_next_answer_is_graded(patient: Grader) -> None:
    assert patient.grade(r"\boxed{0.5}", "1/2").is_correct  # the worker is an old one
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(patient.grade(HANGS, "7")))
    thread.start()
    wait_until(lambda: patient._crew()._busy)
    time.sleep(0.3)
    os.kill(worker_pids(patient)[0], signal.SIGKILL)
    thread.join(timeout=60.0)
    assert verdicts == [Verdict(False, last_boxed(HANGS), VerdictStatus.ERROR)]
    assert patient.grade(r"\boxed{0.5}", "1/2").is_correct


def test_a_stopped_worker_is_a_timeout(hasty: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "STALL_FACTOR", 2.0)
    while not worker_pids(hasty):
        hasty.grade(r"\boxed{x+x}", "2x")
    for pid in worker_pids(hasty):
        os.kill(pid, signal.SIGSTOP)
    assert hasty.grade(r"\boxed{0.5}", "1/2").status == VerdictStatus.TIMEOUT


def test_a_verdict_does_not_wait_for_the_clock() -> None:
    """The limit is the worker's processor time: one that another process keeps from running has all of it left."""
    with Grader(timeout_s=0.6, num_workers=1) as grader:
        wait_until_graded(grader)
        (pid,) = worker_pids(grader)
        os.kill(pid, signal.SIGSTOP)
        verdicts: list[Verdict] = []
        thread = threading.Thread(target=lambda: verdicts.append(grader.grade(r"\boxed{(1,2)\cup(2,3]}", "1<x<2")))
        thread.start()
        time.sleep(1.5)
        assert not verdicts
        os.kill(pid, signal.SIGCONT)
        thread.join(timeout=60.0)
    assert [verdict.status for verdict in verdicts] == [VerdictStatus.GRADED]


FIRST_USES = [
    (r"(1,2)\cup(3,4)", "(1,2)", "intervals"),
    (r"\{1,2\}", r"\{2,3\}", "sets"),
    ("y=2x+2", "2y-4x=3", "solving"),
]


@pytest.mark.parametrize(("answer", "truth", "why"), FIRST_USES, ids=[case[2] for case in FIRST_USES])
def test_a_fresh_worker_is_warm(answer: str, truth: str, why: str) -> None:
    """What the libraries load and derive at first use, 0.2 to 0.4 s of processor time, is not charged to an answer."""
    with Grader(timeout_s=0.15, num_workers=1) as grader:
        assert grader.grade(rf"\boxed{{{answer}}}", truth).status == VerdictStatus.GRADED, why


def test_whether_a_truth_can_be_read() -> None:
    with Grader(timeout_s=30.0, num_workers=1) as grader:
        assert grader.is_readable("42") and grader.is_readable(r"\boxed{\frac{1}{2}}") and grader.is_readable("x+1")
        assert grader.is_readable(r"\frac{") is False
    with Grader(timeout_s=0.3, num_workers=1) as grader:
        assert grader.is_readable("42")


def test_a_worker_retires_after_its_share_of_answers() -> None:
    worker = subprocess.run(
        [
            sys.executable,
            "-c",
            "from relay_verl.grading import math_worker as w; w.RETIRE_AFTER_NUM_ANSWERS = 2; w.main()",
        ],
        input=2 * b'{"task": "is_equivalent", "arguments": ["1", "2"], "cpu_timeout_s": 9}\n',
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=240,
    )
    replies = [json.loads(line) for line in worker.stdout.splitlines()]
    assert replies == [
        {"is_ready": True},
        {"is_started": True},
        {"result": False, "should_retire": False},
        {"is_started": True},
        {"result": False, "should_retire": True},
    ]
    assert (worker.returncode, worker.stderr) == (0, b"")  # stdin ended: so does the worker, without a word


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Grader() as grader:
        assert grader.grade(r"\boxed{0.5}", "1/2").status == VerdictStatus.ERROR
        monkeypatch.setattr(sys, "executable", "/bin/false")
        assert grader.grade(r"\boxed{0.5}", "1/2").status == VerdictStatus.ERROR
        assert grader.grade(r"\boxed{4}", "4").is_correct  # what needs no worker is still graded


def test_a_worker_that_never_is_ready_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\necho noise on stdout\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    with Grader(start_timeout_s=0.3) as grader:
        assert grader.grade(r"\boxed{0.5}", "1/2").status == VerdictStatus.ERROR


def test_a_closed_grader_has_no_workers_and_still_answers() -> None:
    grader = Grader(timeout_s=30.0, num_workers=2)
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(grader.grade(HANGS, "7")))
    thread.start()
    wait_until(lambda: grader._crew()._busy)
    assert grader.grade(r"\boxed{0.5}", "1/2").is_correct
    pids = worker_pids(grader)
    assert len(pids) == 2
    grader.close()
    thread.join(timeout=60.0)
    assert [verdict.status for verdict in verdicts] == [VerdictStatus.ERROR]
    wait_until(lambda: not any(map(is_running, pids)))
    assert grader.grade(r"\boxed{4}", "4").is_correct
    assert grader.grade(r"\boxed{0.5}", "1/2").status == VerdictStatus.ERROR
    assert asyncio.run(grader.grade_async(r"\boxed{0.5}", "1/2")).status == VerdictStatus.ERROR
    grader.close()


# ---- threads, event loops, forks, parents ----


def test_from_many_threads() -> None:
    with Grader(timeout_s=30.0, num_workers=2) as grader:
        verdicts: dict[int, Verdict] = {}

        def work(n: int) -> None:
            verdicts[n] = grader.grade(rf"\boxed{{\frac{{{2 * n}}}{{4}}}}", f"{n}/2" if n % 2 else f"{n}/3")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {n: verdict.is_correct for n, verdict in verdicts.items()} == {n: n % 2 == 1 for n in range(1, 25)}
        assert len(worker_pids(grader)) <= 2


def test_async_answers_do_not_mix_and_do_not_block_the_loop() -> None:
    async def run() -> tuple[list[Verdict], Verdict, float]:
        worst_lag_s, is_done = 0.0, False

        async def heartbeat() -> None:
            nonlocal worst_lag_s
            while not is_done:
                start = time.monotonic()
                await asyncio.sleep(0.01)
                worst_lag_s = max(worst_lag_s, time.monotonic() - start - 0.01)

        pulse = asyncio.create_task(heartbeat())
        hanging = asyncio.create_task(grader.grade_async(HANGS, "7"))
        big = asyncio.create_task(grader.grade_async(r"\boxed{" + "{}" * BIG + "}", "7"))
        verdicts = await asyncio.gather(
            *(grader.grade_async(rf"\boxed{{{n}/2}}", f"{n / 2 + n % 2}") for n in range(20))
        )
        in_time = await grader.grade_async(r"\boxed{4}", "4")
        assert not (await hanging).is_correct and not (await big).is_correct
        is_done = True
        await pulse
        return verdicts, in_time, worst_lag_s

    with Grader(timeout_s=3.0, num_workers=2) as grader:
        verdicts, in_time, worst_lag_s = asyncio.run(run())
    assert [verdict.status for verdict in verdicts] == [VerdictStatus.GRADED] * 20
    assert [verdict.answer for verdict in verdicts] == [f"{n}/2" for n in range(20)]
    assert [verdict.is_correct for verdict in verdicts] == [True, False] * 10
    assert in_time.is_correct
    assert worst_lag_s < 1.5  # a blocked loop lags for the 3 seconds of the answer that hangs


def test_a_cancelled_answer_leaves_the_grader_usable() -> None:
    async def run() -> Verdict:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(grader.grade_async(HANGS, "7"), timeout=0.2)
        return await grader.grade_async(r"\boxed{0.5}", "1/2")

    with Grader(timeout_s=2.0, num_workers=1) as grader:
        assert asyncio.run(run()).is_correct
        assert asyncio.run(grader.grade_async(r"\boxed{0.5}", "1/2")).is_correct  # in another event loop


def test_a_fork_has_workers_of_its_own(patient: Grader) -> None:
    assert patient.grade(r"\boxed{0.5}", "1/2").is_correct
    before = worker_pids(patient)
    child = os.fork()
    if child == 0:
        try:
            is_right = patient.grade(r"\boxed{0.25}", "1/4").is_correct
            is_own = not set(worker_pids(patient)) & set(before)
            patient.close()
        finally:
            os._exit(0 if is_right and is_own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert patient.grade(r"\boxed{0.5}", "1/2").is_correct
    assert worker_pids(patient) == before


SCRIPT = rf"""
import os, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from relay_verl.grading import Grader
grader = Grader(timeout_s=0.5, num_workers=1)
assert grader.grade(r"\boxed{{0.5}}", "1/2").is_correct
print(grader._crew()._idle[0].process.pid, flush=True)
"""
PARENT_ENDS = [
    ("", "the end of the script"),
    ("os.kill(os.getpid(), 9)", "a kill"),
    (
        rf"threading.Thread(target=grader.grade, args=({HANGS!r}, '7')).start(); time.sleep(0.1); os._exit(0)",
        "an end in the middle of an answer that hangs",
    ),
    ("os.fork() or time.sleep(9); os._exit(0)", "a fork that keeps the worker's stdin open"),
]


@pytest.mark.parametrize(("last_words", "why"), PARENT_ENDS, ids=[case[1] for case in PARENT_ENDS])
def test_no_worker_outlives_its_parent(last_words: str, why: str, tmp_path: Path) -> None:
    # A script without a main guard, from stdin as in a notebook, that finds the package through sys.path alone, in a
    # directory whose modules shadow the standard library's.
    (tmp_path / "json.py").write_text("raise ImportError('shadowed')")
    with subprocess.Popen(
        [sys.executable, "-P", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, env={"HOME": "/"}
    ) as parent:
        assert parent.stdin and parent.stdout
        parent.stdin.write(f"{SCRIPT}{last_words}\n".encode())
        parent.stdin.close()
        pid = int(parent.stdout.readline())
        parent.wait(timeout=120)
        wait_until(lambda: not is_running(pid))


def test_the_worker_searches_its_parents_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mpmath.py").write_text("raise ImportError('not the one that is installed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Grader() as grader:
        assert grader.grade(r"\boxed{x}", "y").status == VerdictStatus.ERROR


def test_the_worker_sees_no_secret(patient: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with Grader(timeout_s=30.0) as grader:
        assert grader.grade(r"\boxed{0.5}", "1/2").is_correct
        environment = Path(f"/proc/{worker_pids(grader)[0]}/environ").read_text()
    assert "secret" not in environment
    assert "OMP_NUM_THREADS=1" in environment


# ---- the promises of the interface ----


def test_verdict_is_frozen_and_its_status_is_a_string() -> None:
    verdict = grade(r"\boxed{4}", "4")
    assert verdict.status == "graded" and f"{verdict.status}" == "graded"
    assert {status.value for status in VerdictStatus} == {"graded", "no_answer", "timeout", "error"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.is_correct = False  # type: ignore[misc]


def test_module_functions_share_a_grader() -> None:
    assert grade(r"\boxed{0.5}", "1/2").is_correct
    assert asyncio.run(grade_async(r"\boxed{0.5}", "1/2")).is_correct
    assert asyncio.run(grade_async(r"\boxed{B}", "b", kind="choice")).is_correct


@pytest.mark.parametrize("setting", ["timeout_s", "num_workers", "start_timeout_s"])
def test_settings_must_be_positive(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} must be above 0, got 0"):
        Grader(**{setting: 0})


def test_importing_the_grader_loads_no_sympy() -> None:
    code = "import sys, relay_verl.grading; sys.exit(not {'sympy', 'torch', 'mpmath'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, timeout=240).returncode == 0


def test_docstring_examples() -> None:
    assert doctest.testmod(answers).failed == doctest.testmod(grader).failed == 0
