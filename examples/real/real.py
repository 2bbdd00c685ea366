"""The whole chain on a real pair: Qwen2.5-Coder 0.5B asks Qwen2.5-Coder 1.5B on GSM8K, on two CPU cores.

    python examples/real/real.py --out outputs/real
    python examples/real/real.py --out outputs/claims --steps 40 --questions 300 --seeds 2   # what claims.yaml asks for

    OUT/data               questions, the warm-up's data, the questions with the teacher's pass counts, the warm student
    OUT/train/NAME-SEED    a training run: its metrics, log, samples and student
    OUT/results            every response of the evaluation
    OUT/small              the same without texts, a small file a condition (--keep names another folder)
    OUT/report             report.html, report.md, samples.html, cards/, stages.md: what each stage took

A second run takes up what a stopped one left; more --steps need another --out, for a finished run is kept.
"""

import argparse
import os
from functools import partial
from itertools import product
from pathlib import Path

from questions import EVALUATION, NUM_EVALUATION, TRAINING, WARMUP, write_questions
from stages import Stages

from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
from relay_verl.evaluation.runner import evaluate
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.files import replace_file
from relay_verl.jobs.byproducts import by_product
from relay_verl.models.address import ORIGIN_FILE
from relay_verl.pages.collect import write_cards, write_trace
from relay_verl.pipeline import Run, put_on_card, relay_verl, run, train, warm_up
from relay_verl.preflight.commands import check_evaluation
from relay_verl.recipes.compose import compose
from relay_verl.report import write_report
from relay_verl.report.summary_table import summaries_to_markdown, summarize
from relay_verl.run_config import RunConfig
from relay_verl.traces.condensed import condense
from relay_verl.traces.question_table import facts_of
from relay_verl.traces.question_table import write_questions as write_question_table
from relay_verl.traces.results import read_result
from relay_verl.weights import find_model

STUDENT, TEACHER = "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct"
CPU = "+relay=real_cpu"
CACHE = "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=1073741824"
"""For stages without a trainer, which leave room for as many tokens as are under way."""
ROUTERS, RANDOM_CALLS, FIXED = ("router_0.25", "router_0.5"), ("random_0.002",), ("fixed_20", "fixed_100")
RECIPES = {"relay": "relay_real", "grpo": "grpo_real"}
"""The recipe of each row that is trained."""
NUM_CARDS = 3
CLAIMS = Path(__file__).with_name("claims.yaml")


class Example:
    """Folders and options of one run."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.out: Path = options.out.resolve()
        self.data, self.results = self.out / "data", self.out / "results"
        self.models = Path(os.environ.get("RELAY_MODELS_DIR", Path.home() / ".cache" / "relay_verl" / "models"))
        self.student, self.teacher, self.warm = self.models / STUDENT, self.models / TEACHER, self.data / "student_warm"
        self.keep: Path = (options.keep or self.out / "small").resolve()
        self.seeds = range(1, options.seeds + 1)

    def training(self, row: str, seed: int) -> Run:
        """A training run."""
        return Run(self.out / "train" / f"{RECIPES[row]}-{seed}")

    @property
    def trainings(self) -> list[Run]:
        """All of them, seed by seed."""
        return [self.training(row, seed) for seed in self.seeds for row in RECIPES]

    def get_models(self) -> None:
        for name in (STUDENT, TEACHER):
            run(relay_verl("models", "get", find_model(name).name, "--out", str(self.models / name)))

    def write_warmup_data(self) -> None:
        command = relay_verl("warmup-data", "--recipe", "relay_real", "--student", str(self.student))
        run([*command, "--data", str(self.data / WARMUP), "--out", str(self.data / "warmup.parquet"), CPU])

    def filter_questions(self) -> None:
        command = relay_verl("filter", "--recipe", "relay_real", "--early-stop")
        run([*command, "--data", str(self.data / TRAINING), "--out", str(self.data / "train.parquet"), CPU])

    def warm_up(self) -> None:
        warm_up("warmup_real", self.warm, self.out / "train" / "warmup_real", overrides=["+relay=warmup_cpu"])

    def train(self, row: str, seed: int) -> None:
        overrides = [CPU, f"trainer.total_training_steps={self.options.steps}"]
        overrides += [f"data.seed={seed}", f"actor_rollout_ref.rollout.seed={seed}"]
        train(RECIPES[row], self.training(row, seed).folder, overrides=overrides)

    def conditions(self) -> list[list[Condition]]:
        """All that is measured, a list for the engines that run at the same time: one student's and the teacher's."""
        teacher = str(self.teacher)

        def under(row: str, policy: str, student: Path | None, seed: int | None = None) -> Condition:
            out = self.results / (row if seed is None else f"{row}-{seed}") / policy
            address = str(student) if student else None
            return Condition(f"{row} {policy}", out, address, teacher, policy, f"real/{row}", training_seed=seed)

        def trained(row: str, seed: int, *policies: str) -> list[Condition]:
            return [under(row, policy, self.training(row, seed).student, seed) for policy in policies]

        return [
            [
                *(under("base", policy, self.student) for policy in ("student_alone", *ROUTERS, *RANDOM_CALLS)),
                under("teacher", "teacher_alone", None),
            ],
            [under("warm", "learned", self.warm)],
            *(trained("relay", seed, "learned", *FIXED) for seed in self.seeds),
            *(trained("grpo", seed, "student_alone") for seed in self.seeds),
        ]

    def evaluate(self) -> None:
        benchmark = find_benchmark("gsm8k")
        questions = load_benchmark(benchmark, self.data / EVALUATION, limit=self.options.questions)
        facts = facts_of({benchmark.name: questions})
        write_question_table(self.keep, facts)
        for conditions in self.conditions():
            evaluate(
                RunConfig(compose("relay_real", [CPU, CACHE])),
                conditions,
                EvalSuite({benchmark.name: (benchmark, questions)}),
                check_evaluation,
            )
            for condition in conditions:
                condense(read_result(condition.out), facts, self.keep)

    def report(self, stages: Stages) -> str:
        """Write what people look at; gives the table."""
        conditions = [condition for group in self.conditions() for condition in group]
        folders, report = [condition.out for condition in conditions], self.out / "report"
        metrics = {training.folder.name: training.metrics for training in self.trainings}
        has_all = self.options.questions == NUM_EVALUATION  # the claims are about these questions
        write_report([self.keep] if has_all else folders, report, metrics=metrics, claims=CLAIMS if has_all else None)
        for training in self.trainings:
            student = str(training.student)
            put_on_card(training, [condition.out for condition in conditions if condition.student == student])
        with by_product("the page of responses"):
            write_trace(folders, report / "samples.html")
        with by_product("the relay cards"):
            write_cards([self.results / "relay-1" / "learned"], report / "cards", NUM_CARDS)
        replace_file(report / "stages.md", f"{stages.to_markdown()}\n".encode())
        return summaries_to_markdown(summarize(record for folder in folders for record in read_result(folder).records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/real"), help="where everything goes")
    parser.add_argument("--steps", type=int, default=4, help="steps of each training run")
    parser.add_argument(
        "--questions", type=int, default=60, help=f"questions of the evaluation, at most {NUM_EVALUATION}"
    )
    parser.add_argument("--seeds", type=int, default=1, help="how many times each training runs, with seeds 1, 2, ...")
    parser.add_argument("--keep", type=Path, help="folder of the small data files; OUT/small if not given")
    parser.add_argument("--warmup", type=int, default=48, help="questions of the warm-up")
    parser.add_argument("--training", type=int, default=48, help="questions that the filter sees")
    options = parser.parse_args()
    example = Example(options)
    data, stages = example.data, Stages(example.out / "stages.json")
    os.environ |= {
        "VERL_PLATFORM": "cpu",
        "RELAY_REAL_DIR": str(data),
        "RELAY_MODELS_DIR": str(example.models),
    }

    have_models = all((example.models / name / ORIGIN_FILE).is_file() for name in (STUDENT, TEACHER))
    stages.run("models", "the download, then dequantizing on one core", have_models, example.get_models)
    os.environ["HF_HUB_OFFLINE"] = "1"
    write_questions(data, num_warmup=options.warmup, num_training=options.training)
    written = (data / "warmup.parquet").is_file()
    stages.run("warm-up data", "the student's decoding", written, example.write_warmup_data)
    warm = (example.warm / "config.json").is_file()
    stages.run("warm-up", "the arithmetic of forward and backward passes", warm, example.warm_up)
    filtered = (data / "train.parquet").is_file()
    stages.run("filter", "the teacher's decoding", filtered, example.filter_questions)
    bound = "forward and backward passes, then decoding"
    for seed, row in product(example.seeds, RECIPES):
        training = example.training(row, seed)
        is_trained = (training.student / "config.json").is_file()
        stages.run(training.folder.name, bound, is_trained, partial(example.train, row, seed))
    stages.run("evaluation", "decoding, the teacher's most of all", False, example.evaluate)
    print(f"\n{example.report(stages)}\n\n{stages.to_markdown()}")
    print(f"\n{example.out / 'report'}: report.html, samples.html, cards")


if __name__ == "__main__":
    main()
