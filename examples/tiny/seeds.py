"""The tiny world's table: three recipes, of relay_tiny three seeds, evaluated on questions training never saw.

    python examples/tiny/seeds.py --out outputs/seeds

One pair, five training runs one after the other; a second run goes on where a stopped one ended.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from quickstart import BENCHMARKS
from stage_one import build_pair, warm_up_and_filter
from train import Run, train

from relay_verl.cluster import compose
from relay_verl.evaluation.curves import plot_curves
from relay_verl.evaluation.records import ResponseRecord, read_records, write_records
from relay_verl.evaluation.runner import Condition, evaluate
from relay_verl.evaluation.table import ConditionSummary, gap_recovered, summarize

RECIPES = {
    "grpo_tiny": "GRPO",
    "relay_tiny_simple": "relay, simple reward",
    "relay_tiny": "relay, difficulty-aware reward",
}


def spread(values: Sequence[float]) -> str:
    """Mean and, of several, least and most, in percent."""
    mean = f"{statistics.mean(values):.1%}"
    return mean if len(set(values)) == 1 else f"{mean} ({min(values):.1%} to {max(values):.1%})"


def to_table(rows: dict[str, list[ConditionSummary]]) -> str:
    """One line a row: accuracy and call rate by family, and the call ratio, over seeds."""
    lines = [
        "| | "
        + " | ".join(f"accuracy {n}" for n in BENCHMARKS.values())
        + " | "
        + " | ".join(f"calls {n}" for n in BENCHMARKS.values())
        + " | call ratio |",
        "|---" * (2 * len(BENCHMARKS) + 2) + "|",
    ]
    for name, summaries in rows.items():
        cells = [spread([s.accuracy[b] for s in summaries]) for b in BENCHMARKS]
        cells += [spread([s.call_rate[b] for s in summaries]) for b in BENCHMARKS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {spread([s.call_ratio for s in summaries])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/seeds"), help="where everything goes")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of relay_tiny")
    parser.add_argument("--baseline-seeds", type=int, default=1, help="seeds of the other recipes")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    started = time.monotonic()
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    pair = out / "pair"
    build_pair(pair)
    warm_up_and_filter(pair)
    teacher = str(pair / "teacher")
    questions = pd.read_parquet(pair / "test.parquet").to_dict("records")

    def answer(name: str, conditions: list[Condition]) -> list[ResponseRecord]:
        path = out / f"{name}.jsonl"
        if not path.exists():
            write_records(path, evaluate(compose("relay_tiny"), conditions, questions))
        return read_records(path)

    untrained = answer(
        "untrained",
        [
            Condition("student alone", str(pair / "student"), policy="teacher_free"),
            Condition("untrained relay", str(pair / "student_warm"), teacher),
            Condition("teacher alone", teacher, policy="teacher_free"),
        ],
    )
    fixed = {summary.condition: [summary] for summary in summarize(untrained)}
    runs: dict[str, list[Run]] = {recipe: [] for recipe in RECIPES}
    trained: dict[str, list[ConditionSummary]] = {name: [] for name in RECIPES.values()}
    for recipe, name in reversed(RECIPES.items()):
        num_seeds = options.seeds if recipe == "relay_tiny" else options.baseline_seeds
        for seed in range(1, num_seeds + 1):
            run = train(recipe, pair, out / f"{recipe}-{seed}", seed=seed)
            runs[recipe].append(run)
            helper = None if recipe == "grpo_tiny" else teacher
            policy = "learned" if helper else "teacher_free"
            records = answer(f"{recipe}-{seed}", [Condition(name, str(run.student), helper, policy)])
            trained[name] += summarize(records)
    lines = [
        to_table(
            {
                "student alone": fixed["student alone"],
                "untrained relay": fixed["untrained relay"],
                **trained,
                "teacher alone": fixed["teacher alone"],
            }
        ),
        "",
    ]
    for name, summaries in trained.items():
        recovered = [
            gap_recovered(
                [*fixed["student alone"], *fixed["teacher alone"], summary],
                student="student alone",
                teacher="teacher alone",
                relay=name,
                benchmark="tiny/mul",
            )
            for summary in summaries
        ]
        lines.append(f"- {name}: recovers {spread(recovered)} of the gap between student and teacher on '*'")
    counts = ", ".join(f"{name}: {len(summaries)}" for name, summaries in trained.items())
    lines.append(f"\nSeeds: {counts}. {(time.monotonic() - started) / 3600:.1f} hours in this run.")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for recipe, each in runs.items():
        plot_curves({f"seed {i}": run.metrics for i, run in enumerate(each, 1)}, out / f"{recipe}.png")


if __name__ == "__main__":
    main()
