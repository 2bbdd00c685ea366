"""The paper's tables on the tiny world: every row it can have, trained and measured, and the report.

    python examples/tiny/tables.py --out outputs/tables

    OUT/pair               the models, a third one to evaluate under another teacher, the data
    OUT/train/ROW-SEED     a training run
    OUT/results            what each student and policy answered
    OUT/report             report.md, report.html

Seed by seed, so that a stopped run has whole seeds; a second run continues where it ended. With --measure-only it
trains nothing and reports on the students that are there."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from stage_one import build_pair, variables, warm_up_and_filter

from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
from relay_verl.evaluation.runner import evaluate
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.jobs import interruption
from relay_verl.pipeline import Run, train
from relay_verl.preflight.commands import check_evaluation
from relay_verl.recipes.compose import compose
from relay_verl.recipes.paper import rows
from relay_verl.report import write_report
from relay_verl.run_config import RunConfig

RECIPES = {row.method: row.recipe for row in rows() if row.size == "tiny" and row.recipe and row.method != "citer"}
"""The recipe of each row that verl's trainer trains."""
ROUTERS = ("router_0.1", "router_0.25", "router_0.5", "router_0.75")
RANDOM_CALLS = ("random_0.02", "random_0.05", "random_0.1")
STUDENTS_AT_A_TIME = 3
"""Each of them is a vLLM engine next to those of the teachers."""


def tiny_suite(pair: Path) -> EvalSuite:
    """The held-out questions of the tiny world in `pair`."""
    benchmark = find_benchmark("tiny")
    return EvalSuite({benchmark.name: (benchmark, load_benchmark(benchmark, pair / "test.parquet"))})


def conditions_of(name: str, student: Path, pair: Path, results: Path) -> list[Condition]:
    """All that is measured of one student; `name` is its row and, if it is trained, its seed."""
    row = name.split("-")[0]
    teacher, other, itself = (str(pair / model) for model in ("teacher", "other", "student"))

    def under(policy: str, helper: str | None = None) -> Condition:
        label = policy if helper in (None, teacher) else f"{policy}-{Path(helper).name}"
        return Condition(f"{row} {label}", results / name / label, str(student), helper, policy, f"tiny/{row}")

    match row:
        case "base":
            return [under("student_alone"), *(under(policy, teacher) for policy in (*ROUTERS, *RANDOM_CALLS))]
        case "grpo":
            return [under("student_alone")]
        case "relay":
            return [under("learned", helper) for helper in (teacher, other, itself)] + [under("teacher_free")]
        case "relay_simple":
            return [under("learned", teacher), under("teacher_free")]
        case _:
            return [under(row if row.startswith("fixed_") else "learned", teacher)]


def measure(students: dict[str, Path], pair: Path, results: Path) -> list[Path]:
    """Ask all of them, a few at a time; gives the results folders."""
    teacher = str(pair / "teacher")
    alone = Condition("teacher", results / "teacher" / "teacher_alone", None, teacher, "teacher_alone", "tiny/teacher")
    folders = [alone.out]
    names = list(students)
    for start in range(0, len(names), STUDENTS_AT_A_TIME):
        conditions = [alone] if start == 0 else []
        for name in names[start : start + STUDENTS_AT_A_TIME]:
            conditions += conditions_of(name, students[name], pair, results)
        evaluate(RunConfig(compose("relay_tiny")), conditions, tiny_suite(pair), check_evaluation)
        folders += [condition.out for condition in conditions if condition is not alone]
    return folders


def train_all(rows: Sequence[str], seeds: int, pair: Path, out: Path) -> None:
    """Train every row in every seed, unless it is there."""
    for seed in range(1, seeds + 1):
        for row in rows:
            train(RECIPES[row], out / f"{row}-{seed}", overrides=seeded(seed), variables=variables(pair))


def seeded(seed: int) -> list[str]:
    """The overrides that give a training run its seed."""
    return [f"data.seed={seed}", f"actor_rollout_ref.rollout.seed={seed}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/tables"), help="where everything goes")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each row")
    parser.add_argument("--rows", nargs="+", choices=RECIPES, default=list(RECIPES), help="which rows to train")
    parser.add_argument("--measure-only", action="store_true", help="train nothing; report on what is there")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    started = time.monotonic()
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    pair = out / "pair"
    build_pair(pair, "--other")
    warm_up_and_filter(pair)
    if not options.measure_only:
        train_all(options.rows, options.seeds, pair, out / "train")
    runs = {folder.name: Run(folder) for row in RECIPES for folder in sorted((out / "train").glob(f"{row}-[0-9]"))}
    runs = {name: run for name, run in runs.items() if (run.student / "config.json").is_file()}
    students = {"base": pair / "student", **{name: run.student for name, run in runs.items()}}
    folders = measure(students, pair, out / "results")
    curves = {name: run.metrics for name, run in runs.items() if name.endswith("-1") and "fixed" not in name}
    print(write_report(folders, out / "report", metrics=curves))
    print(f"\n{out / 'report' / 'report.html'}; {(time.monotonic() - started) / 3600:.1f} hours in this run")


if __name__ == "__main__":
    with interruption.reported("tables"):
        main()
