"""Make the pair that the package ships anew, from what a quickstart left: `relay_verl/demo/pair`.

    relay-verl quickstart --out outputs/quickstart
    python examples/tiny/ship.py outputs/quickstart --out relay_verl/demo/pair

It copies the trained student, the one before its training and their teacher in bfloat16, asks them every question that
was held out, in a minute or two, and writes the card with hashes, recipe and results. The same quickstart gives the
same files on the same machine.

Another folder's models: --pair names one with student_warm, teacher, the questions and manifest.json, --train a run of
`relay_verl.pipeline.train`.
"""

import argparse
import json
from pathlib import Path

from relay_verl.demo.demo_question import DemoQuestion
from relay_verl.demo.packing import PairSources, pack, questions_of
from relay_verl.demo.shipped_pair import STUDENT, STUDENT_WARM, TEACHER, ShippedPair
from relay_verl.jobs import interruption
from relay_verl.pipeline import Run
from relay_verl.recipes.paper import paper
from relay_verl.report.summary_table import summaries_to_markdown

TITLE = "The tiny world"


def ship(pair: Path, run: Run, out: Path) -> ShippedPair:
    """Pack the pair.

    Args:
        pair: the models before the training, with their questions and manifest.json.
        run: the training.
        out: the folder to write.

    Raises:
        UserError: something is missing, or `out` cannot be written.
    """
    questions: list[DemoQuestion] = []
    for name, is_held_out in (("test", True), ("questions", False)):
        questions += questions_of(pair / f"{name}.parquet", is_held_out=is_held_out)
    facts = {kind: paper().benchmarks.get(kind) for kind in dict.fromkeys(each.benchmark for each in questions)}
    manifest = json.loads((pair / "manifest.json").read_text())
    sources = PairSources(
        models={STUDENT: run.student, STUDENT_WARM: pair / STUDENT_WARM, TEACHER: pair / TEACHER},
        questions=questions,
        title=TITLE,
        facts=run.facts,
        pretraining=manifest["settings"],
        names={kind: fact.title for kind, fact in facts.items() if fact is not None},
        notes={kind: fact.about for kind, fact in facts.items() if fact is not None and fact.about},
    )
    return pack(sources, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quickstart", type=Path, help="the folder of a quickstart")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--pair", type=Path, help="the models before the training; the quickstart's by default")
    parser.add_argument("--train", type=Path, help="the training; the quickstart's by default")
    options = parser.parse_args()
    pair = options.pair or options.quickstart / "pair"
    shipped = ship(pair, Run(options.train or options.quickstart / "train"), options.out)
    print(summaries_to_markdown(shipped.card.results, shipped.card.names))
    num_bytes = sum(file.num_bytes for file in shipped.card.files.values())
    print(f"\n{shipped.folder}: {len(shipped.card.files)} files, {num_bytes / 1e6:.2f} MB")


if __name__ == "__main__":
    with interruption.reported("ship"):
        main()
