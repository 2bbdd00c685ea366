"""How far three graders agree with the wanted verdicts of `unit/grading_cases.py`: `python tests/grading_agreement.py`.

Prints Markdown: by category, how many pairs each grader judges as wanted, then every pair that one of them does not.
- relay_verl: `relay_verl.grading`. It judges all of the table as wanted, or the unit tests fail: compare the others.
- math-verify as its README has it: `verify(parse(truth), parse(response))`, the truth in dollars as it asks for; for
  multiple choice its StringExtractionConfig, letters A to J, takes the place of plain-text numbers.
- mathruler, the paper's: `grade_answer(extract_boxed_content(response), truth)`. Optional: `pip install mathruler`.

The last two run in a process that is killed at the deadline; the verdict is then `timeout`, which is as wanted nowhere.
"""

import argparse
import logging
import multiprocessing
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection

from helpers.grading_cases import CASES, KNOWN_MISJUDGED, GradingCase

from relay_verl.grading import Grader

START_TIMEOUT_S = 60.0
Outcome = bool | str
"""A verdict, or why there is none."""


def judge_with_math_verify(case: GradingCase) -> bool:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    letters = StringExtractionConfig(strings=tuple("ABCDEFGHIJ"))
    targets = [LatexExtractionConfig(), letters if case.kind == "choice" else ExprExtractionConfig()]
    is_delimited = "$" in case.ground_truth.replace(r"\$", "") or r"\boxed" in case.ground_truth
    truth = case.ground_truth if is_delimited else f"${case.ground_truth}$"
    return verify(parse(truth, targets), parse(case.response, targets))


def judge_with_mathruler(case: GradingCase) -> bool:
    from mathruler.grader import extract_boxed_content, grade_answer

    return bool(grade_answer(extract_boxed_content(case.response), case.ground_truth))


def serve(judge: Callable[[GradingCase], bool], connection: Connection) -> None:
    logging.disable(logging.CRITICAL)
    judge(CASES[0])  # imports
    connection.send("ready")
    while True:
        try:
            connection.send(judge(connection.recv()))
        except EOFError:
            return
        except Exception as error:  # any text is judged, and the libraries promise no error types
            connection.send(type(error).__name__)


class KillableJudge:
    """Asks a judge in a process of its own, and starts another one when a deadline has passed."""

    def __init__(self, judge: Callable[[GradingCase], bool], timeout_s: float) -> None:
        self._judge = judge
        self._timeout_s = timeout_s
        self._process: multiprocessing.process.BaseProcess | None = None

    def ask(self, case: GradingCase) -> Outcome:
        if self._process is None:
            self._start()
        self._connection.send(case)
        try:
            if self._connection.poll(self._timeout_s):
                return self._connection.recv()
        except EOFError:
            self.close()
            return "crash"
        self.close()
        return "timeout"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_end = context.Pipe()
        self._process = context.Process(target=serve, args=(self._judge, child_end), daemon=True)
        self._process.start()
        child_end.close()
        if not self._connection.poll(START_TIMEOUT_S):
            self.close()
            raise TimeoutError(f"{self._judge.__name__} is not ready after {START_TIMEOUT_S:g} s")
        self._connection.recv()

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def judge_all(cases: list[GradingCase], timeout_s: float) -> dict[str, list[Outcome] | None]:
    """Each grader's outcomes, in the order of the cases; None if it is not installed."""
    with Grader(timeout_s=timeout_s, num_workers=1) as grader:
        verdicts = [grader.grade(case.response, case.ground_truth, case.kind) for case in cases]
    outcomes: dict[str, list[Outcome] | None] = {
        "relay_verl": [v.is_correct if v.status in ("graded", "no_answer") else v.status.value for v in verdicts]
    }
    for package, judge in (("math-verify", judge_with_math_verify), ("mathruler", judge_with_mathruler)):
        try:
            name = f"{package} {version(package)}"
        except PackageNotFoundError:
            outcomes[package] = None
            continue
        killable = KillableJudge(judge, timeout_s)
        outcomes[name] = [killable.ask(case) for case in cases]
        killable.close()
    return outcomes


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |")


def shown(text: str) -> str:
    """At most 60 printable ASCII characters."""
    text = text.encode("unicode_escape").decode().replace(2 * "\\", "\\")
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def print_report(cases: list[GradingCase], outcomes: dict[str, list[Outcome] | None]) -> None:
    known = set(KNOWN_MISJUDGED)
    numbers = [n for n, case in enumerate(cases) if case not in known]

    def print_counts(name: str, rows: list[int], *, is_as_wanted: bool = True) -> None:
        def count(judged: list[Outcome]) -> int:
            return sum((judged[n] is cases[n].is_correct) == is_as_wanted for n in rows)

        counts = ("not installed" if judged is None else count(judged) for judged in outcomes.values())
        print_row(name, len(rows), sum(cases[n].is_correct for n in rows), *counts)

    print_row("category", "pairs", "wanted right", *outcomes)
    print_row("---", *["--:"] * (2 + len(outcomes)))
    for category in dict.fromkeys(cases[n].category for n in numbers):
        print_counts(category, [n for n in numbers if cases[n].category == category])
    print_counts("**all**", numbers)
    print_counts("wanted wrong, judged otherwise", [n for n in numbers if not cases[n].is_correct], is_as_wanted=False)
    print_counts("wanted right, judged otherwise", [n for n in numbers if cases[n].is_correct], is_as_wanted=False)
    print_counts("not in all: known misjudged", [n for n, case in enumerate(cases) if case in known])
    print("\nThe cells count pairs judged as wanted, but for the two rows that say otherwise.\n\n## Not as wanted\n")
    print_row("grader", "category", "response", "ground truth", "wanted", "judged", "why")
    print_row(*["---"] * 7)
    for name, judged in outcomes.items():
        for case, outcome in zip(cases, judged or [], strict=False):
            if outcome is not case.is_correct:
                texts = shown(case.response), shown(case.ground_truth)
                print_row(name, case.category, *texts, case.is_correct, outcome, case.why)


def main() -> None:
    parser = argparse.ArgumentParser(description="How far three graders agree with the wanted verdicts.")
    categories = sorted({case.category for case in [*CASES, *KNOWN_MISJUDGED]})
    parser.add_argument("--category", choices=categories, help="only this category")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds a grader may take for one pair")
    arguments = parser.parse_args()
    cases = [case for case in [*CASES, *KNOWN_MISJUDGED] if arguments.category in (None, case.category)]
    print_report(cases, judge_all(cases, arguments.timeout))


if __name__ == "__main__":
    main()
