"""The paper's tables on the graded tiny world: every row it can have, trained and measured, and what that shows of the
claims.

    python examples/tiny/tables.py --out outputs/tables
    python examples/tiny/tables.py --out outputs/tables --seed-set 1 --keep examples/tiny/results
    python examples/tiny/tables.py --out outputs/tables --plan

    OUT/pair               the models, a third one to evaluate under another teacher, the data
    OUT/train/ROW-SEED     a training run
    OUT/heads-SEED         the heads of CITER and Co-LLM, that of entropy, their thresholds
    OUT/results            what each student and policy answered
    OUT/data               the same without texts, a small file each, and the pair (--keep names another folder)
    OUT/report             report.md, report.html, with the verdicts on claims.yaml

Seed set by seed set, the rows with most seeds first (claims.yaml says how many each has), so that a stopped run has
whole seed sets. Each step leaves its whole output: a second run continues with the step that was under way, and one on
another machine with what has no data file at --keep. A step that fails is told at the end and tried again by the next
run. With --measure-only it trains nothing."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
from kept_pair import keep_pair, take_pair
from stage_one import build_pair, lengths_of, variables, warm_up_and_filter

from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
from relay_verl.defer.head_folder import INFO_FILE, read_info
from relay_verl.errors import UserError
from relay_verl.evaluation.runner import evaluate
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.files import replacing
from relay_verl.jobs import interruption
from relay_verl.models.address import model_sha256
from relay_verl.pipeline import Run, StageError, Step, run, run_steps, train
from relay_verl.preflight.commands import check_evaluation
from relay_verl.recipes.compose import compose
from relay_verl.recipes.paper import rows
from relay_verl.report import write_report
from relay_verl.report.claim import read_claims
from relay_verl.run_config import RunConfig
from relay_verl.traces.condensed import condense, data_file_name, is_data_file_of
from relay_verl.traces.question_table import QUESTIONS, facts_of, read_questions, write_questions
from relay_verl.traces.results import MANIFEST, read_result

WORLD = "graded"
LENGTHS = lengths_of(WORLD)
"""What every recipe of the tiny world needs for it."""
CLAIMS = Path(__file__).with_name("claims.yaml")
CHAIN = Path(__file__).parents[1] / "defer" / "chain.py"
HEADS = {"citer": "citer_2", "collm": "collm", "entropy": "entropy"}
"""What examples/defer calls the head of each row; all but entropy have a seed."""
RECIPES = {row.method: row.recipe for row in rows() if row.size == "tiny" and row.recipe and row.method not in HEADS}
"""The recipe of each row that verl's trainer trains."""
ROUTERS = ("router_0.1", "router_0.25", "router_0.5", "router_0.75")
RANDOM_CALLS = ("random_0.02", "random_0.05", "random_0.1")
STUDENTS_AT_A_TIME = 3
"""Each of them is a vLLM engine next to those of the teachers."""
CALIBRATION_SHARE = 5
"""One of so many training questions is for the heads' thresholds, and not for their labels."""


def tiny_suite(pair: Path) -> EvalSuite:
    """The held-out questions of `pair`."""
    benchmark = find_benchmark("tiny")
    return EvalSuite({benchmark.name: (benchmark, load_benchmark(benchmark, pair / "test.parquet"))})


def seeded(seed: int) -> list[str]:
    """The overrides of a training run."""
    return [*LENGTHS, f"data.seed={seed}", f"actor_rollout_ref.rollout.seed={seed}"]


def conditions_of(row: str, seed: int | None, student: Path | None, pair: Path, results: Path) -> list[Condition]:
    """All that is measured of one student; `seed` is that of its training."""
    name = row if seed is None else f"{row}-{seed}"
    teacher, other, itself = (str(pair / model) for model in ("teacher", "other", "student"))

    def under(policy: str, helper: str | None = teacher) -> Condition:
        label = policy if helper in (None, teacher) else f"{policy}-{Path(helper).name}"
        writer = None if student is None else str(student)
        out = results / name / label
        return Condition(f"{row} {label}", out, writer, helper, policy, f"tiny/{row}", training_seed=seed)

    match row:
        case "teacher":
            return [under("teacher_alone")]
        case "base":
            return [under("student_alone", None), *map(under, (*ROUTERS, *RANDOM_CALLS))]
        case "grpo" | "opd":
            return [under("student_alone", None)]
        case "relay":
            return [under("learned", helper) for helper in (teacher, other, itself)] + [under("teacher_free", None)]
        case "relay_simple":
            return [under("learned"), under("teacher_free", None)]
        case _ if row in HEADS:
            return [under("deferred")]
        case _:
            return [under(row if row.startswith("fixed_") else "learned")]


@dataclass(frozen=True)
class Tables:
    """The steps in the folder `out`."""

    out: Path
    keep: Path
    """Folder of the small data files."""
    seeds: dict[str, int]
    """How many training seeds each row has."""
    trains: bool = True
    """Whether students and heads that are not there are trained."""
    skips_missing: bool = True
    """Whether those that are not there are left out of the measuring; else its steps are open as long as they are."""

    @property
    def pair(self) -> Path:
        return self.out / "pair"

    def steps(self, seed_sets: Sequence[int]) -> Iterator[Step]:
        """Every step of some seed sets, one set after the other."""
        yield self.measuring("the models alone", [("teacher", None), ("base", None)])
        for seed in seed_sets:
            chosen = [row for row in self.seeds if seed <= self.seeds[row]]
            trained = [row for row in sorted(chosen, key=lambda row: -self.seeds[row]) if row in RECIPES]
            # the head of entropy is not trained: the first set has it
            heads = [row for row in HEADS if row in chosen or (row == "entropy" and seed == 1)]
            if self.trains:
                yield from (self.training(row, seed) for row in trained)
                yield from (self.head_making(row, seed) for row in heads)
            for start in range(0, len(trained), STUDENTS_AT_A_TIME):
                some = [(row, seed) for row in trained[start : start + STUDENTS_AT_A_TIME]]
                yield self.measuring(f"seed set {seed}, {', '.join(row for row, _ in some)}", some)
            for row in heads:
                yield self.measuring(f"seed set {seed}, {row}", [(row, seed)])

    def training(self, row: str, seed: int) -> Step:
        """Train one row."""
        student = self.student(row, seed)
        return Step(
            f"train {row}-{seed}",
            lambda: is_model(student) or self.is_all_kept(row, seed),
            lambda: train(RECIPES[row], student.parent, overrides=seeded(seed), variables=variables(self.pair)),
        )

    def head_making(self, row: str, seed: int) -> Step:
        """Label, train and calibrate one head, by examples/defer."""

        def make() -> None:
            data, calibration = self.split()
            words = ["--pair", self.pair, "--data", data, "--calibration", calibration, "--head", HEADS[row]]
            options = [*LENGTHS, f"relay.defer_training.seed={seed}"]
            run([sys.executable, str(CHAIN), *options, "--out", str(self.out / f"heads-{seed}"), *map(str, words)])

        return Step(
            f"make head {row}-{seed}",
            lambda: is_calibrated(self.head(row, seed)) or self.is_all_kept(row, seed),
            make,
        )

    def split(self) -> tuple[Path, Path]:
        """Training questions for the heads' labels, and for their thresholds."""
        table = pq.read_table(self.pair / "train.parquet")
        places: tuple[list[int], list[int]] = ([], [])
        for number in range(table.num_rows):
            places[number % CALIBRATION_SHARE == 0].append(number)
        paths = (self.out / "head_questions.parquet", self.out / "head_calibration.parquet")
        for path, chosen in zip(paths, places, strict=True):
            if not path.is_file():
                with replacing(path) as temporary:
                    pq.write_table(table.take(chosen), temporary)
        return paths

    def measuring(self, name: str, students: Sequence[tuple[str, int | None]]) -> Step:
        """Ask the students of some rows, as far as they are there, and keep what they answered. Heads one at a time."""
        return Step(
            f"measure {name}",
            lambda: all(map(self.is_kept, self.conditions(students))),
            lambda: self.measure(students),
        )

    def conditions(self, students: Sequence[tuple[str, int | None]]) -> list[Condition]:
        """Those of the students that are there."""
        conditions = []
        for row, seed in students:
            is_there = True
            if row in RECIPES and seed is not None:
                is_there = is_model(self.student(row, seed))
            elif row in HEADS and seed is not None:
                is_there = is_calibrated(self.head(row, seed))
            if is_there or not self.skips_missing:
                conditions += self.conditions_of(row, seed)
        return conditions

    def conditions_of(self, row: str, seed: int | None) -> list[Condition]:
        """All that is measured of one student, wherever it is."""
        student = None if row == "teacher" else self.pair / "student"
        if row in RECIPES and seed is not None:
            student = self.student(row, seed)
        named = None if row == "entropy" else seed
        return conditions_of(row, named, student, self.pair, self.out / "results")

    def is_all_kept(self, row: str, seed: int | None) -> bool:
        """Whether there are data files of all that is measured of one student."""
        return all(map(self.is_kept, self.conditions_of(row, seed)))

    def measure(self, students: Sequence[tuple[str, int | None]]) -> None:
        """Ask them and keep what they answered."""
        config = RunConfig(compose("relay_tiny", LENGTHS))
        heads = [self.head(row, seed) for row, seed in students if row in HEADS and seed is not None]
        for head in heads:
            config = config.changed("relay.defer.head", str(head))
        conditions = self.conditions(students)
        evaluate(config, conditions, tiny_suite(self.pair), check_evaluation)
        questions = read_questions(self.keep / QUESTIONS)
        for condition in conditions:
            condense(read_result(condition.out), questions, self.keep)

    def is_kept(self, condition: Condition) -> bool:
        """Whether the data file of what was measured is there; where the responses are not at hand, one that names the
        same teacher, so that another machine continues what one began."""
        if (condition.out / MANIFEST).is_file():
            result = read_result(condition.out)
            return is_data_file_of(self.keep / data_file_name(result.job), result)
        teacher = condition.teacher
        job = asdict(condition) | {"teacher_name": teacher and Path(teacher).name}
        path = self.keep / data_file_name(job)
        return path.is_file() and read_result(path).job.get("teacher_sha256") == (teacher and model_sha256(teacher))

    def prepare(self) -> None:
        """The pair, what GRPO starts from, and the table of the questions; what is there is left.

        Raises:
            UserError: the kept data files are on another version of the questions, or of another pair.
        """
        kept = self.keep / "pair"
        if not take_pair(kept, self.pair):
            build_pair(self.pair, "--world", WORLD, "--other")
            warm_up_and_filter(self.pair, world=WORLD)
        benchmarks = tiny_suite(self.pair).benchmarks
        questions = facts_of({name: loaded for name, (_, loaded) in benchmarks.items()})
        table = self.keep / QUESTIONS
        if table.is_file() and read_questions(table).world != questions.world:
            raise UserError(
                f"--keep: {self.keep} has results on other questions: expected another folder, or one without them"
            )
        write_questions(self.keep, questions)
        keep_pair(self.pair, kept)

    def student(self, row: str, seed: int) -> Path:
        """The folder of a trained student."""
        return Run(self.out / "train" / f"{row}-{seed}").student

    def head(self, row: str, seed: int) -> Path:
        """The folder of a head."""
        return self.out / f"heads-{seed}" / HEADS[row]

    def report(self) -> str:
        """The report on what is kept."""
        curves = {row: Run(self.out / "train" / f"{row}-1").metrics for row in RECIPES if not row.startswith("fixed_")}
        curves = {row: path for row, path in curves.items() if path.is_file()}
        return write_report([self.keep], self.out / "report", metrics=curves, claims=CLAIMS)


def is_model(folder: Path) -> bool:
    """Whether a student was exported there."""
    return (folder / "config.json").is_file()


def is_calibrated(folder: Path) -> bool:
    """Whether there is a head with its threshold."""
    return (folder / INFO_FILE).is_file() and read_info(folder).calibration is not None


def main() -> None:
    seeds = dict(read_claims(CLAIMS).seeds)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/tables"), help="where everything goes")
    parser.add_argument("--keep", type=Path, help="folder of the small data files; OUT/data if not given")
    parser.add_argument(
        "--seed-set", type=int, action="append", choices=range(1, max(seeds.values()) + 1), help="only this; repeatable"
    )
    parser.add_argument("--rows", nargs="+", choices=seeds, default=list(seeds), help="which rows to train and measure")
    parser.add_argument("--measure-only", action="store_true", help="train nothing; report on what is there")
    parser.add_argument("--plan", action="store_true", help="print the steps that are left, and run none")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    keep: Path = (options.keep or out / "data").resolve()
    started = time.monotonic()
    os.environ |= variables(out / "pair")
    tables = Tables(out, keep, {row: seeds[row] for row in options.rows}, not options.measure_only)
    seed_sets = options.seed_set or range(1, max(seeds.values()) + 1)
    if options.plan:
        for step in replace(tables, skips_missing=False).steps(seed_sets):
            print(f"{'done' if step.is_done() else 'left'}  {step.name}")
        return
    tables.prepare()
    failures = run_steps(tables.steps(seed_sets))
    print(tables.report())
    print(f"\n{out / 'report' / 'report.html'}; {(time.monotonic() - started) / 3600:.1f} hours in this run")
    if failures:
        raise StageError("; ".join(f"{name} failed: {why}" for name, why in failures.items()))


if __name__ == "__main__":
    with interruption.reported("tables"):
        main()
