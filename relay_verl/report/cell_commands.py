"""How each cell of the paper's tables is filled: the commands that train its row and that measure it.

They follow the README's steps 1 to 3 (data, warm-up, filter), which `RELAY_STUDENT` and `RELAY_DATA_DIR` stand for.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay_verl.recipes.attempts import RELEASED_CHECKPOINT, RELEASED_ROW, in_release
from relay_verl.recipes.paper import Row, find_row, paper
from relay_verl.traces.words import TEACHER_FREE, natural_policies

_MATH, _GENERAL = "average", ("bbeh", "mmlu-pro", "supergpqa")
AS_RELEASE = ("--thinking", "--temperature 0.7", "relay.max_calls=4")
"""How the release evaluates: its chat template's mode, its sampling, its limit of calls."""


@dataclass(frozen=True)
class CellCommands:
    """One row of the paper."""

    row: str
    """Its name, such as '1.7b/relay'."""
    in_release: str
    """What the authors' release has for it."""
    train: str
    """The command that trains it; empty where nothing is trained."""
    evaluate: str
    """The command that measures every cell of it."""


def cell_commands() -> tuple[CellCommands, ...]:
    """Every row of the paper, in the order of the tables, and the authors' checkpoint in both ways after its row."""
    lines: list[CellCommands] = []
    for row in paper().rows.values():
        if not (paper().sizes[row.size].is_in_paper and any(entry.row == row.name for entry in paper().entries)):
            continue
        lines.append(CellCommands(row.name, in_release(row.method), _train(row), _evaluate(row, _student_of(row))))
        if row.name == RELEASED_ROW:
            for options, name in ((), "as the paper says"), (AS_RELEASE, "as the release does"):
                out = "released-as-release" if options else "released-as-paper"
                command = _evaluate(row, RELEASED_CHECKPOINT, options, out)
                lines.append(CellCommands(f"{row.name}, {RELEASED_CHECKPOINT} {name}", "", "", command))
    return tuple(lines)


def _train(row: Row) -> str:
    if row.recipe is None:
        return ""
    if row.method == "citer":
        return (
            f"relay-verl defer-data --recipe {row.recipe} --data train.parquet --out labels.parquet; "
            f"relay-verl defer-train --recipe {row.recipe} --data labels.parquet --out head"
        )
    return f"python -m verl.trainer.main_ppo +recipe={row.recipe}"


def _student_of(row: Row) -> str:
    """Where the README's commands leave it, or the hub's model."""
    is_trained = row.recipe is not None and row.method != "citer"
    return f"out/{row.recipe}" if is_trained else _hub(row.size)


def _hub(size: str) -> str:
    return f"Qwen/{paper().sizes[size].title}"


def _evaluate(row: Row, student: str, options: tuple[str, ...] = (), out: str = "results") -> str:
    entries = [entry for entry in paper().entries if entry.row == row.name]
    measured = {benchmark for entry in entries for benchmark in entry.values}
    needs_math = bool(measured & {*paper().groups[_MATH], "average", "easy", "hard"})
    needs_general = not options and bool(measured & set(_GENERAL))
    benchmarks = (*(paper().groups[_MATH] if needs_math else ()), *(_GENERAL if needs_general else ()))
    policies = ["deferred" if row.method == "citer" else natural_policies(row.method)[0]]
    policies += [TEACHER_FREE] if any(entry.policy == TEACHER_FREE for entry in entries) and not options else []
    teacher = find_row(paper().sizes[row.size].teacher)
    is_alone = row.method == "teacher"
    words = ["relay-verl eval"]
    words += [] if is_alone else [f"--student {student}"]
    words += [f"--teacher {_hub(teacher.size)}"] if is_alone or policies != ["student_alone"] else []
    words += [f"--row {row.name}", *(f"--policy {policy}" for policy in policies)]
    words += [f"--benchmark {name}" for name in benchmarks]
    words += [f"--out {out}/{row.name.replace('/', '-')}", *options]
    return " ".join([*words, "relay.defer.head=head"] if row.method == "citer" else words)
