"""GSM8K's questions in three parts that have no question in common: warm-up, training, evaluation.

    python examples/real/questions.py --out outputs/real/data

`gsm8k.jsonl` is GSM8K's test file (openai/grade-school-math; MIT, see gsm8k.LICENSE), since the training file is on the
hub only. Its questions are shuffled once, so that each part is the same on every machine. A question of the other parts
that the overlap check finds in the evaluation is left out.
"""

import argparse
from pathlib import Path
from random import Random
from typing import Any

from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
from relay_verl.data.overlap import find_overlaps
from relay_verl.data.parquet import write_parquet

FILE = Path(__file__).parent / "gsm8k.jsonl"
NUM_EVALUATION, NUM_WARMUP = 300, 128
EVALUATION, WARMUP, TRAINING = "test.parquet", "warmup_questions.parquet", "questions.parquet"
"""Files of the three parts."""


def split_questions(file: Path = FILE, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file, in verl's schema and shuffled."""
    rows = load_benchmark(find_benchmark("gsm8k"), file).rows
    shuffled = Random(seed).sample(rows, k=len(rows))
    evaluation, rest = shuffled[:NUM_EVALUATION], shuffled[NUM_EVALUATION:]
    overlapping = {overlap.id for overlap in find_overlaps(rest, {EVALUATION: evaluation})}
    rest = [row for row in rest if row["extra_info"]["id"] not in overlapping]
    return {EVALUATION: evaluation, WARMUP: rest[:NUM_WARMUP], TRAINING: rest[NUM_WARMUP:]}


def write_questions(folder: Path, *, num_warmup: int, num_training: int) -> None:
    """Write the three files, unless they are there.

    Args:
        folder: where they go.
        num_warmup, num_training: how many questions the warm-up and the filter see; the evaluation's `--limit` chooses
            among its own.
    """
    limits = {EVALUATION: NUM_EVALUATION, WARMUP: num_warmup, TRAINING: num_training}
    if all((folder / name).is_file() for name in limits):
        return
    for name, rows in split_questions().items():
        write_parquet(folder / name, rows[: limits[name]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/real/data"), help="folder for the three files")
    parser.add_argument("--warmup", type=int, default=48, help="questions of the warm-up")
    parser.add_argument("--training", type=int, default=48, help="questions that the filter sees")
    options = parser.parse_args()
    write_questions(options.out, num_warmup=options.warmup, num_training=options.training)


if __name__ == "__main__":
    main()
