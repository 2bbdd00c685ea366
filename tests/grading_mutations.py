"""Does the grader accept changed truths? `python tests/grading_mutations.py math-500=FILE minerva=FILE ...`

For each truth of a benchmark that is not an integer, each of its numbers is changed by one, and the result is given as
the answer. Each acceptance is printed: it is a fault, or the two are equal. The table also counts truths that are not
read, truths that are wrong in another look of their own, and next rows' truths that are accepted.

FILE is a local copy of a registered benchmark, or FILE:COLUMN a CSV file or JSON Lines with the truths in a column.
"""

import argparse
import csv
import json
import re
from pathlib import Path

from grading_agreement import KillableJudge, judge_with_math_verify
from helpers.grading_cases import GradingCase

from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
from relay_verl.grading import Grader

_NUMBER = re.compile(r"\d+")
_INTEGER = re.compile(r"[+-]?\d+")


def load_truths(source: str) -> tuple[str, list[str]]:
    """A name, and the truths of NAME=FILE or NAME=FILE:COLUMN."""
    name, _, place = source.partition("=")
    path, _, column = place.partition(":")
    if not column:
        questions = load_benchmark(find_benchmark(name), Path(path))
        return name, [row["reward_model"]["ground_truth"] for row in questions.rows]
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file) if path.endswith(".csv") else map(json.loads, file)
        return name, [str(row[column]).strip() for row in rows]


def changed(truth: str) -> list[str]:
    """The truth with each of its numbers, one at a time, larger by one."""
    return [
        truth[: match.start()] + str(int(match[0]) + 1) + truth[match.end() :]
        for match in _NUMBER.finditer(truth)
        if not _INTEGER.fullmatch(truth.strip("$ "))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts changed truths that the grader accepts.")
    parser.add_argument("sources", nargs="+", metavar="NAME=FILE[:COLUMN]")
    parser.add_argument("--math-verify", action="store_true", help="also count what plain math-verify accepts")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for one pair")
    arguments = parser.parse_args()
    rows = ["| benchmark | truths | not read | wrong in another look | neighbours accepted | changed | accepted |"]
    rows[0] += " accepted by math-verify |" if arguments.math_verify else ""
    rows.append("| --- |" + " --: |" * (rows[0].count("|") - 2))
    judge = KillableJudge(judge_with_math_verify, arguments.timeout) if arguments.math_verify else None
    with Grader(timeout_s=arguments.timeout, num_workers=1) as grader:
        for source in arguments.sources:
            name, truths = load_truths(source)
            num_unread = sum(grader.is_readable(truth) is False for truth in truths)
            num_wrong = sum(
                not grader.grade(rf"\boxed{{\displaystyle {truth.strip('$ ')}}}", truth).is_correct for truth in truths
            )
            neighbours = zip(truths[1:] + truths[:1], truths, strict=True)
            num_neighbours = sum(grader.grade(rf"\boxed{{{n}}}", t).is_correct for n, t in neighbours if n != t)
            pairs = [(answer, truth) for truth in truths for answer in changed(truth)]
            accepted = [pair for pair in pairs if grader.grade(rf"\boxed{{{pair[0]}}}", pair[1]).is_correct]
            cells = [name, len(truths), num_unread, num_wrong, num_neighbours, len(pairs), len(accepted)]
            if judge:
                cases = (GradingCase(name, rf"$\boxed{{{a}}}$", t.strip("$"), False, a, "") for a, t in pairs)
                cells.append(sum(judge.ask(case) is True for case in cases))
            rows.append(f"| {' | '.join(map(str, cells))} |")
            for answer, truth in accepted:
                print(f"{name}: {answer!r} is accepted for {truth!r}")
    if judge:
        judge.close()
    print("\n".join(rows))


if __name__ == "__main__":
    main()
