"""From nothing to a trained relay on two cores: the tiny pair, its warm-up and filter, GRPO, evaluation.

    python examples/tiny/quickstart.py --out outputs/quickstart

Leaves in the folder: table.md, curves.png, samples.html, results/ (every response), and the models. A second run goes
on where a stopped one ended.
"""

import argparse
import os
import time
from pathlib import Path

from stage_one import build_pair, variables, warm_up_and_filter
from tables import seeded, tiny_exam

from relay_verl.cluster import compose
from relay_verl.evaluation.curves import plot_curves
from relay_verl.evaluation.page import write_page
from relay_verl.evaluation.results import read_result
from relay_verl.evaluation.runner import Condition, evaluate
from relay_verl.evaluation.table import gap_recovered, summarize, to_markdown
from relay_verl.pipeline import train

BENCHMARKS = {"tiny/add": "'+' (student's)", "tiny/mul": "'*' (teacher's)", "tiny/hash": "'#' (nobody's)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/quickstart"), help="where everything goes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training run")
    parser.add_argument("--steps", type=int, default=80, help="steps of the training run; the recipe has 100")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    started = time.monotonic()
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}

    pair = out / "pair"
    print("1/4 the pair: a student that adds, a teacher that also multiplies")
    build_pair(pair)
    print("2/4 stage one: the student's warm-up, and the teacher's filter")
    warm_up_and_filter(pair)
    print("3/4 training: verl's GRPO trainer, +recipe=relay_tiny")
    overrides = [*seeded(options.seed), f"trainer.total_training_steps={options.steps}"]
    run = train("relay_tiny", out / "train", overrides=overrides, variables=variables(pair))
    print("4/4 evaluation on questions the training never saw")
    teacher, results = str(pair / "teacher"), out / "results"
    conditions = [
        Condition("student alone", results / "student_alone", str(pair / "student"), policy="student_alone"),
        Condition("untrained relay", results / "untrained", str(pair / "student_warm"), teacher),
        Condition("trained relay", results / "trained", str(run.student), teacher),
        Condition("teacher alone", results / "teacher_alone", None, teacher, policy="teacher_alone"),
    ]
    evaluate(compose("relay_tiny"), conditions, tiny_exam(pair))
    records = [record for condition in conditions for record in read_result(condition.out).records]
    summaries = summarize(records)
    table = to_markdown(summaries, BENCHMARKS)
    recovered = gap_recovered(
        summaries, student="student alone", teacher="teacher alone", relay="trained relay", benchmark="tiny/mul"
    )
    verdict = f"The trained relay recovers {recovered:.0%} of the gap between student and teacher on '*'."
    (out / "table.md").write_text(f"{table}\n\n{verdict}\n")
    plot_curves({"relay_tiny": run.metrics}, out / "curves.png")
    title = "relay_verl: the tiny world, before and after"
    write_page(records, out / "samples.html", title, summaries=summaries, names=BENCHMARKS)
    print(f"\n{table}\n\n{verdict}")
    print(f"\n{out}: table.md, curves.png, samples.html; {(time.monotonic() - started) / 60:.1f} min")


if __name__ == "__main__":
    main()
