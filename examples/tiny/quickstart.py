"""From nothing to a trained relay on two cores: the tiny pair, its warm-up and filter, GRPO, evaluation.

    relay-verl quickstart --out outputs/quickstart

Leaves in the folder: table.md, curves.png, samples.html, results/ (every response), and the models. A second run
continues where a stopped one ended.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from ship import ship
from stage_one import build_pair, variables, warm_up_and_filter
from tables import seeded, tiny_suite

from relay_verl.evaluation.runner import evaluate
from relay_verl.evaluation.suite import Condition
from relay_verl.jobs import interruption
from relay_verl.jobs.byproducts import by_product
from relay_verl.pages.page import write_page
from relay_verl.pipeline import put_on_card, train
from relay_verl.preflight.commands import check_evaluation
from relay_verl.recipes.compose import compose
from relay_verl.recipes.paper import paper
from relay_verl.report.curves import plot_curves
from relay_verl.report.summary_table import ConditionSummary, gap_recovered, summaries_to_markdown, summarize
from relay_verl.run_config import RunConfig
from relay_verl.traces.results import read_result

BENCHMARKS = {"tiny/add": "sums", "tiny/mul": "products", "tiny/hash": "hashes"}
LEFT = {
    "samples.html": "open this first: every response of the evaluation, the teacher's tokens marked",
    "curves.png": "how it learned",
    "table.md": "the table above in full",
    "train/student/": "the trained student, with a model card",
    "train/samples.html": "responses of the training",
    "pair/": "both models and their data",
    "demo/": "the trained pair as the package ships one: relay-verl demo --pair",
}
"""What to open at the end."""


def run(out: Path, seed: int = 1, steps: int = 80) -> None:
    """All of it, in the folder `out`.

    Args:
        out: the folder.
        seed: of the training run.
        steps: of the training run; the recipe has 100.

    Raises:
        StageError: a stage failed; names its log.
    """
    started = time.monotonic()
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    print(
        f"About 20 minutes on two CPU cores, less on more. Everything goes to {out}; the same command continues a "
        "stopped run."
    )
    try:
        run_stages(out, seed, steps)
    except KeyboardInterrupt as error:
        error.add_note(f"what is finished is in {out}: the same command continues from there")
        raise
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} min. What to look at, in {out}:")
    for name, what in LEFT.items():
        print(f"  {name:<19} {what}")
    print("Next: `relay-verl recipes` lists what can be trained on GPUs, and the README's section Train says how.")


def run_stages(out: Path, seed: int, steps: int) -> None:
    """The four stages; each leaves what is there already."""
    pair = out / "pair"
    print("1/4 the pair, 3 to 4 min: a student that adds, a teacher that also multiplies", flush=True)
    build_pair(pair)
    print("2/4 stage one, 3 min: the student's warm-up, and the teacher's filter", flush=True)
    warm_up_and_filter(pair)
    print("3/4 training, 10 min: verl's GRPO trainer, +recipe=relay_tiny", flush=True)
    overrides = [*seeded(seed), f"trainer.total_training_steps={steps}"]
    trained = train("relay_tiny", out / "train", overrides=overrides, variables=variables(pair))
    print("4/4 evaluation, 2 to 3 min, on questions the training never saw", flush=True)
    teacher, results = str(pair / "teacher"), out / "results"
    conditions = [
        Condition("student alone", results / "student_alone", str(pair / "student"), policy="student_alone"),
        Condition("untrained relay", results / "untrained", str(pair / "student_warm"), teacher),
        Condition("trained relay", results / "trained", str(trained.student), teacher),
        Condition("teacher alone", results / "teacher_alone", None, teacher, policy="teacher_alone"),
    ]
    evaluate(RunConfig(compose("relay_tiny")), conditions, tiny_suite(pair), check_evaluation)
    with by_product("the pair for `relay-verl demo`"):
        ship(pair, trained, out / "demo")
    put_on_card(trained, [condition.out for condition in conditions if condition.student == str(trained.student)])
    records = [record for condition in conditions for record in read_result(condition.out).records]
    summaries = summarize(records)
    table = summaries_to_markdown(summaries, BENCHMARKS)
    recovered = gap_recovered(
        summaries, student="student alone", teacher="teacher alone", relay="trained relay", benchmark="tiny/mul"
    )
    verdict = f"The trained relay recovers {recovered:.0%} of the gap between student and teacher on '*'."
    (out / "table.md").write_text(f"{table}\n\n{verdict}\n")
    with by_product("the picture of the training"):
        # training has the questions that the filter kept: those of the two families that a model can solve
        alone = {
            f"{each.condition}, held-out + and *": (each.accuracy["tiny/add"] + each.accuracy["tiny/mul"]) / 2
            for each in summaries
            if each.condition in ("student alone", "teacher alone")
        }
        plot_curves({"relay_tiny": trained.metrics}, out / "curves.png", references=alone)
    with by_product("the page of responses"):
        write_page(
            records,
            out / "samples.html",
            "The tiny world before and after training",
            summaries=summaries,
            names=BENCHMARKS,
            notes={name: paper().benchmarks[name].about for name in BENCHMARKS},
            lead="trained relay",
        )
    Console(highlight=False).print(short_table(summaries))
    print(verdict)


def short_table(summaries: Sequence[ConditionSummary]) -> Table:
    """What a terminal of 80 columns holds of the table."""
    table = Table(box=None, pad_edge=False, title="Right answers in %, on 40 questions each")
    table.add_column("who answers")
    for name in ("+", "*", "#", "responses that call", "tokens by the teacher"):
        table.add_column(name, justify="right")
    for each in summaries:
        right = (f"{each.accuracy[name]:.0%}" for name in BENCHMARKS)
        table.add_row(each.condition, *right, f"{each.overall_call_rate:.0%}", f"{each.pooled_call_ratio:.1%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/quickstart"), help="where everything goes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training run")
    parser.add_argument("--steps", type=int, default=80, help="steps of the training run; the recipe has 100")
    options = parser.parse_args()
    run(options.out.resolve(), options.seed, options.steps)


if __name__ == "__main__":
    with interruption.reported("quickstart"):
        main()
