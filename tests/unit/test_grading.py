r"""What the grader calls right, and that no answer and no dying process makes it raise, hang or misjudge the next.

Tables of cases with the reason beside each. Hostile cases use a Grader with a short deadline.
"""

import asyncio
import dataclasses
import doctest
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl import grading
from relay_verl.grading import MAX_ANSWER_CHARS, Grader, Verdict, VerdictStatus, grade, grade_async, last_boxed

ROOT = Path(grading.__file__).resolve().parent.parent
HANGS = r"\boxed{9^{9^{9^9}}}"


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


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- math: is this answer equal to that ground truth? ----

MATH_CASES = [
    # answer in the box, ground truth, is it correct, why
    ("4", "4", True, "the same text"),
    ("4", "5", False, "another integer"),
    ("-4", "4", False, "the sign counts"),
    ("+4", "4", True, "a plus sign says nothing"),
    ("007", "7", True, "leading zeros say nothing"),
    ("-0", "0", True, "zero has no sign"),
    ("9" * 4000, "9" * 4000 + "0", False, "integers past Python's limit for printing"),
    ("4.0", "4", True, "a decimal that is an integer"),
    ("4.", "4", True, "a full stop inside the box"),
    ("$4$", "4", True, "dollars inside the box"),
    (r"\[4\]", "4", True, "display math inside the box"),
    ("4", "$4$", True, "the truth in dollars"),
    ("4", r"$$\boxed{4}$$", True, "the truth in a box"),
    (r"\frac{1}{2}", r"The answer is \boxed{0.5}.", True, "the truth is a solution that ends in a box"),
    ("0.5", r"\frac{1}{2}", True, "decimal and fraction"),
    ("1/2", r"\frac12", True, "LaTeX fraction without braces"),
    (r"\dfrac{2}{4}", r"\tfrac{1}{2}", True, "a fraction that is not reduced"),
    (r"\frac{-1}{2}", r"-\frac{1}{2}", True, "where the sign of a fraction stands"),
    ("0.33", "1/3", False, "a rounded third is not a third"),
    ("5/2", r"2\frac{1}{2}", True, "mixed number as truth; bare, math-verify reads it as 1/2"),
    (r"2\frac{1}{2}", "2.5", True, "mixed number as answer"),
    ("2 1/2", "5/2", True, "mixed number in plain text"),
    ("1", r"2\frac{1}{2}", False, "not the product of the mixed number's parts"),
    (r"\sqrt{18}", r"3\sqrt{2}", True, "a root simplified"),
    ("3", r"3\sqrt{2}", False, "bare, math-verify reads this truth as 3"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", True, "denominator made rational"),
    ("sqrt(2)", r"\sqrt{2}", True, "a root in plain text"),
    ("1.414", r"\sqrt{2}", False, "a rounded root"),
    ("3.14", r"\pi", False, "a rounded pi"),
    (r"50\%", "50", True, "a percentage whose sign the truth leaves out"),
    ("50%", r"50\%", True, "a percentage escaped or not"),
    ("0.5", r"50\%", True, "a percentage as a decimal"),
    (r"12.5\%", "0.125", True, "a decimal percentage"),
    (r"\frac{100}{3}\%", r"33\frac{1}{3}\%", True, "a fraction of a percent"),
    (r"50\%", r"60\%", False, "another percentage"),
    (r"12\text{ cm}", "12", True, "a unit the truth leaves out"),
    ("12", r"12\,\mathrm{cm}", True, "a unit the answer leaves out"),
    ("12 apples", "12", True, "a plain-text unit"),
    (r"\$10.00", "10", True, "a currency sign"),
    (r"90^\circ", "90", True, "degrees"),
    ("90°", r"90^\circ", True, "degrees in Unicode"),
    ("1,234", "1234", True, "thousands separated by a comma"),
    (r"1{,}234", "1,234", True, "the comma in braces"),
    (r"1\,234", "1234", True, "thousands separated by a thin space"),
    (r"\{2, 1\}", r"\{1,2\}", True, "a set has no order"),
    ("2, 1", "1,2", True, "a list of solutions has no order"),
    (r"1 \text{ and } 2", "1, 2", True, "solutions joined by a word"),
    (r"$1$ and $2$", "1, 2", True, "solutions in dollars of their own"),
    (r"x=1 \text{ or } x=2", "1,2", True, "solutions as equations"),
    ("1", "1,2", False, "one of two solutions"),
    ("1,2,3", "1,2", False, "a solution too many"),
    ("3 or 5", "5", False, "hedging between two answers"),
    ("3 5", "5", False, "two numbers side by side"),
    ("??? $5$", "5", False, "a number fished out of something that does not parse"),
    (r"&&& \frac{5}{1}", "5", False, "a fraction fished out of something that does not parse"),
    ("??? the answer is $5$", "5", False, "a sentence fished out of something that does not parse"),
    (r"3 \\ 5", "5", False, "two lines, one of them right"),
    ("(1, 2)", "(1,2)", True, "a pair, blanks apart"),
    ("(2,1)", "(1,2)", False, "a pair has an order"),
    ("[1,2]", "(1,2)", False, "a closed interval is not the open one"),
    (r"[1, \infty)", r"[1,\infty)", True, "a half-open interval"),
    (r"x \le 2", r"(-\infty,2]", True, "an interval as an inequality"),
    (r"(-\infty,2)", "x<2", True, "an inequality as an interval"),
    (r"(2,3)\cup(0,1)", r"(0,1)\cup(2,3)", True, "a union has no order"),
    ("2<x", "x>2", True, "an inequality read from the other side"),
    (r"\varnothing", r"\emptyset", True, "two signs for the empty set"),
    ("x=3", "3", True, "the variable is named"),
    ("3", "x=3", True, "the truth names the variable"),
    ("x^2+2x+1", "(x+1)^2", True, "expanded"),
    ("b+a", "a+b", True, "a sum has no order"),
    ("4i+3", "3+4i", True, "a complex number"),
    ("720", "6!", True, "a factorial"),
    ("1024", "2^{10}", True, "a power"),
    (r"1.5\times 10^3", "1500", True, "scientific notation"),
    (r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", True, "brackets of a matrix"),
    (r"\begin{pmatrix}1\\3\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", False, "another matrix"),
    (r"\text{Evelyn}", "Evelyn", True, "a name as text"),
    (r"\text{Bob}", "Evelyn", False, "another name"),
    (r"\left\{1,2\right.", r"\left\{1,2\right.", True, "the dot of \\right. is no full stop"),
    ("x" * (MAX_ANSWER_CHARS + 1), "x" * (MAX_ANSWER_CHARS + 1), False, "above the size limit nothing is compared"),
]


@pytest.mark.parametrize(("answer", "truth", "is_correct", "why"), MATH_CASES, ids=[case[3] for case in MATH_CASES])
def test_math(patient: Grader, answer: str, truth: str, is_correct: bool, why: str) -> None:
    verdict = patient.grade(rf"Therefore $\boxed{{{answer}}}$.", truth)
    assert verdict == Verdict(is_correct, answer[:MAX_ANSWER_CHARS], VerdictStatus.GRADED), why


BOX_CASES = [
    # response, the answer found in it, why
    (r"\boxed{3}", "3", "the box alone"),
    (r"so \boxed{3} is the answer, since 4 > 3.", "3", "text after the box"),
    (r"\boxed{3} no, wait, \boxed{4}", "4", "the last box counts"),
    (r"\boxed{4} and that is in \boxed{}", "4", "an empty box does not count"),
    (r"\boxed{4} and that is in \boxed{ }", "4", "nor does a blank one"),
    (r"\boxed{4} and \boxed{\frac{1}{2}", "4", "nor does one that never closes"),
    (r"\boxed{\frac{1}{2} and then \boxed{4}", "4", "a complete box inside one that never closes"),
    (r"\boxed{x = \boxed{4}}", "4", "of nested boxes the one that starts last"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}", "nested braces"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "escaped braces are content"),
    (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right.", "an escaped brace needs no partner"),
    (r"} { \boxed{4} {", "4", "stray braces around the box"),
    (r"\boxed {4}", "4", "a blank before the brace"),
    (r"\\boxed{4}", "4", "a backslash doubled by JSON"),
    ("\\boxed{4\x00}", "4\x00", "a NUL byte"),
    ("\\boxed{\ud800}", "\ud800", "a lone surrogate"),
    (r"\boxed{4", None, "a box that never closes"),
    (r"\boxed{}", None, "an empty box"),
    (r"boxed{4}", None, "no command"),
    (r"\boxed 4", None, "no braces"),
    ("The answer is 4.", None, "stray numbers are not an answer"),
    ("", None, "nothing"),
]


@pytest.mark.parametrize(("response", "answer", "why"), BOX_CASES, ids=[case[2] for case in BOX_CASES])
def test_last_boxed(response: str, answer: str | None, why: str) -> None:
    assert last_boxed(response) == answer, why


def test_math_without_a_box_has_no_answer() -> None:
    assert grade("The answer is 4.", "4") == Verdict(False, None, VerdictStatus.NO_ANSWER)


# ---- multiple choice ----

CHOICE_CASES = [
    # response, ground truth, is it correct, the answer, why
    (r"\boxed{B}", "B", True, "B", "the letter alone"),
    (r"\boxed{b}", "B", True, "B", "lower case"),
    (r"\boxed{B}", "(b)", True, "B", "the truth in parentheses"),
    (r"\boxed{B}", r"\boxed{\text{B}}", True, "B", "the truth in a box"),
    (r"\boxed{A}", "B", False, "A", "another letter"),
    (r"\boxed{\text{B}}", "B", True, "B", "as text"),
    (r"\boxed{\textbf{(B)}\ 12}", "B", True, "B", "as AMC problems print it"),
    (r"\boxed{\left(B\right)}", "B", True, "B", "in LaTeX parentheses"),
    (r"\boxed{$B$}", "B", True, "B", "in dollars"),
    (r"\boxed{(B)}", "B", True, "B", "in parentheses"),
    (r"\boxed{B.}", "B", True, "B", "with a full stop"),
    (r"\boxed{B) the mitochondrion}", "B", True, "B", "with the option's text"),
    (r"\boxed{B: the mitochondrion}", "B", True, "B", "with a colon and the option's text"),
    (r"\boxed{J}", "J", True, "J", "ten options"),
    (r"\boxed{A} no, \boxed{B}", "B", True, "B", "the last box counts"),
    (r"\boxed{A, B}", "A", False, "A, B", "two letters are no choice"),
    (r"\boxed{Bob}", "B", False, "Bob", "a word is no letter"),
    (r"\boxed{12}", "B", False, "12", "a number is no letter"),
    (r"The answer is (A). \boxed{B}", "A", False, "B", "a box outranks a sentence"),
    ("The answer is (B).", "B", True, "B", "a sentence"),
    ("The answer is B because it is.", "B", True, "B", "a sentence that goes on"),
    ("**Answer:** B", "B", True, "B", "Markdown around the word"),
    ("Answer: **(B)**", "B", True, "B", "Markdown around the letter"),
    ("The answer is option (b).", "B", True, "B", "lower case in parentheses, with a noun"),
    (r"answer is $\text{B}$", "B", True, "B", "LaTeX in a sentence"),
    ("The answer is A. Wait. The answer is C.", "C", True, "C", "the last sentence counts"),
    ("The answer is (B) \\boxed{}", "B", True, "B", "an empty box is no box"),
    ("The answer is Bob.", "B", False, None, "a word in a sentence"),
    ("The answer is a number.", "A", False, None, "a lower-case word outside parentheses"),
    ("B", "B", False, None, "a stray letter"),
]


@pytest.mark.parametrize(
    ("response", "truth", "is_correct", "answer", "why"), CHOICE_CASES, ids=[case[4] for case in CHOICE_CASES]
)
def test_choice(response: str, truth: str, is_correct: bool, answer: str | None, why: str) -> None:
    status = VerdictStatus.NO_ANSWER if answer is None else VerdictStatus.GRADED
    assert grade(response, truth, kind="choice") == Verdict(is_correct, answer, status), why


# ---- junk ----

JUNK_CASES: list[tuple[Any, Any, Any, str]] = [
    (None, "4", "math", "no response"),
    (b"\\boxed{4}", "4", "math", "bytes"),
    (["\\boxed{4}"], "4", "math", "a list"),
    (r"\boxed{4}", 4, "math", "an integer as truth"),
    (r"\boxed{4}", None, "choice", "no truth"),
    (r"\boxed{4}", "", "math", "an empty truth"),
    (r"\boxed{4}", " . ", "math", "a truth that is only a full stop"),
    (r"\boxed{B}", "12", "choice", "a truth that is no letter"),
    (r"\boxed{4}", "4", "essay", "an unknown kind"),
    (r"\boxed{4}", "4", ["math"], "a kind that is no string"),
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
answers = texts | mathlike | commands.map("".join)


@settings(max_examples=50, deadline=None)
@given(answers, answers, st.sampled_from(["math", "choice"]), st.booleans())
def test_never_raises(hasty: Grader, response: str, truth: str, kind: Any, is_boxed: bool) -> None:
    verdict = hasty.grade(rf"\boxed{{{response}}}" if is_boxed else response, truth, kind)
    assert isinstance(verdict, Verdict)
    assert verdict.status == VerdictStatus.GRADED or not verdict.is_correct


# ---- hostile answers, dying processes ----

HOSTILE_CASES = [
    (r"9^{9^{9^9}}", "a tower of powers: one long operation that no signal handler interrupts"),
    (r"10^{10^{10}}", "more memory than the limit"),
    (r"(10^9)!", "a huge factorial"),
    (r"\binom{10^9}{10^8}", "a huge binomial"),
    (r"(x+y+z)^{400}", "a large expansion"),
    ("{" * 2000 + "1" + "}" * 2000, "deep nesting"),
]


@pytest.mark.parametrize(("answer", "why"), HOSTILE_CASES, ids=[case[1] for case in HOSTILE_CASES])
def test_hostile_answers_end_in_time_and_leave_the_grader_usable(hasty: Grader, answer: str, why: str) -> None:
    wait_until(lambda: hasty.grade(r"\boxed{0.5}", "1/2").is_correct)  # after the case before; also starts a worker
    start = time.monotonic()
    verdict = hasty.grade(rf"\boxed{{{answer}}}", "7")
    assert time.monotonic() - start < 0.5 + 1.5, why  # the deadline, and a kill on a busy machine
    assert (verdict.is_correct, verdict.answer) == (False, answer), why
    assert verdict.status in (VerdictStatus.TIMEOUT, VerdictStatus.GRADED), why


def test_a_timeout_is_a_status_and_the_next_answer_is_graded() -> None:
    with Grader(timeout_s=1.5, num_workers=1) as grader:
        assert grader.grade(HANGS, "7") == Verdict(False, r"9^{9^{9^9}}", VerdictStatus.TIMEOUT)
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
    thread.join(timeout=5.0)
    assert verdicts == [Verdict(False, r"9^{9^{9^9}}", VerdictStatus.ERROR)]
    assert patient.grade(r"\boxed{0.5}", "1/2").is_correct


def test_a_stopped_worker_is_a_timeout(hasty: Grader) -> None:
    while not worker_pids(hasty):
        hasty.grade(r"\boxed{x+x}", "2x")
    for pid in worker_pids(hasty):
        os.kill(pid, signal.SIGSTOP)
    assert hasty.grade(r"\boxed{0.5}", "1/2").status == VerdictStatus.TIMEOUT


def test_a_worker_retires_after_its_share_of_answers() -> None:
    worker = subprocess.run(
        [sys.executable, "-c", "from relay_verl import grading_worker as w; w.RETIRE_AFTER_NUM_ANSWERS = 2; w.main()"],
        input=2 * b'{"answer": "1", "ground_truth": "2", "timeout_s": 9}\n',
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
    )
    replies = [json.loads(line) for line in worker.stdout.splitlines()]
    assert replies == [
        {"is_ready": True},
        {"is_started": True},
        {"is_correct": False, "should_retire": False},
        {"is_started": True},
        {"is_correct": False, "should_retire": True},
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
    thread.join(timeout=5.0)
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
        parent.wait(timeout=20)
        wait_until(lambda: not is_running(pid))


def test_the_worker_searches_its_parents_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text(
        "LatexExtractionConfig = dict\ndef parse(*_, **__): pass\ndef verify(*_, **__): return True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with Grader() as grader:
        assert grader.grade(r"\boxed{x}", "y").is_correct


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
    code = "import sys, relay_verl.grading; sys.exit(not {'sympy', 'torch', 'math_verify'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, timeout=60).returncode == 0


def test_docstring_examples() -> None:
    assert doctest.testmod(grading).failed == 0
